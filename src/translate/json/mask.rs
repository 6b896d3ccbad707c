//! A set of fields that are left out of the JSON form, compiled to field numbers.

use std::fmt;

/// Fields of one message type, and of the messages inside it, that have no place in the JSON text.
///
/// Reading a text that holds one is an error: the path owns it. Writing leaves it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Node 0 is the message's own.
    pub(super) nodes: Vec<Node>,
}

/// The masked fields of one message, sorted by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) fields: Vec<(u32, Rule)>,
}

/// What a mask says of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The whole field is masked.
    All,
    /// Fields of the message in it are: the index of their node.
    Inside(u32),
}

impl Mask {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }

    /// What the mask says of a field of the message at `node`.
    pub(super) fn rule(&self, node: u32, number: u32) -> Option<Rule> {
        let fields = &self.nodes.get(node as usize)?.fields;
        let at = fields.binary_search_by_key(&number, |field| field.0).ok()?;
        fields.get(at).map(|field| field.1)
    }

    /// Adds a path of field numbers. A shorter path covers a longer one.
    pub(super) fn insert(&mut self, numbers: &[u32]) {
        let mut node = 0_usize;
        for (depth, &number) in numbers.iter().enumerate() {
            let last = depth + 1 == numbers.len();
            let fresh = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            let Some(Node { fields }) = self.nodes.get_mut(node) else {
                return;
            };
            match fields.binary_search_by_key(&number, |field| field.0) {
                Ok(at) => match fields.get_mut(at).map(|field| &mut field.1) {
                    Some(rule) if last => *rule = Rule::All,
                    Some(Rule::Inside(next)) => node = *next as usize,
                    Some(Rule::All) | None => return,
                },
                Err(at) if last => fields.insert(at, (number, Rule::All)),
                Err(at) => {
                    fields.insert(at, (number, Rule::Inside(fresh)));
                    self.nodes.push(Node::default());
                    node = fresh as usize;
                }
            }
        }
    }
}

/// Why a path is not one of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskError {
    /// The whole path as given.
    pub path: String,
    /// The part that names no field, or that is not a message although more follows.
    pub part: String,
}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: `{}` is not a field that a path can go through",
            self.path, self.part
        )
    }
}

impl std::error::Error for MaskError {}

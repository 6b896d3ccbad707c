//! A YAML document as a tree whose every node knows its place. The only file that knows the YAML parser.
//!
//! Keys keep their place and duplicates are errors; an alias is a copy of what it names, so the number of nodes is
//! bounded. Tags other than `!!str`, merge keys and several documents in a file are refused.

mod build;

use serde_saphyr::granit_parser::{Parser, ScanError, Span};

use super::diagnostic::{Diagnostic, Place, Severity};
use build::Builder;

/// Which node of a document. Only the document that gave it can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// The outermost node.
    pub(super) const ROOT: Self = Self(0);

    fn at(index: usize) -> Self {
        // MAX_NODES keeps the index far under the bound.
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    pub(super) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, or what is written like a number or a boolean.
    Scalar(Scalar),
    /// `- a` or `[a]`.
    Sequence(Vec<NodeId>),
    /// `a: b` or `{a: b}`.
    Mapping(Vec<(String, NodeId)>),
}

/// A scalar and how it came by its text.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// The text, after quotes, escapes and `${…}`.
    pub text: String,
    /// The text as it is written, if a `${…}` was replaced in it: what came from outside is never shown.
    pub written: Option<String>,
}

#[derive(Clone, Debug)]
struct Node {
    parent: Option<NodeId>,
    step: Step,
    at: Mark,
    /// Where the key stands, for a value of a mapping.
    key_at: Option<Mark>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Step {
    Root,
    Key(String),
    Index(usize),
}

/// A stretch of one line. `line` is from 1, `column` in characters from 0.
#[derive(Clone, Copy, Debug)]
struct Mark {
    line: usize,
    column: usize,
    width: usize,
}

impl Mark {
    fn of(span: Span) -> Self {
        let (start, end) = (span.start, span.end);
        let width = if start.line() == end.line() {
            end.col().saturating_sub(start.col())
        } else {
            1
        };
        Self {
            line: start.line(),
            column: start.col(),
            width,
        }
    }
}

/// A parsed file.
#[derive(Clone, Debug)]
pub(super) struct Document {
    name: String,
    text: String,
    nodes: Vec<Node>,
}

impl Document {
    /// Parses the text of a file called `name`.
    ///
    /// # Errors
    /// What is wrong: the one place where the text stops being YAML, or every duplicate key.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let document = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            nodes: Vec::new(),
        };
        let mut builder = Builder::new(document);
        for event in Parser::new_from_str(text) {
            let step = event
                .map_err(|error| builder.document().syntax(&error))
                .and_then(|(event, span)| builder.event(event, span));
            if let Err(problem) = step {
                let (_, mut problems) = builder.finish();
                problems.push(problem);
                return Err(problems);
            }
        }
        let (mut document, problems) = builder.finish();
        if document.nodes.is_empty() {
            document.nodes.push(Node {
                parent: None,
                step: Step::Root,
                at: Mark {
                    line: 1,
                    column: 0,
                    width: 1,
                },
                key_at: None,
                kind: Kind::Null,
            });
        }
        if problems.is_empty() {
            Ok(document)
        } else {
            Err(problems)
        }
    }

    pub(super) fn kind(&self, node: NodeId) -> &Kind {
        &self.nodes[node.0 as usize].kind
    }

    /// The entries of a mapping; none of anything else.
    pub(super) fn entries(&self, node: NodeId) -> &[(String, NodeId)] {
        match self.kind(node) {
            Kind::Mapping(entries) => entries,
            Kind::Null | Kind::Scalar(_) | Kind::Sequence(_) => &[],
        }
    }

    /// The elements of a list; none of anything else.
    pub(super) fn items(&self, node: NodeId) -> &[NodeId] {
        match self.kind(node) {
            Kind::Sequence(items) => items,
            Kind::Null | Kind::Scalar(_) | Kind::Mapping(_) => &[],
        }
    }

    /// The value under a key of a mapping.
    pub(super) fn child(&self, node: NodeId, key: &str) -> Option<NodeId> {
        self.entries(node)
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| *value)
    }

    /// Every scalar that is not a key.
    pub(super) fn scalars_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Scalar)> {
        self.nodes
            .iter_mut()
            .enumerate()
            .filter_map(|(at, node)| match &mut node.kind {
                Kind::Scalar(scalar) => Some((NodeId::at(at), scalar)),
                Kind::Null | Kind::Sequence(_) | Kind::Mapping(_) => None,
            })
    }

    /// An error about the value of a node.
    pub(super) fn error(&self, node: NodeId, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(node, self.nodes[node.0 as usize].at, message)
    }

    /// An error about the key under which a node stands.
    pub(super) fn key_error(&self, node: NodeId, message: impl Into<String>) -> Diagnostic {
        let Node { at, key_at, .. } = self.nodes[node.0 as usize];
        self.diagnostic(node, key_at.unwrap_or(at), message)
    }

    fn diagnostic(&self, node: NodeId, at: Mark, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            place: Some(self.place(at)),
            path: self.path(node),
            message: message.into(),
            note: None,
        }
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let mark = error.marker();
        let at = Mark {
            line: mark.line(),
            column: mark.col(),
            width: 1,
        };
        Diagnostic {
            severity: Severity::Error,
            place: Some(self.place(at)),
            path: String::new(),
            message: format!("not YAML: {}", error.info()),
            note: None,
        }
    }

    fn place(&self, at: Mark) -> Box<Place> {
        let line = self.text.lines().nth(at.line.saturating_sub(1)).unwrap_or("");
        let left = line.chars().count().saturating_sub(at.column);
        Box::new(Place {
            file: self.name.clone(),
            line: at.line,
            column: at.column + 1,
            width: at.width.min(left).max(1),
            // A tab is one character to the parser, so it is one to the caret.
            text: line.replace('\t', " ").trim_end().to_owned(),
        })
    }

    /// The way to a node, such as `routes[3].backend`; empty for the outermost.
    pub(super) fn path(&self, node: NodeId) -> String {
        let mut steps = Vec::new();
        let mut at = Some(node);
        while let Some(id) = at {
            let node = &self.nodes[id.0 as usize];
            steps.push(&node.step);
            at = node.parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => {}
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Key(key) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
            }
        }
        path
    }
}

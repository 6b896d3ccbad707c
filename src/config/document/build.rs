//! From the events of the YAML parser to the nodes of a document.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, ScalarStyle, Span, Tag};

use super::super::diagnostic::{Diagnostic, Severity};
use super::{Document, Kind, Mark, Node, NodeId, Scalar, Step};

/// The number of nodes that a document may have once its aliases are copied: far above any configuration written by
/// people or programs, and far below what a nest of aliases makes. Not measured.
const MAX_NODES: usize = 200_000;

/// How deep collections may stand in each other; the configuration itself is no deeper than ten. Not measured.
const MAX_DEPTH: usize = 64;

/// Takes events and puts nodes in their places.
pub(super) struct Builder {
    document: Document,
    /// The collections that are being filled, outermost first.
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    problems: Vec<Diagnostic>,
    documents: usize,
}

struct Open {
    node: NodeId,
    /// The key that waits for its value, in a mapping.
    key: Option<(String, Mark)>,
}

impl Builder {
    pub(super) fn new(document: Document) -> Self {
        Self {
            document,
            open: Vec::new(),
            anchors: HashMap::new(),
            problems: Vec::new(),
            documents: 0,
        }
    }

    /// What is built so far.
    pub(super) fn document(&self) -> &Document {
        &self.document
    }

    /// The document, and the duplicate keys in it.
    pub(super) fn finish(self) -> (Document, Vec<Diagnostic>) {
        (self.document, self.problems)
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = Mark::of(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.refuse(at, "a second document; a configuration is one"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(&text, style, anchor, tag.as_deref(), at)?
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.untagged(tag.as_deref(), at)?;
                self.start(Kind::Sequence(Vec::new()), anchor, at)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.untagged(tag.as_deref(), at)?;
                self.start(Kind::Mapping(Vec::new()), anchor, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            // Whatever else there is, comments among it, is no node.
            _ => {}
        }
        Ok(())
    }

    fn refuse(&self, at: Mark, message: impl Into<String>) -> Diagnostic {
        let node = self.open.last().map_or(NodeId::ROOT, |open| open.node);
        if self.document.nodes.is_empty() {
            return Diagnostic {
                severity: Severity::Error,
                place: Some(self.document.place(at)),
                path: String::new(),
                message: message.into(),
                note: None,
            };
        }
        self.document.diagnostic(node, at, message)
    }

    fn untagged(&self, tag: Option<&Tag>, at: Mark) -> Result<(), Diagnostic> {
        match tag {
            None => Ok(()),
            Some(_) => Err(self.refuse(at, "a tag; the configuration has none")),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: Mark,
    ) -> Result<(), Diagnostic> {
        let string = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix() == "str");
        if !string {
            self.untagged(tag, at)?;
        }
        if let Some(open) = self.open.last_mut()
            && open.key.is_none()
            && let Kind::Mapping(_) = self.document.nodes[open.node.0 as usize].kind
        {
            if text == "<<" && style == ScalarStyle::Plain {
                return Err(self.refuse(at, "a merge key; write the keys out"));
            }
            open.key = Some((text.to_owned(), at));
            return Ok(());
        }
        let nothing = matches!(text, "" | "~" | "null" | "Null" | "NULL");
        let kind = if style == ScalarStyle::Plain && !string && nothing {
            Kind::Null
        } else {
            Kind::Scalar(Scalar {
                text: text.to_owned(),
                written: None,
            })
        };
        let node = self.add(kind, at)?;
        self.anchor(anchor, node);
        Ok(())
    }

    fn start(&mut self, kind: Kind, anchor: usize, at: Mark) -> Result<(), Diagnostic> {
        if let Some(open) = self.open.last()
            && open.key.is_none()
            && let Kind::Mapping(_) = self.document.kind(open.node)
        {
            return Err(self.refuse(at, "a key that is not text"));
        }
        let node = self.add(kind, at)?;
        self.anchor(anchor, node);
        self.open.push(Open { node, key: None });
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, node: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, node);
        }
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<(), Diagnostic> {
        let Some(&target) = self.anchors.get(&anchor) else {
            return Err(self.refuse(at, "an alias without its anchor"));
        };
        if self.open.iter().any(|open| open.node == target) {
            return Err(self.refuse(at, "an alias inside what it names"));
        }
        let kind = self.document.kind(target).clone();
        match kind {
            Kind::Null | Kind::Scalar(_) => {
                // As a key an alias would hide what is set, so it is only taken as a value.
                if let Some(open) = self.open.last()
                    && open.key.is_none()
                    && let Kind::Mapping(_) = self.document.kind(open.node)
                {
                    return Err(self.refuse(at, "an alias as a key; write the key"));
                }
                self.add(kind, at)?;
            }
            Kind::Sequence(items) => {
                let node = self.add(Kind::Sequence(Vec::new()), at)?;
                for item in items {
                    self.copy_into(node, None, item)?;
                }
            }
            Kind::Mapping(entries) => {
                let node = self.add(Kind::Mapping(Vec::new()), at)?;
                for (key, value) in entries {
                    self.copy_into(node, Some(key), value)?;
                }
            }
        }
        Ok(())
    }

    /// Copies a node, with what is below it, into an open collection; the copies keep the places of the originals.
    fn copy_into(&mut self, parent: NodeId, key: Option<String>, from: NodeId) -> Result<(), Diagnostic> {
        let Node { at, key_at, kind, .. } = self.document.nodes[from.0 as usize].clone();
        let key = key.map(|key| (key, key_at.unwrap_or(at)));
        self.open.push(Open { node: parent, key });
        let copied = match kind {
            Kind::Null | Kind::Scalar(_) => self.add(kind, at).map(|_| ()),
            Kind::Sequence(items) => self.add(Kind::Sequence(Vec::new()), at).and_then(|node| {
                items
                    .into_iter()
                    .try_for_each(|item| self.copy_into(node, None, item))
            }),
            Kind::Mapping(entries) => self.add(Kind::Mapping(Vec::new()), at).and_then(|node| {
                entries
                    .into_iter()
                    .try_for_each(|(key, value)| self.copy_into(node, Some(key), value))
            }),
        };
        self.open.pop();
        copied
    }

    /// Adds a node as the next child of the innermost open collection.
    fn add(&mut self, kind: Kind, at: Mark) -> Result<NodeId, Diagnostic> {
        if self.open.len() > MAX_DEPTH {
            return Err(self.refuse(at, format!("deeper than {MAX_DEPTH} collections in each other")));
        }
        if self.document.nodes.len() >= MAX_NODES {
            return Err(self.refuse(
                at,
                format!("more than {MAX_NODES} values; aliases count as what they name"),
            ));
        }
        let id = NodeId::at(self.document.nodes.len());
        let mut node = Node {
            parent: None,
            step: Step::Root,
            at,
            key_at: None,
            kind,
        };
        if let Some(open) = self.open.last_mut() {
            node.parent = Some(open.node);
            match &mut self.document.nodes[open.node.0 as usize].kind {
                Kind::Sequence(items) => {
                    node.step = Step::Index(items.len());
                    items.push(id);
                }
                Kind::Mapping(entries) => {
                    let (key, key_at) = open.key.take().unwrap_or_else(|| (String::new(), at));
                    node.step = Step::Key(key.clone());
                    node.key_at = Some(key_at);
                    let first = entries
                        .iter()
                        .find(|(known, _)| *known == key)
                        .map(|(_, first)| *first);
                    entries.push((key.clone(), id));
                    if let Some(first) = first {
                        self.document.nodes.push(node);
                        let line = self.document.nodes[first.0 as usize]
                            .key_at
                            .map_or(0, |at| at.line);
                        let message = format!("\"{key}\" is given twice; it is also on line {line}");
                        self.problems.push(self.document.key_error(id, message));
                        return Ok(id);
                    }
                }
                Kind::Null | Kind::Scalar(_) => {}
            }
        }
        self.document.nodes.push(node);
        Ok(id)
    }
}

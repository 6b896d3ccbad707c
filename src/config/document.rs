//! A YAML document as a tree whose every node knows its place. The only file that knows the YAML parser.
//!
//! Keys keep their place and duplicates are errors; an alias is a copy of what it names, so the number of nodes is
//! bounded. Tags other than `!!str`, merge keys and several documents in a file are refused.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::diagnostic::{Diagnostic, Place, Severity};

/// The number of nodes that a document may have once its aliases are copied: far above any configuration written by
/// people or programs, and far below what a nest of aliases makes. Not measured.
const MAX_NODES: usize = 200_000;

/// How deep collections may stand in each other; the configuration itself is no deeper than ten. Not measured.
const MAX_DEPTH: usize = 64;

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
        let mut builder = Builder {
            document,
            open: Vec::new(),
            anchors: HashMap::new(),
            problems: Vec::new(),
            documents: 0,
        };
        for event in Parser::new_from_str(text) {
            let step = event
                .map_err(|error| builder.document.syntax(&error))
                .and_then(|(event, span)| builder.event(event, span));
            if let Err(problem) = step {
                builder.problems.push(problem);
                return Err(builder.problems);
            }
        }
        let Builder {
            mut document,
            problems,
            ..
        } = builder;
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

    fn place(&self, at: Mark) -> Place {
        let line = self.text.lines().nth(at.line.saturating_sub(1)).unwrap_or("");
        let left = line.chars().count().saturating_sub(at.column);
        Place {
            file: self.name.clone(),
            line: at.line,
            column: at.column + 1,
            width: at.width.min(left).max(1),
            // A tab is one character to the parser, so it is one to the caret.
            text: line.replace('\t', " ").trim_end().to_owned(),
        }
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

struct Builder {
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
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
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

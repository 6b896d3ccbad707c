//! The templates of one host, as a trie whose search goes from the most specific to the least.
//!
//! At every segment a literal is tried before `*`, and `*` before `**`, with full backtracking. A template has at most
//! one `**`, and what follows it has a known number of segments, so a node is reached in one way only: one search
//! visits a node at most once for each distance from the end at which templates continue after `**`.

use std::ops::ControlFlow;

use ahash::AHashMap;
use http::Method;

use super::path::Segments;
use crate::schema::HttpMethod;
use crate::schema::template::{Segment, Template};
use crate::wire::url::{self, Escapes};

/// 8: below this, comparing is faster than hashing.
const FEW: usize = 8;

/// What a template's last segment leads to.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) verb: Option<Box<str>>,
    pub(super) method: HttpMethod,
    pub(super) trailing_slash: super::TrailingSlash,
    /// Index of what is bound here.
    pub(super) bound: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    literals: Literals,
    one: Option<usize>,
    rest: Option<Rest>,
    pub(super) leaves: Vec<Leaf>,
}

#[derive(Clone, Debug)]
struct Rest {
    node: usize,
    /// How many segments follow `**` in the templates below, without repetition, the most first.
    tails: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Literals {
    Few(Vec<(Box<str>, usize)>),
    Many(AHashMap<Box<str>, usize>),
}

impl Default for Literals {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Literals {
    fn get(&self, text: &str) -> Option<usize> {
        match self {
            Self::Few(list) => list
                .iter()
                .find(|(literal, _)| **literal == *text)
                .map(|(_, node)| *node),
            Self::Many(map) => map.get(text).copied(),
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Few(list) if list.is_empty())
    }

    fn insert(&mut self, text: &str, node: usize) {
        match self {
            Self::Few(list) if list.len() < FEW => list.push((text.into(), node)),
            Self::Few(list) => {
                let mut map: AHashMap<_, _> = list.drain(..).collect();
                map.insert(text.into(), node);
                *self = Self::Many(map);
            }
            Self::Many(map) => {
                map.insert(text.into(), node);
            }
        }
    }
}

/// Nodes by index; the root is the first.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Trie {
    /// The node at which a template of this shape ends, if any does.
    pub(super) fn get(&self, template: &Template) -> Option<&Node> {
        let mut at = 0;
        for segment in template.segments() {
            let node = self.nodes.get(at)?;
            at = match segment {
                Segment::Literal(text) => node.literals.get(text)?,
                Segment::One => node.one?,
                Segment::Rest => node.rest.as_ref()?.node,
            };
        }
        self.nodes.get(at)
    }

    /// The node to which only literals lead.
    pub(super) fn literal(&self, segments: impl Iterator<Item: AsRef<str>>) -> Option<&Node> {
        let mut at = 0;
        for segment in segments {
            at = self.nodes.get(at)?.literals.get(segment.as_ref())?;
        }
        self.nodes.get(at)
    }

    pub(super) fn insert(&mut self, template: &Template, leaf: Leaf) {
        let segments = template.segments();
        let mut at = 0;
        for (index, segment) in segments.iter().enumerate() {
            at = self.descend(at, segment, segments.len() - index - 1);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.leaves.push(leaf);
        }
    }

    /// The child for a segment with `tail` segments after it, made if it is not there.
    fn descend(&mut self, at: usize, segment: &Segment, tail: usize) -> usize {
        let new = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else {
            return at;
        };
        let child = match segment {
            Segment::Literal(text) => node.literals.get(text).unwrap_or_else(|| {
                node.literals.insert(text, new);
                new
            }),
            Segment::One => *node.one.get_or_insert(new),
            Segment::Rest => {
                let rest = node.rest.get_or_insert_with(|| Rest {
                    node: new,
                    tails: Vec::new(),
                });
                if let Err(place) = rest.tails.binary_search_by(|known| tail.cmp(known)) {
                    rest.tails.insert(place, tail);
                }
                rest.node
            }
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }

    /// Shows every node where a template that matches the path ends, until `visit` breaks; the most specific first.
    pub(super) fn walk<'t, B>(
        &'t self,
        path: &Segments<'_>,
        visit: &mut impl FnMut(&'t Node) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.walk_from(0, 0, path, visit)
    }

    fn walk_from<'t, B>(
        &'t self,
        node: usize,
        at: usize,
        path: &Segments<'_>,
        visit: &mut impl FnMut(&'t Node) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(node) = self.nodes.get(node) else {
            return ControlFlow::Continue(());
        };
        if at == path.len() {
            visit(node)?;
        } else {
            if let Some(child) = node.literal_child(at, path) {
                self.walk_from(child, at + 1, path, visit)?;
            }
            if let Some(child) = node.one.filter(|_| !path.raw(at).is_empty()) {
                self.walk_from(child, at + 1, path, visit)?;
            }
        }
        if let Some(rest) = &node.rest {
            for tail in rest.tails.iter().filter(|tail| **tail <= path.len() - at) {
                self.walk_from(rest.node, path.len() - tail, path, visit)?;
            }
        }
        ControlFlow::Continue(())
    }
}

impl Node {
    /// A literal is compared with the decoded segment: otherwise `/v1/%6De` would reach `/v1/{id}` with the value
    /// that `/v1/me` was bound for.
    fn literal_child(&self, at: usize, path: &Segments<'_>) -> Option<usize> {
        if self.literals.is_empty() {
            return None;
        }
        let raw = path.raw(at);
        if !path.escaped(at) {
            return self.literals.get(raw);
        }
        let mut text = String::with_capacity(raw.len());
        url::decode(raw, Escapes::All, &mut text).ok()?;
        self.literals.get(&text)
    }

    /// The leaf for this verb that answers the method: bound to it, for HEAD to GET, or to any.
    pub(super) fn answer(&self, verb: Option<&str>, method: &Method, slash: Slash) -> Option<&Leaf> {
        let rank = |leaf: &Leaf| match &leaf.method {
            HttpMethod::Exact(own) if own == method => Some(0),
            HttpMethod::Exact(own) if *method == Method::HEAD && *own == Method::GET => Some(1),
            HttpMethod::Any => Some(2),
            HttpMethod::Exact(_) => None,
        };
        self.fitting(verb, slash)
            .filter_map(|leaf| Some((rank(leaf)?, leaf)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, leaf)| leaf)
    }

    /// The leaves for this verb, whatever their method.
    pub(super) fn fitting(&self, verb: Option<&str>, slash: Slash) -> impl Iterator<Item = &Leaf> {
        self.leaves
            .iter()
            .filter(move |leaf| leaf.verb.as_deref() == verb && slash.suits(leaf))
    }
}

/// Whether the path that is searched has lost its trailing slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slash {
    AsSent,
    Removed,
}

impl Slash {
    fn suits(self, leaf: &Leaf) -> bool {
        match self {
            Self::AsSent => true,
            Self::Removed => leaf.trailing_slash == super::TrailingSlash::Ignore,
        }
    }
}

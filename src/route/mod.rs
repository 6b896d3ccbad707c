//! Which method a request is for: by host, by rpc path, by path template. A pure lookup on the raw path.
//!
//! The host's own table is searched first, then those of `*.` patterns from the longest, then that of every host.
//! In a table the most specific template wins, segment by segment: a literal, then `*`, then `**`; the order of
//! declaration never counts. A path with a known verb is first read with it, then with the colon in the value.
//! One search visits a node of the trie at most once for each number of segments that follow `**` in a template, so its
//! cost is bounded by the templates and not by the path.

pub mod cors;
pub mod entry;
mod host;
mod normal;
mod path;
pub mod relay;
mod slots;
mod trie;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use ahash::{AHashMap, AHashSet};
use http::Method;

pub use entry::{Entry, Form, Route, Streaming};
pub use host::{Host, HostError};
pub use normal::{has_escaped_slash, normal};
pub use path::PathError;
use path::Segments;
pub use relay::PathRoute;
use slots::Slot;
use trie::{Leaf, Node, Slash, Trie};

use crate::schema::HttpMethod;
pub use crate::schema::template::Captures;
use crate::schema::template::Template;
use crate::wire::url::{self, Escapes};

/// Whether `/v1/books/` is `/v1/books`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrailingSlash {
    /// It is another path.
    #[default]
    Significant,
    /// It is the same path, where nothing else answers it.
    Ignore,
}

/// Which escapes are decoded in a value of several segments. A value of one segment is decoded wholly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathUnescape {
    /// All but `%2F`.
    #[default]
    AllExceptSlash,
    /// All but RFC 3986's reserved characters, as Envoy does; an escaped percent and an escaped `#` then look alike.
    AllExceptReserved,
}

/// How the paths of a route are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathOptions {
    /// Whether a slash at the end counts.
    pub trailing_slash: TrailingSlash,
    /// Which escapes are decoded in a value of several segments.
    pub unescape: PathUnescape,
}

/// A binding or rpc path and whose it is, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The entry it leads to.
    pub entry: u32,
    /// Which binding of the entry; nothing for its rpc path.
    pub binding: Option<u32>,
    /// Method and template, such as `GET /v1/{name=shelves/*}`.
    pub pattern: String,
}

/// Two bindings that answer the same requests. The later one is refused, and nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Conflict {
    /// What was there.
    pub held: Place,
    /// What was to be added.
    pub refused: Place,
    /// The host pattern on which they meet; nothing where both answer every host.
    pub host: Option<Host>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, refused, host } = self;
        write!(
            f,
            "`{}` answers what `{}` answers already",
            refused.pattern, held.pattern
        )?;
        match host {
            Some(host) => write!(f, " on {host}"),
            None => Ok(()),
        }
    }
}

/// What a request's head leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The entry of the plan.
    pub entry: u32,
    /// Which binding of the entry; nothing for its rpc path.
    pub binding: Option<u32>,
    /// The values of the template's variables, decoded, from left to right.
    pub captures: Captures,
}

/// Why a request leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// The path can't be read.
    #[error(transparent)]
    Malformed(PathError),
    /// No template matches the path.
    #[error("no route for this path")]
    NotFound,
    /// The path is known, and no template that matches it answers the method.
    #[error("the path does not answer this method; it answers {allow}")]
    MethodNotAllowed {
        /// Every method that the path answers, sorted: the value of `Allow`.
        allow: String,
    },
}

/// What a leaf of the trie stands for.
#[derive(Clone, Debug)]
struct Bound {
    place: Place,
    slots: Box<[Slot]>,
    /// For values of several segments.
    escapes: Escapes,
}

#[derive(Clone, Debug)]
struct Rpc {
    entry: u32,
    /// Whether a template binds POST to the same path: what it says about the body then holds.
    rebound: bool,
}

/// What one host pattern answers.
#[derive(Clone, Debug, Default)]
struct Table {
    rpc: AHashMap<Box<str>, Rpc>,
    trie: Trie,
    verbs: AHashSet<Box<str>>,
    ignores_trailing_slash: bool,
}

/// Collects what is bound; [`RoutesBuilder::build`] makes the lookup of it.
#[derive(Clone, Debug, Default)]
pub struct RoutesBuilder {
    options: PathOptions,
    routes: Routes,
}

/// The lookup. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    exact: AHashMap<Box<str>, Table>,
    below: AHashMap<Box<str>, Table>,
    any: Table,
    bounds: Vec<Bound>,
}

impl RoutesBuilder {
    /// An empty one, with the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how paths are read for the bindings that are added from now on.
    pub fn options(&mut self, options: PathOptions) -> &mut Self {
        self.options = options;
        self
    }

    /// Adds a method's rpc path, such as `/library.v1.Library/GetBook`, on these hosts; on every host if there are none.
    ///
    /// # Errors
    /// [`Conflict`] if it is there already.
    pub fn rpc(&mut self, hosts: &[Host], path: &str, entry: u32) -> Result<(), Conflict> {
        let place = |entry| Place {
            entry,
            binding: None,
            pattern: format!("POST {path}"),
        };
        for host in patterns(hosts) {
            if let Some(held) = self.routes.table(host).and_then(|table| table.rpc.get(path)) {
                return Err(Conflict {
                    held: place(held.entry),
                    refused: place(entry),
                    host: host.cloned(),
                });
            }
        }
        for host in patterns(hosts) {
            let rpc = Rpc {
                entry,
                rebound: false,
            };
            self.routes.table_mut(host).rpc.insert(path.into(), rpc);
        }
        Ok(())
    }

    /// Adds a binding on these hosts; on every host if there are none.
    ///
    /// # Errors
    /// [`Conflict`] if one of the same shape answers the method already: variables' names do not make a difference.
    pub fn bind(
        &mut self,
        hosts: &[Host],
        method: HttpMethod,
        template: &Template,
        entry: u32,
        binding: u32,
    ) -> Result<(), Conflict> {
        let place = Place {
            entry,
            binding: Some(binding),
            pattern: match &method {
                HttpMethod::Exact(method) => format!("{method} {template}"),
                HttpMethod::Any => format!("* {template}"),
            },
        };
        for host in patterns(hosts) {
            if let Some(held) = self.routes.held(host, &method, template) {
                return Err(Conflict {
                    held: held.clone(),
                    refused: place,
                    host: host.cloned(),
                });
            }
        }
        let bound = self.routes.bounds.len();
        self.routes.bounds.push(Bound {
            place,
            slots: slots::slots(template),
            escapes: match self.options.unescape {
                PathUnescape::AllExceptSlash => Escapes::ButSlash,
                PathUnescape::AllExceptReserved => Escapes::ButReserved,
            },
        });
        let leaf = Leaf {
            verb: template.verb().map(Box::from),
            method,
            trailing_slash: self.options.trailing_slash,
            bound,
        };
        for host in patterns(hosts) {
            let table = self.routes.table_mut(host);
            table.verbs.extend(leaf.verb.clone());
            table.ignores_trailing_slash |= leaf.trailing_slash == TrailingSlash::Ignore;
            table.trie.insert(template, leaf.clone());
        }
        Ok(())
    }

    /// The finished lookup.
    pub fn build(mut self) -> Routes {
        for table in self.routes.tables_mut() {
            for (path, rpc) in &mut table.rpc {
                let node = table.trie.literal(path.split('/').skip(1));
                rpc.rebound = node.is_some_and(|node| {
                    node.fitting(None, Slash::AsSent)
                        .any(|leaf| leaf.method == HttpMethod::Exact(Method::POST))
                });
            }
        }
        self.routes
    }
}

/// The host patterns to add to: nothing stands for every host.
fn patterns(hosts: &[Host]) -> impl Iterator<Item = Option<&Host>> {
    let any = hosts.is_empty().then_some(None);
    any.into_iter().chain(hosts.iter().map(Some))
}

impl Routes {
    /// Finds what answers a request over REST.
    ///
    /// `host` is the value of `Host` or `:authority`, `raw_path` the path as it was sent, without the query.
    ///
    /// # Errors
    /// [`NoRoute`]: a path that can't be read is told before one that is not known.
    pub fn find(&self, host: Option<&str>, method: &Method, raw_path: &str) -> Result<Matched, NoRoute> {
        let path = Segments::split(raw_path).map_err(NoRoute::Malformed)?;
        let host = host.map(host::normal);
        for table in self.tables(host.as_deref()) {
            if let Some(rpc) = table
                .rpc
                .get(raw_path)
                .filter(|rpc| *method == Method::POST && !rpc.rebound)
            {
                return Ok(Matched {
                    entry: rpc.entry,
                    binding: None,
                    captures: Captures::default(),
                });
            }
            let found = table.readings(&path, &mut |path, verb, slash| {
                table
                    .trie
                    .walk(path, &mut |node| match node.answer(verb, method, slash) {
                        Some(leaf) => ControlFlow::Break(self.matched(leaf, path)),
                        None => ControlFlow::Continue(()),
                    })
            });
            if let ControlFlow::Break(matched) = found {
                return matched;
            }
        }
        Err(self.refusal(host.as_deref(), raw_path, &path))
    }

    /// The entry of an rpc path, whatever the HTTP method: for the dialects that know nothing else.
    pub fn find_rpc(&self, host: Option<&str>, raw_path: &str) -> Option<u32> {
        let host = host.map(host::normal);
        self.tables(host.as_deref())
            .find_map(|table| table.rpc.get(raw_path))
            .map(|rpc| rpc.entry)
    }

    fn matched(&self, leaf: &Leaf, path: &Segments<'_>) -> Result<Matched, NoRoute> {
        let bound = self.bounds.get(leaf.bound).ok_or(NoRoute::NotFound)?;
        Ok(Matched {
            entry: bound.place.entry,
            binding: bound.place.binding,
            captures: slots::read(&bound.slots, path, bound.escapes)
                .map_err(|error| NoRoute::Malformed(PathError::Escape(error)))?,
        })
    }

    /// Which methods the path answers, from every template that matches it.
    fn refusal(&self, host: Option<&str>, raw_path: &str, path: &Segments<'_>) -> NoRoute {
        let mut allow = BTreeSet::new();
        for table in self.tables(host) {
            if table.rpc.contains_key(raw_path) {
                allow.insert(Method::POST.as_str());
            }
            let all: ControlFlow<()> = table.readings(path, &mut |path, verb, slash| {
                table.trie.walk(path, &mut |node: &Node| {
                    for leaf in node.fitting(verb, slash) {
                        if let HttpMethod::Exact(method) = &leaf.method {
                            allow.insert(method.as_str());
                        }
                    }
                    ControlFlow::Continue(())
                })
            });
            debug_assert!(all.is_continue());
        }
        if allow.is_empty() {
            return NoRoute::NotFound;
        }
        if allow.contains(Method::GET.as_str()) {
            allow.insert(Method::HEAD.as_str());
        }
        NoRoute::MethodNotAllowed {
            allow: Vec::from_iter(allow).join(", "),
        }
    }

    /// The tables that answer for a host, the most specific first.
    fn tables<'a>(&'a self, host: Option<&'a str>) -> impl Iterator<Item = &'a Table> {
        let exact = host.filter(|_| !self.exact.is_empty());
        let below = host.filter(|_| !self.below.is_empty());
        exact
            .and_then(|host| self.exact.get(host))
            .into_iter()
            .chain(
                below
                    .into_iter()
                    .flat_map(host::suffixes)
                    .filter_map(|suffix| self.below.get(suffix)),
            )
            .chain(Some(&self.any))
    }

    fn tables_mut(&mut self) -> impl Iterator<Item = &mut Table> {
        self.exact
            .values_mut()
            .chain(self.below.values_mut())
            .chain(Some(&mut self.any))
    }

    fn table(&self, host: Option<&Host>) -> Option<&Table> {
        match host {
            None => Some(&self.any),
            Some(Host::Exact(name)) => self.exact.get(name),
            Some(Host::Below(suffix)) => self.below.get(suffix),
        }
    }

    fn table_mut(&mut self, host: Option<&Host>) -> &mut Table {
        match host {
            None => &mut self.any,
            Some(Host::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(Host::Below(suffix)) => self.below.entry(suffix.clone()).or_default(),
        }
    }

    /// What a binding would meet in the table of a host pattern.
    fn held(&self, host: Option<&Host>, method: &HttpMethod, template: &Template) -> Option<&Place> {
        let node = self.table(host)?.trie.get(template)?;
        let leaf = node
            .fitting(template.verb(), Slash::AsSent)
            .find(|leaf| leaf.method == *method)?;
        self.bounds.get(leaf.bound).map(|bound| &bound.place)
    }
}

impl Table {
    /// Shows the ways to read a path, until one breaks: with its verb if it is one, whole, and the same without the
    /// trailing slash where a route ignores it.
    fn readings<B>(
        &self,
        path: &Segments<'_>,
        visit: &mut impl FnMut(&Segments<'_>, Option<&str>, Slash) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.verb_readings(path, Slash::AsSent, visit)?;
        let bare = self.ignores_trailing_slash.then(|| path.without_trailing_slash());
        match bare.flatten() {
            Some(path) => self.verb_readings(&path, Slash::Removed, visit),
            None => ControlFlow::Continue(()),
        }
    }

    fn verb_readings<B>(
        &self,
        path: &Segments<'_>,
        slash: Slash,
        visit: &mut impl FnMut(&Segments<'_>, Option<&str>, Slash) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some((rest, raw)) = path.split_verb().filter(|_| !self.verbs.is_empty()) {
            let mut verb = String::new();
            if url::decode(raw, Escapes::All, &mut verb).is_ok() && self.verbs.contains(&*verb) {
                visit(&rest, Some(&verb), slash)?;
            }
        }
        visit(path, None, slash)
    }
}

#[cfg(test)]
mod tests;

//! A route of paths: requests that are relayed as they are, or sent elsewhere. Everything is resolved when the
//! configuration is compiled.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::Entry;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::policy::Access;
use crate::policy::throttle::Checks;
use crate::route::entry::WebSocket;
use crate::route::{Captures, Host};
use crate::schema::template::{Segment, Template};
use crate::wire::apart;
use crate::wire::screen::Screen;
use crate::wire::url::{self, Keep};

/// A route of paths.
#[derive(Clone, Debug)]
pub struct PathRoute {
    /// The name in records and metrics.
    pub name: String,
    /// Which paths.
    pub template: Template,
    /// Which methods; empty for all.
    pub methods: Vec<Method>,
    /// The hosts that it answers; empty for any.
    pub hosts: Vec<Host>,
    /// What is done with a request.
    pub action: Action,
    /// Changes to the headers of the answer.
    pub response_headers: HeaderEdit,
    /// What becomes of a path with an escaped slash.
    pub encoded_slash: EncodedSlash,
    /// The index of how callers prove who they are; absent, they need not.
    pub auth: Option<usize>,
    /// Who and what is not let in; absent, nobody is kept out.
    pub screen: Option<Arc<Screen>>,
    /// Who may ask for it; absent, whoever the route lets in.
    pub access: Option<Arc<Access>>,
    /// How often it may be asked for.
    pub checks: Checks,
}

impl PathRoute {
    /// A copy that is counted apart from this one, with the headers that it sets: for one worker.
    #[must_use]
    pub fn apart(&self) -> Self {
        let mut copy = self.clone();
        copy.response_headers = copy.response_headers.apart();
        if let Action::Relay(relay) = &mut copy.action {
            relay.request_headers = relay.request_headers.apart();
        }
        copy
    }

    /// How it takes WebSockets; nothing where it does not.
    pub fn websocket(&self) -> Option<&WebSocket> {
        match &self.action {
            Action::Relay(relay) => match &relay.carries {
                Carries::WebSocket(options) => Some(options),
                Carries::Http => None,
            },
            Action::Redirect(_) => None,
        }
    }
}

/// A fixed answer to plain HTTP, where a backend can't give one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its status.
    pub status: StatusCode,
    /// Its content type.
    pub content_type: HeaderValue,
    /// Its body.
    pub body: Bytes,
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// It goes to a backend.
    Relay(Relay),
    /// The client is sent elsewhere.
    Redirect(Redirect),
}

/// Where requests go, and how.
#[derive(Clone, Debug)]
pub struct Relay {
    /// What they speak.
    pub carries: Carries,
    /// Backends by their index, each with its share. Not empty; no share is 0.
    pub shares: Vec<(usize, u32)>,
    /// A backend that gets copies, of so many in a hundred requests.
    pub mirror: Option<(usize, u8)>,
    /// The path that the backend is asked for.
    pub rewrite: Rewrite,
    /// Changes to the headers of the request.
    pub request_headers: HeaderEdit,
    /// The host that the backend is asked for.
    pub host: AskedHost,
    /// How long the beginning of the answer may take while the client sends nothing.
    pub patience: Duration,
}

/// Where a client is sent.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Another scheme.
    pub scheme: Option<Scheme>,
    /// Another host.
    pub host: Option<Authority>,
    /// Another path.
    pub rewrite: Rewrite,
}

/// What goes to the backends of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carries {
    /// HTTP requests.
    Http,
    /// WebSockets, and nothing else.
    WebSocket(Box<WebSocket>),
}

/// Which host a backend is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedHost {
    /// That of its endpoint.
    Endpoint,
    /// The one that the client asked for.
    Client,
}

/// What becomes of a path with an escaped slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// It is refused.
    Refuse,
    /// It stays as it is.
    Allow,
}

/// How a path becomes another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// It stays.
    #[default]
    None,
    /// So many segments at its beginning become this, which does not end in a slash.
    Prefix {
        /// How many.
        segments: usize,
        /// What they become.
        with: Box<str>,
    },
    /// It becomes these parts.
    Path(Box<[Part]>),
}

/// A part of a path that is made of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(Box<str>),
    /// The value of the variable with this index.
    Variable {
        /// Its place among the variables of the route's path.
        index: usize,
        /// Whether it may hold slashes.
        multi: bool,
    },
}

/// Why a rewrite makes no sense for a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It does not begin with a slash.
    #[error("does not begin with \"/\"")]
    Relative,
    /// It holds what no path can hold as it is.
    #[error("has a character that no path holds; write it as an escape")]
    Character,
    /// A brace without its other one.
    #[error("has a brace without its other one; a variable is `{{name}}`")]
    Brace,
    /// The route's path has no such variable.
    #[error("has `{{{0}}}`, which the route's path does not have")]
    Unknown(String),
}

impl Rewrite {
    /// The literal beginning of `template` becomes `with`.
    ///
    /// # Errors
    /// [`RewriteError`], in what `with` is.
    pub fn prefix(template: &Template, with: &str) -> Result<Self, RewriteError> {
        check(with)?;
        let literal = |segment: &&Segment| matches!(segment, Segment::Literal(_));
        Ok(Self::Prefix {
            segments: template.segments().iter().take_while(literal).count(),
            with: with.trim_end_matches('/').into(),
        })
    }

    /// The whole path becomes `text`, in which `{name}` is a variable of `template`.
    ///
    /// # Errors
    /// [`RewriteError`], in what `text` is.
    pub fn path(template: &Template, text: &str) -> Result<Self, RewriteError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(RewriteError::Brace)?;
            plain.push_str(before);
            let index = template
                .variables()
                .iter()
                .position(|variable| variable.name() == name)
                .ok_or_else(|| RewriteError::Unknown(name.to_owned()))?;
            parts.push(Part::Text(before.into()));
            parts.push(Part::Variable {
                index,
                multi: template
                    .variables()
                    .get(index)
                    .is_some_and(|variable| variable.multi),
            });
            rest = after;
        }
        if rest.contains('}') {
            return Err(RewriteError::Brace);
        }
        plain.push_str(rest);
        if !text.starts_with('/') {
            return Err(RewriteError::Relative);
        }
        if !plain.bytes().all(is_path_byte) {
            return Err(RewriteError::Character);
        }
        parts.push(Part::Text(rest.into()));
        Ok(Self::Path(parts.into()))
    }

    /// The path that `path` becomes; `captures` are what the route's variables have in it.
    pub fn apply(&self, path: &str, captures: &Captures) -> String {
        match self {
            Self::None => path.to_owned(),
            Self::Prefix { segments, with } => {
                let rest = path
                    .match_indices('/')
                    .nth(*segments)
                    .map_or("", |(at, _)| path.get(at..).unwrap_or_default());
                match (&**with, rest) {
                    ("", "") => "/".to_owned(),
                    (with, rest) => format!("{with}{rest}"),
                }
            }
            Self::Path(parts) => {
                let mut out = String::with_capacity(path.len());
                for part in parts {
                    match part {
                        Part::Text(text) => out.push_str(text),
                        Part::Variable { index, multi } => {
                            let keep = if *multi { Keep::Slashes } else { Keep::Nothing };
                            url::encode(captures.get(*index).unwrap_or_default(), keep, &mut out);
                        }
                    }
                }
                out
            }
        }
    }
}

fn check(path: &str) -> Result<(), RewriteError> {
    if !path.starts_with('/') {
        Err(RewriteError::Relative)
    } else if path.bytes().all(is_path_byte) {
        Ok(())
    } else {
        Err(RewriteError::Character)
    }
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte)
}

/// Changes to headers: removed first, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    /// Names that are taken out.
    pub remove: Vec<HeaderName>,
    /// Names with a value that replaces what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Names with a value that stands beside what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdit {
    fn apart(&self) -> Self {
        let fields = |fields: &[(HeaderName, HeaderValue)]| fields.iter().map(apart::field).collect();
        Self {
            remove: self.remove.iter().map(apart::name).collect(),
            set: fields(&self.set),
            add: fields(&self.add),
        }
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            if let Entry::Occupied(entry) = headers.entry(name) {
                entry.remove_entry_mult();
            }
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_copy_apart_are_the_same_and_elsewhere() {
        let field = || {
            (
                HeaderName::from_static("x-served-by"),
                HeaderValue::from_static("edge"),
            )
        };
        let edit = HeaderEdit {
            remove: vec![HeaderName::from_static("x-powered-by")],
            set: vec![field()],
            add: vec![field()],
        };
        let copy = edit.apart();
        assert_eq!(copy, edit);
        assert_ne!(copy.remove[0].as_str().as_ptr(), edit.remove[0].as_str().as_ptr());
        for (one, other) in [(&copy.set, &edit.set), (&copy.add, &edit.add)] {
            assert_ne!(one[0].0.as_str().as_ptr(), other[0].0.as_str().as_ptr());
            assert_ne!(one[0].1.as_bytes().as_ptr(), other[0].1.as_bytes().as_ptr());
        }
    }

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    #[test]
    fn the_beginning_of_a_path_becomes_another() {
        for (route, with, path, expected) in [
            ("/legacy/**", "/v2", "/legacy/a/b", "/v2/a/b"),
            ("/legacy/**", "/v2/", "/legacy/a/", "/v2/a/"),
            ("/legacy/**", "/", "/legacy/a", "/a"),
            ("/legacy/**", "/", "/legacy", "/"),
            ("/legacy/**", "/v2", "/legacy", "/v2"),
            ("/legacy/**", "/v2", "/legacy/", "/v2/"),
            ("/**", "/v2", "/a", "/v2/a"),
            ("/**", "/v2", "/", "/v2/"),
            ("/a/b", "/c", "/a/b", "/c"),
            ("/a/{x}/b", "/c/d", "/a/1/b", "/c/d/1/b"),
        ] {
            let rewrite = Rewrite::prefix(&template(route), with).unwrap();
            assert_eq!(
                rewrite.apply(path, &Captures::default()),
                expected,
                "{route} {with} {path}"
            );
        }
    }

    #[test]
    fn a_path_is_made_of_the_variables_of_another() {
        let captures: Captures = ["a/b", "x/y%2Fz"].into_iter().collect();
        let route = template("/u/{user}/{rest=**}");
        for (text, expected) in [
            ("/p/{user}", "/p/a%2Fb"),
            ("/{rest}/of/{user}?", "-"),
            ("/{rest}/of/{user}", "/x/y%2Fz/of/a%2Fb"),
        ] {
            match Rewrite::path(&route, text) {
                Ok(rewrite) => assert_eq!(rewrite.apply("/", &captures), expected, "{text}"),
                Err(error) => assert_eq!((expected, error), ("-", RewriteError::Character), "{text}"),
            }
        }
        for (text, error) in [
            ("p", RewriteError::Relative),
            ("/{user", RewriteError::Brace),
            ("/user}", RewriteError::Brace),
            ("/{who}", RewriteError::Unknown("who".to_owned())),
        ] {
            assert_eq!(Rewrite::path(&route, text), Err(error), "{text}");
        }
    }
}

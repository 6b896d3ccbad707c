//! From the `path:` routes of a file to what they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::compile::{access, auth, hosts, route_screen};
use super::diagnostic::Diagnostic;
use super::file::{self, File};
use super::located::{Located, Spot};
use super::throttle;
use crate::limits::Limits;
use crate::route::relay::{
    Action, AskedHost, Carries, EncodedSlash, HeaderEdit, PathRoute, Redirect, Relay, Rewrite,
};
use crate::route::{PathOptions, RoutesBuilder, TrailingSlash};
use crate::schema::HttpMethod;
use crate::schema::template::Template;

/// Names that frame a message or belong to one hop, and those that the gateway writes itself.
const NOT_TO_CHANGE: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-encoding",
];

/// The routes of paths, in the order of the file.
pub(super) fn relays(
    file: &File,
    limits: &Limits,
    errors: &mut Vec<Diagnostic>,
) -> Vec<(Spot, Arc<PathRoute>)> {
    let mut found: Vec<(Spot, Arc<PathRoute>)> = Vec::new();
    for (index, written) in file.routes.iter().enumerate() {
        let Some(path) = &written.path else { continue };
        let taken = found.iter().any(|(_, route)| route.name == path.value);
        let name = if taken {
            format!("{}#{index}", path.value)
        } else {
            path.value.clone()
        };
        let mut one = One {
            file,
            written,
            errors: Vec::new(),
        };
        let route = one.route(path, name, limits);
        let errs = one.errors;
        match route {
            Some(route) if errs.is_empty() => found.push((path.spot, Arc::new(route))),
            Some(_) | None => errors.extend(errs),
        }
    }
    found
}

/// Adds the paths to the lookup, counted from `first`.
pub(super) fn bind(
    file: &File,
    relays: &[(Spot, Arc<PathRoute>)],
    builder: &mut RoutesBuilder,
    first: usize,
) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    builder.options(PathOptions {
        trailing_slash: TrailingSlash::Significant,
        ..PathOptions::default()
    });
    for (at, (spot, route)) in relays.iter().enumerate() {
        let methods = if route.methods.is_empty() {
            vec![HttpMethod::Any]
        } else {
            route.methods.iter().cloned().map(HttpMethod::Exact).collect()
        };
        for (binding, method) in methods.into_iter().enumerate() {
            let entry = u32::try_from(first.saturating_add(at)).unwrap_or(u32::MAX);
            let binding = u32::try_from(binding).unwrap_or(u32::MAX);
            if let Err(conflict) = builder.bind(&route.hosts, method, &route.template, entry, binding) {
                errors.push(file.origin.error(*spot, &route.name, conflict.to_string()));
                break;
            }
        }
    }
    errors
}

struct One<'a> {
    file: &'a File,
    written: &'a file::Route,
    errors: Vec<Diagnostic>,
}

impl One<'_> {
    fn error(&mut self, spot: Spot, message: impl Into<String>) {
        self.errors.push(self.file.origin.error(spot, "routes", message));
    }

    /// What came out, or nothing with the error noted.
    fn taken<T>(&mut self, spot: Spot, made: Result<T, String>) -> Option<T> {
        made.map_err(|message| self.error(spot, message)).ok()
    }

    fn route(&mut self, path: &Located<String>, name: String, limits: &Limits) -> Option<PathRoute> {
        let template = Template::parse(path);
        let template = self.taken(
            path.spot,
            template.map_err(|error| format!("\"{}\" is not a path: {error}", path.value)),
        )?;
        if template.verb().is_some() {
            self.error(
                path.spot,
                "has a verb, which only the paths of services have; write its colon as `%3A`",
            );
        }
        let default = file::Relay::default();
        let relay = self.written.relay.as_ref().map_or(&default, |relay| &relay.value);
        let methods = relay
            .methods
            .iter()
            .filter_map(|method| {
                let made = Method::from_bytes(method.as_bytes())
                    .ok()
                    .filter(|made| made.as_str() == made.as_str().to_ascii_uppercase())
                    .ok_or_else(|| format!("\"{}\" is no HTTP method, such as GET", method.value));
                self.taken(method.spot, made)
            })
            .collect();
        let response_headers = self.headers(&relay.response_headers);
        let action = match &relay.redirect {
            Some(redirect) => Action::Redirect(self.redirect(&template, redirect, relay)?),
            None => Action::Relay(self.relay(&template, relay, limits)?),
        };
        Some(PathRoute {
            name,
            template,
            methods,
            hosts: hosts(self.written),
            action,
            response_headers,
            encoded_slash: match relay.encoded_slash {
                file::EncodedSlash::Refuse => EncodedSlash::Refuse,
                file::EncodedSlash::Allow => EncodedSlash::Allow,
            },
            auth: auth(self.file, self.written),
            access: access(self.file, self.written, None),
            screen: route_screen(self.file, self.written),
            checks: throttle::checks(self.file, self.written, None),
        })
    }

    fn redirect(
        &mut self,
        template: &Template,
        redirect: &Located<file::Redirect>,
        relay: &file::Relay,
    ) -> Option<Redirect> {
        let backend = &self.written.backend;
        if !backend.is_empty() || !relay.split.is_empty() || relay.mirror.is_some() || relay.rewrite.is_some()
        {
            self.error(
                redirect.spot,
                "sends clients elsewhere, so that backend, split, mirror and rewrite of the same route do nothing",
            );
        }
        if redirect.scheme.is_none()
            && redirect.host.is_none()
            && redirect.prefix.is_none()
            && redirect.path.is_none()
        {
            self.error(
                redirect.spot,
                "names nothing that changes; write scheme, host, prefix or path",
            );
        }
        let status = match redirect.status.value {
            status @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(status).ok(),
            _ => None,
        };
        let status = self.taken(
            redirect.status.spot,
            status.ok_or_else(|| "is no status of a redirect; write 301, 302, 303, 307 or 308".to_owned()),
        )?;
        let scheme = match &redirect.scheme {
            None => None,
            Some(written) => {
                let made = match written.as_str() {
                    "http" => Ok(Scheme::HTTP),
                    "https" => Ok(Scheme::HTTPS),
                    _ => Err("is no scheme; write http or https".to_owned()),
                };
                Some(self.taken(written.spot, made)?)
            }
        };
        let host = match &redirect.host {
            None => None,
            Some(written) => {
                let made = written.parse::<Authority>();
                let made = made
                    .ok()
                    .filter(|made| !made.as_str().contains('@'))
                    .ok_or_else(|| format!("\"{}\" is no host", written.value));
                Some(self.taken(written.spot, made)?)
            }
        };
        let rewrite = self.rewrite(
            template,
            redirect.spot,
            redirect.prefix.as_ref(),
            redirect.path.as_ref(),
        )?;
        Some(Redirect {
            status,
            scheme,
            host,
            rewrite,
        })
    }

    fn relay(&mut self, template: &Template, relay: &file::Relay, limits: &Limits) -> Option<Relay> {
        let backend = &self.written.backend;
        let mut shares = Vec::new();
        if relay.split.is_empty() {
            shares.push((self.backend(backend)?, 1));
        } else if !backend.is_empty() {
            self.error(
                backend.spot,
                "is named beside split, which names the backends itself",
            );
        }
        for share in &relay.split {
            shares.push((self.backend(&share.backend)?, share.weight.0));
        }
        let speaks = |at: usize| self.file.backends.values().nth(at).map(|group| group.protocol);
        let protocol = shares.first().and_then(|(at, _)| speaks(*at));
        if let Some(other) = relay
            .split
            .iter()
            .zip(&shares)
            .find_map(|(share, (at, _))| (speaks(*at) != protocol).then_some(&share.backend))
        {
            self.error(
                other.spot,
                format!(
                    "\"{}\" speaks another protocol than the backend before it",
                    other.value
                ),
            );
        }
        let carries = match protocol {
            Some(file::Protocol::WebSocket) => {
                let websocket = &self.written.websocket;
                Carries::WebSocket(Box::new(websocket.over(limits, limits.max_message_bytes)))
            }
            Some(file::Protocol::Grpc | file::Protocol::Rest) | None => {
                if self.written.websocket != file::WebSocketSection::default() {
                    let message = "speaks HTTP, so that \"websocket\" beside it does nothing; WebSockets of a path need `protocol: websocket`";
                    self.error(backend.spot, message);
                }
                Carries::Http
            }
        };
        let mirror = match &relay.mirror {
            None => None,
            Some(mirror) => {
                if !(1..=100).contains(&mirror.percent.value) {
                    self.error(mirror.percent.spot, "is no percentage from 1 to 100");
                }
                if carries != Carries::Http {
                    self.error(
                        mirror.backend.spot,
                        "can't have copies of what goes to WebSockets",
                    );
                }
                Some((self.backend(&mirror.backend)?, mirror.percent.value))
            }
        };
        let rewrite = match &relay.rewrite {
            None => Rewrite::None,
            Some(written) => self.rewrite(
                template,
                written.spot,
                written.prefix.as_ref(),
                written.path.as_ref(),
            )?,
        };
        let group = shares
            .first()
            .and_then(|(at, _)| self.file.backends.values().nth(*at));
        let patience = self
            .written
            .timeout
            .or_else(|| group.and_then(|group| group.timeout.request));
        Some(Relay {
            carries,
            shares,
            mirror,
            rewrite,
            request_headers: self.headers(&relay.request_headers),
            host: match relay.host {
                file::AskedHost::Endpoint => AskedHost::Endpoint,
                file::AskedHost::Client => AskedHost::Client,
            },
            patience: patience.map_or(limits.request_timeout, |period| period.0),
        })
    }

    /// The index of a backend that speaks HTTP or WebSocket; a name that is not there was told when the file was read.
    fn backend(&mut self, name: &Located<String>) -> Option<usize> {
        let (at, (_, group)) = self
            .file
            .backends
            .iter()
            .enumerate()
            .find(|(_, (known, _))| **known == name.value)?;
        if group.protocol == file::Protocol::Grpc {
            let message = format!(
                "\"{}\" speaks gRPC; paths are relayed to backends with `protocol: rest` or `protocol: websocket`",
                name.value
            );
            self.error(name.spot, message);
            return None;
        }
        Some(at)
    }

    fn rewrite(
        &mut self,
        template: &Template,
        spot: Spot,
        prefix: Option<&Located<String>>,
        path: Option<&Located<String>>,
    ) -> Option<Rewrite> {
        match (prefix, path) {
            (None, None) => Some(Rewrite::None),
            (Some(prefix), None) => {
                let made = Rewrite::prefix(template, prefix);
                self.taken(
                    prefix.spot,
                    made.map_err(|error| format!("\"{}\" {error}", prefix.value)),
                )
            }
            (None, Some(path)) => {
                let made = Rewrite::path(template, path);
                self.taken(
                    path.spot,
                    made.map_err(|error| format!("\"{}\" {error}", path.value)),
                )
            }
            (Some(_), Some(_)) => {
                self.error(spot, "has both prefix and path; write one of them");
                None
            }
        }
    }

    fn headers(&mut self, written: &file::HeaderChanges) -> HeaderEdit {
        let mut edit = HeaderEdit::default();
        for name in &written.remove {
            edit.remove.extend(self.name(name.spot, name));
        }
        edit.set = self.lines(&written.set);
        edit.add = self.lines(&written.add);
        edit
    }

    fn lines(&mut self, written: &BTreeMap<String, Located<String>>) -> Vec<(HeaderName, HeaderValue)> {
        let mut lines = Vec::new();
        for (name, value) in written {
            let name = self.name(value.spot, name);
            let made = HeaderValue::from_str(value)
                .map_err(|_| "has a character that no header value holds".to_owned());
            lines.extend(name.zip(self.taken(value.spot, made)));
        }
        lines
    }

    fn name(&mut self, spot: Spot, text: &str) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| format!("\"{text}\" is no name of a header"))
            .and_then(|name| {
                let own = NOT_TO_CHANGE.contains(&name.as_str())
                    || name.as_str().starts_with("proxy-")
                    || name.as_str().starts_with("x-sabir-");
                if own {
                    Err(format!("{name} is written by the gateway itself"))
                } else {
                    Ok(name)
                }
            });
        self.taken(spot, name)
    }
}

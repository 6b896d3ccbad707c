//! `sabir explain`: what would become of a request.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use tokio::runtime::Builder;
use tokio_util::task::TaskTracker;

use super::{Failure, answer, load};
use crate::config::Plan;
use crate::describe::explain::{Explanation, Guard};
use crate::gateway;
use crate::peer::Peer;
use crate::policy::{Decision, Desk, Setup};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    file: PathBuf,
    /// The request's method.
    method: Method,
    /// The request's URL, or its path alone.
    url: Target,
    /// A header of the request, such as `x-user: ada`.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Header>,
    /// The body of the request.
    #[arg(short = 'd', long = "data", value_name = "BODY", allow_hyphen_values = true)]
    body: Option<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
}

/// The target of a request: a URL with a host, or a path.
#[derive(Clone, Debug)]
struct Target(Uri);

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("{error}; write /v1/books or http://HOST/v1/books"))?;
        if uri.path().starts_with('/') && (uri.scheme().is_some() || uri.authority().is_none()) {
            Ok(Self(uri))
        } else {
            Err("write a path such as /v1/books, or a URL such as http://HOST/v1/books".to_owned())
        }
    }
}

#[derive(Clone, Debug)]
struct Header(HeaderName, HeaderValue);

impl std::str::FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("a header is written `name: value`")?;
        let name = name
            .trim()
            .parse()
            .map_err(|_| format!("\"{}\" is no name of a header", name.trim()))?;
        let value =
            HeaderValue::from_str(value.trim()).map_err(|_| "the value can't be in a header".to_owned())?;
        Ok(Self(name, value))
    }
}

/// What the gate decides about a request from this address, and the headers that it lets pass.
fn ask(
    plan: &Plan,
    guard: Guard<'_>,
    mut head: Parts,
    from: IpAddr,
) -> Result<(Decision, HeaderMap), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Desks have tasks.
    let _entered = runtime.enter();
    let mut desks = Vec::new();
    for (at, setup) in plan.auth.iter().enumerate() {
        // The others are not asked; their place is kept.
        let setup = if Some(at) == guard.auth {
            setup.clone()
        } else {
            Setup::default()
        };
        let authenticator = runtime.block_on(load::authenticator(&setup))?;
        desks.push(Arc::new(Desk::new(Arc::new(authenticator), &TaskTracker::new())));
    }
    let mut gate =
        gateway::gate(guard.auth, guard.access, guard.cors, &desks).screened(guard.screen.cloned());
    if guard.forms {
        gate = gate.taking_forms();
    }
    let peer = Peer::new((from, 0).into(), false, false, Vec::new());
    let decision = runtime.block_on(gate.explain(&mut head, &peer));
    Ok((decision, head.headers))
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let plan = load::plan(&self.file)?;
        let body = self.body.clone();
        let from = self.from;
        let head = self.head();
        let mut explanation = Explanation::new(&plan, &head, body.as_deref().map(str::as_bytes)).from(from);
        if let Some(guard) = explanation.guard() {
            let (decision, headers) = ask(&plan, guard, head.clone(), from)?;
            explanation = explanation.decided(decision, headers);
        }
        answer(&explanation)?;
        if explanation.sends() {
            Ok(())
        } else {
            Err(Failure::Refused)
        }
    }

    fn head(self) -> Parts {
        let mut request = Request::new(());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.url.0;
        for Header(name, value) in self.headers {
            request.headers_mut().append(name, value);
        }
        request.into_parts().0
    }
}

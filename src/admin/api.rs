//! The admin service behind the gateway's own frontends and transcoder: whatever a client of the gateway can speak, an
//! operator can.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Request, Response};
use prost::Message;
use thiserror::Error;
use tokio::time::Instant;

use super::generated::DESCRIPTORS;
use super::operator::Operator;
use crate::backend::own::{self, Answers, Own};
use crate::backend::reflection::Reflection;
use crate::config::plan::Found;
use crate::config::{self, Plan, SchemaState};
use crate::fault::{Fault, Kind};
use crate::frontend::{self, Admitted, refuse};
use crate::gateway;
use crate::identify::identify;
use crate::peer::Peer;
use crate::policy::Gate;
use crate::route::entry::Offer;
use crate::route::{Captures, Entry};
use crate::schema::{Rules, Schema, SchemaError};
use crate::stack::{self, CallService};
use crate::translate::Hygiene;
use crate::translate::Tally;
use crate::translate::json::Target;
use crate::wire::body::Body;
use crate::wire::received::Received;
use crate::wire::{Addressing, Dialect};

/// The admin service as a configuration: its endpoint is never called.
const CONFIGURATION: &str = "\
limits: {max_message_bytes: 64MiB}
backends:
  admin: {endpoints: [\"http://127.0.0.1:1\"], schema: {registry: admin}}
routes:
  - {services: [\"*\"], backend: admin, json: {emit_defaults: true}}
";

/// The largest answer that is written outside of a call.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why the admin service can't be served: what is built in does not fit together.
#[derive(Debug, Error)]
pub enum ApiError {
    /// Its descriptors.
    #[error("the descriptors of the admin service")]
    Schema(#[from] SchemaError),
    /// Its configuration.
    #[error("the configuration of the admin service: {0}")]
    Plan(String),
}

/// The admin service.
pub(super) struct Api {
    plan: Plan,
    /// In the order of the plan's entries.
    stacks: Vec<CallService>,
    own: Vec<(Own, CallService)>,
    gate: Gate,
}

impl Api {
    pub(super) fn new(operator: &Operator) -> Result<Self, ApiError> {
        let schema = Schema::from_descriptor_set(DESCRIPTORS, &Rules::empty())?;
        let wrong = |found: Vec<config::Diagnostic>| {
            ApiError::Plan(
                found
                    .iter()
                    .map(config::Diagnostic::brief)
                    .collect::<Vec<_>>()
                    .join("; "),
            )
        };
        let file = config::from_text("admin", Path::new(""), CONFIGURATION).map_err(wrong)?;
        let schemas = BTreeMap::from([("admin".to_owned(), SchemaState::Ready(Arc::new(schema)))]);
        let plan = config::compile(&file, &schemas).map_err(wrong)?;
        let params = stack::Params {
            hygiene: Hygiene::default(),
            idle_timeout: plan.limits.idle_timeout,
            revocable: true,
            asks_messages: false,
            pace: None,
        };
        let stacks = plan
            .entries
            .iter()
            .map(|_| stack::build(params, operator.clone()))
            .collect();
        let answered = |own: &Own| match own.answers {
            Answers::Reflection => true,
            // Whether services serve is asked at their own listeners.
            Answers::Health => false,
        };
        let own = own::all(&plan.limits, &Offer::Anybody)
            .into_iter()
            .filter(answered);
        let own = own.map(|own| {
            let stack = stack::build(params, Reflection::new(plan.reflection.clone()));
            (own, stack)
        });
        Ok(Self {
            own: own.collect(),
            stacks,
            gate: gateway::gate(None, None, None, &[]),
            plan,
        })
    }

    /// Answers a request whose sender may ask.
    pub(super) async fn serve(&self, request: Request<Received>, peer: Peer) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let spoken = identify(&head);
        let now = Instant::now();
        let (entry, found, stack) = match self.find(spoken.dialect, &head) {
            Ok(found) => found,
            Err(fault) => return refuse::refuse(spoken, &fault),
        };
        let admitted = match frontend::prepare(spoken.dialect, &mut head, &peer, &entry) {
            Ok(()) => self.gate.admit(&mut head, &peer, now).await,
            Err(fault) => Err(fault),
        };
        let permit = match admitted {
            Ok(permit) => permit,
            Err(fault) => return refuse::refuse(spoken, &fault),
        };
        let admitted = Admitted {
            head,
            body,
            format: spoken.format,
            entry,
            binding: found.binding,
            captures: found.captures,
            permit,
            tally: Arc::<Tally>::default(),
            now,
        };
        frontend::serve(spoken.dialect, admitted, stack).await
    }

    fn find(
        &self,
        dialect: Dialect,
        head: &http::request::Parts,
    ) -> Result<(Arc<Entry>, Found, CallService), Fault> {
        let missed = match self.plan.find(dialect, head) {
            Ok(found) => {
                let entry = self.plan.entries.get(found.entry).map(Arc::clone);
                let stack = self.stacks.get(found.entry).cloned();
                let missing =
                    || Fault::gateway(Kind::Internal, "the route table names an entry that is not there");
                let (entry, stack) = entry.zip(stack).ok_or_else(missing)?;
                return Ok((entry, found, stack));
            }
            Err(missed) => missed,
        };
        let is_asked = |(own, _): &&(Own, CallService)| *own.entry.method.path == *head.uri.path();
        let own = match dialect.addressing() {
            Addressing::RpcPath => self.own.iter().find(is_asked),
            Addressing::Rules | Addressing::Path => None,
        };
        let (own, stack) = own.ok_or(missed)?;
        let found = Found {
            entry: 0,
            binding: None,
            captures: Captures::default(),
        };
        Ok((Arc::clone(&own.entry), found, stack.clone()))
    }

    /// The JSON form of a message of the service.
    pub(super) fn json(&self, name: &str, message: &impl Message) -> Result<BytesMut, Fault> {
        let wrong = || Fault::gateway(Kind::Internal, "the answer has no JSON form");
        let json = &self.plan.entries.first().ok_or_else(wrong)?.json;
        let target = Target::Message(json.message(name).ok_or_else(wrong)?);
        let mut text = BytesMut::new();
        let wire = message.encode_to_vec();
        json.write(target, None, &wire, &mut text, MAX_ANSWER_BYTES)
            .map_err(|_| wrong())?;
        Ok(text)
    }
}

//! The admin service: what it answers, by the messages of `proto/sabir/admin/v1/admin.proto`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use prost::Message;
use tokio::time::Instant;
use tower::Service;

use super::controls::{Controls, Registered, RegistryError, Unheard, Upload, WhileInUse};
use super::generated as pb;
use super::readiness::{Readiness, State};
use crate::balance::Group;
use crate::balance::endpoint::Ejection;
use crate::balance::members::Member;
use crate::call::{Call, Reply};
use crate::config::Plan;
use crate::describe::inventory::Inventory;
use crate::describe::routes::Table;
use crate::fault::{Fault, Kind};
use crate::observe::level;
use crate::status::{Code, Status};
use crate::translate::messages::Direction;
use crate::translate::{End, Messages, Part};
use crate::upstream::connect::Speaks;

/// Answers the calls of the admin service.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) readiness: Arc<Readiness>,
    pub(super) controls: Controls,
}

impl Operator {
    /// The encoded answer to an encoded request.
    async fn answer(self, path: &str, request: Bytes) -> Result<Vec<u8>, Status> {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        match (service, method) {
            ("sabir.admin.v1.Admin", "GetStatus") => Ok(self.status().encode_to_vec()),
            ("sabir.admin.v1.Admin", "ListBackends") => Ok(self.backends().encode_to_vec()),
            ("sabir.admin.v1.Admin", "GetBackend") => {
                let wanted = read::<pb::GetBackendRequest>(request)?.name;
                let found = self
                    .backends()
                    .backends
                    .into_iter()
                    .find(|backend| backend.name == wanted);
                let absent = || Status::new(Code::NotFound, format!("no backend \"{wanted}\""));
                found.map(|backend| backend.encode_to_vec()).ok_or_else(absent)
            }
            ("sabir.admin.v1.Admin", "ListRoutes") => Ok(self.routes().encode_to_vec()),
            ("sabir.admin.v1.Admin", "GetPlan") => Ok(self.plan().encode_to_vec()),
            ("sabir.admin.v1.Admin", "Reload") => self.reload().await.map(|answer| answer.encode_to_vec()),
            ("sabir.admin.v1.Admin", "Drain") => {
                tracing::info!("told to drain");
                self.controls.end();
                Ok(pb::DrainResponse {}.encode_to_vec())
            }
            ("sabir.admin.v1.Admin", "GetLogLevel") => Ok(log_level()?.encode_to_vec()),
            ("sabir.admin.v1.Admin", "SetLogLevel") => {
                let wanted = read::<pb::LogLevel>(request)?.level;
                level::set(&wanted).map_err(|error| {
                    let code = match error {
                        level::LevelError::Directives(_) => Code::InvalidArgument,
                        level::LevelError::Fixed => Code::FailedPrecondition,
                    };
                    Status::new(code, error.to_string())
                })?;
                tracing::info!(level = wanted, "the log's level is set");
                Ok(log_level()?.encode_to_vec())
            }
            ("sabir.admin.v1.Schemas", "ListSchemas") => Ok(self.schemas().encode_to_vec()),
            ("sabir.admin.v1.Schemas", "GetSchema") => {
                let name = read::<pb::GetSchemaRequest>(request)?.name;
                let registry = self.controls.registry();
                let found = registry
                    .get(&name)
                    .ok_or_else(|| refused(&RegistryError::Absent(name.clone())))?;
                let answer = pb::SchemaWithFiles {
                    schema: Some(self.schema(&name, found)),
                    descriptor_set: found.set.clone(),
                };
                Ok(answer.encode_to_vec())
            }
            ("sabir.admin.v1.Schemas", "PutSchema") => {
                let request = read::<pb::PutSchemaRequest>(request)?;
                let upload = upload(request.source)?;
                self.put(request.name, upload)
                    .await
                    .map(|answer| answer.encode_to_vec())
            }
            ("sabir.admin.v1.Schemas", "DeleteSchema") => {
                let request = read::<pb::DeleteSchemaRequest>(request)?;
                let in_use = if request.force {
                    WhileInUse::Forget
                } else {
                    WhileInUse::Refuse
                };
                let outcome = self
                    .controls
                    .delete_schema(request.name, in_use)
                    .await
                    .map_err(unheard)?;
                outcome.map_err(|error| refused(&error))?;
                Ok(pb::DeleteSchemaResponse {}.encode_to_vec())
            }
            _ => Err(Status::new(Code::Unimplemented, format!("no method {path}"))),
        }
    }

    fn status(&self) -> pb::GatewayStatus {
        let prepared = self.controls.plan();
        let plan = &prepared.plan;
        let disabled = plan
            .disabled
            .iter()
            .map(|disabled| format!("{}: {}: {}", disabled.method, disabled.rule, disabled.reason));
        pb::GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: match self.readiness.state() {
                State::Starting => "starting",
                State::Ready => "ready",
                State::Draining => "draining",
            }
            .to_owned(),
            generation: plan.generation,
            pending: self.readiness.pending(),
            reload_errors: self.readiness.reload_errors(),
            methods: count(plan.entries.len()),
            disabled_rules: disabled.collect(),
        }
    }

    fn backends(&self) -> pb::ListBackendsResponse {
        let prepared = self.controls.plan();
        let plan = &prepared.plan;
        let now = Instant::now();
        let group = |at| prepared.group(at);
        let backends = plan.backends.iter().enumerate().map(|(at, backend)| pb::Backend {
            name: backend.name.clone(),
            protocol: match backend.speaks {
                Speaks::Http2 => "HTTP/2",
                Speaks::Http1 => "HTTP/1.1, or what TLS agrees on",
                Speaks::Http1Alone => "HTTP/1.1",
            }
            .to_owned(),
            load_balancing: backend.balancing.policy.name().to_owned(),
            endpoints: group(at).map_or_else(Vec::new, |group| endpoints(group, now)),
            healthy: group(at).map_or(0, |group| count(group.healthy())),
            panics: group(at).is_some_and(|group| group.panics()),
            circuit: group(at)
                .and_then(|group| group.circuit(now))
                .map_or_else(String::new, |circuit| circuit.name().to_owned()),
            schema_pending: pending(plan, &backend.name),
        });
        pb::ListBackendsResponse {
            backends: backends.collect(),
        }
    }

    fn routes(&self) -> pb::ListRoutesResponse {
        let prepared = self.controls.plan();
        let rows = Table::new(&prepared.plan).rows();
        let line = |[method, path, rpc, _kind, _body, _hosts, route, backend, _dialects]: [String; 9]| {
            pb::RouteLine {
                method,
                path,
                rpc: if rpc == "-" { String::new() } else { rpc },
                route,
                backend,
            }
        };
        pb::ListRoutesResponse {
            routes: rows.into_iter().map(line).collect(),
        }
    }

    fn plan(&self) -> pb::Plan {
        let prepared = self.controls.plan();
        let pieces = Inventory::of(&prepared.plan);
        pb::Plan {
            generation: prepared.plan.generation,
            pieces: pieces
                .pieces()
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .collect(),
        }
    }

    async fn reload(&self) -> Result<pb::ReloadResponse, Status> {
        let reloaded = self.controls.reload().await.map_err(unheard)?;
        Ok(pb::ReloadResponse {
            generation: reloaded.generation,
            errors: reloaded.errors,
            warnings: reloaded.warnings,
            changes: reloaded.changes,
            after_restart: reloaded.after_restart,
        })
    }

    fn schemas(&self) -> pb::ListSchemasResponse {
        let registry = self.controls.registry();
        pb::ListSchemasResponse {
            schemas: registry
                .iter()
                .map(|(name, found)| self.schema(name, found))
                .collect(),
        }
    }

    fn schema(&self, name: &str, registered: &Registered) -> pb::Schema {
        let prepared = self.controls.plan();
        let goes_by = |backend: &&crate::config::plan::Backend| backend.registry.as_deref() == Some(name);
        let backends = prepared.plan.backends.iter().filter(goes_by);
        pb::Schema {
            name: name.to_owned(),
            revision: registered.revision,
            fingerprint: format!("{:016x}", registered.fingerprint),
            services: registered.services.clone(),
            methods: count(registered.methods),
            files: count(registered.files),
            backends: backends.map(|backend| backend.name.clone()).collect(),
        }
    }

    /// Registers a schema.
    ///
    /// # Errors
    /// The status that the operator is told.
    ///
    /// # Cancel safety
    /// It is registered all the same.
    pub(super) async fn put(&self, name: String, upload: Upload) -> Result<pb::PutSchemaResponse, Status> {
        let outcome = self
            .controls
            .put_schema(name.clone(), upload)
            .await
            .map_err(unheard)?;
        let put = outcome.map_err(|error| refused(&error))?;
        Ok(pb::PutSchemaResponse {
            schema: Some(self.schema(&name, &put.registered)),
            warnings: put.warnings,
            changes: put.changes,
        })
    }
}

impl Service<Call> for Operator {
    type Response = Reply;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let operator = self.clone();
        Box::pin(async move {
            let mut messages = call.messages;
            let (bounds, tally) = (messages.bounds(), Arc::clone(messages.tally()));
            let Some(Part::Message(request)) = messages.next().await? else {
                return Err(Fault::client(Kind::InvalidArgument, "the request has no message"));
            };
            let path = &*call.method.path;
            let messages = match operator.answer(path, request).await {
                Ok(answer) => {
                    let parts = [
                        Ok(Part::Message(answer.into())),
                        Ok(Part::End(End::new(Status::OK))),
                    ];
                    Messages::stream(Box::pin(stream::iter(parts)), Direction::Reply, bounds, tally)
                }
                Err(status) => Messages::ended(End::new(status), bounds, tally),
            };
            Ok(Reply {
                metadata: HeaderMap::new(),
                messages,
            })
        })
    }
}

fn read<M: Message + Default>(request: Bytes) -> Result<M, Status> {
    M::decode(request).map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
}

fn log_level() -> Result<pb::LogLevel, Status> {
    let level = level::now();
    let level =
        level.ok_or_else(|| Status::new(Code::FailedPrecondition, level::LevelError::Fixed.to_string()))?;
    Ok(pb::LogLevel { level })
}

fn upload(source: Option<pb::put_schema_request::Source>) -> Result<Upload, Status> {
    use pb::put_schema_request::Source;
    match source {
        Some(Source::DescriptorSet(set)) => Ok(Upload::Set(set)),
        Some(Source::ProtoFiles(files)) => {
            let mut texts = BTreeMap::new();
            for file in files.files {
                if texts.insert(file.name.clone(), file.text).is_some() {
                    let message = format!("{}: the file is there twice", file.name);
                    return Err(Status::new(Code::InvalidArgument, message));
                }
            }
            Ok(Upload::Files(texts))
        }
        None => Err(Status::new(
            Code::InvalidArgument,
            "there is neither descriptorSet nor protoFiles; send one of them, or PUT a descriptor set as \
             application/x-protobuf, a ZIP archive of .proto files as application/zip, or a form of them",
        )),
    }
}

/// How each endpoint of a backend is.
fn endpoints(group: &Group, now: Instant) -> Vec<pb::Endpoint> {
    let slow_start = group.settings().slow_start.unwrap_or_default();
    let members = group.members();
    let state = |member: &Member| {
        let endpoint = &member.endpoint;
        let ejections = Ejection::ALL.into_iter().filter_map(|why| {
            let times = endpoint.ejections(why);
            (times > 0).then(|| (why.name().to_owned(), times))
        });
        pb::Endpoint {
            url: endpoint.uri.to_string(),
            in_flight: u64::try_from(endpoint.in_flight()).unwrap_or(u64::MAX),
            healthy: endpoint.is_healthy(),
            down: endpoint.is_down(),
            ejected: endpoint.is_ejected(),
            warming_up: endpoint.is_warming(slow_start, now),
            calls: endpoint.calls(),
            ejections: ejections.collect(),
            weight: member.weight,
            zone: member.zone.as_deref().unwrap_or_default().to_owned(),
        }
    };
    members.list().iter().map(state).collect()
}

fn pending(plan: &Plan, backend: &str) -> String {
    let pending = plan.pending.iter().find(|pending| pending.backend == backend);
    pending.map_or_else(String::new, |pending| pending.reason.clone())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn unheard(unheard: Unheard) -> Status {
    Status::new(Code::Unavailable, unheard.to_string())
}

fn refused(error: &RegistryError) -> Status {
    let code = match error {
        RegistryError::Name(_) | RegistryError::Schema(_) | RegistryError::Plan(_) => Code::InvalidArgument,
        RegistryError::Absent(_) => Code::NotFound,
        RegistryError::Full(_) => Code::ResourceExhausted,
        RegistryError::InUse(_) => Code::FailedPrecondition,
        RegistryError::Kept(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

//! `sabir demo`: the embedded example service with a gateway in front of it.

use std::net::SocketAddr;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::{Failure, answer, logs, serve::failure};
use crate::config::file::{DEFAULT_ADMIN, DEFAULT_LISTEN};
use crate::config::value::{Address, Endpoint};
use crate::config::{Flags, Source, told};
use crate::demo;
use crate::observe::LogFormat;
use crate::serve;

/// Runs both until a signal ends the gateway.
pub(super) fn run(format: LogFormat) -> Result<(), Failure> {
    logs::start(format);
    let failed = |error: &dyn std::error::Error| Failure::Failed(told(error));
    // The service has threads of its own, as a backend has.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("library")
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let listener = runtime.block_on(demo::listen()).map_err(|error| failed(&error))?;
    let service = listener.local_addr().map_err(|error| failed(&error))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = runtime.spawn(demo::serve(listener, async {
        // A sender that is gone means the same as its word.
        let _ = stopped.await;
    }));
    let outcome = serve::run(
        &source(service).map_err(Failure::Failed)?,
        format,
        None,
        |addresses| {
            if let Some(gateway) = addresses.listeners.first() {
                // Without anybody to read the page the gateway serves all the same.
                let _ = answer(demo::page(*gateway, service));
            }
        },
    );
    drop(stop);
    match runtime.block_on(serving) {
        Ok(Ok(())) => outcome.map_err(failure),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// A gateway in front of the service, on the usual ports or the next free ones.
fn source(service: SocketAddr) -> Result<Source, String> {
    let free = |wanted| demo::free_port(wanted).map(Address).map_err(|error| told(&error));
    Ok(Source::flags(Flags {
        backend: format!("http://{service}").parse::<Endpoint>()?,
        protos: Vec::new(),
        proto_paths: Vec::new(),
        descriptors: None,
        listen: Some(free(DEFAULT_LISTEN)?),
        admin: Some(free(DEFAULT_ADMIN)?),
    }))
}

//! `sabir serve`: a gateway from a file, or in front of one backend.

use std::path::PathBuf;

use clap::{Args, value_parser};

use super::{Failure, logs};
use crate::config::value::{Address, Count, Endpoint};
use crate::config::{Flags, Source, SourceKind, told};
use crate::observe::LogFormat;
use crate::serve::{self, ServeError};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").args(["config", "backend"]).required(true))]
pub(super) struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One gRPC backend, of which every method is exposed: http://HOST:PORT or https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    backend: Option<Endpoint>,
    /// Its `.proto` files, or folders of them, instead of asking it by reflection.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "backend", conflicts_with_all = ["config", "descriptors"])]
    proto: Vec<PathBuf>,
    /// Where their imports are; by default the folder of each file.
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "proto")]
    proto_path: Vec<PathBuf>,
    /// Its descriptor set, as `protoc --include_imports --descriptor_set_out` writes it.
    #[arg(long, value_name = "FILE", requires = "backend", conflicts_with = "config")]
    descriptors: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR", requires = "backend", conflicts_with = "config")]
    listen: Option<Address>,
    /// Where the admin listener is [default: 127.0.0.1:9901].
    #[arg(long, value_name = "ADDR", requires = "backend", conflicts_with = "config")]
    admin: Option<Address>,
    /// Worker threads [default: one per core, or what the configuration says].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    workers: Option<u32>,
    /// Take over the sockets of the gateway that offers them at this UNIX socket, if there is one, and offer them to the
    /// next: a restart that loses no connection.
    #[arg(long, value_name = "SOCKET")]
    takeover: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self, format: LogFormat) -> Result<(), Failure> {
        let handover = self.takeover.clone();
        let source = self.source()?;
        logs::start(format);
        serve::run(&source, format, handover.as_deref(), |_| {}).map_err(failure)
    }

    fn source(self) -> Result<Source, Failure> {
        let workers = self.workers.map(Count);
        let kind = match (self.config, self.backend) {
            (Some(path), _) => SourceKind::File(path),
            (None, Some(backend)) => SourceKind::Flags(Box::new(Flags {
                backend,
                protos: self.proto,
                proto_paths: self.proto_path,
                descriptors: self.descriptors,
                listen: self.listen,
                admin: self.admin,
            })),
            // The group asks for one of the two.
            (None, None) => {
                return Err(Failure::Failed(
                    "neither --config nor --backend is given".to_owned(),
                ));
            }
        };
        Ok(Source { kind, workers })
    }
}

/// Why a gateway did not run.
pub(super) fn failure(error: ServeError) -> Failure {
    match error {
        ServeError::Config(found) => Failure::Config(found),
        error => Failure::Failed(told(&error)),
    }
}

//! Where schemas come from: a server that answers reflection, `.proto` files on disk.
//!
//! What is found is handed to [`crate::schema`], which reads no file and opens no socket.

pub mod endpoints;
pub mod proto_files;
pub mod reflection;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::schema::SchemaError;
use crate::schema::reflection::DialogueError;
use crate::status::Code;

/// Why no schema was found.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// The endpoint is not an address that can be asked.
    #[error("{endpoint}: {problem}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with it.
        problem: EndpointProblem,
    },
    /// The server can't be reached.
    #[error("{endpoint} can't be reached")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server has no reflection service, neither v1 nor v1alpha.
    #[error("{endpoint} does not answer reflection; give its .proto files or a descriptor set")]
    NoReflection {
        /// The endpoint.
        endpoint: String,
    },
    /// The server refuses to answer.
    #[error("{endpoint} does not answer reflection: {code}: {message}")]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// The status code.
        code: Code,
        /// What the server says about it.
        message: String,
    },
    /// The connection broke while the server was asked; so it does where the server speaks HTTP/1.1 alone.
    #[error("{endpoint} broke the connection; gRPC is spoken over HTTP/2")]
    Broken {
        /// The endpoint.
        endpoint: String,
        /// What was seen of it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server's answers make no sense, or there are too many.
    #[error("{endpoint}: {source}")]
    Dialogue {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with them.
        source: DialogueError,
    },
    /// Not all was learned in time.
    #[error("{endpoint} did not tell its schema within {} ms", .after.as_millis())]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// The time that it had.
        after: Duration,
    },
    /// A file or folder can't be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such file or folder.
    #[error("{}: no such file or folder{}", .path.display(), Searched(.searched))]
    Absent {
        /// The file or folder.
        path: PathBuf,
        /// The folders below which it was looked for.
        searched: Vec<PathBuf>,
    },
    /// A folder holds no `.proto` file, or too many, or too deep.
    #[error("{}: {problem}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: FolderProblem,
    },
    /// Two files are imported by one name.
    #[error("{} and {} are both imported as {name:?}; give the folder that both lie in as a proto path", .first.display(), .second.display())]
    SameName {
        /// The name.
        name: String,
        /// The one that was found first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// An import is not below any of the folders.
    #[error("{source}{}", Searched(.searched))]
    Import {
        /// Which file wants what.
        source: SchemaError,
        /// The folders below which it was looked for.
        searched: Vec<PathBuf>,
    },
    /// The files make no schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// What is wrong with an endpoint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EndpointProblem {
    /// The scheme is neither http nor https.
    #[error("an endpoint is http://HOST:PORT or https://HOST:PORT")]
    Scheme,
    /// There is no host in it, or one that TLS can't check.
    #[error("it has no valid host")]
    Host,
    /// It is https, and no TLS configuration was given.
    #[error("it needs TLS, and none is configured")]
    Tls,
}

/// What is wrong with a folder of `.proto` files.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FolderProblem {
    /// There is none in it.
    #[error("no .proto file in this folder")]
    Empty,
    /// Folders lie within folders more often than anybody does it, or a link leads back.
    #[error("folders are nested more than {limit} times")]
    Deep {
        /// How deep they may be.
        limit: usize,
    },
    /// More files than a schema may have.
    #[error("more than {limit} files")]
    Many {
        /// How many may be.
        limit: usize,
    },
}

/// The end of a message that says where something was looked for.
struct Searched<'a>(&'a [PathBuf]);

impl fmt::Display for Searched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, folder) in self.0.iter().enumerate() {
            let before = if at == 0 { "; looked in " } else { ", " };
            let shown = if folder.as_os_str().is_empty() {
                ".".into()
            } else {
                folder.display().to_string()
            };
            write!(f, "{before}{shown}")?;
        }
        Ok(())
    }
}

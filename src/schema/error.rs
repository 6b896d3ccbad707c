//! Why a schema could not be built.

use thiserror::Error;

use super::editions::EditionError;
use super::raw::Malformed;

/// Why files, a descriptor set or sources make no schema.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SchemaError {
    /// The bytes are not an encoded `FileDescriptorSet`.
    #[error("not a descriptor set: {0}")]
    Set(Malformed),
    /// The bytes of one file are not an encoded `FileDescriptorProto` with a name.
    #[error("descriptor number {position}: {problem}")]
    File {
        /// Which of the files, counted from 1.
        position: usize,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// Two different files have one name.
    #[error("{file}: two different descriptors have this name")]
    Conflict {
        /// The name.
        file: String,
    },
    /// A file imports another that is not there.
    #[error("{wanted_by}: import {import:?} is not among the files")]
    MissingImport {
        /// The file that is not there.
        import: String,
        /// The file that imports it.
        wanted_by: String,
    },
    /// Files import each other in a circle.
    #[error("files import each other in a circle: {}", .files.join(", "))]
    Cycle {
        /// Files on the circle and files that import them, sorted.
        files: Vec<String>,
    },
    /// More files than the limit.
    #[error("{files} files are more than {limit}")]
    TooManyFiles {
        /// How many there are.
        files: usize,
        /// How many may be.
        limit: usize,
    },
    /// More bytes than the limit.
    #[error("descriptors of {bytes} bytes are more than {limit}")]
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many may be.
        limit: usize,
    },
    /// The files don't fit together: an unknown type, a name declared twice, a number used twice.
    #[error("{}{problem}", .file.as_deref().map(|file| format!("{file}: ")).unwrap_or_default())]
    Descriptor {
        /// The file in which it shows, where that is known.
        file: Option<String>,
        /// What is wrong.
        problem: String,
    },
    /// A `.proto` source does not compile.
    #[error("{file}{}: {problem}", .place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default())]
    Source {
        /// The source file.
        file: String,
        /// Line and column, from 1.
        place: Option<(usize, usize)>,
        /// What is wrong.
        problem: String,
    },
}

/// What is wrong with one encoded file.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FileProblem {
    /// It is not a message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It has no name.
    #[error("it has no name")]
    Nameless,
    /// A name in it is not UTF-8, or a field is of another type.
    #[error("it is not a FileDescriptorProto")]
    Form,
}

impl From<EditionError> for SchemaError {
    fn from(error: EditionError) -> Self {
        let problem = error.reason.to_string();
        Self::Descriptor {
            file: Some(error.file).filter(|file| !file.is_empty()),
            problem,
        }
    }
}

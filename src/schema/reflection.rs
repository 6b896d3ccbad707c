//! Learning a schema from a server by reflection, without a socket.
//!
//! [`Dialogue`] says what to ask next and takes the answers in order; whoever drives it carries them over the wire.
//! Source: `grpc.reflection.v1.ServerReflection`, which v1alpha equals but for its name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use super::error::{FileProblem, SchemaError};
use super::files::Header;
use super::is_reflection;
use crate::status::Code;

/// A question to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The names of all services.
    Services,
    /// The file that declares the service of this name.
    Symbol(String),
    /// The file of this name.
    File(String),
}

/// The server's answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The names of all services.
    Services(Vec<String>),
    /// Encoded files: the one that was asked for and perhaps others that it imports.
    Files(Vec<Bytes>),
    /// It has no answer.
    Refused {
        /// The status code.
        code: Code,
        /// What the server says about it.
        message: String,
    },
    /// An answer to something that was not asked.
    Other,
}

/// How much a server may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialogueLimits {
    /// Services that are asked for.
    pub services: usize,
    /// Files that are kept.
    pub files: usize,
    /// Bytes of all files together.
    pub bytes: usize,
}

impl Default for DialogueLimits {
    /// 4,096 services, 8,192 files, 64 MiB: more than one server has, less than what hurts.
    fn default() -> Self {
        Self {
            services: 4_096,
            files: 8_192,
            bytes: 64 << 20,
        }
    }
}

/// Why the dialogue as a whole failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DialogueError {
    /// The server does not list its services.
    #[error("the server does not list its services: {code}: {message}")]
    Refused {
        /// The status code.
        code: Code,
        /// What the server says about it.
        message: String,
    },
    /// An answer does not fit its question.
    #[error("the server's answer does not fit the question {0:?}")]
    Unexpected(Ask),
    /// An answer came without a question.
    #[error("the server answers without being asked")]
    Unasked,
    /// The server tells more than the limit.
    #[error("the server tells more than {limit} {what}")]
    TooMuch {
        /// What is counted: services, files or bytes.
        what: &'static str,
        /// How many may be.
        limit: usize,
    },
    /// The server lists services and describes none.
    #[error("the server describes none of its services; {0}")]
    Nothing(Undescribed),
}

/// A service that was listed and could not be learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undescribed {
    /// Its full name.
    pub service: String,
    /// Why.
    pub reason: UndescribedReason,
}

/// Why a service could not be learned.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UndescribedReason {
    /// The server does not give the file that declares it.
    #[error("the server does not describe it: {code}: {message}")]
    Refused {
        /// The status code.
        code: Code,
        /// What the server says about it.
        message: String,
    },
    /// The server gives files, and none of them declares it.
    #[error("the server's answer does not declare it")]
    Absent,
    /// A file that its file needs is malformed.
    #[error("a file that the server sent: {0}")]
    File(#[from] FileProblem),
    /// Its files make no schema.
    #[error(transparent)]
    Schema(#[from] Box<SchemaError>),
}

impl fmt::Display for Undescribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {} is left out: {}", self.service, self.reason)
    }
}

/// What a server told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Encoded files in the order of their names; imports that neither the server nor the gateway has are absent.
    pub files: Vec<Bytes>,
    /// The full names of the described services, sorted, without `grpc.reflection.*`.
    pub services: Vec<String>,
    /// Services that the server listed and could not describe.
    pub warnings: Vec<Undescribed>,
}

impl Learned {
    /// What is left when only services count whose files, by themselves, pass `check`; and the others.
    pub(super) fn sift(&self, check: impl Fn(&Self) -> Result<(), SchemaError>) -> (Self, Vec<Undescribed>) {
        let files: BTreeMap<String, (Header, &Bytes)> = self
            .files
            .iter()
            .filter_map(|bytes| Header::read(bytes).ok().map(|header| (header, bytes)))
            .map(|(header, bytes)| (header.name.clone(), (header, bytes)))
            .collect();
        let mut kept = BTreeSet::new();
        let mut sound = Self::default();
        let mut unsound = Vec::new();
        for service in &self.services {
            let needed = needed(&files, service);
            let alone = Self {
                files: needed
                    .iter()
                    .filter_map(|name| files.get(*name))
                    .map(|(_, bytes)| (*bytes).clone())
                    .collect(),
                services: vec![service.clone()],
                warnings: Vec::new(),
            };
            match check(&alone) {
                Ok(()) => {
                    sound.services.push(service.clone());
                    kept.extend(needed);
                }
                Err(error) => unsound.push(Undescribed {
                    service: service.clone(),
                    reason: Box::new(error).into(),
                }),
            }
        }
        sound.files = kept
            .iter()
            .filter_map(|name| files.get(*name))
            .map(|(_, bytes)| (*bytes).clone())
            .collect();
        (sound, unsound)
    }
}

/// The names of the files that a service needs.
fn needed<'a>(files: &'a BTreeMap<String, (Header, &Bytes)>, service: &str) -> BTreeSet<&'a str> {
    let mut needed = BTreeSet::new();
    let declares = |header: &&Header| {
        header
            .services
            .iter()
            .any(|each| header.full_name(&each.name) == service)
    };
    let mut waiting: Vec<&Header> = files
        .values()
        .map(|(header, _)| header)
        .filter(declares)
        .collect();
    while let Some(header) = waiting.pop() {
        if needed.insert(header.name.as_str()) {
            waiting.extend(
                header
                    .imports
                    .iter()
                    .filter_map(|import| files.get(import))
                    .map(|(header, _)| header),
            );
        }
    }
    needed
}

/// One conversation with one server.
#[derive(Debug)]
pub struct Dialogue {
    limits: DialogueLimits,
    /// To be asked, in order.
    queue: VecDeque<Ask>,
    /// Asked and not yet answered, in order.
    pending: VecDeque<Ask>,
    /// Every question so far, so that none is put twice.
    asked: BTreeSet<String>,
    services: BTreeSet<String>,
    /// By name. `files.len() <= limits.files`.
    files: BTreeMap<String, (Header, Bytes)>,
    /// The bytes of `files`. `bytes <= limits.bytes`.
    bytes: usize,
    refusals: BTreeMap<String, UndescribedReason>,
}

impl Dialogue {
    /// A dialogue that has not begun.
    pub fn new(limits: DialogueLimits) -> Self {
        Self {
            limits,
            queue: VecDeque::from([Ask::Services]),
            pending: VecDeque::new(),
            asked: BTreeSet::new(),
            services: BTreeSet::new(),
            files: BTreeMap::new(),
            bytes: 0,
            refusals: BTreeMap::new(),
        }
    }

    /// The next question; `None` while answers are awaited and when everything is known.
    pub fn ask(&mut self) -> Option<Ask> {
        while let Some(ask) = self.queue.pop_front() {
            if !self.is_known(&ask) {
                self.pending.push_back(ask.clone());
                return Some(ask);
            }
        }
        None
    }

    /// How many questions wait for an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The connection broke: what was not answered is asked again.
    pub fn interrupted(&mut self) {
        while let Some(ask) = self.pending.pop_back() {
            self.queue.push_front(ask);
        }
    }

    /// Takes the answer to the first question that waits for one.
    ///
    /// # Errors
    /// [`DialogueError`] where going on makes no sense.
    pub fn take(&mut self, answer: Answer) -> Result<(), DialogueError> {
        let ask = self.pending.pop_front().ok_or(DialogueError::Unasked)?;
        match (ask, answer) {
            (Ask::Services, Answer::Services(names)) => self.take_services(names),
            (Ask::Services, Answer::Refused { code, message }) => {
                Err(DialogueError::Refused { code, message })
            }
            (Ask::Symbol(name), Answer::Refused { code, message }) => {
                self.refusals
                    .insert(name, UndescribedReason::Refused { code, message });
                Ok(())
            }
            // The import stays missing; it matters only if something of it is used.
            (Ask::File(_), Answer::Refused { .. }) => Ok(()),
            (ask @ (Ask::Symbol(_) | Ask::File(_)), Answer::Files(files)) => self.take_files(&ask, files),
            (ask, Answer::Services(_) | Answer::Files(_) | Answer::Other) => {
                Err(DialogueError::Unexpected(ask))
            }
        }
    }

    /// What the server told.
    ///
    /// # Errors
    /// [`DialogueError::Nothing`] where the server has services and described none.
    pub fn finish(self) -> Result<Learned, DialogueError> {
        let declared: BTreeSet<String> = self
            .files
            .values()
            .flat_map(|(header, _)| {
                header
                    .services
                    .iter()
                    .map(|service| header.full_name(&service.name))
            })
            .collect();
        let (services, absent): (Vec<_>, Vec<_>) = self
            .services
            .into_iter()
            .partition(|service| declared.contains(service));
        let mut refusals = self.refusals;
        let warnings: Vec<Undescribed> = absent
            .into_iter()
            .map(|service| Undescribed {
                reason: refusals.remove(&service).unwrap_or(UndescribedReason::Absent),
                service,
            })
            .collect();
        match warnings.first() {
            Some(first) if services.is_empty() => Err(DialogueError::Nothing(first.clone())),
            _ => Ok(Learned {
                files: self.files.into_values().map(|(_, bytes)| bytes).collect(),
                services,
                warnings,
            }),
        }
    }

    fn is_known(&self, ask: &Ask) -> bool {
        match ask {
            Ask::Services => false,
            Ask::File(name) => self.files.contains_key(name),
            Ask::Symbol(name) => self.files.values().any(|(header, _)| {
                header
                    .services
                    .iter()
                    .any(|service| header.full_name(&service.name) == *name)
            }),
        }
    }

    fn take_services(&mut self, names: Vec<String>) -> Result<(), DialogueError> {
        for name in names {
            // A name that can't be one is not worth a question.
            if name.is_empty() || is_reflection(&name) || !self.services.insert(name.clone()) {
                continue;
            }
            if self.services.len() > self.limits.services {
                return Err(DialogueError::TooMuch {
                    what: "services",
                    limit: self.limits.services,
                });
            }
            self.queue.push_back(Ask::Symbol(name));
        }
        Ok(())
    }

    fn take_files(&mut self, ask: &Ask, files: Vec<Bytes>) -> Result<(), DialogueError> {
        for bytes in files {
            let header = match Header::read(&bytes) {
                Ok(header) => header,
                Err(problem) => {
                    if let Ask::Symbol(name) = ask {
                        self.refusals.insert(name.clone(), problem.into());
                    }
                    continue;
                }
            };
            if self.files.contains_key(&header.name) {
                continue;
            }
            self.bytes = self.bytes.saturating_add(bytes.len());
            let too_much = |what, limit| Err(DialogueError::TooMuch { what, limit });
            if self.bytes > self.limits.bytes {
                return too_much("bytes", self.limits.bytes);
            }
            if self.files.len() >= self.limits.files {
                return too_much("files", self.limits.files);
            }
            for import in &header.imports {
                // What is embedded is asked for too: the server's own release fits its other files best.
                if !self.files.contains_key(import) && self.asked.insert(import.clone()) {
                    self.queue.push_back(Ask::File(import.clone()));
                }
            }
            self.files.insert(header.name.clone(), (header, bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! A failure on its way up: each level adds its part of the path.

use super::super::MAX_DEPTH;
use super::super::error::{WireError, WireReason};
use super::input::Broken;

/// Boxed, so that a result is one register.
pub(super) type Fail = Box<Failure>;

pub(super) type Done = Result<(), Fail>;

#[derive(Debug)]
pub(super) struct Failure {
    reason: WireReason,
    /// From the inside out.
    path: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Field(Box<str>),
    Index(usize),
}

impl Failure {
    #[cold]
    #[inline(never)]
    pub(super) fn new(reason: WireReason) -> Fail {
        Box::new(Self {
            reason,
            path: Vec::new(),
        })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn inside(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(Part::Field(name.into()));
        self
    }

    #[cold]
    #[inline(never)]
    pub(super) fn element(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.path.push(Part::Index(index));
        self
    }

    pub(super) fn place(self) -> WireError {
        let mut path = String::new();
        for part in self.path.iter().rev() {
            match part {
                Part::Field(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Part::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        WireError {
            path,
            reason: self.reason,
        }
    }
}

impl From<Broken> for Fail {
    #[cold]
    #[inline(never)]
    fn from(broken: Broken) -> Self {
        Failure::new(match broken {
            Broken::Malformed => WireReason::Malformed,
            Broken::Depth => WireReason::Depth { limit: MAX_DEPTH },
        })
    }
}

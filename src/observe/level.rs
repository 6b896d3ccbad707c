//! How much the program says of itself, which can be changed while it runs.

use std::fmt;
use std::sync::OnceLock;

/// Reads and sets the directives of whatever writes the log.
struct Handle {
    read: Box<dyn Fn() -> Option<String> + Send + Sync>,
    set: Box<Set>,
}

type Set = dyn Fn(&str) -> Result<(), LevelError> + Send + Sync;

/// The log is one for the whole process, and so is this.
static HANDLE: OnceLock<Handle> = OnceLock::new();

/// Why the level can't be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// The directives make no sense.
    #[error(
        "\"{0}\" is no level; write error, warn, info, debug or trace, or such as info,sabir::upstream=debug"
    )]
    Directives(String),
    /// Whoever started the log did not say how to change it.
    #[error("the level of this process' log can't be changed")]
    Fixed,
}

/// Says how the level is read and set; the first to say so is heard.
pub fn install(
    read: impl Fn() -> Option<String> + Send + Sync + 'static,
    set: impl Fn(&str) -> Result<(), LevelError> + Send + Sync + 'static,
) {
    let handle = Handle {
        read: Box::new(read),
        set: Box::new(set),
    };
    // Whoever came first has decided.
    let _ = HANDLE.set(handle);
}

/// The directives in force, such as `info`; nothing where nobody said how to read them.
pub fn now() -> Option<String> {
    HANDLE.get().and_then(|handle| (handle.read)())
}

/// Says more or less from now on.
///
/// # Errors
/// [`LevelError`]; nothing has changed then.
pub fn set(directives: &str) -> Result<(), LevelError> {
    HANDLE
        .get()
        .map_or(Err(LevelError::Fixed), |handle| (handle.set)(directives))
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

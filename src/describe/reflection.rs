//! Server reflection, the answering side.

/// What server reflection tells.
#[derive(Clone, Debug, Default)]
pub struct Exposed {}

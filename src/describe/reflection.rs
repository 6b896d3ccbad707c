//! Server reflection, the answering side.
use crate::route::Entry;
use std::sync::Arc;
/// Version.
#[derive(Clone, Copy, Debug)]
pub enum Version {
    /// v1.
    V1,
    /// v1alpha.
    V1Alpha,
}
/// What server reflection tells.
#[derive(Clone, Debug, Default)]
pub struct Exposed {}
impl Exposed {
    /// x
    pub fn answer(&self, _version: Version, _request: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    /// x
    pub fn entries(&self) -> impl Iterator<Item = (Version, &Arc<Entry>)> {
        std::iter::empty()
    }
}

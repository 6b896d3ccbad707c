//! The keys of issuers: read from JSON Web Key sets, fetched in the background, kept while an issuer can't be reached.

mod keeper;
mod set;
mod store;

pub use keeper::{KeepError, Keeper, Pace, Place};
pub use set::{Key, KeySet, SetError};
pub use store::Store;

#[cfg(test)]
pub(in crate::policy) mod tests;

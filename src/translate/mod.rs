//! Messages from one format to another: lanes, JSON and protobuf, HTTP bindings. No sockets, no clock.

pub mod binding;
pub mod hygiene;
pub mod json;
pub mod lane;
pub mod messages;
pub mod raw_body;
pub mod relay;
pub mod scalar;
pub mod tally;

pub use hygiene::Hygiene;
pub use lane::Lane;
pub use messages::{Bounds, End, Messages, Part};
pub use tally::Tally;

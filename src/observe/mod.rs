//! What an operator sees: one access record for each call, and metrics.
//!
//! A call writes to its own worker's buffers and counters only; the log thread and the metrics page gather them.

pub mod level;
mod line;
pub mod log;
pub mod metrics;
pub mod record;

pub use line::Destination;
pub use log::{Journal, Log, LogFormat};
pub use metrics::{Metrics, Shard};
pub use record::Record;

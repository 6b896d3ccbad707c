//! Conversations that cross protocols, each over every frontend and backend.

mod bidi;
mod cancel;
mod client_stream;
mod compression;
mod deadline;
mod errors;
mod large;
mod limits;
mod metadata;
mod server_stream;
mod unary;

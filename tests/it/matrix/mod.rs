//! Conversations that cross protocols, each over every frontend and backend.

mod bidi;
mod client_stream;
mod compression;
mod deadline;
mod errors;
mod large;
mod metadata;
mod server_stream;
mod unary;

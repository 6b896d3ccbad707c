//! Messages from one format to another: lanes, JSON and protobuf, HTTP bindings. No sockets, no clock.

pub mod json;

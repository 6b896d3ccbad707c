//! Messages that are larger than the gateway lets pass, in either direction and in the middle of a stream.

use serde_json::{Value, json};
use tonic::Code;

use crate::support::script::{guarded, recv, recv_refused, send, send_refused};

/// A message of more than 2,000 bytes in any form.
fn book() -> Value {
    json!({"title": "x".repeat(2_000)})
}

guarded!(
    a_request,
    "library.v1.Library/GetBook",
    [recv_refused(
        json!({"name": "x".repeat(2_000)}),
        Code::ResourceExhausted
    )],
    limit("max_message_bytes: 1000"),
);

guarded!(
    an_answer,
    "library.v1.Library/GetBook",
    [
        recv(json!({"name": "x"})),
        send_refused(book(), Code::ResourceExhausted)
    ],
    limit("max_message_bytes: 1000"),
);

guarded!(
    a_message_of_a_stream,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"text": "one"})),
        send(json!({"text": "one"})),
        recv_refused(json!({"text": "x".repeat(2_000)}), Code::ResourceExhausted)
    ],
    limit("max_message_bytes: 1000"),
);

guarded!(
    an_answer_of_a_stream,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"text": "one"})),
        send(json!({"text": "one"})),
        send_refused(json!({"text": "x".repeat(2_000)}), Code::ResourceExhausted)
    ],
    limit("max_message_bytes: 1000"),
);

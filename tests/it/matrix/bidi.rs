//! Many messages both ways, as the two sides please.

use serde_json::json;
use tonic::Code;

use crate::support::script::{conversation, end, fail, recv, send};

conversation!(
    question_and_answer,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"room": "7", "author": "a", "text": "one"})),
        send(json!({"room": "7", "author": "a", "text": "one", "number": "1"})),
        recv(json!({"text": "two"})),
        send(json!({"text": "two", "number": "2"})),
        recv(json!({"text": "three"})),
        send(json!({"text": "three", "number": "3"})),
        end(Code::Ok),
    ]
);

conversation!(
    all_in_then_all_out,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"text": "1"})),
        recv(json!({"text": "2"})),
        send(json!({"text": "a"})),
        send(json!({"text": "b"})),
        end(Code::Ok),
    ]
);

conversation!(
    the_backend_speaks_first,
    "library.v1.ReadingRoom/Chat",
    [
        send(json!({"text": "welcome"})),
        recv(json!({"text": "hello"})),
        send(json!({"text": "hello yourself"})),
        end(Code::Ok),
    ]
);

conversation!(
    the_backend_ends_it,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"text": "1"})),
        send(json!({"text": "2"})),
        fail(Code::ResourceExhausted, "closing time"),
    ]
);

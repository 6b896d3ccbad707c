//! Clients that go away end their call at the backend, wherever it stands.

use serde_json::json;

use crate::support::script::{conversation, leave, recv, send};

conversation!(
    before_the_answer,
    "library.v1.Library/GetBook",
    [recv(json!({"name": "shelves/1/books/7"})), leave()]
);

conversation!(
    in_a_stream_of_answers,
    "library.v1.Library/WatchBooks",
    [recv(json!({})), send(json!({})), leave()]
);

conversation!(
    in_a_stream_of_requests,
    "library.v1.Library/ImportBooks",
    [recv(json!({"book": {"title": "Kim"}})), leave()]
);

conversation!(
    in_the_middle_of_a_talk,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"text": "one"})),
        send(json!({"text": "one"})),
        leave()
    ]
);

//! One message in, many out.

use serde_json::json;
use tonic::Code;

use crate::support::script::{conversation, end, recv, send};

conversation!(
    three_events,
    "library.v1.Library/WatchBooks",
    [
        recv(json!({"parent": "shelves/1", "follow": true})),
        send(json!({"kind": "PRESENT", "number": "1", "book": {"title": "Dune"}})),
        send(json!({"kind": "ADDED", "number": "2", "book": {"title": "Kim", "tags": ["]", "}", "\n\n"]}})),
        send(json!({"kind": "REMOVED", "number": "3"})),
        end(Code::Ok),
    ]
);

conversation!(
    nothing_to_tell,
    "library.v1.Library/WatchBooks",
    [recv(json!({"parent": "shelves/3"})), end(Code::Ok)]
);

conversation!(
    empty_messages,
    "library.v1.Library/WatchBooks",
    [recv(json!({})), send(json!({})), send(json!({})), end(Code::Ok)]
);

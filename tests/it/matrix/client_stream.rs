//! Many messages in, one out.

use serde_json::json;
use tonic::Code;

use crate::support::script::{conversation, end, fail, recv, send};

conversation!(
    three_books,
    "library.v1.Library/ImportBooks",
    [
        recv(json!({"parent": "shelves/1", "book": {"title": "Dune"}})),
        recv(json!({"book": {"title": "brackets ]}[{ and \"quotes\""}})),
        recv(json!({})),
        send(json!({"names": ["shelves/1/books/1"], "refused": [{"field": "books[2].title"}]})),
        end(Code::Ok),
    ]
);

conversation!(
    no_message_at_all,
    "library.v1.Library/ImportBooks",
    [send(json!({})), end(Code::Ok)]
);

conversation!(
    refused_while_the_client_still_sends,
    "library.v1.Library/ImportBooks",
    [
        recv(json!({"parent": "shelves/9"})),
        fail(Code::NotFound, "no shelf \"shelves/9\""),
    ]
);

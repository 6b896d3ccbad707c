//! One message each way.

use bytes::Bytes;
use serde_json::json;
use tonic::Code;

use crate::support::backends::{grpc_head, grpc_trailers, raw};
use crate::support::clients::grpc;
use crate::support::framing::{envelope, flagged};
use crate::support::gateway::Gateway;
use crate::support::script::{conversation, end, recv, send};

conversation!(
    get_book,
    "library.v1.Library/GetBook",
    [
        recv(json!({"name": "shelves/1/books/7"})),
        send(
            json!({"name": "shelves/1/books/7", "title": "Dune", "genre": "GENRE_SCIENCE_FICTION", "pages": 412})
        ),
        end(Code::Ok),
    ]
);

conversation!(
    empty_messages,
    "library.v1.Library/ListGenres",
    [recv(json!({})), send(json!({})), end(Code::Ok)]
);

conversation!(
    a_method_without_a_rule,
    "library.v1.Probe/Unbound",
    [
        recv(json!({"number": "-9223372036854775808"})),
        send(json!({"number": "9223372036854775807"})),
        end(Code::Ok)
    ]
);

conversation!(
    every_type_of_field,
    "library.v1.Probe/Echo",
    [
        recv(json!({
            "doubleValue": -0.1, "floatValue": 1.5, "int32Value": -2147483648, "int64Value": "-1",
            "uint32Value": 4294967295_u32, "uint64Value": "18446744073709551615",
            "sint32Value": -1, "sint64Value": "-9007199254740993", "fixed32Value": 1, "fixed64Value": "2",
            "sfixed32Value": -3, "sfixed64Value": "-4", "boolValue": true, "stringValue": "ünïcödé \u{1f4da} \"\\/",
            "bytesValue": "AP/+", "genre": "GENRE_POETRY",
            "optionalInt32": 0, "optionalString": "", "optionalBool": false, "optionalGenre": "GENRE_UNSPECIFIED",
            "numbers": [1, 0, -1], "words": ["", "a"], "ratios": [0.5, "NaN", "-Infinity"],
            "genres": ["GENRE_NOVEL", 77], "blobs": ["", "AA=="], "nestedList": [{}, {"text": "x"}],
            "labels": {"": "empty", "k": "v"}, "byNumber": {"-5": {"number": "1"}}, "byTruth": {"true": "1", "false": "0"},
            "byId": {"18446744073709551615": "GENRE_SCIENCE"},
            "nested": {"inner": {"inner": {"words": ["deep"]}}},
            "otherName": "renamed",
            "timestamp": "0001-01-01T00:00:00Z", "duration": "-0.000000001s", "fieldMask": "a.bC,d",
            "any": {"@type": "type.googleapis.com/library.v1.Count", "number": "5"},
            "struct": {"a": [1, null, {"b": "c"}]}, "value": null, "listValue": [true, "x"], "empty": {},
            "doubleWrapper": 0, "floatWrapper": 0.25, "int64Wrapper": "0", "uint64Wrapper": "7", "int32Wrapper": 0,
            "uint32Wrapper": 9, "boolWrapper": false, "stringWrapper": "", "bytesWrapper": ""
        })),
        send(
            json!({"timestamp": "9999-12-31T23:59:59.999999999Z", "duration": "315576000000s", "number": "0"})
        ),
        end(Code::Ok),
    ]
);

conversation!(
    the_other_members_of_a_oneof,
    "library.v1.Probe/Echo",
    [
        recv(json!({"part": {}})),
        send(json!({"nothing": null})),
        end(Code::Ok)
    ]
);

/// Payloads of a gRPC route are nobody's business on the way: rule of the relay lane.
#[tokio::test]
async fn relay_does_not_decode() {
    const GARBAGE: &[u8] = b"\xff\xff\xff\xff not a protobuf message \x00\x07";
    let backend = raw(|request, mut answer| async move {
        let mut messages = Box::pin(crate::support::backends::messages(request.into_body()));
        let heard = futures_util::StreamExt::next(&mut messages)
            .await
            .unwrap()
            .unwrap();
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(&heard), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let answer = grpc::unary(
        gateway.address,
        "library.v1.Library/GetBook",
        Bytes::from_static(GARBAGE),
    )
    .await;
    assert_eq!(answer.unwrap(), GARBAGE);
}

/// A flag that nobody defines reaches no backend.
#[tokio::test]
async fn an_undefined_flag_of_the_client_is_refused() {
    let backend = raw(|_, _| async { panic!("nothing valid was sent") }).await;
    let gateway = Gateway::to(backend.address).await;
    let answer = grpc::exchange(
        gateway.address,
        grpc::head("library.v1.Library/GetBook"),
        flagged(0x40, b"x"),
    )
    .await;
    assert_ne!(answer.grpc_status().unwrap(), "0", "{answer:?}");
}

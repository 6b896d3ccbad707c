//! Fixed answers of backends that can't give one, in every dialect.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::Reason;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde_json::json;
use tonic::Code;

use crate::support::backends::raw;
use crate::support::clients::grpc;
use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::clients::websocket::Client;
use crate::support::framing::envelope;
use crate::support::gateway::Gateway;
use crate::support::messages::{DESCRIPTORS, encode, message_type};
use crate::support::{nowhere, within};

const GET: &str = "library.v1.Library/GetBook";
const CREATE: &str = "library.v1.Library/CreateBook";
const WATCH: &str = "library.v1.Library/WatchBooks";

/// A gateway before a gRPC backend, a REST backend and a site, with fixed answers.
async fn gateway(library: SocketAddr, protocol: &str) -> Gateway {
    let gone = nowhere();
    Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library:
    protocol: {protocol}
    endpoints: [\"http://{library}\"]
    schema: {{descriptors: {DESCRIPTORS}}}
    ejection: off
    retry: {{max: 0}}
    fallback:
      answers:
        - {{methods: [\"{WATCH}\"], message: '{{\"book\": {{\"title\": \"none\"}}}}'}}
        - {{methods: [\"library.v1.Library/GetBook\", \"{CREATE}\"], message: '{{\"title\": \"closed\", \"pages\": 7}}'}}
  site:
    protocol: rest
    endpoints: [\"http://{gone}\"]
    fallback: {{page: {{status: 203, content_type: text/html, body: <p>Back soon</p>}}}}
routes:
  - {{services: [\"*\"], backend: library}}
  - {{path: /site/**, backend: site}}
"
    ))
    .await
}

async fn page(gateway: &Gateway) -> String {
    let answer = once(gateway.admin, request(Method::GET, "/metrics", "")).await;
    answer.text().to_owned()
}

#[tokio::test]
async fn every_dialect_has_the_fixed_answer_as_its_own() {
    for protocol in ["grpc", "rest"] {
        let gateway = gateway(nowhere(), protocol).await;
        let address = gateway.address;
        let book = encode(
            &message_type("library.v1.Book"),
            &json!({"title": "closed", "pages": 7}),
        );

        let name = json!({"name": "shelves/1/books/7"});
        let asked = encode(&message_type("library.v1.GetBookRequest"), &name);
        let heard = within("the gRPC answer", grpc::unary(address, GET, asked.clone())).await;
        assert_eq!(heard.unwrap(), book, "{protocol}");

        let mut client = Rest::connect(address, Version::Http1).await;
        let heard = client.get("/v1/shelves/1/books/7").await;
        assert_eq!(heard.status, 200, "{heard:?}");
        assert_eq!(heard.json(), json!({"title": "closed", "pages": 7}));
        let heard = client.get("/v1/shelves/1/books:watch").await;
        assert_eq!(heard.text(), "{\"book\":{\"title\":\"none\"}}\n");

        let mut connect = request(Method::POST, &format!("/{GET}"), name.to_string());
        let headers = connect.headers_mut();
        headers.insert("connect-protocol-version", HeaderValue::from_static("1"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(
            client.send(connect).await.json(),
            json!({"title": "closed", "pages": 7})
        );

        let mut web = request(Method::POST, &format!("/{GET}"), envelope(&asked));
        web.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/grpc-web+proto"),
        );
        let heard = client.send(web).await;
        assert!(heard.body.starts_with(&envelope(&book)), "{heard:?}");
        assert!(
            String::from_utf8_lossy(&heard.body).contains("grpc-status: 0"),
            "{heard:?}"
        );

        let mut socket = Client::open(address, &format!("/{GET}"), "sabir.v1.json").await;
        socket.say(&name).await;
        socket.say(&json!({"$end": {}})).await;
        let mut said = socket.hear().await;
        while said.get("$headers").is_some() {
            said = socket.hear().await;
        }
        assert_eq!(said, json!({"title": "closed", "pages": 7}));
        assert_eq!(socket.status().await, 0);

        // What has no answer of its own fails as before.
        let heard = client.get("/v1/genres").await;
        heard.error(503, 14);
        let metrics = page(&gateway).await;
        assert!(
            metrics.contains("sabir_fallbacks_total{backend=\"library\",by=\"answer\"} 6"),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn plain_http_has_its_page() {
    let gateway = gateway(nowhere(), "grpc").await;
    let heard = once(gateway.address, request(Method::GET, "/site/a", "")).await;
    assert_eq!(
        (heard.status.as_u16(), heard.header("content-type"), heard.text()),
        (203, "text/html", "<p>Back soon</p>")
    );
}

/// A fixed answer to a call that may have been carried out would say that it was not, or that it was.
#[tokio::test]
async fn what_may_have_been_done_has_no_fixed_answer() {
    let backend = raw(|request, mut answer| async move {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        answer.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let gateway = gateway(backend.address, "grpc").await;
    let heard = grpc::unary(gateway.address, CREATE, Bytes::new()).await;
    assert_eq!(heard.unwrap_err().code(), Code::Unavailable);
    let heard = grpc::unary(gateway.address, GET, Bytes::new()).await;
    assert!(heard.is_ok(), "{heard:?}");
}

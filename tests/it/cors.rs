//! Pages of other origins, whatever protocol they speak.

use http::{Method, Request};

use crate::support::backends::{Backend, library, raw};
use crate::support::clients::rest::{Answer, once, whole};
use crate::support::gateway::{Gateway, Settings};

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example.com";
const CORS: &str =
    "cors: {origins: [\"https://app.example.com\"], headers: [authorization], credentials: true}";

async fn untouched() -> Backend {
    raw(|_, _| async { panic!("nothing may arrive") }).await
}

async fn send(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    once(gateway.address, request.body(whole(body.to_owned())).unwrap()).await
}

async fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str, headers: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", headers),
    ];
    send(gateway, Method::OPTIONS, path, &headers, "").await
}

#[tokio::test]
async fn the_gateway_answers_preflight_requests() {
    let backend = untouched().await;
    let gateway = Gateway::start(&Settings::to(backend.address).route(CORS)).await;
    for (path, method) in [
        ("/v1/shelves/1/books/1", "PATCH"),
        ("/v1/shelves/1/books/1", "GET"),
        ("/library.v1.Library/GetBook", "POST"),
        // Connect's GET, which no rule binds.
        ("/library.v1.Library/GetBook", "GET"),
    ] {
        let answer = preflight(&gateway, path, APP, method, "authorization,x-grpc-web,x-other").await;
        assert_eq!(answer.status, 204, "{path}: {answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), APP);
        assert_eq!(answer.header("access-control-allow-methods"), method);
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization, x-grpc-web"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert!(answer.header("vary").contains("origin"));
    }
    assert_eq!(backend.begun(), 0);
}

#[tokio::test]
async fn another_origin_and_another_path_are_allowed_nothing() {
    let backend = untouched().await;
    let gateway = Gateway::start(&Settings::to(backend.address).route(CORS)).await;
    for (path, origin, method, status) in [
        ("/v1/shelves/1/books/1", EVIL, "GET", 405),
        ("/v1/shelves/1/books/1", "null", "GET", 405),
        ("/v1/shelves/1/books/1", APP, "REPORT", 405),
        ("/v1/nowhere/here/now", APP, "GET", 404),
    ] {
        let answer = preflight(&gateway, path, origin, method, "").await;
        assert_eq!(answer.status.as_u16(), status, "{path}, {origin}");
        assert!(
            !answer.headers.contains_key("access-control-allow-origin"),
            "{answer:?}"
        );
    }
}

/// Without the key there is no header of CORS, whatever a backend says.
#[tokio::test]
async fn a_route_without_cors_says_nothing_of_it() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let answer = preflight(&gateway, "/v1/genres", APP, "GET", "").await;
    answer.error(405, 12);
    let body = r#"{"initial":{"access-control-allow-origin":"*"}}"#;
    let headers = [("origin", APP), ("content-type", "application/json")];
    let answer = send(
        &gateway,
        Method::POST,
        "/library.v1.Probe/Metadata",
        &headers,
        body,
    )
    .await;
    assert_eq!(answer.status, 200);
    let of_cors = |name: &&http::HeaderName| name.as_str().starts_with("access-control");
    assert_eq!(answer.headers.keys().find(of_cors), None, "{answer:?}");
}

/// Status and metadata of answers can be read, and errors too, in every dialect.
#[tokio::test]
async fn answers_are_shared_with_an_allowed_origin() {
    let backend = library().await;
    let gateway = Gateway::start(&Settings::to(backend.address).route(CORS)).await;
    let asks = r#"{"initial":{"x-first":"a"},"trailing":{"x-last":"b"}}"#;
    let path = "/library.v1.Probe/Metadata";
    for (origin, content_type, body) in [
        (APP, "application/json", asks),
        (APP, "application/json", "{"),
        (APP, "application/xml", ""),
        (APP, "application/grpc-web+proto", ""),
        (APP, "application/connect+json", ""),
        (EVIL, "application/json", asks),
    ] {
        let headers = [("origin", origin), ("content-type", content_type)];
        let answer = send(&gateway, Method::POST, path, &headers, body).await;
        assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "origin"));
        if origin == EVIL {
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
            continue;
        }
        assert_eq!(
            answer.header("access-control-allow-origin"),
            APP,
            "{content_type}"
        );
        let exposed = answer.header("access-control-expose-headers");
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        if body == asks {
            assert!(
                exposed.contains("x-first") && exposed.contains("trailer-x-last"),
                "{exposed}"
            );
        }
    }
    // No origin: the answer is as it would be, but for caches.
    let answer = send(&gateway, Method::GET, "/v1/genres", &[], "").await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    assert!(answer.headers.get_all("vary").iter().any(|vary| vary == "origin"));
}

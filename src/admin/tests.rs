//! The pages of the admin listener, read as an operator would.

use http::header::ALLOW;

use super::*;

fn refuse(_: &http::request::Parts, fault: &Fault) -> Response<Body> {
    let mut response = Response::new(Body::whole(fault.message().to_owned().into()));
    *response.status_mut() = fault.kind().http_status();
    if let Some(allow) = fault.allow() {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_str(allow).unwrap());
    }
    response
}

fn admin() -> Admin {
    Admin::new(Arc::default(), || "# EOF\n".to_owned(), refuse)
}

fn text(response: &Response<Body>) -> String {
    String::from_utf8(response.body().as_whole().unwrap().to_vec()).unwrap()
}

#[test]
fn readiness_follows_the_life_of_the_process_and_names_what_is_missing() {
    let admin = admin();
    let ask = || {
        let response = admin.answer(&Method::GET, "/readyz").unwrap();
        (response.status().as_u16(), text(&response))
    };
    let waits = [("library".to_owned(), "the backend does not answer".to_owned())];
    admin.readiness.wait_for(waits.into());
    let pending = r#""pending":{"library":"the backend does not answer"}"#;
    assert_eq!(ask(), (503, format!(r#"{{"status":"starting",{pending}}}"#)));
    admin.readiness.set_ready();
    assert_eq!(ask(), (200, format!(r#"{{"status":"ready",{pending}}}"#)));
    admin.readiness.wait_for(Default::default());
    admin
        .readiness
        .reloaded(vec!["sabir.yaml:1:1: broken".to_owned()]);
    let broken = r#","reload_errors":["sabir.yaml:1:1: broken"]"#;
    assert_eq!(
        ask(),
        (200, format!(r#"{{"status":"ready","pending":{{}}{broken}}}"#))
    );
    admin.readiness.reloaded(Vec::new());
    assert_eq!(ask(), (200, r#"{"status":"ready","pending":{}}"#.to_owned()));
    admin.readiness.set_draining();
    admin.readiness.set_ready();
    assert_eq!(ask(), (503, r#"{"status":"draining","pending":{}}"#.to_owned()));
}

#[test]
fn life_and_metrics_are_plain_pages() {
    let admin = admin();
    let livez = admin.answer(&Method::GET, "/livez").unwrap();
    assert_eq!((livez.status().as_u16(), text(&livez).trim()), (200, "ok"));
    let metrics = admin.answer(&Method::GET, "/metrics").unwrap();
    assert_eq!(metrics.headers()[CONTENT_TYPE], OPEN_METRICS);
    assert_eq!(text(&metrics), "# EOF\n");
    let head = admin.answer(&Method::HEAD, "/metrics").unwrap();
    assert_eq!(
        (text(&head).as_str(), &head.headers()[CONTENT_LENGTH]),
        ("", &HeaderValue::from(6))
    );
}

#[test]
fn other_paths_and_methods_are_told_what_there_is() {
    let admin = admin();
    let fault = admin.answer(&Method::GET, "/").unwrap_err();
    assert_eq!(fault.kind(), Kind::RouteNotFound);
    assert!(fault.message().contains("/readyz"));
    let fault = admin.answer(&Method::POST, "/livez").unwrap_err();
    assert_eq!(
        (fault.kind(), fault.allow()),
        (Kind::MethodNotAllowed, Some("GET, HEAD"))
    );
}

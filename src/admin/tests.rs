//! The pages of the admin listener, read as an operator would.

use http::header::ALLOW;

use std::collections::BTreeMap;
use std::path::Path;

use tokio::sync::watch;

use super::*;
use crate::config;
use crate::gateway::Shared;

fn refuse(_: &Parts, fault: &Fault) -> Response<Body> {
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
    let text = "backends: {a: {endpoints: [\"http://127.0.0.1:1\"]}}\n";
    let file = config::from_text("sabir.yaml", Path::new(""), text).unwrap();
    let plan = config::compile(&file, &BTreeMap::new()).unwrap();
    let prepared = Shared::default().prepare(Arc::new(plan)).unwrap();
    let plans = watch::channel(Arc::new(prepared)).1;
    let (controls, _orders) = Controls::new(plans, watch::channel(Registry::new()).1);
    Admin::new(
        Guard::default(),
        Arc::default(),
        controls,
        || "# EOF\n".to_owned(),
        refuse,
    )
    .unwrap()
}

/// The answer of a page.
fn ask(admin: &Admin, method: &Method, path: &str) -> Result<Response<Body>, Fault> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    let mut head = request.body(()).unwrap().into_parts().0;
    admin.admit(&mut head).map(|page| page.expect("a page"))
}

fn text(response: &Response<Body>) -> String {
    String::from_utf8(response.body().as_whole().unwrap().to_vec()).unwrap()
}

#[test]
fn readiness_follows_the_life_of_the_process_and_names_what_is_missing() {
    let admin = admin();
    let ask = || {
        let response = ask(&admin, &Method::GET, "/readyz").unwrap();
        (response.status().as_u16(), text(&response))
    };
    let waits = [("library".to_owned(), "the backend does not answer".to_owned())];
    admin.operator.readiness.wait_for(waits.into());
    let pending = r#""pending":{"library":"the backend does not answer"}"#;
    assert_eq!(ask(), (503, format!(r#"{{"status":"starting",{pending}}}"#)));
    admin.operator.readiness.set_ready();
    assert_eq!(ask(), (200, format!(r#"{{"status":"ready",{pending}}}"#)));
    admin.operator.readiness.wait_for(Default::default());
    admin
        .operator
        .readiness
        .reloaded(vec!["sabir.yaml:1:1: broken".to_owned()]);
    let broken = r#","reload_errors":["sabir.yaml:1:1: broken"]"#;
    assert_eq!(
        ask(),
        (200, format!(r#"{{"status":"ready","pending":{{}}{broken}}}"#))
    );
    admin.operator.readiness.reloaded(Vec::new());
    assert_eq!(ask(), (200, r#"{"status":"ready","pending":{}}"#.to_owned()));
    admin.operator.readiness.set_draining();
    admin.operator.readiness.set_ready();
    assert_eq!(ask(), (503, r#"{"status":"draining","pending":{}}"#.to_owned()));
}

#[test]
fn life_and_metrics_are_plain_pages() {
    let admin = admin();
    let livez = ask(&admin, &Method::GET, "/livez").unwrap();
    assert_eq!((livez.status().as_u16(), text(&livez).trim()), (200, "ok"));
    let metrics = ask(&admin, &Method::GET, "/metrics").unwrap();
    assert_eq!(metrics.headers()[CONTENT_TYPE], OPEN_METRICS);
    assert_eq!(text(&metrics), "# EOF\n");
    let head = ask(&admin, &Method::HEAD, "/metrics").unwrap();
    assert_eq!(
        (text(&head).as_str(), &head.headers()[CONTENT_LENGTH]),
        ("", &HeaderValue::from(6))
    );
}

#[test]
fn other_paths_and_methods_are_told_what_there_is() {
    let admin = admin();
    let fault = ask(&admin, &Method::GET, "/").unwrap_err();
    assert_eq!(fault.kind(), Kind::RouteNotFound);
    assert!(fault.message().contains("/readyz"));
    let fault = ask(&admin, &Method::POST, "/livez").unwrap_err();
    assert_eq!(
        (fault.kind(), fault.allow()),
        (Kind::MethodNotAllowed, Some("GET, HEAD"))
    );
}

#[test]
fn reasons_are_for_those_who_have_the_token() {
    let admin = admin();
    admin.operator.readiness.set_ready();
    admin
        .operator
        .readiness
        .reloaded(vec!["sabir.yaml:1:1: broken".to_owned()]);
    admin.guard.want(Some("a token that nobody guesses at all"));
    let response = ask(&admin, &Method::GET, "/readyz").unwrap();
    assert_eq!(
        (response.status().as_u16(), text(&response)),
        (200, r#"{"status":"ready"}"#.to_owned())
    );
    assert_eq!(ask(&admin, &Method::GET, "/livez").unwrap().status(), 200);
    let fault = ask(&admin, &Method::GET, "/metrics").unwrap_err();
    assert_eq!(fault.kind(), Kind::CredentialsMissing);
}

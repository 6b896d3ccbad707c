//! Quotas and rates that API keys have of their own, beside those of the routes.

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::auth::{BOOK, RPC, backend, calls, get, post, send, sha256, site};
use crate::cluster::together;
use crate::support::backends::{Backend, answering};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Answer, Rest, Version, once};
use crate::support::clients::websocket::Client;
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::redis::Redis;
use crate::support::{until, within};

/// An entry of a file of keys: the key of a caller is its name.
fn entry(label: &str, limits: &str) -> String {
    format!("  - {{label: {label}, sha256: {}{limits}}}\n", sha256(label))
}

fn keys(entries: &[(&str, &str)]) -> String {
    let entries = entries.iter().map(|(label, limits)| entry(label, limits));
    format!("keys:\n{}", entries.collect::<String>())
}

fn members() -> String {
    keys(&[
        ("small", ", quota: 3/month"),
        ("large", ", quota: 100/month, rate: 1/h, burst: 5"),
        ("idle", ", rate: 1/h"),
        ("free", ""),
    ])
}

/// `members` and `partners` take one file, `others` another one. The routes of plain HTTP have a limit as well.
fn yaml(library: &Backend, site: std::net::SocketAddr, more: &str) -> String {
    format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 2
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
  site: {{protocol: rest, endpoints: [\"http://{site}\"]}}
routes:
  - {{services: [\"*\"], backend: library, auth: members}}
  - {{path: /site/**, backend: site, auth: members, rate_limit: pages}}
  - {{path: /partners/**, backend: site, auth: partners}}
  - {{path: /others/**, backend: site, auth: others}}
{more}
auth:
  members: {{api_keys: {{file: keys.yaml}}, tickets: {{path: /tickets}}}}
  partners: {{api_keys: {{file: ./keys.yaml}}}}
  others: {{api_keys: {{file: others.yaml}}}}
rate_limits:
  pages: {{quota: 1000/month, key: global}}
",
        library.address
    )
}

async fn gateway(library: &Backend, site: std::net::SocketAddr) -> Gateway {
    let others = keys(&[("small", ", quota: 1/month")]);
    let files = [("keys.yaml", members()), ("others.yaml", others)];
    let files = files.iter().map(|(name, text)| (*name, text.as_str()));
    Gateway::with_files(&yaml(library, site, ""), files).await
}

async fn ask(gateway: &Gateway, path: &str, key: &str) -> Answer {
    once(gateway.address, get(path, &[("x-api-key", key)])).await
}

async fn usage(gateway: &Gateway, query: &str) -> Value {
    once(gateway.admin, get(&format!("/limits{query}"), &[]))
        .await
        .json()
}

/// A call by tonic.
async fn rpc(gateway: &Gateway, key: &str) -> Result<(), tonic::Status> {
    let mut metadata = HeaderMap::new();
    metadata.insert("x-api-key", key.parse().unwrap());
    let channel = grpc::connect(gateway.address).await;
    let (sender, started) = grpc::start(channel, &RPC[1..], metadata, false);
    // A refusal comes before it is read.
    let _ = sender.send(Bytes::new()).await;
    drop(sender);
    let mut answer = within("the answer", started).await.unwrap()?.into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn each_key_is_bounded_by_its_own_quota_in_every_dialect_and_on_every_route() {
    let (library, site) = (answering().await, site().await);
    let gateway = gateway(&library, site.address).await;
    let policy = "\"api_key.quota:members/small\";q=3;w=2678400";

    let answer = ask(&gateway, BOOK, "small").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), policy);
    let left = answer.header("ratelimit");
    assert!(
        left.starts_with("\"api_key.quota:members/small\";r=2;t="),
        "{left}"
    );
    rpc(&gateway, "small").await.unwrap();
    let answer = ask(&gateway, "/site/page", "small").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("ratelimit-policy"),
        format!("\"pages\";q=1000;w=2678400, {policy}")
    );
    let left = answer.header("ratelimit");
    assert!(left.contains("\"pages\";r=999;"), "{left}");
    assert!(left.contains("\"api_key.quota:members/small\";r=0;"), "{left}");

    for path in [BOOK, "/site/page", "/partners/page"] {
        let answer = ask(&gateway, path, "small").await;
        assert!(
            answer.error(429, 8).contains("\"api_key.quota:members/small\""),
            "{answer:?}"
        );
        assert_eq!(answer.reason(), "QUOTA_EXHAUSTED");
        assert!(answer.header("ratelimit-policy").ends_with(policy), "{answer:?}");
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=31 * 86_400).contains(&wait), "{wait}");
        let left = answer.header("ratelimit");
        let stands = format!("\"api_key.quota:members/small\";r=0;t={wait}");
        assert!(left.ends_with(&stands), "{left}");
    }
    let refused = rpc(&gateway, "small").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(
        refused.message().contains("\"api_key.quota:members/small\""),
        "{refused}"
    );
    assert_eq!(refused.metadata().get("ratelimit-policy").unwrap(), policy);
    assert!(refused.metadata().contains_key("retry-after"));
    let details = String::from_utf8_lossy(refused.details());
    assert!(details.contains("google.rpc.RetryInfo"), "{details}");
    let Err(refused) = Client::connect(gateway.address, BOOK, &[("x-api-key", "small")]).await else {
        panic!("a WebSocket was opened")
    };
    assert_eq!(refused.status(), 429);

    // The same label in another file is another key.
    for status in [200, 429] {
        let answer = ask(&gateway, "/others/page", "small").await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(
            answer.header("ratelimit-policy"),
            "\"api_key.quota:others/small\";q=1;w=2678400"
        );
    }

    // The other one has what is its own, whatever it speaks; the one without limits has no bound.
    for (key, bound) in [("large", 5), ("free", usize::MAX)] {
        let headers = [("x-api-key", key)];
        let all = calls(&headers);
        let most = all.len();
        let mut allowed = 0;
        for (name, version, call) in all {
            let answer = send(&gateway, version, call).await;
            if answer.tells(429, 8, "resource_exhausted") {
                assert_eq!(key, "large", "{name}: {answer:?}");
                assert!(answer.headers.contains_key("retry-after"), "{name}: {answer:?}");
                continue;
            }
            allowed += 1;
            let told = answer.header("ratelimit-policy");
            let names_own = told.contains("\"api_key.quota:members/large\";q=100;w=2678400")
                && told.contains("\"api_key.rate:members/large\";q=5;w=18000");
            assert_eq!(names_own, key == "large", "{name}: {told}");
            assert_eq!(told.contains("api_key"), key == "large", "{name}: {told}");
        }
        assert!(most > 10, "{most}");
        assert_eq!(allowed, bound.min(most), "{key}");
    }

    let small = usage(&gateway, "?limit=api_key.quota:members/small").await;
    assert_eq!(small["allowance"], "3 in each month");
    assert_eq!((&small["allowed"], &small["refused"]), (&json!(3), &json!(5)));
    let account = &small["usage"][0];
    assert_eq!(account["key"], "api_key:small");
    assert_eq!((&account["used"], &account["left"]), (&json!(3), &json!(0)));
    // What its own rate refused was taken from no quota.
    let large = usage(&gateway, "?limit=api_key.quota:members/large&key=api_key:large").await;
    assert_eq!(large["usage"][0]["used"], 5);
    let all = usage(&gateway, "").await;
    let names: Vec<&str> = all["limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| limit["limit"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "api_key.quota:members/large",
            "api_key.quota:members/small",
            "api_key.quota:others/small",
            "api_key.rate:members/idle",
            "api_key.rate:members/large",
            "pages"
        ]
    );
    let page = once(gateway.admin, get("/metrics", &[])).await;
    let metrics = page.text();
    let line = "sabir_ratelimit_total{limit=\"api_key.quota:members/small\",decision=\"refused\"} 5\n";
    assert!(metrics.contains(line), "{metrics}");
    assert!(!metrics.contains("members/idle"), "{metrics}");
    let line = gateway.says("QUOTA_EXHAUSTED").await;
    assert!(line.contains("api_key.quota:members/small"), "{line}");
}

#[tokio::test]
async fn what_a_key_has_used_stays_used_when_the_file_and_the_configuration_change() {
    let (library, site) = (answering().await, site().await);
    let gateway = gateway(&library, site.address).await;
    assert_eq!(ask(&gateway, BOOK, "small").await.status, 200);

    // Another key comes before it.
    let file = gateway.folder().join("keys.yaml");
    let more = format!(
        "{}{}",
        keys(&[("late", ", quota: 2/month")]),
        &members()["keys:\n".len()..]
    );
    std::fs::write(&file, &more).unwrap();
    gateway.signal("HUP");
    until("the new key", || async {
        ask(&gateway, BOOK, "late").await.status == 200
    })
    .await;
    assert_eq!(ask(&gateway, BOOK, "small").await.status, 200);

    let open = "  - {path: /open/**, backend: site}";
    gateway.rewrite(&yaml(&library, site.address, open));
    gateway.signal("HUP");
    until("the new route", || async {
        let answer = once(gateway.address, get("/open/page", &[])).await;
        answer.status == 200
    })
    .await;
    let last = ask(&gateway, BOOK, "small").await;
    assert_eq!(last.status, 200, "{last:?}");
    assert!(last.header("ratelimit").contains(";r=0;"), "{last:?}");
    assert_eq!(ask(&gateway, BOOK, "small").await.status, 429);
    let late = ask(&gateway, BOOK, "late").await;
    assert!(
        late.header("ratelimit").contains("members/late\";r=0;"),
        "{late:?}"
    );

    // A file that can't be used changes nothing, and the log says what is wrong with it.
    std::fs::write(&file, keys(&[("small", ", quota: many")])).unwrap();
    gateway.signal("HUP");
    let line = gateway.says("the one before stays").await;
    assert!(
        gateway
            .said()
            .contains("is no quota; write how many in which window"),
        "{line}"
    );
    assert_eq!(ask(&gateway, BOOK, "small").await.status, 429);
}

#[tokio::test]
async fn a_socket_that_a_ticket_opens_is_a_call_of_its_key() {
    let (library, _) = backend().await;
    let site = site().await;
    let gateway = gateway(&library, site.address).await;
    for number in 0..4 {
        let call = post("/tickets", "application/json", b"{}", &[("x-api-key", "small")]);
        let answer = once(gateway.address, call).await;
        assert_eq!(answer.status, 200, "to ask for one is no call: {answer:?}");
        let path = format!(
            "{BOOK}?sabir-ticket={}",
            answer.json()["ticket"].as_str().unwrap()
        );
        let socket = Client::connect(gateway.address, &path, &[]).await;
        assert_eq!(socket.is_ok(), number < 3, "{number}");
    }
    assert_eq!(ask(&gateway, BOOK, "small").await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_share_the_quota_of_a_key() {
    let Some(redis) = Redis::start("the quota of a key shared by gateways").await else {
        return;
    };
    let library = answering().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("keys.yaml");
    std::fs::write(
        &file,
        keys(&[("a", ", quota: 40/month"), ("b", ", quota: 7/month")]),
    )
    .unwrap();
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
routes:
  - {{services: [\"*\"], backend: library, auth: members}}
auth:
  members: {{api_keys: {{file: {}}}}}
redis: {{url: \"{}\", timeout: 5s}}
",
        library.address,
        file.display(),
        redis.url()
    );
    let gateways = join_all((0..2).map(|_| Gateway::with_config(&yaml))).await;
    together(&gateways).await;
    let call = async |gateway: &Gateway, key: &str, count: usize| {
        let mut connection = Rest::connect(gateway.address, Version::Http2).await;
        let mut allowed = 0;
        for _ in 0..count {
            let answer = connection.send(get(BOOK, &[("x-api-key", key)])).await;
            assert!(matches!(answer.status.as_u16(), 200 | 429), "{answer:?}");
            allowed += usize::from(answer.status == 200);
        }
        allowed
    };
    for (key, quota) in [("a", 40), ("b", 7)] {
        let allowed = join_all(gateways.iter().map(|gateway| call(gateway, key, 30))).await;
        assert_eq!(allowed.iter().sum::<usize>(), quota, "{key}: {allowed:?}");
    }
}

#[test]
fn the_command_line_writes_limits_that_the_gateway_reads() {
    let folder = TempDir::new().unwrap();
    let sabir = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sabir"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let make = |more: &[&str]| sabir(&[&["keys", "make", "--file", "keys.yaml", "--label"], more].concat());
    let (fine, key, said) = make(&["app", "--quota", "10000/day", "--rate", "50/s", "--burst", "100"]);
    assert!(fine && key.starts_with("sabir_"), "{said}");
    assert!(make(&["two", "--rate", "5/10s"]).0);
    assert!(make(&["none"]).0);
    let long = "x".repeat(129);
    for (more, expected) in [
        (
            &["w", "--quota", "10/week"][..],
            "is no quota; write how many in which window",
        ),
        (&["w", "--rate", "10"], "is no rate; write how many in which time"),
        (&["w", "--rate", "1/s", "--burst", "0"], "is not a number from 1"),
        (&["w", "--burst", "5"], "--rate <RATE>"),
        (&[&long, "--quota", "1/day"], "longer than the 128 bytes"),
    ] {
        let (fine, _, said) = make(more);
        assert!(!fine && said.contains(expected), "{more:?}: {said}");
    }
    let (fine, listed, said) = sabir(&["keys", "list", "keys.yaml"]);
    assert!(fine, "{said}");
    let ends: Vec<&str> = listed
        .lines()
        .map(|line| line.split_once("never ends").unwrap().1.trim())
        .collect();
    assert_eq!(
        ends,
        ["quota: 10000/day, rate: 50/s, burst: 100", "rate: 5/10s", ""]
    );

    let yaml = "backends: {site: {protocol: rest, endpoints: [\"http://127.0.0.1:1\"]}}
routes: [{path: /**, backend: site, auth: members}]
auth: {members: {api_keys: {file: keys.yaml}}}
";
    std::fs::write(folder.path().join("sabir.yaml"), yaml).unwrap();
    let header = format!("x-api-key: {}", key.trim());
    let (fine, told, said) = sabir(&["explain", "sabir.yaml", "GET", "/x", "--header", &header]);
    assert!(fine, "{said}");
    for limit in [
        "\"api_key.quota:members/app\" (10000 in each day) of this key",
        "\"api_key.rate:members/app\" (50 in 1s, 100 at once) of this key",
    ] {
        assert!(told.contains(limit), "{told}");
    }
    let file = folder.path().join("keys.yaml");
    let wrong = std::fs::read_to_string(&file).unwrap().replace("50/s", "50/day");
    std::fs::write(&file, wrong).unwrap();
    let (fine, _, said) = sabir(&["check", "sabir.yaml"]);
    let expected =
        "sabir.yaml:3:35: auth.members.api_keys.file: keys.yaml: the rate of \"app\": \"50/day\" is no rate";
    assert!(!fine && said.contains(expected), "{said}");
}

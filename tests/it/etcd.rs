//! etcd behind the gateway: a service of many streams that other people wrote, and whose own client sees what the
//! gateway's clients do, and the other way round.

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::clients::rest::{self, Answer, Rest, Version, once, request};
use crate::support::clients::websocket::Client;
use crate::support::etcd::Etcd;
use crate::support::framing::{Item, Reader, Stream, envelope, open};
use crate::support::gateway::Gateway;
use crate::support::within;

const RULES: &str = "\
http:
  rules:
    - {selector: etcdserverpb.KV.Put, post: /v3/kv/put, body: \"*\"}
    - {selector: etcdserverpb.Watch.Watch, post: /v3/watch, body: \"*\"}
    - {selector: etcdserverpb.Lease.LeaseGrant, post: /v3/lease/grant, body: \"*\"}
    - {selector: etcdserverpb.Lease.LeaseKeepAlive, post: /v3/lease/keepalive, body: \"*\"}
";

async fn gateway(etcd: &Etcd) -> Gateway {
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  etcd: {{endpoints: [\"http://{}\"], schema: {{protos: [etcd.proto]}}, rules: [rules.yaml]}}
routes:
  - {{services: [\"etcdserverpb.*\"], backend: etcd}}
",
        etcd.address
    );
    let proto = include_str!("../data/etcd.proto");
    Gateway::with_files(&yaml, [("etcd.proto", proto), ("rules.yaml", RULES)]).await
}

/// How a client talks.
#[derive(Clone, Copy, Debug)]
enum Way {
    WebSocket,
    Ndjson,
    Connect,
}

/// A talk in JSON, both sides of which are open.
enum Talk {
    WebSocket(Box<Client>),
    Ndjson(Half, Reader),
    Connect(Half, BytesMut),
}

/// A request whose body is still being sent, and its answer.
struct Half {
    says: mpsc::Sender<Bytes>,
    hears: Incoming,
    _connection: Rest,
}

impl Half {
    /// Asks with a first piece of body: servers may answer nothing before they have heard something.
    async fn open(gateway: &Gateway, path: &str, types: [&str; 2], first: Bytes) -> Self {
        let mut connection = Rest::connect(gateway.address, Version::Http2).await;
        let (says, body) = rest::pieces();
        says.send(first).await.unwrap();
        let request = Request::post(path)
            .header("content-type", types[0])
            .header("accept", types[1])
            .body(body)
            .unwrap();
        let response = within("the answer", connection.start(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], types[1]);
        Self {
            says,
            hears: response.into_body(),
            _connection: connection,
        }
    }

    async fn more(&mut self) -> Bytes {
        let frame = within("more of the answer", self.hears.frame()).await;
        let frame = frame.expect("the answer ended").unwrap();
        frame.into_data().unwrap()
    }
}

impl Talk {
    /// Opens a talk, on the HTTP path or on the rpc path where the dialect has no other, and says something.
    async fn open(way: Way, gateway: &Gateway, [path, rpc]: [&str; 2], first: &Value) -> Self {
        match way {
            Way::WebSocket => {
                let mut client = Client::open(gateway.address, path, "").await;
                client.say(first).await;
                Self::WebSocket(Box::new(client))
            }
            Way::Ndjson => {
                let types = ["application/json", "application/x-ndjson"];
                let first = format!("{first}\n").into();
                let half = Half::open(gateway, path, types, first).await;
                Self::Ndjson(half, Reader::new(Stream::Ndjson))
            }
            Way::Connect => {
                let first = envelope(first.to_string().as_bytes());
                let half = Half::open(gateway, rpc, ["application/connect+json"; 2], first).await;
                Self::Connect(half, BytesMut::new())
            }
        }
    }

    async fn say(&mut self, message: &Value) {
        match self {
            Self::WebSocket(client) => client.say(message).await,
            Self::Ndjson(half, _) => half.says.send(format!("{message}\n").into()).await.unwrap(),
            Self::Connect(half, _) => {
                let message = envelope(message.to_string().as_bytes());
                half.says.send(message).await.unwrap();
            }
        }
    }

    async fn hear(&mut self) -> Value {
        match self {
            Self::WebSocket(client) => client.hear().await,
            Self::Ndjson(half, reader) => loop {
                match reader.next() {
                    Some(Item::Message(message)) => return message,
                    Some(Item::Error(error)) => panic!("the stream broke: {error}"),
                    None => reader.push(&half.more().await),
                }
            },
            Self::Connect(half, arrived) => loop {
                match open(arrived) {
                    Some((0, message)) => return serde_json::from_slice(&message).unwrap(),
                    Some((flag, message)) => panic!("no message: {flag} {message:?}"),
                    None => arrived.extend_from_slice(&half.more().await),
                }
            },
        }
    }
}

fn base64(text: &str) -> String {
    base64_simd::STANDARD.encode_to_string(text)
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let answer = once(
        gateway.address,
        request(http::Method::POST, path, body.to_string()),
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// A number of 64 bits, which JSON has as a string.
fn number(value: &Value) -> i64 {
    value.as_str().map_or(0, |text| {
        text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
    })
}

/// Watches as this client does what etcdctl puts, what another client of the gateway puts, and what etcdctl deletes.
async fn watches(way: Way) {
    let Some(etcd) = Etcd::start(&format!("watching etcd by {way:?}")).await else {
        return;
    };
    let gateway = gateway(&etcd).await;
    let paths = ["/v3/watch", "/etcdserverpb.Watch/Watch"];
    let create = json!({"createRequest": {"key": base64("port/"), "rangeEnd": base64("port0")}});
    let mut talk = Talk::open(way, &gateway, paths, &create).await;
    let created = talk.hear().await;
    assert_eq!(created["created"], true, "{created}");

    etcd.ctl(&["put", "port/smyrna", "open"]).await;
    let seen = talk.hear().await;
    let event = &seen["events"][0];
    assert_eq!(event.get("type"), None, "PUT is the default: {seen}");
    let told = etcd.ctl_json(&["get", "port/smyrna"]).await["kvs"][0].clone();
    assert_eq!(event["kv"]["key"], told["key"]);
    assert_eq!(event["kv"]["value"], told["value"]);
    for (ours, theirs) in [
        ("createRevision", "create_revision"),
        ("modRevision", "mod_revision"),
        ("version", "version"),
    ] {
        assert_eq!(
            number(&event["kv"][ours]),
            told[theirs].as_i64().unwrap(),
            "{ours}"
        );
    }

    let put = json!({"key": base64("port/jaffa"), "value": base64("closed")});
    post(&gateway, "/v3/kv/put", &put).await;
    let seen = talk.hear().await;
    assert_eq!(seen["events"][0]["kv"]["value"], base64("closed"), "{seen}");
    let told = etcd.ctl(&["get", "port/jaffa", "--print-value-only"]).await;
    assert_eq!(told, "closed\n");

    etcd.ctl(&["del", "port/smyrna"]).await;
    let seen = talk.hear().await;
    assert_eq!(seen["events"][0]["type"], "DELETE", "{seen}");

    talk.say(&json!({"cancelRequest": {"watchId": "0"}})).await;
    let cancelled = talk.hear().await;
    assert_eq!(cancelled["canceled"], true, "{cancelled}");
}

/// Keeps a lease alive as this client, until etcdctl takes it back.
async fn keeps_alive(way: Way) {
    let Some(etcd) = Etcd::start(&format!("leases of etcd by {way:?}")).await else {
        return;
    };
    let gateway = gateway(&etcd).await;
    let lease = post(&gateway, "/v3/lease/grant", &json!({"TTL": "600"}))
        .await
        .json();
    let id = format!("{:x}", number(&lease["ID"]));
    let told = etcd.ctl_json(&["lease", "timetolive", &id]).await;
    assert_eq!(told["granted-ttl"], 600, "{told}");

    let alive = json!({"ID": lease["ID"]});
    let paths = ["/v3/lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"];
    let mut talk = Talk::open(way, &gateway, paths, &alive).await;
    for round in 0..3 {
        if round > 0 {
            talk.say(&alive).await;
        }
        let heard = talk.hear().await;
        assert_eq!(heard["ID"], lease["ID"]);
        assert_eq!(heard["TTL"], "600");
    }
    let told = etcd.ctl(&["lease", "keep-alive", "--once", &id]).await;
    assert!(told.contains("keepalived with TTL(600)"), "{told}");

    etcd.ctl(&["lease", "revoke", &id]).await;
    talk.say(&alive).await;
    let heard = talk.hear().await;
    assert_eq!(
        number(&heard["TTL"]),
        0,
        "a lease that is gone has no time left: {heard}"
    );
}

#[tokio::test]
async fn a_websocket_watches() {
    watches(Way::WebSocket).await;
}

#[tokio::test]
async fn lines_of_json_watch() {
    watches(Way::Ndjson).await;
}

#[tokio::test]
async fn a_connect_client_watches() {
    watches(Way::Connect).await;
}

#[tokio::test]
async fn a_websocket_keeps_a_lease_alive() {
    keeps_alive(Way::WebSocket).await;
}

#[tokio::test]
async fn lines_of_json_keep_a_lease_alive() {
    keeps_alive(Way::Ndjson).await;
}

#[tokio::test]
async fn a_connect_client_keeps_a_lease_alive() {
    keeps_alive(Way::Connect).await;
}

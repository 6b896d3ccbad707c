//! The admin API as operators use it: in every dialect, behind its token, and schemas that are registered while the gateway
//! runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use flate2::Crc;
use http::{Method, Request};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Answer, Rest, Sending, Version, once, request, whole};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Process, Settings};
use crate::support::messages::DESCRIPTORS;
use crate::support::{nowhere, until};
use crate::tls::Authority;

const TOKEN: &str = "a token of the tests that is long enough";

/// A backend that answers every call with an empty message.
async fn backend() -> Backend {
    raw(|_request, mut answer| async move {
        // A client that has left is no failure of the test.
        if let Ok(mut body) = answer.send_response(grpc_head(), false) {
            let _ = body.send_data(envelope(b""), false);
            let _ = body.send_trailers(grpc_trailers("0"));
        }
    })
    .await
}

async fn get(gateway: &Gateway, path: &str) -> Answer {
    once(gateway.admin, request(Method::GET, path, "")).await
}

async fn post(gateway: &Gateway, path: &str) -> Answer {
    once(gateway.admin, request(Method::POST, path, "{}")).await
}

fn put(path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Sending> {
    let request = Request::put(path).header("content-type", content_type);
    request.body(whole(body)).unwrap()
}

#[tokio::test]
async fn what_there_is_is_told_in_every_dialect() {
    let library = backend().await;
    let gateway = Gateway::to(library.address).await;
    let status = get(&gateway, "/v1/status").await.json();
    assert_eq!(
        (&status["state"], &status["generation"]),
        (&json!("ready"), &json!("1"))
    );
    let backends = get(&gateway, "/v1/backends").await.json();
    let url = format!("http://{}/", library.address);
    assert_eq!(
        backends["backends"][0]["endpoints"][0]["url"],
        json!(url),
        "{backends}"
    );
    assert_eq!(
        get(&gateway, "/v1/backends/library").await.json(),
        backends["backends"][0]
    );
    get(&gateway, "/v1/backends/none").await.error(404, 5);
    let routes = get(&gateway, "/v1/routes").await.json();
    let line = routes["routes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["path"] == "/v1/genres");
    assert_eq!(line.unwrap()["rpc"], "library.v1.Library/ListGenres");
    let plan = get(&gateway, "/v1/plan").await.json();
    assert!(plan["pieces"]["backend library"].is_string(), "{plan}");

    // gRPC: the answer to an empty message; field 3 is the generation.
    let answer = grpc::unary(gateway.admin, "sabir.admin.v1.Admin/GetStatus", Bytes::new())
        .await
        .unwrap();
    assert!(answer.windows(2).any(|field| field == [0x18, 1]), "{answer:?}");
    // Connect.
    let mut asked = request(Method::POST, "/sabir.admin.v1.Admin/GetStatus", "{}");
    asked
        .headers_mut()
        .insert("connect-protocol-version", "1".parse().unwrap());
    assert_eq!(once(gateway.admin, asked).await.json()["generation"], json!("1"));

    let level = put("/v1/log-level", "application/json", r#"{"level": "warn"}"#);
    assert_eq!(once(gateway.admin, level).await.json(), json!({"level": "warn"}));
    assert_eq!(
        get(&gateway, "/v1/log-level").await.json(),
        json!({"level": "warn"})
    );
    let wrong = put("/v1/log-level", "application/json", r#"{"level": "=="}"#);
    once(gateway.admin, wrong).await.error(400, 3);
    get(&gateway, "/v1/nothing").await.error(404, 5);
}

/// The text of a command of the program that has ended, whatever it ended with.
async fn says(arguments: &[&str]) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    let mut process = Process::start(arguments, folder.path());
    let status = process.ended().await;
    until("all that it says", async || process.has_said_all()).await;
    (status.code().unwrap(), process.said())
}

#[tokio::test]
async fn the_health_of_endpoints_is_told() {
    let library = backend().await;
    let gone = nowhere();
    let mut settings = Settings::to(library.address)
        .backend("ejection: {consecutive: 1}")
        .backend("circuit_breaker: {}")
        .backend("load_balancing: round_robin");
    settings
        .endpoints
        .push(format!("{{url: \"http://{gone}\", weight: 3, zone: west}}"));
    let gateway = Gateway::start(&settings).await;
    let (code, text) = says(&["backends", "--admin", &gateway.admin.to_string()]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("library: 2 of 2 healthy, round_robin, circuit closed"),
        "{text}"
    );
    for _ in 0..8 {
        once(gateway.address, request(Method::GET, "/v1/shelves/1/books/7", "")).await;
    }
    let told = get(&gateway, "/v1/backends/library").await.json();
    assert_eq!(told["healthy"], json!(1), "{told}");
    let of = |address: SocketAddr| {
        let endpoints = told["endpoints"].as_array().unwrap();
        let url = format!("http://{address}/");
        endpoints
            .iter()
            .find(|endpoint| endpoint["url"] == json!(url))
            .unwrap()
    };
    assert_eq!(
        (&of(gone)["ejected"], &of(gone)["weight"], &of(gone)["zone"]),
        (&json!(true), &json!(3), &json!("west")),
        "{told}"
    );
    assert_eq!(of(gone)["ejections"], json!({"consecutive": "1"}));
    assert_eq!(of(library.address)["healthy"], json!(true));
    assert_eq!(of(library.address)["calls"], json!("8"));
    let (code, text) = says(&["backends", "library", "--admin", &gateway.admin.to_string()]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("ejected     0 in flight") && text.contains("ejected: 1 by consecutive"),
        "{text}"
    );
    let (code, text) = says(&["backends", "none", "--admin", &gateway.admin.to_string()]).await;
    assert!(code == 1 && text.contains("no backend \"none\""), "{code} {text}");
}

/// Commands ask an admin listener with TLS, and show it a certificate.
#[tokio::test]
async fn commands_speak_tls_to_the_admin_listener() {
    let authority = Authority::new();
    authority.sign("localhost");
    authority.sign("operator");
    let library = backend().await;
    let file = |name: &str| authority.file(name).display().to_string();
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\", tls: {{{}, client_ca: {}}}}}
backends: {{library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}}}
routes: [{{services: [\"*\"], backend: library}}]
",
        authority.pair("localhost"),
        file("ca.pem"),
        library.address
    ))
    .await;
    let admin = gateway.admin.to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("operator.pem"), file("operator.key"));
    let secure = [
        "--admin-ca",
        &ca,
        "--admin-name",
        "localhost",
        "--admin-certificate",
        &certificate,
        "--admin-key",
        &key,
    ];
    let (code, text) = says(&[&["backends", "--admin", &admin][..], &secure].concat()).await;
    assert!(
        code == 0 && text.contains("library: 1 of 1 healthy"),
        "{code} {text}"
    );
    let (code, text) = says(&[&["schema", "list", "--admin", &admin][..], &secure].concat()).await;
    assert_eq!((code, text.as_str()), (0, ""));
    // The certificate is for another name than the address.
    let (code, text) = says(&["backends", "--admin", &admin, "--admin-ca", &ca]).await;
    assert!(
        code == 1 && text.contains("no TLS with the admin listener"),
        "{code} {text}"
    );
    // A check finds the listener by the configuration, and compares with what runs.
    let yaml = std::fs::read_to_string(gateway.folder().join("sabir.yaml")).unwrap();
    let port = format!("admin: {{address: \"{admin}\"");
    let path = gateway.folder().join("checked.yaml");
    std::fs::write(&path, yaml.replace("admin: {address: \"127.0.0.1:0\"", &port)).unwrap();
    let check = ["check", "--online", path.to_str().unwrap()];
    let (code, text) = says(&[&check[..], &secure].concat()).await;
    assert!(
        code == 0 && text.contains("runs the same (generation 1)"),
        "{code} {text}"
    );
}

#[tokio::test]
async fn a_reload_says_what_has_changed_or_what_is_wrong() {
    let library = backend().await;
    let gateway = Gateway::to(library.address).await;
    let yaml = std::fs::read_to_string(gateway.folder().join("sabir.yaml")).unwrap();
    let more = format!("{yaml}limits: {{request_timeout: 3s}}\n");
    gateway.rewrite(&more.replace("workers: 1", "workers: 3"));
    let told = post(&gateway, "/v1/reload").await.json();
    assert_eq!(
        (&told["errors"], &told["changes"][0]),
        (&json!([]), &json!("~ limits")),
        "{told}"
    );
    assert_eq!(told["afterRestart"], json!(["workers: 3 instead of 1"]));
    gateway.rewrite(&yaml.replace("protocol: grpc", "protocol: grcp"));
    let wrong = post(&gateway, "/v1/reload").await.json();
    let error = wrong["errors"][0].as_str().unwrap();
    assert!(error.contains("sabir.yaml:") && error.contains("grcp"), "{error}");
    assert_eq!(wrong["generation"], told["generation"]);
    assert_eq!(
        get(&gateway, "/v1/status").await.json()["reloadErrors"],
        wrong["errors"]
    );
}

#[tokio::test]
async fn an_operator_ends_the_process() {
    let library = backend().await;
    let mut gateway = Gateway::to(library.address).await;
    assert_eq!(post(&gateway, "/v1/drain").await.status, 200);
    assert!(gateway.ended().await.success(), "{}", gateway.said());
}

#[tokio::test]
async fn the_token_is_wanted_in_every_dialect_and_pages_are_not_let_in() {
    let library = backend().await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\n\
         admin: {{address: \"127.0.0.1:0\", token: \"${{file:token}}\"}}\nworkers: 1\n\
         backends:\n  a: {{endpoints: [\"http://{}\"], schema: {{registry: shop}}}}\n",
        library.address
    );
    let gateway = Gateway::in_folder(folder, &yaml).await;
    for path in ["/v1/status", "/metrics", "/v1/schemas/shop"] {
        get(&gateway, path).await.error(401, 16);
    }
    let refused = grpc::unary(gateway.admin, "sabir.admin.v1.Admin/Drain", Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let raw = put("/v1/schemas/shop", "application/x-protobuf", "x");
    once(gateway.admin, raw).await.error(401, 16);
    assert_eq!(get(&gateway, "/readyz").await.json(), json!({"status": "ready"}));
    let with = |path: &str, token: &str| {
        let mut asked = request(Method::GET, path, "");
        asked
            .headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        asked
    };
    once(
        gateway.admin,
        with("/v1/status", "another token of the same length aa"),
    )
    .await
    .error(401, 16);
    assert_eq!(once(gateway.admin, with("/v1/status", TOKEN)).await.status, 200);
    assert_eq!(once(gateway.admin, with("/metrics", TOKEN)).await.status, 200);
    let mut page = with("/v1/status", TOKEN);
    page.headers_mut()
        .insert("origin", "https://evil.example".parse().unwrap());
    once(gateway.admin, page).await.error(403, 7);
    // A token that changes counts without a restart.
    let next = "the next token of the tests, long enough too";
    std::fs::write(gateway.folder().join("token"), next).unwrap();
    until("the next token", || async {
        once(gateway.admin, with("/v1/status", next)).await.status == 200
    })
    .await;
    once(gateway.admin, with("/v1/status", TOKEN))
        .await
        .error(401, 16);
}

#[tokio::test]
async fn a_page_that_has_its_name_lead_here_is_not_let_in() {
    let library = backend().await;
    let gateway = Gateway::to(library.address).await;
    let mut asked = request(Method::POST, "/v1/drain", "{}");
    asked
        .headers_mut()
        .insert("host", "evil.example".parse().unwrap());
    assert_eq!(once(gateway.admin, asked).await.reason(), "ORIGIN_DENIED");
    assert_eq!(get(&gateway, "/v1/status").await.status, 200);
}

#[test]
fn an_address_that_others_reach_wants_a_token() {
    let folder = TempDir::new().unwrap();
    let check = |text: &str| {
        std::fs::write(folder.path().join("sabir.yaml"), text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sabir"))
            .args(["check", "sabir.yaml"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (fine, said) = check("admin: {address: \"0.0.0.0:9901\"}\n");
    assert!(
        !fine && said.contains("sabir.yaml:1:") && said.contains("not on loopback"),
        "{said}"
    );
    let (fine, said) = check("admin: {address: \"0.0.0.0:9901\", token: short}\n");
    assert!(!fine && said.contains("shorter than 32"), "{said}");
    let (fine, said) = check(&format!("admin: {{address: \"0.0.0.0:9901\", token: {TOKEN}}}\n"));
    assert!(fine, "{said}");
}

fn shop_proto(methods: &[&str]) -> String {
    let rpcs: Vec<String> = methods
        .iter()
        .map(|method| {
            let path = method.to_lowercase();
            format!(
                "  rpc {method}(M) returns (M) {{ option (google.api.http) = {{get: \"/v1/{path}\"}}; }}\n"
            )
        })
        .collect();
    format!(
        "syntax = \"proto3\";\npackage shop.v1;\nimport \"google/api/annotations.proto\";\n\
         import \"shop/m.proto\";\nservice Shop {{\n{}}}\n",
        rpcs.concat()
    )
}

const MESSAGE: &str = "syntax = \"proto3\";\npackage shop.v1;\nmessage M {}\n";

fn files(methods: &[&str]) -> Vec<(&'static str, String)> {
    vec![
        ("shop/shop.proto", shop_proto(methods)),
        ("shop/m.proto", MESSAGE.to_owned()),
    ]
}

/// A ZIP archive whose files are stored as they are.
fn zipped(files: &[(&'static str, String)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    for (name, text) in files {
        let mut sum = Crc::new();
        sum.update(text.as_bytes());
        let at = length(out.len());
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(sum.sum().to_le_bytes());
        common.extend([length(text.len()), length(text.len())].concat());
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0; 2]);
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), text.as_bytes()].concat());
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let (at, size) = (length(out.len()), length(directory.len()));
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    out.extend(
        [
            &directory[..],
            b"PK\x05\x06\0\0\0\0",
            &count,
            &count,
            &size,
            &at,
            &[0; 2],
        ]
        .concat(),
    );
    out
}

fn form(files: &[(&'static str, String)]) -> String {
    let part = |(name, text): &(&str, String)| {
        format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n{text}\r\n")
    };
    files.iter().map(part).collect::<String>() + "--edge--\r\n"
}

fn registry(backend: SocketAddr, whole: &str) -> String {
    format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n{whole}\
         backends:\n  shop: {{endpoints: [\"http://{backend}\"], schema: {{registry: shop}}}}\n\
         routes:\n  - {{services: [\"*\"], backend: shop}}\n"
    )
}

async fn shop(address: SocketAddr, path: &str) -> u16 {
    once(address, request(Method::GET, path, ""))
        .await
        .status
        .as_u16()
}

#[tokio::test]
async fn a_schema_is_registered_in_every_form_and_compiled_first() {
    let backend = backend().await;
    let gateway = Gateway::with_config(&registry(backend.address, "")).await;
    assert_eq!(
        shop(gateway.address, "/v1/open").await,
        503,
        "until it is registered"
    );
    let mut client = Rest::connect(gateway.admin, Version::Http1).await;
    let json: Vec<Value> = files(&["Open"])
        .into_iter()
        .map(|(name, text)| json!({"name": name, "text": text}))
        .collect();
    let body = json!({"protoFiles": {"files": json}}).to_string();
    let told = client
        .send(put("/v1/schemas/shop", "application/json", body))
        .await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = told.json();
    assert_eq!(
        (&told["schema"]["revision"], &told["schema"]["backends"]),
        (&json!("1"), &json!(["shop"]))
    );
    assert!(
        told["changes"].to_string().contains("+ method shop.v1.Shop/Open"),
        "{told}"
    );
    assert!(told["warnings"].to_string().contains("data_dir"), "{told}");
    assert_eq!(shop(gateway.address, "/v1/open").await, 200);

    let forms = [
        ("application/zip", Bytes::from(zipped(&files(&["Open", "Shut"])))),
        (
            "multipart/form-data; boundary=edge",
            Bytes::from(form(&files(&["Open", "Lock"]))),
        ),
    ];
    for (at, (content_type, body)) in forms.into_iter().enumerate() {
        let told = client.send(put("/v1/schemas/shop", content_type, body)).await;
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(told.json()["schema"]["revision"], json!((at + 2).to_string()));
    }
    assert_eq!(shop(gateway.address, "/v1/lock").await, 200);
    assert_eq!(
        shop(gateway.address, "/v1/shut").await,
        404,
        "the one before is gone"
    );

    // What is fetched can be put again.
    let mut asked = request(Method::GET, "/v1/schemas/shop", "");
    asked
        .headers_mut()
        .insert("accept", "application/x-protobuf".parse().unwrap());
    let set = client.send(asked).await.body;
    let pool = DescriptorPool::decode(set.clone()).expect("all that it needs");
    assert!(pool.get_service_by_name("shop.v1.Shop").is_some() && pool.files().count() == 5);
    let told = client
        .send(put("/v1/schemas/copy", "application/x-protobuf", set))
        .await;
    assert_eq!(
        (told.status.as_u16(), &told.json()["schema"]["methods"]),
        (200, &json!(2)),
        "{told:?}"
    );

    // What does not compile is refused with its place, and nothing changes.
    let broken = vec![
        (
            "shop/shop.proto",
            shop_proto(&["Open"]).replace("(M)", "(Missing)"),
        ),
        files(&[])[1].clone(),
    ];
    let told = client
        .send(put("/v1/schemas/shop", "application/zip", zipped(&broken)))
        .await;
    let error = told.error(400, 3);
    assert!(
        error.starts_with("shop/shop.proto:6:") && error.contains("Missing"),
        "{error}"
    );
    let lonely = client
        .send(put(
            "/v1/schemas/shop",
            "application/zip",
            zipped(&files(&["Open"])[..1]),
        ))
        .await;
    assert!(lonely.error(400, 3).contains("shop/m.proto"));
    for wrong in [
        put("/v1/schemas/Shop!", "application/zip", zipped(&files(&["Open"]))),
        put("/v1/schemas/shop", "application/zip", "no archive"),
        put("/v1/schemas/shop", "application/x-protobuf", "no set"),
        put("/v1/schemas/shop", "application/json", "{}"),
    ] {
        client.send(wrong).await.error(400, 3);
    }
    assert_eq!(shop(gateway.address, "/v1/lock").await, 200);
    let listed = client.get("/v1/schemas").await.json();
    let schemas: BTreeMap<&str, &str> = listed["schemas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|schema| {
            (
                schema["name"].as_str().unwrap(),
                schema["revision"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(schemas, [("copy", "1"), ("shop", "3")].into());

    // One that a backend goes by is not forgotten by accident.
    let refused = client.send(request(Method::DELETE, "/v1/schemas/shop", "")).await;
    assert!(refused.error(400, 9).contains("shop"));
    let forced = client
        .send(request(Method::DELETE, "/v1/schemas/shop?force=true", ""))
        .await;
    assert_eq!(forced.status, 200, "{forced:?}");
    assert_eq!(shop(gateway.address, "/v1/lock").await, 503);
    client
        .send(request(Method::DELETE, "/v1/schemas/shop", ""))
        .await
        .error(404, 5);
}

#[tokio::test]
async fn what_is_registered_is_there_after_a_restart() {
    let backend = backend().await;
    let folder = TempDir::new().unwrap();
    let yaml = registry(backend.address, "data_dir: data\n");
    std::fs::write(folder.path().join("sabir.yaml"), &yaml).unwrap();
    for restart in [false, true] {
        let process = Process::start(&["serve", "--config", "sabir.yaml"], folder.path());
        let admin = process.address_after("admin on ").await;
        let address = process.address_after("listening on ").await;
        if !restart {
            assert_eq!(shop(address, "/v1/open").await, 503);
            let told = once(
                admin,
                put("/v1/schemas/shop", "application/zip", zipped(&files(&["Open"]))),
            )
            .await;
            assert_eq!(
                (told.status.as_u16(), &told.json()["warnings"]),
                (200, &json!([])),
                "{told:?}"
            );
        }
        assert_eq!(shop(address, "/v1/open").await, 200);
    }
}

/// A file of the configuration and a schema that is registered do not get into each other's way.
#[tokio::test]
async fn a_reload_keeps_what_is_registered() {
    let backend = backend().await;
    let gateway = Gateway::with_config(&registry(backend.address, "")).await;
    let told = once(
        gateway.admin,
        put("/v1/schemas/shop", "application/zip", zipped(&files(&["Open"]))),
    )
    .await;
    assert_eq!(told.status, 200, "{told:?}");
    gateway.rewrite(&registry(backend.address, "limits: {request_timeout: 3s}\n"));
    let told = post(&gateway, "/v1/reload").await.json();
    assert_eq!(
        told["changes"],
        json!(["~ limits", "~ listener 127.0.0.1:0", "~ route *"]),
        "{told}"
    );
    assert_eq!(shop(gateway.address, "/v1/open").await, 200);
}

/// The command line against a running gateway: descriptors are pushed and pulled, and a configuration is compared.
#[tokio::test]
async fn the_command_line_registers_schemas_and_tells_what_would_change() {
    let backend = backend().await;
    let gateway = Gateway::with_config(&registry(backend.address, "")).await;
    let folder = gateway.folder().to_owned();
    for (name, text) in files(&["Open"]) {
        std::fs::create_dir_all(folder.join("shop")).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    }
    let admin = gateway.admin.to_string();
    let sabir = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sabir"));
        command.args(arguments).current_dir(&folder);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    };
    // Of a folder, imports are relative to it.
    let (code, said) = sabir(&["schema", "."]).await;
    assert!(
        code == Some(0) && said.contains("shop.v1.Shop/Open (shop.v1.M) returns (shop.v1.M)"),
        "{said}"
    );
    let (code, said) = sabir(&["schema", "push", "shop", ".", "--admin", &admin]).await;
    assert!(
        code == Some(0) && said.contains("+ method shop.v1.Shop/Open"),
        "{said}"
    );
    assert_eq!(shop(gateway.address, "/v1/open").await, 200);
    let (code, said) = sabir(&["schema", "list", "--admin", &admin]).await;
    assert!(code == Some(0) && said.contains("shop  revision 1"), "{said}");
    let (code, said) = sabir(&["schema", "pull", "shop", "-o", "shop.binpb", "--admin", &admin]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = sabir(&["schema", "diff", "shop.binpb", "."]).await;
    assert!(code == Some(0) && said.contains("no difference"), "{said}");

    let online = |text: &str| {
        let text = text.replacen(
            "admin: {address: \"127.0.0.1:0\"}",
            &format!("admin: {{address: \"{admin}\"}}"),
            1,
        );
        std::fs::write(folder.join("next.yaml"), text).unwrap();
    };
    online(&registry(backend.address, ""));
    let (code, said) = sabir(&["check", "--online", "next.yaml"]).await;
    assert!(code == Some(0) && said.contains("runs the same"), "{said}");
    online(&registry(backend.address, "limits: {drain_timeout: 3s}\n"));
    let (code, said) = sabir(&["check", "--online", "next.yaml"]).await;
    assert!(code == Some(0) && said.contains("    ~ limits"), "{said}");
    online(&registry("127.0.0.1:1".parse().unwrap(), ""));
    let (code, said) = sabir(&["check", "--online", "next.yaml"]).await;
    assert!(
        code == Some(1) && said.contains("~ backend shop") && said.contains("can't be reached"),
        "{said}"
    );
    let (code, said) = sabir(&["schema", "remove", "shop", "--admin", &admin]).await;
    assert!(code == Some(1) && said.contains("go by"), "{said}");
}

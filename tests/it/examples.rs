//! What is in `examples/` works: configurations are accepted, programs start and stop, and so does `sabir demo`.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;

use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::gateway::Process;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_configuration_is_accepted() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        // Rules are read by the configurations that name them.
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains("rules"))
        {
            continue;
        }
        let output = Command::new(env!("CARGO_BIN_EXE_sabir"))
            .arg("check")
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", path.display());
        seen += 1;
    }
    assert!(seen > 0, "no configuration was found");
}

/// An example program, which `cargo test` builds before it runs anything.
pub(crate) fn program(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_sabir"))
        .with_file_name("examples")
        .join(name);
    if !built.exists() {
        // `cargo test --test it` alone does not.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--example", name])
            .current_dir(root())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "{name} can't be built"
        );
    }
    built
}

#[tokio::test]
async fn the_library_serves_a_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let service = Process::run(&program("library"), &["--listen", "127.0.0.1:0"], folder.path());
    let backend = format!("http://{}", service.address_after("listening on ").await);
    let arguments = [
        "serve",
        "--backend",
        &backend,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let gateway = Process::start(&arguments, folder.path());
    let address = gateway.address_after("listening on ").await;
    let answer = once(address, request(Method::GET, "/v1/shelves/1/books/7", "")).await;
    assert_eq!(answer.json()["title"], "Dune");
}

#[tokio::test]
async fn a_program_holds_a_gateway_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut embedding = Process::run(&program("embed"), &[], folder.path());
    embedding.says("\"Dune\"").await;
    assert!(embedding.ended().await.success(), "{}", embedding.said());
}

/// Everything that the page of the demo says about curl holds.
#[tokio::test]
async fn the_demo_prints_a_page_that_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Process::start(&["demo"], folder.path());
    demo.says("Ctrl-C").await;
    let address = demo.address_after("curl http://").await;
    let mut client = Rest::connect(address, Version::Http1).await;
    for path in [
        "/v1/shelves/1/books/7",
        "/v1/books?pageSize=2&filter.genres=GENRE_SCI_FI&filter.minPages=300",
        "/v1/genres",
        "/v1/shelves/1/books/7/cover",
        "/v1/shelves/1/books/7:download?chunkBytes=64",
        "/v1/shelves/1/books:watch?interval=0.01s",
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    for (path, body, status) in [
        (
            "/v1/shelves/3/books?bookId=walden",
            "{\"title\": \"Walden\", \"genre\": \"GENRE_NOVEL\", \"pages\": 352}",
            200,
        ),
        ("/v1/shelves/1/books/8:move", "{\"shelf\": \"shelves/2\"}", 200),
        ("/library.v1.Probe/Unbound", "{\"number\": 42}", 200),
        (
            "/v1/shelves/3/books",
            "{\"title\": \"Emma\", \"pages\": 3.5}",
            400,
        ),
        (
            "/v1/shelves/3/books:import",
            "[{\"title\": \"Kim\"}, {\"title\": \"\"}, {\"title\": \"Ivanhoe\"}]",
            200,
        ),
    ] {
        let answer = client.post(path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
    }
    let changed = client
        .send(request(Method::PATCH, "/v1/shelves/1/books/7", "{\"rating\": 5}"))
        .await;
    assert_eq!(
        (changed.json()["rating"].as_f64(), &changed.json()["title"]),
        (Some(5.0), &"Dune".into())
    );
    assert_eq!(
        client.get("/v1/shelves/1/books/99").await.error(404, 5),
        "no book \"shelves/1/books/99\""
    );
    assert!(
        client
            .get("/v1/books?pageSzie=2")
            .await
            .error(400, 3)
            .contains("pageSzie")
    );
    assert_eq!(
        client
            .get("/v1/probe:fail?status.code=10&status.message=somebody+was+faster")
            .await
            .status,
        409
    );
    let mut slow = request(Method::GET, "/v1/probe:wait?delay=2s", "");
    slow.headers_mut().insert("grpc-timeout", "200m".parse().unwrap());
    client.send(slow).await.error(504, 4);
    demo.signal("INT");
    assert!(demo.ended().await.success(), "{}", demo.said());
}

/// A second demo takes the next free port.
#[tokio::test]
async fn two_demos_have_ports_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::start(&["demo"], folder.path());
    let one = first.address_after("curl http://").await;
    let second = Process::start(&["demo"], folder.path());
    let two = second.address_after("curl http://").await;
    assert_ne!(one, two);
}

//! Where a schema comes from: reflection in both versions, `.proto` files, a descriptor set; and reflection at the edge.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha;
use tonic_reflection::server::Builder;
use tower::Service;
use tower::util::BoxCloneSyncService;

use crate::support::backends::library;
use crate::support::clients::grpc;
use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::gateway::{Gateway, Process, Settings};
use crate::support::messages::DESCRIPTORS;
use crate::support::within;

const GENRES: &str = "/v1/genres";

/// The gateway answers on paths that only the schema can have told it.
async fn serves(gateway: &Gateway) {
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let answer = client.get("/v1/shelves/1/books/7").await;
    assert_eq!(answer.json()["title"], "Dune", "{answer:?}\n{}", gateway.said());
    assert_eq!(
        client
            .post("/library.v1.Probe/Unbound", json!({"number": "3"}))
            .await
            .json(),
        json!({"number": "3"})
    );
}

#[tokio::test]
async fn by_reflection() {
    let backend = library().await;
    let gateway = Gateway::start(&Settings::to(backend.address).schema("reflection")).await;
    serves(&gateway).await;
}

#[tokio::test]
async fn by_a_descriptor_set() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    serves(&gateway).await;
}

fn proto() -> String {
    format!("{}/proto", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn by_a_proto_file_whose_imports_are_embedded() {
    let backend = library().await;
    // Nothing but the one folder: google/api and the like come from the binary.
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("library/v1");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::copy(
        format!("{}/library/v1/library.proto", proto()),
        below.join("library.proto"),
    )
    .unwrap();
    let schema = format!(
        "{{protos: [{0}/library/v1/library.proto], proto_paths: [{0}]}}",
        folder.path().display()
    );
    let gateway = Gateway::start(&Settings::to(backend.address).schema(&schema)).await;
    serves(&gateway).await;
}

#[tokio::test]
async fn by_a_folder_of_proto_files() {
    let backend = library().await;
    let schema = format!("{{protos: [{0}/library], proto_paths: [{0}]}}", proto());
    let gateway = Gateway::start(&Settings::to(backend.address).schema(&schema)).await;
    serves(&gateway).await;
}

#[tokio::test]
async fn a_missing_import_is_named_with_the_file_that_wants_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("lonely.proto"),
        "syntax = \"proto3\";\nimport \"not/there.proto\";\nmessage M {}\n",
    )
    .unwrap();
    let arguments = [
        "serve",
        "--backend",
        "http://127.0.0.1:1",
        "--proto",
        "lonely.proto",
    ];
    let mut process = Process::start(&arguments, folder.path());
    let status = process.ended().await;
    let said = process.says("not/there.proto").await;
    assert!(!status.success());
    assert!(process.said().contains("lonely.proto"), "{said}");
}

/// `serve` without a file: one backend, everything exposed.
#[tokio::test]
async fn by_flags_alone() {
    let backend = library().await;
    let url = format!("http://{}", backend.address);
    for how in [&[][..], &["--descriptors", DESCRIPTORS]] {
        let mut arguments = vec![
            "serve",
            "--backend",
            &url,
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ];
        arguments.extend(how);
        let process = Process::start(&arguments, Path::new("."));
        let address = process.address_after("listening on ").await;
        let answer = once(address, request(Method::GET, "/v1/shelves/1/books/7", "")).await;
        assert_eq!(answer.json()["title"], "Dune", "{how:?}");
    }
}

/// The example service with one version of reflection alone.
#[derive(Clone)]
struct OneVersion {
    prefix: &'static str,
    reflection: BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
}

impl Service<Request<Body>> for OneVersion {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with(self.prefix) {
            Box::pin(self.reflection.call(request))
        } else {
            Box::pin(async { Ok(tonic::Status::unimplemented("no such version").into_http()) })
        }
    }
}

/// Serves one version of reflection on an address.
async fn reflecting(address: &str, prefix: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let described = || Builder::configure().register_encoded_file_descriptor_set(sabir::demo::DESCRIPTORS);
    let reflection = match prefix {
        "/grpc.reflection.v1." => BoxCloneSyncService::new(described().build_v1().unwrap()),
        _ => BoxCloneSyncService::new(described().build_v1alpha().unwrap()),
    };
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = OneVersion { prefix, reflection };
    let task = tokio::spawn(async move {
        Server::builder()
            .serve_with_incoming(service, TcpIncoming::from(listener))
            .await
            .unwrap();
    });
    (address, task)
}

#[tokio::test]
async fn by_either_version_of_reflection() {
    for prefix in ["/grpc.reflection.v1.", "/grpc.reflection.v1alpha."] {
        let (address, task) = reflecting("127.0.0.1:0", prefix).await;
        let gateway = Gateway::start(&Settings::to(address).schema("reflection")).await;
        let answer = once(gateway.address, request(Method::GET, GENRES, "")).await;
        // The path is known, and the backend has nothing behind it.
        assert_eq!(answer.error(501, 12), "no such version", "{prefix}");
        task.abort();
    }
}

/// A backend that is down at the start does not stop the gateway, and is found when it comes.
#[tokio::test]
async fn a_backend_that_comes_later_is_learned() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = Gateway::start(&Settings::to(address).schema("reflection")).await;
    let answer = once(gateway.address, request(Method::GET, GENRES, "")).await;
    answer.error(503, 14);
    assert_eq!(answer.reason(), "SCHEMA_PENDING");
    let status = grpc::unary(gateway.address, "library.v1.Library/ListGenres", Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);

    let listener = TcpListener::bind(address).await.unwrap();
    let task = tokio::spawn(async move {
        sabir::demo::serve(listener, std::future::pending())
            .await
            .unwrap();
    });
    within("the lesson", async {
        // The plan reaches the workers after it is said to be in place.
        while once(gateway.address, request(Method::GET, GENRES, ""))
            .await
            .status
            == 503
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    serves(&gateway).await;
    task.abort();
}

/// Rules from a file, merged over the annotations by full method name.
#[tokio::test]
async fn rules_from_a_file() {
    let backend = library().await;
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(
        &rules,
        "http:\n  rules:\n    - selector: library.v1.Probe.Unbound\n      get: /v2/count/{number}\n    \
         - selector: library.v1.Library.ListGenres\n      get: /v2/genres\n",
    )
    .unwrap();
    let settings = Settings::to(backend.address).backend(&format!("rules: [{}]", rules.display()));
    let gateway = Gateway::start(&settings).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(client.get("/v2/count/7").await.json(), json!({"number": "7"}));
    assert_eq!(client.get("/v2/genres").await.status, 200);
    assert_eq!(client.get(GENRES).await.status, 404, "the annotation is replaced");
    assert_eq!(
        client.get("/v1/shelves/1/books/7").await.status,
        200,
        "the others stay"
    );
}

/// Asks reflection v1 of the gateway one question.
async fn ask(address: SocketAddr, question: MessageRequest) -> MessageResponse {
    let mut client = ServerReflectionClient::new(grpc::connect(address).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let mut answers = client
        .server_reflection_info(stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer: Option<ServerReflectionResponse> = within("the answer", answers.message()).await.unwrap();
    answer.unwrap().message_response.unwrap()
}

#[tokio::test]
async fn the_edge_describes_what_is_exposed() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let MessageResponse::ListServicesResponse(list) =
        ask(gateway.address, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list")
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    for wanted in ["library.v1.Library", "library.v1.Probe", "library.v1.ReadingRoom"] {
        assert!(names.iter().any(|name| name == wanted), "{names:?}");
    }

    let MessageResponse::FileDescriptorResponse(files) = ask(
        gateway.address,
        MessageRequest::FileContainingSymbol("library.v1.Library.GetBook".to_owned()),
    )
    .await
    else {
        panic!("no file")
    };
    assert!(!files.file_descriptor_proto.is_empty());

    let MessageResponse::ErrorResponse(error) = ask(
        gateway.address,
        MessageRequest::FileContainingSymbol("not.There".to_owned()),
    )
    .await
    else {
        panic!("no error")
    };
    assert_eq!(error.error_code, 5);
}

#[tokio::test]
async fn the_edge_answers_the_older_version_too() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let channel = grpc::connect(gateway.address).await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut answers = client
        .server_reflection_info(stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let answer = within("the answer", answers.message()).await.unwrap().unwrap();
    assert!(format!("{answer:?}").contains("library.v1.Library"));
}

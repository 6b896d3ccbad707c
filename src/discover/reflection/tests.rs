//! Reflection against servers of another make, in both versions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic_reflection::pb::v1::server_reflection_server::{ServerReflection, ServerReflectionServer};
use tonic_reflection::pb::v1::{ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServiceResponse};
use tower::Service as _;

use super::*;
use crate::schema::{Rules, Schema, raw};

const BOOKS: &str = "syntax = \"proto3\"; package library.v1;
import \"google/api/annotations.proto\";
import \"google/protobuf/empty.proto\";
import \"library/v1/book.proto\";
service Library {
  rpc Get(Book) returns (Book) { option (google.api.http) = { get: \"/v1/{name}\" }; }
  rpc Watch(google.protobuf.Empty) returns (stream Book);
}";
const BOOK: &str = "syntax = \"proto3\"; package library.v1; import \"google/protobuf/timestamp.proto\";
message Book { string name = 1; google.protobuf.Timestamp printed = 2; }";
const ROOMS: &str = "syntax = \"proto3\"; package rooms;
import \"library/v1/book.proto\";
service Rooms { rpc Enter(library.v1.Book) returns (library.v1.Book); }";

/// The example's files by name, imports included.
fn files() -> BTreeMap<String, Bytes> {
    let sources = [
        ("library/v1/library.proto", BOOKS),
        ("library/v1/book.proto", BOOK),
        ("rooms.proto", ROOMS),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()));
    let entries = sources.clone().map(|(name, _)| name);
    let schema = Schema::from_sources(&entries, &sources.into(), &Rules::empty()).unwrap();
    let name = |file: &Bytes| {
        prost_types::FileDescriptorProto::decode(file.clone())
            .unwrap()
            .name
            .unwrap()
    };
    schema.files.into_iter().map(|file| (name(&file), file)).collect()
}

/// The files as tonic-reflection takes them.
fn set(keep: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut set = Vec::new();
    for (name, file) in files() {
        if keep(&name) {
            raw::put_bytes(&mut set, 1, &file);
        }
    }
    set
}

fn is_own(name: &str) -> bool {
    !name.starts_with("google/") && !name.starts_with("grpc/")
}

type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A gRPC server on a free port; dropping it stops it.
struct Running {
    port: u16,
    streams: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Running {
    async fn start(handler: Handler, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let streams = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&streams);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (handler, tls, count) = (Arc::clone(&handler), tls.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    let io: Box<dyn Io> = match tls {
                        None => Box::new(tcp),
                        Some(tls) => Box::new(tls.accept(tcp).await.unwrap()),
                    };
                    let service = hyper::service::service_fn(move |request| {
                        count.fetch_add(1, Ordering::Relaxed);
                        let answer = handler(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    // The client hangs up when it has all it wants.
                    let _end = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(io), service)
                        .await;
                });
            }
        });
        Self {
            port,
            streams,
            _tasks: tasks,
        }
    }

    fn uri(&self, path: &str) -> Uri {
        format!("http://127.0.0.1:{}{path}", self.port).parse().unwrap()
    }

    async fn fetch(&self) -> Result<Learned, DiscoverError> {
        fetch(self.uri(""), None, Duration::from_secs(10)).await
    }
}

/// A gRPC status without a message stream.
fn status(code: u8) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code.to_string())
        .body(Body::empty())
        .unwrap()
}

/// Hands requests for `path` to a tonic service; others are not implemented.
macro_rules! only {
    ($path:expr, $service:expr) => {{
        let service = $service;
        let handler: Handler = Arc::new(move |request: Request<Incoming>| {
            let mut service = service.clone();
            Box::pin(async move {
                if request.uri().path() == $path {
                    service.call(request).await.unwrap()
                } else {
                    status(12)
                }
            })
        });
        handler
    }};
}

fn builder(set: &[u8]) -> tonic_reflection::server::Builder<'_> {
    tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(set)
}

/// A reflection server that answers by a function, on each stream at most so many times.
#[derive(Clone)]
struct Scripted<F> {
    answer: F,
    per_stream: usize,
}

#[tonic::async_trait]
impl<F> ServerReflection for Scripted<F>
where
    F: Fn(MessageRequest) -> Result<MessageResponse, tonic::Status> + Clone + Send + Sync + 'static,
{
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, tonic::Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        request: tonic::Request<tonic::Streaming<ServerReflectionRequest>>,
    ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, tonic::Status> {
        let answer = self.answer.clone();
        let answers = request.into_inner().take(self.per_stream).map(move |request| {
            let request = request?;
            let message = answer(request.message_request.clone().unwrap())?;
            Ok(ServerReflectionResponse {
                valid_host: String::new(),
                original_request: Some(request),
                message_response: Some(message),
            })
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

/// Answers as grpcio does: each file by itself, what is unknown as an error response.
fn grpcio(
    services: &'static [&'static str],
) -> impl Fn(MessageRequest) -> Result<MessageResponse, tonic::Status> + Clone {
    let files = files();
    move |request| {
        let found = match &request {
            MessageRequest::ListServices(_) => {
                return Ok(MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: services
                        .iter()
                        .map(|&name| ServiceResponse {
                            name: name.to_owned(),
                        })
                        .collect(),
                }));
            }
            MessageRequest::FileContainingSymbol(name) => match name.as_str() {
                "library.v1.Library" => files.get("library/v1/library.proto"),
                "rooms.Rooms" => files.get("rooms.proto"),
                _ => None,
            },
            MessageRequest::FileByFilename(name) => files.get(name),
            other => panic!("{other:?}"),
        };
        Ok(match found {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.to_vec()],
            }),
            None => MessageResponse::ErrorResponse(ErrorResponse {
                error_code: 5,
                error_message: "not found".to_owned(),
            }),
        })
    }
}

async fn scripted<F>(per_stream: usize, answer: F) -> Running
where
    F: Fn(MessageRequest) -> Result<MessageResponse, tonic::Status> + Clone + Send + Sync + 'static,
{
    let service = ServerReflectionServer::new(Scripted { answer, per_stream });
    Running::start(only!(PATHS[0], service), None).await
}

/// The whole example was learned.
#[track_caller]
fn check(learned: Learned) {
    assert_eq!(learned.services, ["library.v1.Library", "rooms.Rooms"]);
    assert_eq!(learned.warnings, []);
    let schema = Schema::from_learned(learned, &Rules::empty()).unwrap();
    let paths: Vec<&str> = schema.methods.iter().map(|method| &*method.path).collect();
    assert_eq!(
        paths,
        [
            "/library.v1.Library/Get",
            "/library.v1.Library/Watch",
            "/rooms.Rooms/Enter"
        ]
    );
    assert_eq!(schema.methods[0].rules[0].template, "/v1/{name}");
    assert_eq!(schema.warnings, []);
}

#[tokio::test]
async fn tonic_v1_is_learned() {
    let set = set(|name| !name.starts_with("grpc/"));
    let server = Running::start(only!(PATHS[0], builder(&set).build_v1().unwrap()), None).await;
    check(server.fetch().await.unwrap());
}

#[tokio::test]
async fn tonic_v1alpha_is_learned() {
    let set = set(|name| !name.starts_with("grpc/"));
    let server = Running::start(only!(PATHS[1], builder(&set).build_v1alpha().unwrap()), None).await;
    check(server.fetch().await.unwrap());
}

#[tokio::test]
async fn imports_that_the_server_lacks_are_completed_although_each_ends_the_stream() {
    let set = set(is_own);
    let server = Running::start(only!(PATHS[0], builder(&set).build_v1().unwrap()), None).await;
    check(server.fetch().await.unwrap());
    assert!(
        server.streams.load(Ordering::Relaxed) > 1,
        "tonic-reflection ends the stream"
    );
}

#[tokio::test]
async fn grpcio_is_learned_over_one_stream() {
    let services = &[
        "grpc.reflection.v1alpha.ServerReflection",
        "library.v1.Library",
        "rooms.Rooms",
    ];
    let server = scripted(usize::MAX, grpcio(services)).await;
    check(server.fetch().await.unwrap());
    assert_eq!(server.streams.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_answers_once_per_stream_is_learned() {
    let server = scripted(1, grpcio(&["library.v1.Library", "rooms.Rooms"])).await;
    check(server.fetch().await.unwrap());
}

#[tokio::test]
async fn a_service_that_is_not_described_is_left_out() {
    let server = scripted(usize::MAX, grpcio(&["library.v1.Library", "secret.Service"])).await;
    let learned = server.fetch().await.unwrap();
    assert_eq!(learned.services, ["library.v1.Library"]);
    assert_eq!(learned.warnings.len(), 1);
    assert_eq!(
        learned.warnings[0].to_string(),
        "service secret.Service is left out: the server does not describe it: NOT_FOUND: not found"
    );
}

#[tokio::test]
async fn a_path_in_the_endpoint_goes_before_the_services() {
    let service = ServerReflectionServer::new(Scripted {
        answer: grpcio(&["library.v1.Library", "rooms.Rooms"]),
        per_stream: usize::MAX,
    });
    let handler: Handler = Arc::new(move |mut request: Request<Incoming>| {
        let mut service = service.clone();
        Box::pin(async move {
            match request.uri().path().strip_prefix("/deep/down").map(str::to_owned) {
                Some(path) => {
                    *request.uri_mut() = path.parse().unwrap();
                    service.call(request).await.unwrap()
                }
                None => status(12),
            }
        })
    });
    let server = Running::start(handler, None).await;
    for path in ["/deep/down", "/deep/down/"] {
        check(
            fetch(server.uri(path), None, Duration::from_secs(10))
                .await
                .unwrap(),
        );
    }
}

#[tokio::test]
async fn a_server_over_tls_is_learned() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server_tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    server_tls.alpn_protocols = vec![b"h2".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let client_tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let service = ServerReflectionServer::new(Scripted {
        answer: grpcio(&["library.v1.Library", "rooms.Rooms"]),
        per_stream: usize::MAX,
    });
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_tls));
    let server = Running::start(only!(PATHS[0], service), Some(acceptor)).await;
    let endpoint: Uri = format!("https://127.0.0.1:{}", server.port).parse().unwrap();
    check(
        fetch(
            endpoint.clone(),
            Some(Arc::new(client_tls)),
            Duration::from_secs(10),
        )
        .await
        .unwrap(),
    );
    let error = fetch(endpoint, None, Duration::from_secs(10)).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("it needs TLS, and none is configured"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_without_reflection_is_told_from_one_that_refuses() {
    let server = Running::start(Arc::new(|_| Box::pin(async { status(12) })), None).await;
    assert!(matches!(
        server.fetch().await,
        Err(DiscoverError::NoReflection { .. })
    ));
    assert_eq!(
        server.streams.load(Ordering::Relaxed),
        2,
        "both versions were asked"
    );
    let server = Running::start(Arc::new(|_| Box::pin(async { status(7) })), None).await;
    let refused = server.fetch().await;
    assert!(
        matches!(
            refused,
            Err(DiscoverError::Refused {
                code: Code::PermissionDenied,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_runs_out_of_time() {
    let server = Running::start(Arc::new(|_| Box::pin(std::future::pending())), None).await;
    let late = fetch(server.uri(""), None, Duration::from_millis(100)).await;
    assert!(matches!(late, Err(DiscoverError::Timeout { .. })), "{late:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_can_not_be_reached() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint: Uri = format!("http://user:secret@127.0.0.1:{port}").parse().unwrap();
    let error = fetch(endpoint, None, Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("http://127.0.0.1:{port} can't be reached")
    );
    for endpoint in ["ftp://127.0.0.1:1", "/path"] {
        let error = fetch(endpoint.parse().unwrap(), None, Duration::from_secs(10))
            .await
            .unwrap_err();
        assert!(matches!(error, DiscoverError::Endpoint { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_a_server_may_tell_is_bounded() {
    let server = scripted(usize::MAX, grpcio(&["library.v1.Library", "rooms.Rooms"])).await;
    let limits = DialogueLimits {
        files: 3,
        ..DialogueLimits::default()
    };
    let error = learn(&server.uri(""), None, limits).await.unwrap_err();
    assert!(
        error.to_string().ends_with("the server tells more than 3 files"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_http_1_alone_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Uri = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut tcp, answer)
                .await
                .unwrap();
        }
    });
    let error = fetch(endpoint, None, Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(error, DiscoverError::Broken { .. }), "{error}");
}

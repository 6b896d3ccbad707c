//! What a call costs, in instructions of the gateway: the program in a process of its own under callgrind, and one client
//! that makes one call of each kind after the other. The figures are the same on a busy machine as on an idle one, but for
//! a per cent or two. Wants valgrind. What the kernel does is not counted.
//!
//!     cargo build --profile ci && cargo run --example calls [-- [--scale] PROGRAM [BASELINE]]
//!
//! With a baseline, a file of lines as they are printed, the difference to it is told. `--scale` tells instead how a call's
//! cost grows with routes, endpoints, connections and workers.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "the program tells what it finds, and its tasks are its own"
)]

mod process;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64_simd::URL_SAFE_NO_PAD as BASE64;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use process::{Failure, Gateway};
use sabir::demo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;

/// Calls of a kind that are not counted, so that connections are there and tables have their size.
const BEFORE: usize = 50;
/// Calls that are counted.
const COUNTED: usize = 200;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);

const BOOK: &str = "/v1/shelves/1/books/7";
const BOOK_JSON: &str =
    r#"{"name": "shelves/1/books/7", "title": "Dune", "author": "Frank Herbert", "pages": 412}"#;
const GET_BOOK: &str = "/library.v1.Library/GetBook";
const FAIL_LATER: &str = "/library.v1.Probe/FailLater";
/// `library.v1.GetBookRequest { name: "shelves/1/books/7" }`.
const GET_BOOK_REQUEST: &[u8] = b"\x0a\x11shelves/1/books/7";
/// `library.v1.FailRequest { after: 20 }`: a stream of twenty messages that ends well.
const FAIL_REQUEST: &[u8] = b"\x10\x14";
/// A file that is large enough to go from socket to socket.
const LARGE: usize = 100 << 10;
const BODY: &str = r#"{"stringValue": "a word", "int64Value": "7", "boolValue": true, "doubleValue": 1.5}"#;

/// Which HTTP a kind of call speaks.
#[derive(Clone, Copy)]
enum Over {
    Http1,
    Http2,
}

/// A kind of call.
struct Kind {
    name: &'static str,
    over: Over,
    host: &'static str,
    method: http::Method,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Bytes,
    /// Names the token that it carries.
    secured: bool,
}

impl Kind {
    fn new(name: &'static str, over: Over, path: &'static str) -> Self {
        Self {
            name,
            over,
            host: "plain.example",
            method: http::Method::GET,
            path,
            headers: &[],
            body: Bytes::new(),
            secured: false,
        }
    }

    fn post(mut self, headers: &'static [(&'static str, &'static str)], body: impl Into<Bytes>) -> Self {
        self.method = http::Method::POST;
        self.headers = headers;
        self.body = body.into();
        self
    }

    fn at(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    fn secured(mut self) -> Self {
        self.secured = true;
        self.at("secured.example")
    }

    fn request(&self, token: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(&self.method);
        request = match self.over {
            Over::Http1 => request.uri(self.path).header("host", self.host),
            Over::Http2 => request.uri(format!("http://{}{}", self.host, self.path)),
        };
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        if self.secured {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];
const WEB: &[(&str, &str)] = &[("content-type", "application/grpc-web+proto")];
const CONNECT: &[(&str, &str)] = &[
    ("content-type", "application/proto"),
    ("connect-protocol-version", "1"),
];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Every kind of call but the messages of WebSockets.
fn kinds() -> Vec<Kind> {
    use Over::{Http1, Http2};
    let get_book = enveloped(GET_BOOK_REQUEST);
    vec![
        Kind::new("rest_get", Http1, BOOK),
        Kind::new("rest_get_h2", Http2, BOOK),
        Kind::new("rest_post", Http1, "/v1/probe:echo").post(JSON, BODY),
        Kind::new("rest_list", Http1, "/v1/books"),
        Kind::new("rest_stream", Http1, "/v1/probe:failLater?after=20").post(JSON, "{}"),
        Kind::new("grpc_get", Http2, GET_BOOK).post(GRPC, get_book.clone()),
        Kind::new("grpc_stream", Http2, FAIL_LATER).post(GRPC, enveloped(FAIL_REQUEST)),
        Kind::new("web_get", Http1, GET_BOOK).post(WEB, get_book.clone()),
        Kind::new("connect_get", Http1, GET_BOOK).post(CONNECT, GET_BOOK_REQUEST),
        Kind::new("http_get", Http1, "/files/a"),
        Kind::new("http_post", Http1, "/files/a").post(JSON, BODY),
        Kind::new("http_list", Http1, "/files/all"),
        Kind::new("sec_get", Http1, BOOK).secured(),
        Kind::new("rev_get", Http2, GET_BOOK)
            .post(GRPC, get_book)
            .at("reverse.example"),
    ]
}

fn enveloped(message: &[u8]) -> Bytes {
    let mut envelope = BytesMut::new();
    envelope.put_u8(0);
    envelope.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    envelope.put_slice(message);
    envelope.freeze()
}

/// A client on one connection.
enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    async fn connect(gateway: SocketAddr, over: Over) -> Result<Self, Failure> {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        Ok(match over {
            Over::Http1 => {
                let (client, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Self::Http1(client)
            }
            Over::Http2 => {
                let (client, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Self::Http2(client)
            }
        })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        Ok(match self {
            Self::Http1(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
            Self::Http2(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
        })
    }

    /// Makes one call, which has to end well.
    async fn call(&mut self, kind: &Kind, token: &str) -> Result<(), Failure> {
        let response = timeout(PATIENCE, self.send(kind.request(token)?)).await??;
        let status = response.status();
        let code = response.headers().get("grpc-status").cloned();
        let body = timeout(PATIENCE, response.into_body().collect()).await??;
        let trailers = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .cloned();
        let fine = code.or(trailers).is_none_or(|code| code == "0");
        if status == 200 && fine {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Err(format!("{}: {status} {body}", kind.name).into())
    }
}

/// What stands behind the gateway: the example service, and a server of files and JSON.
#[derive(Clone, Copy)]
struct Backends {
    library: SocketAddr,
    files: SocketAddr,
}

impl Backends {
    async fn start() -> Result<Self, Failure> {
        // Of every address of the loopback network, so that one service can stand for a thousand endpoints.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let library = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr()?.port()));
        tokio::spawn(demo::serve(listener, std::future::pending()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let files = listener.local_addr()?;
        let large = Bytes::from(vec![b'x'; LARGE]);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let large = large.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let body = match request.uri().path() {
                        BOOK => Bytes::from_static(BOOK_JSON.as_bytes()),
                        "/files/all" => large.clone(),
                        _ => Bytes::from_static(b"what is in the file"),
                    };
                    let response = Response::builder()
                        .header("content-type", "application/json")
                        .body(Full::new(body));
                    std::future::ready(Ok::<_, Infallible>(response.unwrap_or_default()))
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Self { library, files })
    }
}

/// A key set in a file, and a token that was signed by its key.
fn token(folder: &Path) -> Result<(PathBuf, String), Failure> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| "no key can be made")?;
    let (x, y) = key
        .public_key()
        .as_ref()
        .get(1..65)
        .ok_or("a key of another form")?
        .split_at(32);
    let encode = |bytes: &[u8]| BASE64.encode_to_string(bytes);
    let jwk =
        json!({"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "x": encode(x), "y": encode(y)});
    let file = folder.join("jwks.json");
    std::fs::write(&file, json!({"keys": [jwk]}).to_string())?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let head = encode(json!({"alg": "ES256", "kid": "k"}).to_string().as_bytes());
    let claims = json!({"iss": "example", "aud": "library", "sub": "reader", "iat": now, "exp": now + 3600});
    let signed = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let signature = key
        .sign(&SystemRandom::new(), signed.as_bytes())
        .map_err(|_| "the key does not sign")?;
    Ok((file, format!("{signed}.{}", encode(signature.as_ref()))))
}

/// How large a configuration is.
#[derive(Clone, Copy)]
struct Size {
    routes: usize,
    endpoints: usize,
    workers: usize,
}

const SMALL: Size = Size {
    routes: 0,
    endpoints: 1,
    workers: 1,
};

fn configuration(backends: Backends, keys: &Path, size: Size) -> Result<String, Failure> {
    let Backends { library, files } = backends;
    let port = library.port();
    let endpoints: Vec<String> = (1..=size.endpoints)
        .map(|number| format!("\"http://127.0.{}.{}:{port}\"", number / 200, number % 200 + 1))
        .collect();
    let mut text = format!(
        "workers: {}\n\
         listeners: [{{address: \"127.0.0.1:0\"}}]\n\
         admin: {{address: \"127.0.0.1:0\"}}\n\
         limits: {{header_timeout: 1h, keep_alive_timeout: 1h}}\n\
         backends:\n  \
           library: {{protocol: grpc, endpoints: [{}]}}\n  \
           reverse: {{protocol: rest, endpoints: [\"http://{files}\"], schema: {{descriptors: \"{}\"}}}}\n  \
           files: {{protocol: rest, endpoints: [\"http://{files}\"]}}\n\
         auth:\n  example:\n    jwt: {{issuer: example, audiences: [library], jwks: {{file: \"{}\"}}}}\n\
         routes:\n  \
           - {{hosts: [secured.example], services: [\"*\"], backend: library, auth: example}}\n  \
           - {{hosts: [reverse.example], services: [\"library.v1.Library\"], backend: reverse}}\n  \
           - {{services: [\"*\"], backend: library}}\n  \
           - {{path: /files/**, backend: files}}\n",
        size.workers,
        endpoints.join(", "),
        keys.with_file_name("demo.pb").display(),
        keys.display(),
    );
    for number in 0..size.routes {
        writeln!(text, "  - {{path: /folders/{number}/**, backend: files}}")?;
    }
    Ok(text)
}

/// The gateway under callgrind.
struct Counted {
    gateway: Gateway,
    folder: tempfile::TempDir,
    dumps: usize,
}

impl Counted {
    fn start(program: &Path, configuration: &str) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!(
                "--callgrind-out-file={}",
                folder.path().join("out").display()
            ))
            .arg(program);
        Ok(Self {
            gateway: Gateway::start(command, configuration)?,
            folder,
            dumps: 0,
        })
    }

    /// Instructions since this was last asked.
    fn instructions(&mut self) -> Result<u64, Failure> {
        let done = Command::new("callgrind_control")
            .args(["--dump", &self.gateway.id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !done.success() {
            return Err("callgrind_control failed".into());
        }
        self.dumps += 1;
        let file = self.folder.path().join(format!("out.{}", self.dumps));
        let text = std::fs::read_to_string(file)?;
        let total = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("totals: "))
            .ok_or("a dump without totals")?;
        Ok(total.trim().parse()?)
    }

    /// Instructions of one call of a kind, made on so many connections in turn.
    async fn cost(&mut self, kind: &Kind, token: &str, connections: usize) -> Result<u64, Failure> {
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(Client::connect(self.gateway.address, kind.over).await?);
        }
        let (before, counted) = (BEFORE.max(connections), COUNTED.max(connections));
        for number in 0..before {
            clients[number % connections].call(kind, token).await?;
        }
        self.instructions()?;
        for number in 0..counted {
            clients[number % connections].call(kind, token).await?;
        }
        Ok(self.instructions()? / u64::try_from(counted)?)
    }

    /// Instructions of a message that goes there and back over a WebSocket.
    async fn websocket(&mut self) -> Result<u64, Failure> {
        let stream = TcpStream::connect(self.gateway.address).await?;
        stream.set_nodelay(true)?;
        let (mut socket, _) =
            tokio_tungstenite::client_async("ws://plain.example/v1/rooms/7:chat", stream).await?;
        for number in 0..BEFORE + COUNTED {
            if number == BEFORE {
                self.instructions()?;
            }
            socket
                .send(tungstenite::Message::text(r#"{"text": "a word"}"#))
                .await?;
            let heard = timeout(PATIENCE, socket.next()).await?;
            if !heard.ok_or("the socket was closed")??.is_text() {
                return Err("the WebSocket was closed".into());
            }
        }
        Ok(self.instructions()? / u64::try_from(COUNTED)?)
    }
}

/// The figures of a baseline by their names.
fn baseline(path: Option<&str>) -> Result<HashMap<String, u64>, Failure> {
    let Some(path) = path else {
        return Ok(HashMap::new());
    };
    let text = std::fs::read_to_string(path)?;
    let figure = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(figure).collect())
}

fn tell(name: &str, cost: u64, before: Option<u64>) {
    match before.and_then(|before| {
        i128::from(cost)
            .checked_mul(1000)?
            .checked_div(i128::from(before))
    }) {
        None => println!("{name:<24} {cost:>9}"),
        Some(thousandths) => {
            let difference = thousandths - 1000;
            let sign = if difference < 0 { '-' } else { '+' };
            let size = difference.abs();
            println!("{name:<24} {cost:>9}  {sign}{}.{} %", size / 10, size % 10);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = arguments.first().is_some_and(|first| first == "--scale");
    if scale {
        arguments.remove(0);
    }
    let program = PathBuf::from(arguments.first().ok_or("which program?")?);
    let before = baseline(arguments.get(1).map(String::as_str))?;
    let folder = tempfile::tempdir()?;
    let (keys, token) = token(folder.path())?;
    std::fs::write(folder.path().join("demo.pb"), demo::DESCRIPTORS)?;
    let backends = Backends::start().await?;
    if scale {
        return scales(&program, backends, &keys, &token, &before).await;
    }
    let mut counted = Counted::start(&program, &configuration(backends, &keys, SMALL)?)?;
    for kind in kinds() {
        let cost = counted.cost(&kind, &token, 1).await?;
        tell(kind.name, cost, before.get(kind.name).copied());
    }
    let cost = counted.websocket().await?;
    tell(
        "websocket_message",
        cost,
        before.get("websocket_message").copied(),
    );
    Ok(())
}

/// How one call's cost grows with what is around it.
async fn scales(
    program: &Path,
    backends: Backends,
    keys: &Path,
    token: &str,
    before: &HashMap<String, u64>,
) -> Result<(), Failure> {
    let kind = Kind::new("rest_get", Over::Http1, BOOK);
    let sizes = [
        ("as it is", SMALL, 1),
        ("routes_100", Size { routes: 100, ..SMALL }, 1),
        (
            "routes_10000",
            Size {
                routes: 10_000,
                ..SMALL
            },
            1,
        ),
        (
            "endpoints_10",
            Size {
                endpoints: 10,
                ..SMALL
            },
            1,
        ),
        (
            "endpoints_1000",
            Size {
                endpoints: 1_000,
                ..SMALL
            },
            1,
        ),
        ("connections_16", SMALL, 16),
        ("connections_1000", SMALL, 1_000),
        ("connections_10000", SMALL, 10_000),
        ("workers_2", Size { workers: 2, ..SMALL }, 16),
    ];
    for (name, size, connections) in sizes {
        let name = name.replace(' ', "_");
        let mut counted = Counted::start(program, &configuration(backends, keys, size)?)?;
        // Every endpoint has been asked, and is connected, before anything is counted.
        if size.endpoints > 1 {
            let mut client = Client::connect(counted.gateway.address, kind.over).await?;
            for _ in 0..size.endpoints * 4 {
                client.call(&kind, token).await?;
            }
        }
        let cost = counted.cost(&kind, token, connections).await?;
        tell(&name, cost, before.get(&name).copied());
    }
    Ok(())
}

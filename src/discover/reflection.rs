//! A server's schema, learned by asking it.
//!
//! The conversation is [`Dialogue`]; this carries it over one bidirectional stream, v1 first and v1alpha where the
//! server does not know v1.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::{DiscoverError, EndpointProblem};
use crate::schema::reflection::{Answer, Ask, Dialogue, DialogueError, DialogueLimits, Learned};
use crate::status::Code;

/// Questions that are on their way at once: a far server with a hundred files is learned in a few round trips, and
/// no server has to hold many.
const IN_FLIGHT: usize = 16;

/// The stream's path in each version, newest first. The messages of both are the same on the wire.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Asks the server at `endpoint` for all of its services but `grpc.reflection.*`, and for all that they import.
///
/// `http` is HTTP/2 with prior knowledge, `https` needs `tls`; a path in the endpoint goes before the service's.
/// `timeout` covers everything from connecting to the last answer. A service that the server lists and can't
/// describe is left out and named in the warnings.
///
/// # Errors
/// [`DiscoverError`] where the server can't be reached, has no reflection, answers nonsense or takes too long.
///
/// # Cancel safety
/// Dropping the future closes the connection; nothing is kept.
pub async fn fetch(
    endpoint: Uri,
    tls: Option<Arc<rustls::ClientConfig>>,
    timeout: Duration,
) -> Result<Learned, DiscoverError> {
    let learning = learn(&endpoint, tls, DialogueLimits::default());
    match tokio::time::timeout(timeout, learning).await {
        Ok(learned) => learned,
        Err(_) => Err(DiscoverError::Timeout {
            endpoint: shown(&endpoint),
            after: timeout,
        }),
    }
}

async fn learn(
    endpoint: &Uri,
    tls: Option<Arc<rustls::ClientConfig>>,
    limits: DialogueLimits,
) -> Result<Learned, DiscoverError> {
    let channel = connect(endpoint, tls).await?;
    for path in PATHS {
        let mut dialogue = Dialogue::new(limits);
        let mut server = Server {
            grpc: tonic::client::Grpc::with_origin(channel.clone(), prefix(endpoint))
                .max_decoding_message_size(limits.bytes),
            path: PathAndQuery::from_static(path),
        };
        return match converse(&mut dialogue, &mut server).await {
            Ok(()) => dialogue.finish().map_err(|source| DiscoverError::Dialogue {
                endpoint: shown(endpoint),
                source,
            }),
            Err(Broken::Refused(Code::Unimplemented, _)) => continue,
            Err(Broken::Refused(code, message)) => Err(DiscoverError::Refused {
                endpoint: shown(endpoint),
                code,
                message,
            }),
            Err(Broken::Connection(status)) => Err(DiscoverError::Broken {
                endpoint: shown(endpoint),
                source: status,
            }),
            Err(Broken::Dialogue(source)) => Err(DiscoverError::Dialogue {
                endpoint: shown(endpoint),
                source,
            }),
        };
    }
    Err(DiscoverError::NoReflection {
        endpoint: shown(endpoint),
    })
}

/// Why a conversation ended before its end.
enum Broken {
    Refused(Code, String),
    Connection(Box<tonic::Status>),
    Dialogue(DialogueError),
}

impl From<DialogueError> for Broken {
    fn from(error: DialogueError) -> Self {
        match error {
            DialogueError::Refused { code, message } => Self::Refused(code, message),
            DialogueError::Unexpected(_)
            | DialogueError::Unasked
            | DialogueError::TooMuch { .. }
            | DialogueError::Nothing(_) => Self::Dialogue(error),
        }
    }
}

/// The server in one version of the service.
struct Server {
    grpc: tonic::client::Grpc<Channel>,
    path: PathAndQuery,
}

/// Puts every question and takes every answer.
///
/// One stream does, unless the server ends it: some servers refuse a single question with the status of the whole
/// stream. Then that question counts as answered, and a new stream carries the others. Each stream answers at
/// least one question, so the number of streams is bounded.
async fn converse(dialogue: &mut Dialogue, server: &mut Server) -> Result<(), Broken> {
    loop {
        let (asks, questions) = mpsc::channel(IN_FLIGHT);
        put(dialogue, &asks);
        if dialogue.pending() == 0 {
            return Ok(());
        }
        let mut answered = false;
        let status = match server.open(questions).await {
            Ok(mut answers) => loop {
                match answers.message().await {
                    Ok(Some(response)) => {
                        answered = true;
                        dialogue.take(answer(response))?;
                        put(dialogue, &asks);
                        if dialogue.pending() == 0 {
                            return Ok(());
                        }
                    }
                    Ok(None) if answered => break None,
                    Ok(None) => break Some(tonic::Status::unknown("the stream ended without an answer")),
                    Err(status) => break Some(status),
                }
            },
            Err(status) => Some(status),
        };
        if let Some(status) = status {
            refused(dialogue, &status)?;
        }
        dialogue.interrupted();
    }
}

/// Sends what can be asked now. A receiver that is gone shows in the answers.
fn put(dialogue: &mut Dialogue, asks: &mpsc::Sender<ServerReflectionRequest>) {
    while dialogue.pending() < IN_FLIGHT {
        let Some(ask) = dialogue.ask() else { return };
        if asks.try_send(request(ask)).is_err() {
            return;
        }
    }
}

/// A stream that ended with a status answers the oldest question, if the status is about the question.
fn refused(dialogue: &mut Dialogue, status: &tonic::Status) -> Result<(), Broken> {
    // The server's own word has no cause; what tonic makes of a broken connection has.
    if status.source().is_some() {
        return Err(Broken::Connection(Box::new(status.clone())));
    }
    let code = Code::from_wire(i64::from(i32::from(status.code())));
    let message = status.message().to_owned();
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unavailable
        | Code::ResourceExhausted
        | Code::Unauthenticated
        | Code::PermissionDenied => Err(Broken::Refused(code, message)),
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Ok(dialogue.take(Answer::Refused { code, message })?),
    }
}

impl Server {
    async fn open(
        &mut self,
        questions: mpsc::Receiver<ServerReflectionRequest>,
    ) -> Result<tonic::Streaming<ServerReflectionResponse>, tonic::Status> {
        self.grpc
            .ready()
            .await
            .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let questions = stream::unfold(questions, |mut questions| async {
            questions.recv().await.map(|question| (question, questions))
        });
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let request = tonic::Request::new(questions);
        Ok(self
            .grpc
            .streaming(request, self.path.clone(), codec)
            .await?
            .into_inner())
    }
}

fn request(ask: Ask) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(match ask {
            Ask::Services => MessageRequest::ListServices(String::new()),
            Ask::Symbol(name) => MessageRequest::FileContainingSymbol(name),
            Ask::File(name) => MessageRequest::FileByFilename(name),
        }),
    }
}

fn answer(response: ServerReflectionResponse) -> Answer {
    match response.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Answer::Services(list.service.into_iter().map(|service| service.name).collect())
        }
        Some(MessageResponse::FileDescriptorResponse(files)) => {
            Answer::Files(files.file_descriptor_proto.into_iter().map(Bytes::from).collect())
        }
        Some(MessageResponse::ErrorResponse(error)) => Answer::Refused {
            code: Code::from_wire(i64::from(error.error_code)),
            message: error.error_message,
        },
        Some(MessageResponse::AllExtensionNumbersResponse(_)) | None => Answer::Other,
    }
}

/// The endpoint without what stands before its service's path, and without a name and password.
fn shown(endpoint: &Uri) -> String {
    format!(
        "{}://{}",
        endpoint.scheme_str().unwrap_or("http"),
        authority(endpoint)
    )
}

fn authority(endpoint: &Uri) -> String {
    let host = endpoint.host().unwrap_or_default();
    endpoint
        .port_u16()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// What stands before the service's path, without a slash at the end.
fn prefix(endpoint: &Uri) -> Uri {
    let path = endpoint.path().trim_end_matches('/');
    format!("{}{path}", shown(endpoint)).parse().unwrap_or_default()
}

async fn connect(endpoint: &Uri, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Channel, DiscoverError> {
    let invalid = |problem| DiscoverError::Endpoint {
        endpoint: shown(endpoint),
        problem,
    };
    let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| DiscoverError::Connect {
        endpoint: shown(endpoint),
        source,
    };
    let secure = match endpoint.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => None,
        Some(scheme) if *scheme == Scheme::HTTPS => Some(tls.ok_or_else(|| invalid(EndpointProblem::Tls))?),
        _ => return Err(invalid(EndpointProblem::Scheme)),
    };
    let host = endpoint
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| invalid(EndpointProblem::Host))?;
    // An IPv6 address stands in brackets in a URI and nowhere else.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let usual = if secure.is_some() { 443 } else { 80 };
    let port = endpoint.port_u16().unwrap_or(usual);
    let connector = match secure {
        None => None,
        Some(config) => {
            let name = ServerName::try_from(host.clone()).map_err(|_| invalid(EndpointProblem::Host))?;
            // Reflection is gRPC, and gRPC is HTTP/2: nothing else is offered.
            let mut config = Arc::unwrap_or_clone(config);
            config.alpn_protocols = vec![b"h2".to_vec()];
            Some((tokio_rustls::TlsConnector::from(Arc::new(config)), name))
        }
    };
    let dial = tower::service_fn(move |_: Uri| dial(host.clone(), port, connector.clone()));
    // Told that the address is http, tonic leaves TLS to `dial`; the origin still says https.
    let address = Endpoint::from_shared(format!("http://{}", authority(endpoint)))
        .map_err(|source| unreachable(source.into()))?
        .origin(prefix(endpoint));
    address
        .connect_with_connector(dial)
        .await
        .map_err(|source| unreachable(source.into()))
}

/// A connection's bytes, encrypted or not.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn dial(
    host: String,
    port: u16,
    tls: Option<(tokio_rustls::TlsConnector, ServerName<'static>)>,
) -> std::io::Result<TokioIo<Box<dyn Io>>> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let io: Box<dyn Io> = match tls {
        None => Box::new(tcp),
        Some((connector, name)) => Box::new(connector.connect(name, tcp).await?),
    };
    Ok(TokioIo::new(io))
}

#[cfg(test)]
mod tests;

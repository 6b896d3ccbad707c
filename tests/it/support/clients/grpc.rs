//! gRPC over tonic with messages as bytes, and over hyper where exact frames matter.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use super::super::backends::BytesCodec;
use super::rest::{Answer, Rest, Version, whole};

/// Connects to the gateway.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// A call under way.
pub(crate) type Started = AbortOnDropHandle<Result<Response<Streaming<Bytes>>, Status>>;

/// Starts a call; messages go into the channel, and dropping it is the half-close.
pub(crate) fn start(
    channel: Channel,
    path: &str,
    metadata: HeaderMap,
    compressed: bool,
) -> (mpsc::Sender<Bytes>, Started) {
    let path: PathAndQuery = format!("/{path}").parse().unwrap();
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let messages = stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await?;
        Some((message, receiver))
    });
    let mut request = tonic::Request::new(messages);
    *request.metadata_mut() = MetadataMap::from_headers(metadata);
    let started = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut grpc = tonic::client::Grpc::new(channel);
        if compressed {
            grpc = grpc
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.streaming(request, path, BytesCodec).await
    }));
    (sender, started)
}

/// A unary call with these bytes.
pub(crate) async fn unary(address: SocketAddr, path: &str, message: Bytes) -> Result<Bytes, Status> {
    let channel = connect(address).await;
    let path: PathAndQuery = format!("/{path}").parse().unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let response = grpc.unary(tonic::Request::new(message), path, BytesCodec).await?;
    Ok(response.into_inner())
}

/// The head of a gRPC request.
pub(crate) fn head(path: &str) -> http::request::Builder {
    Request::post(format!("http://localhost/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// Sends these bytes as the body of a gRPC call and gives the answer as it is.
pub(crate) async fn exchange(
    address: SocketAddr,
    head: http::request::Builder,
    body: impl Into<Bytes>,
) -> Answer {
    let mut connection = Rest::connect(address, Version::Http2).await;
    connection.send(head.body(whole(body)).unwrap()).await
}

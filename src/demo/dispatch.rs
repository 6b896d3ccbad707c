//! Finds the service that a path names. tonic's own router would bring a web framework for five prefixes.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost_reflect::DescriptorPool;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic_reflection::server as reflection;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::DemoError;
use super::generated::DESCRIPTORS;
use super::generated::library::v1::library_server::LibraryServer;
use super::generated::library::v1::probe_server::ProbeServer;
use super::generated::library::v1::reading_room_server::ReadingRoomServer;
use super::library::Shelves;
use super::probe::Prober;
use super::reading_room::Rooms;

/// Trailers that a handler adds to those of a call that succeeds: an extension of its response.
#[derive(Clone, Debug)]
pub(super) struct Trailing(pub(super) HeaderMap);

/// A service whose type tonic-reflection does not name.
type Unnamed = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Every service of the example behind one door.
#[derive(Clone)]
pub(super) struct Dispatch {
    library: LibraryServer<Shelves>,
    reading_room: ReadingRoomServer<Rooms>,
    probe: ProbeServer<Prober>,
    reflection: Unnamed,
    reflection_alpha: Unnamed,
}

impl Dispatch {
    /// The services as they are on the first day.
    pub(super) fn new(pool: &DescriptorPool) -> Result<Self, DemoError> {
        let described = || reflection::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
        Ok(Self {
            library: LibraryServer::new(Shelves::stocked(pool)?)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip),
            reading_room: ReadingRoomServer::new(Rooms::default())
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip),
            probe: ProbeServer::new(Prober)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip),
            reflection: BoxCloneSyncService::new(described().build_v1()?),
            reflection_alpha: BoxCloneSyncService::new(described().build_v1alpha()?),
        })
    }
}

impl Service<Request<Body>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The generated servers are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = request
            .uri()
            .path()
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        match service {
            "library.v1.Library" => self.library.call(request),
            "library.v1.ReadingRoom" => self.reading_room.call(request),
            "library.v1.Probe" => {
                let answer = self.probe.call(request);
                Box::pin(async move { answer.await.map(with_trailers) })
            }
            "grpc.reflection.v1.ServerReflection" => self.reflection.call(request),
            "grpc.reflection.v1alpha.ServerReflection" => self.reflection_alpha.call(request),
            _ => {
                let status = Status::unimplemented(format!("no service \"{service}\""));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

/// Adds the trailers of the [`Trailing`] extension, which tonic has no other way to send with a success.
fn with_trailers(mut response: Response<Body>) -> Response<Body> {
    let Some(Trailing(extra)) = response.extensions_mut().remove() else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.extend(extra.clone());
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}

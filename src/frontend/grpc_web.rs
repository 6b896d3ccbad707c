//! The gRPC-Web frontend: the gRPC one behind other envelopes, for clients that can't read trailers.
//!
//! Requests are relayed as gRPC's are, but for compressed ones, which are opened. The trailers of a reply become its last frame, also where there is nothing
//! else: some clients can't read headers of another origin.
//! Source: gRPC-Web protocol.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response};
use tower::Service as _;

use crate::call::{Call, Reply, metadata};
use crate::fault::Fault;
use crate::frontend::{Admitted, grpc, refuse};
use crate::schema::MethodKind;
use crate::stack::CallService;
use crate::translate::Tally;
use crate::translate::tally::Outcome;
use crate::wire::body::Body;
use crate::wire::gathered::Gathered;
use crate::wire::grpc_web::{FromText, ToText, to_text, trailer_frame};
use crate::wire::last_frame::LastFrame;
use crate::wire::{Dialect, Format, Spoken};

const BINARY: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";

/// Serves a gRPC-Web request.
///
/// # Cancel safety
/// Dropping it cancels the call upstream.
pub fn serve(admitted: Admitted, mut stack: CallService) -> impl Future<Output = Response<Body>> + Send {
    let tally = Arc::clone(&admitted.tally);
    let is_text = admitted.format == Format::GRPC_WEB_TEXT;
    let media_type = if is_text { TEXT } else { BINARY };
    let answer = answer(&admitted.head, admitted.format);
    let is_unary = admitted.entry.method.kind == MethodKind::Unary;
    let unwrap = |body| match is_text {
        true => Body::stream(FromText::new(body)),
        false => body,
    };
    // What waits holds neither the request nor the call.
    let asked = grpc::is_call(&admitted.head, media_type.as_bytes())
        .map_err(|status| Box::new(grpc::not_grpc(status, &tally)))
        .and_then(|()| {
            let call = grpc::call(admitted, metadata::Headers::Http, unwrap);
            call.map_err(|fault| Box::new(refused(&tally, answer, &fault)))
        })
        .map(|call| stack.call(opened(call)));
    async move {
        match asked {
            Ok(answering) => match answering.await {
                Ok(reply) => write(reply, answer, is_unary).await,
                Err(fault) => refused(&tally, answer, &fault),
            },
            Err(response) => *response,
        }
    }
}

/// The call with its messages out of their encoding: what the client chose with the gateway in mind, a backend may not
/// know.
fn opened(call: Call) -> Call {
    Call {
        messages: call.messages.opened(),
        ..call
    }
}

/// What the answer is: what `Accept` names, or else what the request is.
fn answer(head: &Parts, request: Format) -> Format {
    match head.headers.get(ACCEPT).map(HeaderValue::as_bytes) {
        Some(accept) if accept.starts_with(TEXT.as_bytes()) => Format::GRPC_WEB_TEXT,
        Some(accept) if accept.starts_with(BINARY.as_bytes()) => Format::GRPC_WEB,
        Some(_) | None => request,
    }
}

fn refused(tally: &Tally, format: Format, fault: &Fault) -> Response<Body> {
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    tracing::debug!(error = %fault, cause = ?std::error::Error::source(fault), "a gRPC-Web call failed");
    let spoken = Spoken {
        dialect: Dialect::GrpcWeb,
        format,
    };
    refuse::refuse(spoken, fault)
}

/// The response that a reply becomes.
async fn write(reply: Reply, format: Format, is_unary: bool) -> Response<Body> {
    let (headers, mut body) = grpc::relayed(reply);
    let body = body.settled().await;
    let mut body = Gathered::new(LastFrame::new(body, |trailers: HeaderMap| {
        trailer_frame(&trailers)
    }));
    match is_unary {
        // Nobody has any use for the beginning of one message, and what is whole goes out in one piece.
        true => body.finish().await,
        false => body.settle().await,
    }
    let body = body.into_body();
    let body = match (format, body.as_whole()) {
        (Format::GRPC_WEB_TEXT, Some(whole)) => Body::whole(to_text(&whole)),
        (Format::GRPC_WEB_TEXT, None) => Body::stream(ToText::new(body)),
        _ => body,
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_TYPE, content_type(format));
    response
}

/// The content type of an answer.
pub(super) fn content_type(format: Format) -> HeaderValue {
    HeaderValue::from_static(match format {
        Format::GRPC_WEB_TEXT => "application/grpc-web-text+proto",
        _ => "application/grpc-web+proto",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_between_binary_and_text() {
        for (accept, request, expected) in [
            (None, Format::GRPC_WEB, Format::GRPC_WEB),
            (None, Format::GRPC_WEB_TEXT, Format::GRPC_WEB_TEXT),
            (Some("*/*"), Format::GRPC_WEB_TEXT, Format::GRPC_WEB_TEXT),
            (
                Some("application/grpc-web-text"),
                Format::GRPC_WEB,
                Format::GRPC_WEB_TEXT,
            ),
            (
                Some("application/grpc-web+proto"),
                Format::GRPC_WEB_TEXT,
                Format::GRPC_WEB,
            ),
        ] {
            let mut request_head = http::Request::post("/a.B/C");
            if let Some(accept) = accept {
                request_head = request_head.header(ACCEPT, accept);
            }
            let (head, ()) = request_head.body(()).unwrap().into_parts();
            assert_eq!(answer(&head, request), expected, "{accept:?}");
        }
    }
}

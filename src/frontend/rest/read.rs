//! A REST request becomes a call: path, query and body are woven into one message.

use std::pin::pin;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use http::Method;
use http::request::Parts;
use tokio::time::timeout_at;

use crate::call::{Call, Deadline, metadata};
use crate::fault::{Fault, Kind, Side};
use crate::frontend::Admitted;
use crate::frontend::rest::{body, codec, deadline, upload};
use crate::route::entry::{Bound, Entry, Form};
use crate::translate::binding::Given;
use crate::translate::json::JsonReason;
use crate::translate::messages::seal;
use crate::translate::{Messages, raw_body};
use crate::wire::Codec;
use crate::wire::body::{Body, Way};
use crate::wire::envelope::PREFIX;

/// The call that a request asks for. For a unary request nothing goes upstream before all of it is valid.
pub(super) async fn read(admitted: Admitted) -> Result<Call, Fault> {
    let Admitted {
        head,
        body,
        format,
        entry,
        binding,
        captures,
        permit,
        tally,
        now,
        ..
    } = admitted;
    let bound = entry.bound(binding);
    let asked = deadline::asked(&head.headers)?;
    let deadline = Deadline::earlier(now, asked, entry.timeout());
    let body = Body::incoming(body, Side::Client).counted(&tally, Way::Request);

    let mut message = BytesMut::with_capacity(256);
    message.put_bytes(0, PREFIX);
    let given = bound
        .binding
        .read(&entry.json, &captures, head.uri.query(), &mut message)
        .map_err(|error| Fault::client(Kind::InvalidArgument, error.to_string()))?;

    let messages = if entry.method.kind.client_streams() {
        let parts = upload::parts(&entry, binding, &head, body, message)?;
        Messages::stream(
            parts,
            crate::translate::messages::Direction::Request,
            entry.route.bounds,
            tally,
        )
    } else if codec(format, &entry, binding) == Codec::Proto {
        let encoding = body::encoding(&head.headers)?;
        message.put_slice(&body::collect(body, &head.headers, encoding, entry.route.bounds, now).await?);
        Messages::whole(seal(message)?, entry.route.bounds, tally)
    } else {
        let filled = unary(&entry, bound, given, &head, body, &mut message, now);
        match deadline {
            // The time of a call covers what its client has to send.
            Some(deadline) => timeout_at(deadline.instant(), filled)
                .await
                .map_err(|_| late())??,
            None => filled.await?,
        }
        Messages::whole(seal(message)?, entry.route.bounds, tally)
    };
    let metadata = metadata::from_request(head.headers, metadata::Headers::Http)?;
    Ok(Call {
        method: Arc::clone(&entry.method),
        metadata,
        deadline,
        messages,
        permit,
    })
}

/// The fault of a client that has not sent its request when the time of the call is over.
fn late() -> Fault {
    Fault::client(
        Kind::RequestTimeout,
        "the request body did not come within the time of the call",
    )
}

/// Adds what the body gives to the one message of a request.
async fn unary(
    entry: &Entry,
    bound: &Bound,
    given: Given,
    head: &Parts,
    body: Body,
    message: &mut BytesMut,
    now: tokio::time::Instant,
) -> Result<(), Fault> {
    let bounds = entry.route.bounds;
    match bound.request {
        Form::None => no_body(head, body, now).await,
        Form::Json(_) => {
            body::expect_json(&head.headers)?;
            let encoding = body::encoding(&head.headers)?;
            let text = body::collect(body, &head.headers, encoding, bounds, now).await?;
            read_json(entry, bound, &text, message)?;
            bound.binding.patch_mask(given, &text, message).map_err(|error| {
                Fault::client(Kind::InvalidArgument, format!("in the request body, {error}"))
            })
        }
        Form::Raw(field) => {
            let encoding = body::encoding(&head.headers)?;
            let data = body::collect(body, &head.headers, encoding, bounds, now).await?;
            raw_body::encode(
                field,
                head.headers.get(http::header::CONTENT_TYPE),
                &data,
                message,
            );
            Ok(())
        }
    }
}

/// Appends the wire form of one JSON text.
pub(in crate::frontend) fn read_json(
    entry: &Entry,
    bound: &Bound,
    text: &[u8],
    message: &mut BytesMut,
) -> Result<(), Fault> {
    let limit = entry.route.bounds.max_message_bytes;
    bound
        .binding
        .read_body(&entry.json, text, message, limit)
        .map_err(|error| {
            let kind = match error.reason {
                JsonReason::TooLarge { .. } => Kind::MessageTooLarge,
                _ => Kind::InvalidArgument,
            };
            Fault::client(kind, format!("in the request body, {error}"))
        })
}

/// Sees to a body that the binding does not take.
///
/// One that is not empty is ignored where HTTP gives it no meaning and it does not say JSON; elsewhere it is refused:
/// what a client sends is never dropped without a word.
async fn no_body(head: &Parts, body: Body, now: tokio::time::Instant) -> Result<(), Fault> {
    let meaningless = matches!(head.method, Method::GET | Method::HEAD | Method::DELETE);
    if meaningless && !body::says_json(&head.headers) {
        return Ok(());
    }
    let mut body = pin!(body);
    match body::next_data(&mut body, 0, now).await? {
        None => Ok(()),
        Some(_) => Err(Fault::client(
            Kind::InvalidArgument,
            format!(
                "{} takes no body here; its fields go into the path and the query",
                head.method
            ),
        )),
    }
}

//! The body of a REST request: what its head says about it, and all of it in one buffer.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::fault::{Fault, Kind};
use crate::translate::Bounds;
use crate::wire::body::Body;
use crate::wire::compression::{self, CompressionError, Growth};

/// How long a body may take before its rate counts.
const GRACE: Duration = Duration::from_secs(30);
/// The least rate after that, in bytes a second.
const LEAST_RATE: u64 = 1024;

/// How a body is encoded for transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::frontend) enum Encoding {
    Identity,
    Gzip,
}

/// The content encoding.
pub(in crate::frontend) fn encoding(headers: &HeaderMap) -> Result<Encoding, Fault> {
    let Some(value) = headers.get(CONTENT_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    match value.as_bytes().to_ascii_lowercase().as_slice() {
        b"identity" | b"" => Ok(Encoding::Identity),
        b"gzip" | b"x-gzip" => Ok(Encoding::Gzip),
        _ => Err(Fault::client(
            Kind::UnsupportedMediaType,
            format!("header content-encoding: {value:?} is not taken; gzip and identity are"),
        )),
    }
}

/// Checks that the content type is one that is read as JSON: none, any JSON type, or what `curl -d` sends.
pub(in crate::frontend) fn expect_json(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let is_json = matches!(
        media_type,
        "" | "application/json"
            | "text/json"
            | "application/x-ndjson"
            | "application/jsonl"
            | "application/json-lines"
            | "application/x-www-form-urlencoded"
    ) || (media_type.starts_with("application/") && media_type.ends_with("+json"));
    if !is_json {
        return Err(Fault::client(
            Kind::UnsupportedMediaType,
            format!("header content-type: {value:?} is not taken here; application/json is"),
        ));
    }
    match parts
        .find_map(|part| part.strip_prefix("charset="))
        .map(|charset| charset.trim_matches('"'))
    {
        None | Some("utf-8" | "utf8" | "us-ascii") => Ok(()),
        Some(charset) => Err(Fault::client(
            Kind::UnsupportedMediaType,
            format!("header content-type: charset {charset:?} is not taken; JSON is UTF-8"),
        )),
    }
}

/// Whether the head says JSON in so many words.
pub(super) fn says_json(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_TYPE) && expect_json(headers).is_ok()
}

/// All of a body, decompressed.
///
/// # Errors
/// A client fault for a body that is too large, too slow, cut short or not what its encoding says.
///
/// # Cancel safety
/// What was read is lost.
pub(in crate::frontend) async fn collect(
    body: Body,
    headers: &HeaderMap,
    encoding: Encoding,
    bounds: Bounds,
    began: Instant,
) -> Result<Bytes, Fault> {
    let limit = bounds.max_message_bytes;
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared > limit) {
        return Err(too_large(limit));
    }
    let bytes = gather(body, limit, declared, began).await?;
    match encoding {
        Encoding::Identity => Ok(bytes),
        Encoding::Gzip => {
            let growth = Growth {
                limit,
                ratio: bounds.max_decompression_ratio,
            };
            compression::gunzip(&bytes, growth).map_err(|error| {
                let kind = match error {
                    CompressionError::TooLarge { .. } | CompressionError::Ratio { .. } => {
                        Kind::MessageTooLarge
                    }
                    CompressionError::Unknown(_) | CompressionError::Corrupt(_) => Kind::InvalidArgument,
                };
                Fault::client(kind, format!("in the request body, {error}")).caused_by(error)
            })
        }
    }
}

async fn gather(body: Body, limit: usize, declared: Option<usize>, began: Instant) -> Result<Bytes, Fault> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut received: usize = 0;
    while let Some(data) = next_data(&mut body, received, began).await? {
        received = received.saturating_add(data.len());
        if received > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if more.is_empty() {
            more.reserve(declared.unwrap_or_default().max(received));
            more.extend_from_slice(&first);
        }
        more.extend_from_slice(&data);
    }
    Ok(if more.is_empty() { first } else { more.freeze() })
}

/// The next data of a body that must come at a least rate.
///
/// # Errors
/// [`Kind::RequestTimeout`] for a body that is too slow, and whatever broke it off.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn next_data(
    body: &mut std::pin::Pin<&mut Body>,
    received: usize,
    began: Instant,
) -> Result<Option<Bytes>, Fault> {
    loop {
        if body.is_end_stream() {
            return Ok(None);
        }
        let earned = Duration::from_secs(received as u64 / LEAST_RATE);
        let Ok(frame) = timeout_at(began + GRACE + earned, body.frame()).await else {
            return Err(Fault::client(
                Kind::RequestTimeout,
                "the request body came too slowly",
            ));
        };
        match frame.transpose()? {
            None => return Ok(None),
            // Trailers of a request mean nothing here.
            Some(frame) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn too_large(limit: usize) -> Fault {
    Fault::client(
        Kind::MessageTooLarge,
        format!("the request body is over the limit of {limit} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn json_types_are_taken_and_others_are_not() {
        for (content_type, taken) in [
            ("application/json", true),
            ("Application/JSON; charset=\"UTF-8\"", true),
            ("application/merge-patch+json", true),
            ("application/x-www-form-urlencoded", true),
            ("application/x-ndjson", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/xml", false),
            ("application/grpc-web", false),
        ] {
            assert_eq!(
                expect_json(&headers(CONTENT_TYPE, content_type)).is_ok(),
                taken,
                "{content_type}"
            );
        }
        assert!(expect_json(&HeaderMap::new()).is_ok());
    }

    #[tokio::test]
    async fn a_body_is_taken_to_the_limit_and_no_further() {
        for (length, fits) in [(9, true), (10, true), (11, false)] {
            let bounds = Bounds {
                max_message_bytes: 10,
                max_decompression_ratio: 100,
            };
            let body = Body::whole(vec![b'x'; length].into());
            let got = collect(
                body,
                &HeaderMap::new(),
                Encoding::Identity,
                bounds,
                Instant::now(),
            )
            .await;
            assert_eq!(got.is_ok(), fits, "{length} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        struct Silent;
        impl http_body::Body for Silent {
            type Data = Bytes;
            type Error = Fault;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Fault>>> {
                std::task::Poll::Pending
            }
        }
        let bounds = Bounds {
            max_message_bytes: 10,
            max_decompression_ratio: 100,
        };
        let body = Body::stream(Silent);
        let fault = collect(
            body,
            &HeaderMap::new(),
            Encoding::Identity,
            bounds,
            Instant::now(),
        )
        .await;
        assert_eq!(fault.unwrap_err().kind(), Kind::RequestTimeout);
    }
}

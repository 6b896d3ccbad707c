//! The `Probe` service: answers about the call itself.

use std::collections::BTreeMap;
use std::time::Duration;

use base64_simd::{STANDARD, forgiving_decode_to_vec};
use futures_util::stream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Response, Status, Streaming};

use super::dispatch::Trailing;
use super::generated::google::api::HttpBody;
use super::generated::library::v1::metadata_reply::Entry;
use super::generated::library::v1::probe_server::Probe;
use super::generated::library::v1::{
    Count, FailRequest, MetadataReply, MetadataRequest, Sample, WaitReply, WaitRequest,
};
use super::library::Answers;
use super::refusal::{Refusal, asked_for};

/// The longest that `Wait` waits.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The most messages that come before a failure.
const MOST_BEFORE_FAILURE: u32 = 1_000;

/// Holds nothing: every answer is in the question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prober;

#[tonic::async_trait]
impl Probe for Prober {
    async fn echo(&self, request: Request<Sample>) -> Result<Response<Sample>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn metadata(&self, request: Request<MetadataRequest>) -> Result<Response<MetadataReply>, Status> {
        let mut received: Vec<Entry> = request.metadata().iter().map(|pair| entry(&pair)).collect();
        received.sort_by(|a, b| a.name.cmp(&b.name));
        let MetadataRequest { initial, trailing } = request.into_inner();
        let mut response = Response::new(MetadataReply { received });
        *response.metadata_mut() = metadata("initial", &initial)?;
        let trailing = metadata("trailing", &trailing)?;
        response
            .extensions_mut()
            .insert(Trailing(trailing.into_headers()));
        Ok(response)
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitReply>, Status> {
        let time_left = request
            .metadata()
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok())
            .and_then(time_left);
        let delay = request.get_ref().delay.unwrap_or_default();
        match Duration::try_from(delay) {
            Ok(pause) if pause <= LONGEST_WAIT => tokio::time::sleep(pause).await,
            Ok(_) | Err(_) => return Err(Refusal::invalid("delay", "0s to 60s").into()),
        }
        Ok(Response::new(WaitReply {
            waited: Some(delay),
            time_left,
        }))
    }

    async fn fail(&self, request: Request<FailRequest>) -> Result<Response<()>, Status> {
        match request.into_inner().status {
            Some(status) if status.code != 0 => Err(asked_for(status)),
            Some(_) | None => Ok(Response::new(())),
        }
    }

    type FailLaterStream = Answers<Count>;

    async fn fail_later(
        &self,
        request: Request<FailRequest>,
    ) -> Result<Response<Self::FailLaterStream>, Status> {
        let FailRequest { status, after } = request.into_inner();
        let after = after.min(MOST_BEFORE_FAILURE);
        let end = status
            .filter(|status| status.code != 0)
            .map(|status| Err(asked_for(status)));
        let counts = (1..=after).map(|number| {
            Ok(Count {
                number: i64::from(number),
            })
        });
        Ok(Response::new(Box::pin(stream::iter(counts.chain(end)))))
    }

    type MirrorStream = Answers<HttpBody>;

    async fn mirror(
        &self,
        request: Request<Streaming<HttpBody>>,
    ) -> Result<Response<Self::MirrorStream>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }

    async fn unbound(&self, request: Request<Count>) -> Result<Response<Count>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// One name and value as they arrived; binary values are base64.
fn entry(pair: &KeyAndValueRef<'_>) -> Entry {
    let (name, value) = match pair {
        KeyAndValueRef::Ascii(name, value) => (
            name.as_str(),
            String::from_utf8_lossy(value.as_encoded_bytes()).into_owned(),
        ),
        KeyAndValueRef::Binary(name, value) => (
            name.as_str(),
            value.to_bytes().map_or_else(
                |_| "not base64".to_owned(),
                |bytes| STANDARD.encode_to_string(&bytes),
            ),
        ),
    };
    Entry {
        name: name.to_owned(),
        value,
    }
}

/// Metadata as asked for; `field` is what a refusal names.
fn metadata(field: &str, wanted: &BTreeMap<String, String>) -> Result<MetadataMap, Refusal> {
    let mut map = MetadataMap::new();
    for (name, value) in wanted {
        let refuse = || Refusal::invalid(format!("{field}[{name}]"), "not a name and value of metadata");
        if name.ends_with("-bin") {
            let key = BinaryMetadataKey::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
            let bytes = forgiving_decode_to_vec(value.as_bytes()).map_err(|_| refuse())?;
            map.append_bin(key, BinaryMetadataValue::from_bytes(&bytes));
        } else {
            let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
            map.append(key, AsciiMetadataValue::try_from(value).map_err(|_| refuse())?);
        }
    }
    Ok(map)
}

/// What a `grpc-timeout` such as `250m` says; nothing if it is none.
fn time_left(value: &str) -> Option<prost_types::Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    let left = match unit {
        "H" => Duration::from_secs(number.checked_mul(3_600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    prost_types::Duration::try_from(left).ok()
}

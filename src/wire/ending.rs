//! The end of a gRPC call in headers or trailers: `grpc-status`, `grpc-message`, `grpc-status-details-bin`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::status::{Code, Status};
use crate::wire::{base64, percent};

/// `grpc-status`.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `grpc-status-details-bin`.
pub const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// The status in a header block, as it is written. Most heads of answers have none and few fields, which are sooner looked at
/// than the name is hashed.
pub fn find(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut fields = headers.iter();
    fields.find_map(|(name, value)| (*name == GRPC_STATUS).then_some(value))
}

/// Takes the status out of a header block; `None` when it has no `grpc-status`.
///
/// A status that is no integer is `UNKNOWN`, and so are several that contradict each other; details that are no base64 are dropped, since the code and the message
/// still stand.
pub fn take(headers: &mut HeaderMap) -> Option<Status> {
    find(headers)?;
    let mut all = headers.get_all(GRPC_STATUS).iter();
    let first = all.next()?;
    let contradicts = all.any(|other| other != first);
    let status = headers.remove(GRPC_STATUS)?;
    let message = headers.remove(GRPC_MESSAGE);
    let details = headers.remove(GRPC_STATUS_DETAILS);
    if status.as_bytes() == b"0" && message.is_none() && details.is_none() && !contradicts {
        return Some(Status::OK);
    }
    if contradicts {
        return Some(Status::new(
            Code::Unknown,
            "grpc-status is given several times, and not the same",
        ));
    }
    let message = message.map_or_else(String::new, |value| percent::decode(value.as_bytes()));
    let mut ended = match status.to_str().ok().and_then(|text| text.parse::<i64>().ok()) {
        Some(number) => Status::from_wire(number, message),
        None => Status::new(
            Code::Unknown,
            format!("grpc-status is not an integer: {status:?}"),
        ),
    };
    ended.details = details
        .and_then(|value| base64::decode(value.as_bytes()))
        .map_or_else(Bytes::new, Bytes::from);
    Some(ended)
}

/// Puts the status into a header block.
pub fn put(status: &Status, headers: &mut HeaderMap) {
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status.code.number())));
    if !status.message.is_empty() {
        headers.insert(GRPC_MESSAGE, percent::encode(&status.message));
    }
    if !status.details.is_empty()
        && let Ok(value) = HeaderValue::try_from(base64::encode(&status.details))
    {
        headers.insert(GRPC_STATUS_DETAILS, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_contradict_each_other_are_no_success() {
        for (given, expected) in [
            (vec!["0", "0"], Code::Ok),
            (vec!["0", "13"], Code::Unknown),
            (vec!["13", "0"], Code::Unknown),
        ] {
            let mut headers = HeaderMap::new();
            for status in &given {
                headers.append(GRPC_STATUS, status.parse().unwrap());
            }
            assert_eq!(take(&mut headers).unwrap().code, expected, "{given:?}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn a_status_survives_a_header_block() {
        let status = Status {
            code: Code::NotFound,
            message: "no book \"ü\"\n".to_owned(),
            details: Bytes::from_static(&[8, 5, 255]),
        };
        let mut headers = HeaderMap::new();
        put(&status, &mut headers);
        assert_eq!(take(&mut headers), Some(status));
        assert!(headers.is_empty());
    }

    #[test]
    fn a_status_that_is_no_number_is_unknown() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from_static("OK"));
        assert_eq!(take(&mut headers).map(|status| status.code), Some(Code::Unknown));
        assert_eq!(take(&mut headers), None);
    }
}

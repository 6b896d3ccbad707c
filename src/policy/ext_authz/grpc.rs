//! The service is asked as Envoy asks it.

use std::collections::HashMap;

use ::http::header::{CONTENT_TYPE, TE};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::super::identity::Identity;
use super::super::remote::{Answer, Remote, RemoteError};
use super::super::setup::ExtAuthzSetup;
use super::grant::{Edit, Grant, tellable};
use super::proto::{
    Address, AttributeContext, CHECK, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderAppendAction,
    HeaderValueOption, HttpRequest, OkHttpResponse, Peer as SentPeer, Request as SentRequest, SocketAddress,
};
use super::{Verdict, nonsense, strip, target, told_body};
use crate::fault::Denial;
use crate::peer::Peer;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

pub(super) async fn check(
    remote: &Remote,
    head: &Parts,
    peer: &Peer,
    told: &HeaderMap,
    caller: Option<&Identity>,
    setup: &ExtAuthzSetup,
    now: u64,
) -> Result<Verdict, RemoteError> {
    let question = question(head, peer, told, caller, setup, now);
    let answer = remote.ask(&request(remote, &question)?).await?;
    let read = read(&answer, &setup.upstream_headers);
    read.inspect_err(|error| remote.complain(error))
}

fn question(
    head: &Parts,
    peer: &Peer,
    told: &HeaderMap,
    caller: Option<&Identity>,
    setup: &ExtAuthzSetup,
    now: u64,
) -> CheckRequest {
    let mut headers: HashMap<String, String> = HashMap::with_capacity(told.len());
    for name in told.keys() {
        if setup
            .request_headers
            .as_ref()
            .is_some_and(|names| !names.contains(name))
        {
            continue;
        }
        let values: Vec<_> = told
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        headers.insert(name.as_str().to_owned(), values.join(","));
    }
    let address = |address: std::net::SocketAddr| Address {
        socket_address: Some(SocketAddress {
            address: address.ip().to_canonical().to_string(),
            port_value: u32::from(address.port()),
        }),
    };
    let size = told
        .get(::http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(SentPeer {
                address: Some(address(peer.address())),
                principal: caller.map_or_else(String::new, |caller| caller.principal().to_owned()),
            }),
            destination: None,
            request: Some(SentRequest {
                time: Some(prost_types::Timestamp {
                    seconds: i64::try_from(now).unwrap_or(i64::MAX),
                    nanos: 0,
                }),
                http: Some(HttpRequest {
                    id: String::new(),
                    method: head.method.to_string(),
                    headers,
                    path: target(head).to_owned(),
                    host: super::host(head).unwrap_or_default().to_owned(),
                    scheme: if peer.secure() { "https" } else { "http" }.to_owned(),
                    size: size.unwrap_or(-1),
                    protocol: protocol(head.version).to_owned(),
                }),
            }),
            context_extensions: HashMap::new(),
        }),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

fn request(remote: &Remote, question: &CheckRequest) -> Result<Request<Bytes>, RemoteError> {
    let length = question.encoded_len();
    let declared = u32::try_from(length).map_err(|_| nonsense("the question is too large"))?;
    let mut body = BytesMut::with_capacity(PREFIX + length);
    body.put_u8(0);
    body.put_u32(declared);
    question
        .encode(&mut body)
        .map_err(|_| nonsense("the question is too large"))?;
    let mut request = Request::new(body.freeze());
    *request.method_mut() = Method::POST;
    let mut uri = remote.uri().clone().into_parts();
    let path = format!("{}{CHECK}", remote.uri().path().trim_end_matches('/'));
    uri.path_and_query = path.parse().ok();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| nonsense("the URL has no host"))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Ok(timeout) = HeaderValue::try_from(format!("{}m", remote.timeout().as_millis())) {
        headers.insert("grpc-timeout", timeout);
    }
    Ok(request)
}

fn read(answer: &Answer, upstream: &[HeaderName]) -> Result<Verdict, RemoteError> {
    if answer.head.status != StatusCode::OK {
        return Err(nonsense(format!("the answer is {}", answer.head.status)));
    }
    let status = answer
        .trailers
        .get("grpc-status")
        .or_else(|| answer.head.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(status) => {
            return Err(nonsense(format!(
                "the answer has grpc-status {}",
                String::from_utf8_lossy(status)
            )));
        }
        None => return Err(nonsense("the answer has no grpc-status")),
    }
    let message = match answer.body.split_at_checked(PREFIX) {
        Some((&[0, a, b, c, d], message))
            if usize::try_from(u32::from_be_bytes([a, b, c, d]))
                .is_ok_and(|length| length == message.len()) =>
        {
            message
        }
        Some(_) | None => return Err(nonsense("the answer is not one message")),
    };
    let response = CheckResponse::decode(message).map_err(|_| nonsense("the answer is no CheckResponse"))?;
    // Without a status it is one that is OK, as anywhere in protobuf.
    match response.status.map_or(0, |status| status.code) {
        0 => Ok(Verdict::Allowed(
            grant(response.ok_response.unwrap_or_default(), upstream).into(),
        )),
        _ => Ok(Verdict::Denied(denial(
            response.denied_response.unwrap_or_default(),
        ))),
    }
}

fn grant(ok: OkHttpResponse, upstream: &[HeaderName]) -> Grant {
    let removed = ok
        .headers_to_remove
        .iter()
        .filter_map(|name| name.parse().ok())
        .map(Edit::Remove);
    let changed = ok.headers.into_iter().filter_map(edit);
    Grant::new(strip(upstream).chain(removed).chain(changed))
}

fn edit(option: HeaderValueOption) -> Option<Edit> {
    let action = option.append_action();
    let (name, value) = header(option.header?)?;
    Some(match action {
        HeaderAppendAction::AppendIfExistsOrAdd if option.append.is_some_and(|append| append.value) => {
            Edit::Append(name, value)
        }
        HeaderAppendAction::AppendIfExistsOrAdd | HeaderAppendAction::OverwriteIfExistsOrAdd => {
            Edit::Set(name, value)
        }
        HeaderAppendAction::AddIfAbsent => Edit::Default(name, value),
        HeaderAppendAction::OverwriteIfExists => Edit::Replace(name, value),
    })
}

/// A header that can be one.
fn header(written: super::proto::HeaderValue) -> Option<(HeaderName, HeaderValue)> {
    let value = if written.raw_value.is_empty() {
        written.value.into_bytes()
    } else {
        written.raw_value
    };
    let name = written.key.to_ascii_lowercase().parse().ok()?;
    Some((name, HeaderValue::from_maybe_shared(Bytes::from(value)).ok()?))
}

fn denial(denied: DeniedHttpResponse) -> Denial {
    let status = denied
        .status
        .and_then(|status| StatusCode::from_u16(u16::try_from(status.code).ok()?).ok())
        .filter(|status| !status.is_informational() && !status.is_success())
        .unwrap_or(StatusCode::FORBIDDEN);
    let headers = denied
        .headers
        .into_iter()
        .filter_map(|option| header(option.header?))
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        });
    Denial {
        status,
        headers: tellable(&headers),
        body: told_body(&Bytes::from(denied.body)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{BoolValue, HeaderValue as SentHeader, HttpStatus, Status};
    use super::*;

    fn option(key: &str, value: &str, append: Option<bool>, action: HeaderAppendAction) -> HeaderValueOption {
        HeaderValueOption {
            header: Some(SentHeader {
                key: key.to_owned(),
                value: value.to_owned(),
                raw_value: Vec::new(),
            }),
            append: append.map(|value| BoolValue { value }),
            append_action: action.into(),
        }
    }

    fn answer(response: &CheckResponse, status: Option<&'static str>) -> Answer {
        let message = response.encode_to_vec();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&message);
        let mut trailers = HeaderMap::new();
        if let Some(status) = status {
            trailers.insert("grpc-status", HeaderValue::from_static(status));
        }
        Answer {
            head: ::http::Response::new(()).into_parts().0,
            body: body.into(),
            trailers,
        }
    }

    #[test]
    fn an_answer_allows_with_changes_or_denies_with_words() {
        use HeaderAppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists};
        let ok = CheckResponse {
            status: Some(Status::default()),
            ok_response: Some(OkHttpResponse {
                headers: vec![
                    option("X-User", "ada", None, AppendIfExistsOrAdd),
                    option("x-team", "b", Some(true), AppendIfExistsOrAdd),
                    option("x-tier", "free", None, AddIfAbsent),
                    option("x-old", "2", None, OverwriteIfExists),
                    option("bad name", "x", None, AppendIfExistsOrAdd),
                    option("x-bad", "a\r\nb: c", None, AppendIfExistsOrAdd),
                ],
                headers_to_remove: vec!["cookie".to_owned()],
            }),
            denied_response: None,
        };
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        let listed = [name("x-listed")];
        let expected = Grant::new([
            Edit::Remove(name("x-listed")),
            Edit::Remove(name("cookie")),
            Edit::Set(name("x-user"), value("ada")),
            Edit::Append(name("x-team"), value("b")),
            Edit::Default(name("x-tier"), value("free")),
            Edit::Replace(name("x-old"), value("2")),
        ]);
        let read_ok = read(&answer(&ok, Some("0")), &listed).unwrap();
        assert_eq!(read_ok, Verdict::Allowed(expected.into()));

        let denied = CheckResponse {
            status: Some(Status {
                code: 7,
                message: String::new(),
            }),
            denied_response: Some(DeniedHttpResponse {
                status: Some(HttpStatus { code: 401 }),
                headers: vec![
                    option("www-authenticate", "X", None, AppendIfExistsOrAdd),
                    option("content-length", "9", None, AppendIfExistsOrAdd),
                ],
                body: "who?".to_owned(),
            }),
            ok_response: ok.ok_response,
        };
        let Verdict::Denied(denial) = read(&answer(&denied, Some("0")), &[]).unwrap() else {
            panic!("it was let pass")
        };
        assert_eq!((denial.status.as_u16(), &*denial.body), (401, &b"who?"[..]));
        assert_eq!(denial.headers.len(), 1);
        // A denial is never a success, whatever it says.
        let odd = CheckResponse {
            denied_response: Some(DeniedHttpResponse {
                status: Some(HttpStatus { code: 200 }),
                ..DeniedHttpResponse::default()
            }),
            ..denied.clone()
        };
        assert!(
            matches!(read(&answer(&odd, Some("0")), &[]).unwrap(), Verdict::Denied(denial) if denial.status == StatusCode::FORBIDDEN)
        );
        for (status, body) in [
            (None, None),
            (Some("14"), None),
            (Some("0"), Some(&b"\0\0\0\0\x09x"[..])),
        ] {
            let mut broken = answer(&denied, status);
            if let Some(body) = body {
                broken.body = Bytes::from_static(body);
            }
            assert!(read(&broken, &[]).is_err(), "{broken:?}");
        }
    }
}

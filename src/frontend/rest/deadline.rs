//! The deadline that a REST client asks for.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::fault::{Fault, Kind};
use crate::wire::timeout;

/// The first of `grpc-timeout`, `Connect-Timeout-Ms` and `X-Server-Timeout` (seconds) that is there.
pub(in crate::frontend) fn asked(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    if let Some(value) = headers.get("grpc-timeout") {
        return timeout::parse(value.as_bytes())
            .map(Some)
            .map_err(|error| bad("grpc-timeout", &error.to_string()));
    }
    if let Some(asked) = connect(headers)? {
        return Ok(Some(asked));
    }
    if let Some(value) = headers.get("x-server-timeout") {
        return seconds(value)
            .map(Some)
            .ok_or_else(|| bad("x-server-timeout", "a number of seconds is expected"));
    }
    Ok(None)
}

/// What `Connect-Timeout-Ms` says.
pub(in crate::frontend) fn connect(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    let Some(value) = headers.get("connect-timeout-ms") else {
        return Ok(None);
    };
    milliseconds(value).map(Some).ok_or_else(|| {
        bad(
            "connect-timeout-ms",
            "one to ten digits are expected, in milliseconds",
        )
    })
}

fn milliseconds(value: &HeaderValue) -> Option<Duration> {
    let text = value
        .to_str()
        .ok()
        .filter(|text| (1..=10).contains(&text.len()))?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Duration::from_millis)
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn bad(header: &str, expected: &str) -> Fault {
    Fault::client(Kind::InvalidArgument, format!("header {header}: {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_header_counts_and_a_malformed_one_is_refused() {
        type Row<'a> = (&'a [(&'a str, &'a str)], Result<Option<u64>, &'a str>);
        let table: &[Row<'_>] = &[
            (&[], Ok(None)),
            (&[("grpc-timeout", "250m")], Ok(Some(250))),
            (&[("connect-timeout-ms", "80")], Ok(Some(80))),
            (&[("x-server-timeout", "1.5")], Ok(Some(1500))),
            (
                &[("x-server-timeout", "9"), ("grpc-timeout", "1S")],
                Ok(Some(1000)),
            ),
            (&[("grpc-timeout", "soon")], Err("header grpc-timeout")),
            (&[("connect-timeout-ms", "1.5")], Err("header connect-timeout-ms")),
            (
                &[("connect-timeout-ms", "12345678901")],
                Err("header connect-timeout-ms"),
            ),
            (&[("x-server-timeout", "-1")], Err("header x-server-timeout")),
            (&[("x-server-timeout", "1e9")], Err("header x-server-timeout")),
        ];
        for (lines, expected) in table {
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
                .collect();
            match (asked(&headers), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected.map(Duration::from_millis), "{lines:?}"),
                (Err(fault), Err(named)) => assert!(fault.message().starts_with(named), "{lines:?}"),
                (got, _) => panic!("{lines:?}: {got:?}"),
            }
        }
    }
}

//! Request heads, one rule a table.

use http::Request;

use super::*;

/// A head from its request line's parts and its header lines.
fn parts(method: &str, uri: &str, version: Version, lines: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri).version(version);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn kind(head: &Parts) -> Option<Kind> {
    check(head, &Limits::default()).err().map(|fault| fault.kind())
}

fn post(lines: &[(&str, &str)]) -> Option<Kind> {
    kind(&parts("POST", "/", Version::HTTP_11, lines))
}

const BAD: Option<Kind> = Some(Kind::BadRequest);

#[test]
fn a_plain_head_passes_in_every_version() {
    let host = [("host", "example.com")];
    for version in [Version::HTTP_10, Version::HTTP_11] {
        assert_eq!(kind(&parts("GET", "/a/b?c=d%", version, &host)), None);
    }
    assert_eq!(
        kind(&parts("GET", "https://example.com/a", Version::HTTP_2, &[])),
        None
    );
    assert_eq!(
        kind(&parts("GET", "https://example.com/a", Version::HTTP_2, &host)),
        None
    );
    assert_eq!(
        kind(&parts("GET", "http://EXAMPLE.com/a", Version::HTTP_11, &host)),
        None
    );
    assert_eq!(kind(&parts("OPTIONS", "*", Version::HTTP_11, &host)), None);
}

#[test]
fn hosts_have_one_form() {
    for host in [
        "a",
        "a.b",
        "a-b.c_d",
        "A.B:80",
        "a:",
        "127.0.0.1:65535",
        "[::1]",
        "[::1]:8080",
        "[2001:db8::1]:",
    ] {
        assert_eq!(post(&[("host", host)]), None, "{host}");
    }
    for host in [
        "",
        " ",
        "a b",
        "user@a",
        "user:pw@a",
        "a/b",
        "a,b",
        "a:b",
        "a:65536",
        "a:-1",
        ":80",
        "[::1",
        "[::1]x",
        "[a]:1",
        "[]",
        "a%41",
        "a?b",
        "a#b",
        "a\\b",
        "::1",
        "é",
    ] {
        assert_eq!(post(&[("host", host)]), BAD, "{host}");
    }
}

#[test]
fn the_host_is_said_once() {
    assert_eq!(post(&[]), BAD);
    assert_eq!(post(&[("host", "a"), ("host", "a")]), BAD);
    assert_eq!(kind(&parts("GET", "/", Version::HTTP_10, &[])), BAD);
    let table = [
        (Version::HTTP_2, &[("host", "b")][..]),
        (Version::HTTP_11, &[("host", "b")]),
        (Version::HTTP_11, &[]),
        (Version::HTTP_2, &[("host", "a"), ("host", "a")]),
    ];
    for (version, lines) in table {
        assert_eq!(
            kind(&parts("GET", "http://a/", version, lines)),
            BAD,
            "{version:?} {lines:?}"
        );
    }
    assert_eq!(kind(&parts("GET", "http://u@a/", Version::HTTP_2, &[])), BAD);
    assert_eq!(
        kind(&parts("GET", "ftp://a/", Version::HTTP_11, &[("host", "a")])),
        BAD
    );
}

#[test]
fn a_body_is_framed_in_one_way() {
    let host = ("host", "a");
    type Lines = [(&'static str, &'static str)];
    let table: &[(&Lines, Option<Kind>)] = &[
        (&[("content-length", "5")], None),
        (&[("content-length", "5"), ("content-length", "5")], BAD),
        (&[("content-length", "5, 5")], BAD),
        (&[("content-length", "+5")], BAD),
        (&[("content-length", "")], BAD),
        (&[("transfer-encoding", "chunked")], None),
        (&[("transfer-encoding", "Chunked")], None),
        (&[("transfer-encoding", "gzip, chunked")], BAD),
        (&[("transfer-encoding", "chunked, chunked")], BAD),
        (&[("transfer-encoding", "identity")], BAD),
        (
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            BAD,
        ),
        (&[("transfer-encoding", "chunked"), ("content-length", "5")], BAD),
    ];
    for (lines, expected) in table {
        let lines = [&[host][..], lines].concat();
        assert_eq!(post(&lines), *expected, "{lines:?}");
    }
    let chunked = [host, ("transfer-encoding", "chunked")];
    assert_eq!(kind(&parts("POST", "/", Version::HTTP_10, &chunked)), BAD);
    assert_eq!(kind(&parts("POST", "/", Version::HTTP_2, &chunked)), BAD);
}

#[test]
fn what_the_codec_can_not_frame_is_refused_and_nothing_else() {
    let lengths = [
        "",
        "3",
        "03",
        "3, 3",
        "+3",
        "-1",
        "x",
        "18446744073709551615",
        "18446744073709551616",
    ];
    let codings = [
        "",
        "chunked",
        "Chunked",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "identity",
    ];
    let length = lengths.map(|value| Some(("content-length", value)));
    let coding = codings.map(|value| Some(("transfer-encoding", value)));
    let lines = || length.into_iter().chain(coding).chain([None]);
    for version in [Version::HTTP_10, Version::HTTP_11] {
        for (one, other) in lines().flat_map(|one| lines().map(move |other| (one, other))) {
            let lines: Vec<_> = [Some(("host", "a")), one, other].into_iter().flatten().collect();
            let head = parts("POST", "/", version, &lines);
            let is_framed = http1::Framing::of_request(version, &head.headers).is_some();
            assert_eq!(kind(&head).is_none(), is_framed, "{version:?} {lines:?}");
        }
    }
}

#[test]
fn tunnels_and_traces_are_refused_with_what_is_served() {
    for (method, uri) in [("CONNECT", "a:443"), ("TRACE", "/")] {
        let head = parts(method, uri, Version::HTTP_11, &[("host", "a")]);
        let fault = check(&head, &Limits::default()).unwrap_err();
        assert_eq!(
            (fault.kind(), fault.allow()),
            (Kind::MethodNotAllowed, Some(METHODS))
        );
    }
}

#[test]
fn sizes_are_taken_up_to_their_limit() {
    let limits = Limits {
        max_uri_bytes: 10,
        max_header_bytes: 40,
        max_headers: 3,
        ..Limits::default()
    };
    let uri = |uri: &str| {
        let head = parts("GET", uri, Version::HTTP_11, &[("host", "a")]);
        check(&head, &limits).err().map(|fault| fault.kind())
    };
    assert_eq!(uri("/345678?0"), None);
    assert_eq!(uri("/345678?01"), None);
    assert_eq!(uri("/345678?012"), Some(Kind::UriTooLong));
    let bytes = |length: usize| {
        // "host: a" and its line end are 9 bytes, "x: " and its line end 5.
        let value = "v".repeat(length - 9 - 5);
        let head = parts("GET", "/", Version::HTTP_11, &[("host", "a"), ("x", &value)]);
        check(&head, &limits).err().map(|fault| fault.kind())
    };
    assert_eq!((bytes(39), bytes(40)), (None, None));
    assert_eq!(bytes(41), Some(Kind::HeadersTooLarge));
    let count = |count: usize| {
        let lines = [("host", "a"), ("b", ""), ("c", ""), ("d", "")];
        let head = parts("GET", "/", Version::HTTP_11, &lines[..count]);
        check(&head, &limits).err().map(|fault| fault.kind())
    };
    assert_eq!((count(2), count(3)), (None, None));
    assert_eq!(count(4), Some(Kind::HeadersTooLarge));
}

#[test]
fn paths_that_could_be_read_in_two_ways_are_refused() {
    let path = |path: &str| {
        let uri = http::uri::PathAndQuery::try_from(path).unwrap();
        let mut head = parts("GET", "/", Version::HTTP_11, &[("host", "a")]);
        head.uri = uri.into();
        kind(&head)
    };
    for fine in [
        "/",
        "/a%2Fb",
        "/a;b=c",
        "/%41/..",
        "/a/%2e%2E/b",
        "/a?b=%zz%00\\",
        "/..a;b",
        "/...;b",
        "/;",
        "/a%25b",
    ] {
        assert_eq!(path(fine), None, "{fine}");
    }
    for bad in [
        "/a%00",
        "/%00",
        "/a\\b",
        "/a%5Cb",
        "/a%5cb",
        "/a%",
        "/a%4",
        "/a%4g",
        "/a%g4",
        "/%%41",
        "/..;/b",
        "/.;a",
        "/a/%2e%2E;x/b",
        "/.%2e;",
    ] {
        assert_eq!(path(bad), BAD, "{bad}");
    }
    let star = parts("GET", "*", Version::HTTP_11, &[("host", "a")]);
    assert_eq!(kind(&star), BAD);
}

#[test]
fn an_underscore_is_refused_where_it_misleads() {
    for name in [
        "content_length",
        "transfer_encoding",
        "x_forwarded_for",
        "x-forwarded_for",
        "x_real_ip",
        "grpc_timeout",
        "x_sabir_user",
        "x-sabir_user",
        "proxy_connection",
    ] {
        assert_eq!(post(&[("host", "a"), (name, "1")]), BAD, "{name}");
    }
    for name in [
        "x_request_id",
        "my_header",
        "_",
        "x-forwarded-for",
        "grpc-timeout",
    ] {
        assert_eq!(post(&[("host", "a"), (name, "1")]), None, "{name}");
    }
}

//! Blocks that others wrote, and what they wrote back.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::*;

/// Every byte in the Huffman code, as an independent implementation (hyper-h2's `hpack`) writes it.
const EVERY_BYTE: &str = "\
    ffc7fffd8fffffe2fffffe3fffffe4fffffe5fffffe6fffffe7fffffe8ffffeafffffff3fffffa7fffffabffffffdfffffeb \
    fffffecfffffedfffffeefffffefffffff0ffffff1ffffff2fffffffbfffffcffffffd3fffffd7fffffdbfffffdffffffe3f \
    ffffe7fffffebfffffed4fe3f9ffaffcabf1febfafefe7fdfd2cbb00089969b71d79fb9f7fff20ffbff3ff50ddbd7f061c58 \
    f265cd9f469d5af66dddbf871e5f9cff7ff7fffc3ff9ffe45fff4719242cb34e6e9d68a6a3d7dac426defe3cfaf7fffbfe7f \
    fbffdffffffcfffe6ffff4bfff9ffffa3fffd3ffff53fffd5ffffb3fffeb7fffdaffffb7ffff73fffeeffffdeffffebffffb \
    fffffd9ffffdbfffebffffe0ffffeeffffc3ffff8bffff1ffffe4fffee7fffb1ffff97fffd9ffffcdffff9fffffbffffdaff \
    feeffff4ffffb7fffee7fffe8ffffd3fffdeffffd5fffeeffffbdffffe1fffdfffff7fffff5ffffecffff07fff87fffe0fff \
    f17fffedffff87ffff77fffeffffeaffff8bfffe3ffff93ffff87fffcbffff37ffff1fffff83ffffe1fffebfffe3ffff3fff \
    ff2ffffa3ffffd9fffff17ffffc7fffff27ffffdefffffbffffff2fffff8fffffb7fff97fff8fffffe6fffffc1fffff87fff \
    fe7fffffc5ffffe5fffe4ffff2fffffd1fffff4ffffffefffffe3fffffc9fffff97fffb3ffffcffffb7fffcdffff4ffff9ff \
    ffd1ffffcffffeaffffafffffddffffeffffff4fffff5fffffabffffa7ffffd7fffff9bffffecfffffb7fffff3fffffe8fff \
    ffd3fffffabfffff5fffffff7ffffecfffffdbfffffbbfffff7ffffff0fffffbbf";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The fields of a block, a line each.
fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, HpackError> {
    let mut lines = Vec::new();
    decoder.decode(block, |field| {
        lines.push(match field {
            Field::Pseudo(name, value) => format!("{name:?}: {}", value.escape_ascii()),
            Field::Header(name, value) => format!("{name}: {}", value.as_bytes().escape_ascii()),
            Field::Invalid(size) => format!("invalid, {size} bytes"),
        });
    })?;
    Ok(lines.join("\n"))
}

#[test]
fn every_byte_has_its_code() {
    let mut text = Vec::new();
    huffman::decode(&bytes(EVERY_BYTE), &mut text).unwrap();
    assert_eq!(text, (0..=255).collect::<Vec<u8>>());
}

/// Where a code falls on the words that are read must not matter, nor what is before it: every byte between others of short
/// and long codes, at every place.
#[test]
fn a_code_is_read_wherever_it_stands() {
    let every = bytes(EVERY_BYTE);
    let mut bits = every
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let codes: Vec<Vec<u8>> = huffman::LENGTHS[..256]
        .iter()
        .map(|length| bits.by_ref().take(usize::from(*length)).collect())
        .collect();
    let mut text = Vec::new();
    for before in 0..9 {
        for neighbour in *b"a~\x0a\xff" {
            for byte in 0..=u8::MAX {
                let wanted = [vec![b'e'; before], vec![neighbour, byte, neighbour, byte]].concat();
                let mut bits: Vec<u8> = wanted
                    .iter()
                    .flat_map(|byte| codes[usize::from(*byte)].clone())
                    .collect();
                bits.resize(bits.len().next_multiple_of(8), 1);
                let code: Vec<u8> = bits
                    .chunks(8)
                    .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit))
                    .collect();
                text.clear();
                huffman::decode(&code, &mut text).unwrap();
                assert_eq!(text, wanted);
            }
        }
    }
}

#[test]
fn what_is_not_in_the_code_is_refused() {
    let table: [(&str, bool); 8] = [
        ("", true),
        // `a`, and three ones.
        ("1f", true),
        // Three zeros in their place.
        ("18", false),
        // Eight ones more.
        ("1fff", false),
        // The symbol that ends a string.
        ("ffffffff", false),
        ("ff", false),
        ("fe", false),
        ("fffffffc", false),
    ];
    for (code, valid) in table {
        let read = huffman::decode(&bytes(code), &mut Vec::new());
        assert_eq!(read.is_ok(), valid, "{code}");
    }
}

/// The requests of RFC 7541, appendices C.3 and C.4: the same, without and with the Huffman code.
#[test]
fn requests_are_read() {
    let blocks = [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ];
    for [first, second, third] in blocks {
        let mut decoder = Decoder::new(4096, 4096);
        let common = "Method: GET\nScheme: http\nPath: /\nAuthority: www.example.com";
        assert_eq!(decoded(&mut decoder, &bytes(first)).unwrap(), common);
        assert_eq!(
            decoded(&mut decoder, &bytes(second)).unwrap(),
            format!("{common}\ncache-control: no-cache")
        );
        assert_eq!(
            decoded(&mut decoder, &bytes(third)).unwrap(),
            "Method: GET\nScheme: https\nPath: /index.html\nAuthority: www.example.com\ncustom-key: custom-value"
        );
    }
}

/// The first two answers of RFC 7541, appendix C.5, whose table of 256 bytes has to let go of an entry.
#[test]
fn a_full_table_lets_go_of_the_oldest() {
    let mut decoder = Decoder::new(256, 4096);
    let first = "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d";
    let rest =
        "cache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com";
    assert_eq!(
        decoded(&mut decoder, &bytes(first)).unwrap(),
        format!("Status: 302\n{rest}")
    );
    let second = decoded(&mut decoder, &bytes("4803 3330 37c1 c0bf")).unwrap();
    assert_eq!(second, format!("Status: 307\n{rest}"));
    // `:status: 302` was the oldest.
    assert_eq!(decoded(&mut decoder, &bytes("c2")), Err(HpackError::Index));
}

#[test]
fn what_can_not_be_read_is_an_error_of_its_kind() {
    let table = [
        ("80", HpackError::Index),
        ("be", HpackError::Index),
        ("ff 8080 8080 8001", HpackError::Number),
        ("ff", HpackError::Truncated),
        ("41 05 61", HpackError::Truncated),
        ("40 0161", HpackError::Truncated),
        ("41 8118", HpackError::Huffman),
        // 4,097 bytes, of 4,096; and in the middle of a block.
        ("3f e2 1f", HpackError::Resize),
        ("82 20", HpackError::Resize),
    ];
    for (block, error) in table {
        let mut decoder = Decoder::new(4096, 4096);
        assert_eq!(decoded(&mut decoder, &bytes(block)), Err(error), "{block}");
    }
}

#[test]
fn what_no_field_may_have_is_told() {
    let table = [
        ("00 0141 0162", "invalid, 2 bytes"),
        ("00 0161 0100", "invalid, 2 bytes"),
        ("00 023a61 00", "invalid, 2 bytes"),
        ("00 00 0161", "invalid, 1 bytes"),
        ("00 0161 01ff", "a: \\xff"),
    ];
    for (block, line) in table {
        let mut decoder = Decoder::new(4096, 4096);
        assert_eq!(decoded(&mut decoder, &bytes(block)).unwrap(), line, "{block}");
    }
}

#[test]
fn a_value_that_is_not_to_be_kept_is_known_as_such() {
    let mut decoder = Decoder::new(4096, 4096);
    let mut sensitive = Vec::new();
    decoder
        .decode(&bytes("10 0161 0162 00 0161 0162"), |field| {
            if let Field::Header(_, value) = field {
                sensitive.push(value.is_sensitive());
            }
        })
        .unwrap();
    assert_eq!(sensitive, [true, false]);
}

fn encoded(encoder: &mut Encoder, fields: &[(HeaderName, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    Encoder::status(StatusCode::OK, &mut out);
    for (name, value) in fields {
        encoder.field(name, &HeaderValue::from_str(value).unwrap(), &mut out);
    }
    out
}

#[test]
fn what_comes_again_is_a_byte_and_what_does_not_is_not_kept() {
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new(4096, 4096);
    let request = HeaderName::from_static("x-request-id");
    let mut lengths = Vec::new();
    for at in 0..40 {
        let id = format!("{at:030}");
        let cookie = format!("a={at}");
        let fields = [
            (CONTENT_TYPE, "application/grpc"),
            (CACHE_CONTROL, "no-store"),
            (request.clone(), &*id),
            (SET_COOKIE, &*cookie),
            (LOCATION, "/"),
        ];
        let block = encoded(&mut encoder, &fields);
        let lines = decoded(&mut decoder, &block).unwrap();
        let expected = format!(
            "Status: 200\ncontent-type: application/grpc\ncache-control: no-store\nx-request-id: {id}\nset-cookie: {cookie}\n\
             location: /"
        );
        assert_eq!(lines, expected);
        lengths.push(block.len());
    }
    // One for the status, three for what stays the same, an identifier with its name, and a cookie.
    let last = 1 + 3 + (1 + 1 + 12 + 1 + 30) + (2 + 1 + 4);
    assert_eq!(lengths[2..].iter().max(), Some(&last), "{lengths:?}");
}

#[test]
fn a_client_that_allows_less_is_told_what_is_used() {
    let mut encoder = Encoder::new();
    // Once at first, since the table is smaller than what both begin with: 1,024 bytes.
    assert_eq!(encoded(&mut encoder, &[]), bytes("3f e1 07 88"));
    assert_eq!(encoded(&mut encoder, &[]), bytes("88"));
    encoder.resize(0);
    encoder.resize(100);
    // Both, or the client would keep what was let go of in between: RFC 7541, section 4.2.
    assert_eq!(encoded(&mut encoder, &[]), bytes("20 3f 45 88"));
    for _ in 0..3 {
        encoded(&mut encoder, &[(CONTENT_TYPE, "application/json")]);
    }
    assert_eq!(
        encoded(&mut encoder, &[(CONTENT_TYPE, "application/json")]),
        bytes("88 be")
    );
    encoder.resize(0);
    assert_eq!(
        encoded(&mut encoder, &[(CONTENT_TYPE, "a/b")]),
        [bytes("20 88 0f 10 03"), b"a/b".to_vec()].concat()
    );
}

#[test]
fn every_known_name_is_found_at_its_place() {
    for place in 15..=fields::KNOWN {
        let Some(Field::Header(name, _)) = fields::known(place) else {
            panic!("{place} is no header");
        };
        assert_eq!(fields::place(&name), Some(place), "{name}");
    }
    for other in [
        "grpc-timeout",
        "a",
        "x-forwarded-for",
        "upgrade",
        "www-authenticate-info",
    ] {
        assert_eq!(fields::place(&HeaderName::from_static(other)), None, "{other}");
    }
}

#[test]
fn a_message_of_many_fields_is_short_when_it_comes_for_the_third_time() {
    let mut encoder = Encoder::new();
    let names: Vec<_> = (0..20)
        .map(|at| HeaderName::try_from(format!("x-{at}")).unwrap())
        .collect();
    let sizes = [(); 3].map(|()| {
        let mut out = Vec::new();
        for name in &names {
            encoder.field(name, &HeaderValue::from_static("same"), &mut out);
        }
        out.len()
    });
    assert!(sizes[1] >= sizes[0] && sizes[2] == names.len(), "{sizes:?}");
}

//! The testee of protobuf's conformance runner: the gateway's transcoder over standard input and output.
//!
//! Run by `tests/conformance/run.sh`. A message that goes from protobuf to protobuf is written as JSON and read again:
//! what JSON cannot hold, unknown fields above all, is passed on as it came.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use sabir::schema::descriptor::File;
use sabir::translate::json::{JsonOptions, Target, Transcoder, UnknownFields, WireReason};

/// `conformance.ConformanceRequest`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(bytes = "vec", optional, tag = "1")]
    protobuf_payload: Option<Vec<u8>>,
    #[prost(string, optional, tag = "2")]
    json_payload: Option<String>,
    #[prost(int32, tag = "3")]
    requested_output_format: i32,
    #[prost(string, tag = "4")]
    message_type: String,
    #[prost(int32, tag = "5")]
    test_category: i32,
}

/// `conformance.ConformanceResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(oneof = "Outcome", tags = "1, 2, 3, 4, 5, 6")]
    outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Outcome {
    #[prost(string, tag = "1")]
    ParseError(String),
    #[prost(string, tag = "6")]
    SerializeError(String),
    #[prost(string, tag = "2")]
    RuntimeError(String),
    #[prost(bytes, tag = "3")]
    Protobuf(Vec<u8>),
    #[prost(string, tag = "4")]
    Json(String),
    #[prost(string, tag = "5")]
    Skipped(String),
}

const PROTOBUF: i32 = 1;
const JSON: i32 = 2;
/// `JSON_IGNORE_UNKNOWN_PARSING_TEST`.
const IGNORE_UNKNOWN: i32 = 3;
const LIMIT: usize = 64 << 20;

struct Testee {
    /// The field numbers of each message.
    known: HashMap<String, HashSet<u32>>,
    strict: Transcoder,
    ignoring: Transcoder,
}

impl Testee {
    fn new(descriptors: &[u8]) -> Result<Self, Box<dyn std::error::Error>> {
        #[derive(Clone, PartialEq, Message)]
        struct Set {
            #[prost(bytes = "bytes", repeated, tag = "1")]
            file: Vec<Bytes>,
        }
        let files = Set::decode(descriptors)?.file;
        let mut known = HashMap::new();
        for file in &files {
            let file = File::decode(file.clone())?;
            for message in file.message_type {
                let name = format!(
                    "{}.{}",
                    file.package.as_deref().unwrap_or_default(),
                    message.name()
                );
                let numbers = message.field.iter().map(|field| field.number().cast_unsigned());
                known.insert(name, numbers.collect());
            }
        }
        let strict = JsonOptions {
            unknown_fields: UnknownFields::Reject,
            ..JsonOptions::default()
        };
        // The suite wants an undeclared enum name to be dropped where unknown fields are ignored; the gateway does not.
        let ignoring = JsonOptions {
            unknown_fields: UnknownFields::Ignore,
            drop_unknown_enum_names: true,
            ..JsonOptions::default()
        };
        Ok(Self {
            known,
            strict: Transcoder::from_files(&files, strict)?,
            ignoring: Transcoder::from_files(&files, ignoring)?,
        })
    }

    fn answer(&self, request: &Request) -> Outcome {
        let transcoder = if request.test_category == IGNORE_UNKNOWN {
            &self.ignoring
        } else {
            &self.strict
        };
        let Some(id) = transcoder.message(&request.message_type) else {
            return Outcome::RuntimeError(format!("{} is not declared", request.message_type));
        };
        if !matches!(request.requested_output_format, PROTOBUF | JSON) {
            return Outcome::Skipped("only protobuf and JSON".to_owned());
        }
        let target = Target::Message(id);
        let mut wire = BytesMut::new();
        match (&request.protobuf_payload, &request.json_payload) {
            (Some(payload), _) => wire.extend_from_slice(payload),
            (None, Some(text)) => {
                if let Err(error) = transcoder.read(target, None, text.as_bytes(), &mut wire, LIMIT) {
                    return Outcome::ParseError(error.to_string());
                }
                if request.requested_output_format == PROTOBUF {
                    return Outcome::Protobuf(wire.to_vec());
                }
            }
            (None, None) => return Outcome::Skipped("only protobuf and JSON".to_owned()),
        }
        let mut text = BytesMut::new();
        let written = transcoder.write(target, None, &wire, &mut text, LIMIT);
        if request.requested_output_format == PROTOBUF {
            return match written {
                Err(error) if !matches!(error.reason, WireReason::NoJsonForm(_)) => {
                    Outcome::ParseError(error.to_string())
                }
                _ => Outcome::Protobuf(self.canonical(request, target, &wire, &text)),
            };
        }
        match written {
            Ok(()) => Outcome::Json(String::from_utf8_lossy(&text).into_owned()),
            Err(error) if matches!(error.reason, WireReason::NoJsonForm(_)) => {
                Outcome::SerializeError(error.to_string())
            }
            Err(error) => Outcome::ParseError(error.to_string()),
        }
    }

    /// The text read again, and the unknown fields, which it cannot hold; the bytes themselves if they have no text.
    fn canonical(&self, request: &Request, target: Target, wire: &[u8], text: &[u8]) -> Vec<u8> {
        let mut again = BytesMut::new();
        let read = self.strict.read(target, None, text, &mut again, LIMIT);
        let known = self.known.get(&request.message_type);
        match (read, known.and_then(|known| unknown_fields(wire, known))) {
            (Ok(()), Some(unknown)) => [&again[..], &unknown].concat(),
            _ => wire.to_vec(),
        }
    }
}

/// The fields of a valid message whose numbers are not known.
fn unknown_fields(wire: &[u8], known: &HashSet<u32>) -> Option<Vec<u8>> {
    let (mut rest, mut found) = (wire, Vec::new());
    while !rest.is_empty() {
        let field = rest;
        let (tag, kind) = decode_key(&mut rest).ok()?;
        skip_field(kind, tag, &mut rest, DecodeContext::default()).ok()?;
        if !known.contains(&tag) {
            found.extend_from_slice(field.get(..field.len() - rest.len())?);
        }
    }
    Some(found)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("usage: conformance messages.binpb")?;
    let testee = Testee::new(&std::fs::read(path)?)?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut size = [0; 4];
    while input.read_exact(&mut size).is_ok() {
        let mut bytes = vec![0; u32::from_le_bytes(size) as usize];
        input.read_exact(&mut bytes)?;
        let request = Request::decode(&bytes[..])?;
        // The runner asks first for the list of failures that are expected: there is none.
        let outcome = if request.message_type == "conformance.FailureSet" {
            Outcome::Protobuf(Vec::new())
        } else {
            testee.answer(&request)
        };
        let response = Response {
            outcome: Some(outcome),
        }
        .encode_to_vec();
        output.write_all(&u32::try_from(response.len())?.to_le_bytes())?;
        output.write_all(&response)?;
        output.flush()?;
    }
    Ok(())
}

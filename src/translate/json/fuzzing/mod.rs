//! The transcoder against prost-reflect, as functions of a seed or of arbitrary bytes.
//!
//! `cargo test` runs them on fixed seeds, cargo-fuzz on what it finds. Where prost-reflect is known to differ it is not
//! asked; these are all of its deviations that matter here:
//!
//! - it takes the last of several equal JSON names, in either spelling; here they are an error;
//! - it keeps undeclared numbers of closed enums, which are unknown fields;
//! - it fails on a field of another wire type, which is an unknown field;
//! - it takes an `Any` without a type only with one, and fails on types that it does not know;
//! - it takes -0 for the default of a number without presence;
//! - it writes infinities in wrappers as `null`;
//! - it limits nesting on the wire, not in JSON.

#![expect(clippy::expect_used, reason = "a harness says loudly what is wrong")]

mod dice;
mod schemas;
mod spelling;
mod wires;

use bytes::{Bytes, BytesMut};
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use self::dice::Dice;
use self::schemas::Compiled;
use super::{JsonOptions, JsonReason, MessageId, Target, Transcoder, UnknownFields};

/// More than any message of these tests needs.
const LIMIT: usize = 64 << 20;

/// A random schema with random messages: wire to JSON, and every spelling of that JSON back to the wire.
///
/// # Panics
/// If the transcoder and prost-reflect do not agree.
pub fn random_schema(seed: u64) {
    let mut dice = Dice::new(seed);
    let compiled = Compiled::new(&schemas::random(&mut dice));
    let options = options(&mut dice);
    let transcoder = compiled.transcoder(options);
    for _ in 0..4 {
        let message = dice.pick(&compiled.messages).clone();
        let wire = wires::message(&message, &mut dice, 0);
        agree(&transcoder, &message, options, &wire, &mut dice);
    }
}

/// A random message of the fixed schema and its text, with a few bytes changed: no panic, nothing out of bounds.
///
/// # Panics
/// As [`wire`] and [`json`].
pub fn mutated(seed: u64) {
    let mut dice = Dice::new(seed);
    let compiled = Compiled::fixed();
    let choice = dice.below(compiled.messages.len());
    let message = &compiled.messages[choice];
    let bytes = wires::message(message, &mut dice, 0);
    let prefix = [u8::try_from(choice).unwrap_or(0), dice.roll().to_le_bytes()[0]];
    let transcoder = compiled.remembered(JsonOptions::default());
    let id = transcoder.message(message.full_name()).expect("it is declared");
    let mut text = BytesMut::new();
    let written = transcoder.write(Target::Message(id), None, &bytes, &mut text, LIMIT);
    wire(&[&prefix[..], &bytes].concat());
    wire(&[&prefix[..], &mutate(&bytes, &mut dice)].concat());
    if written.is_ok() {
        json(&[&prefix[..], &text].concat());
        json(&[&prefix[..], &mutate(&text, &mut dice)].concat());
    }
}

fn mutate(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len() + 1);
        let byte = *dice.pick(b"\x00\x01\x08\x7f\x80\xff\"\\{}[]:,0-.enu 1");
        match dice.below(4) {
            0 => bytes.insert(at, byte),
            1 => bytes.truncate(at),
            _ if at < bytes.len() && dice.one_in(2) => drop(bytes.remove(at)),
            _ => {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
        }
    }
    bytes
}

/// Arbitrary bytes as a message of the fixed schema; its text is read again.
///
/// # Panics
/// If the transcoder and prost-reflect do not agree.
pub fn wire(data: &[u8]) {
    let [choice, seed, data @ ..] = data else { return };
    let mut dice = Dice::new(u64::from(*seed));
    let compiled = Compiled::fixed();
    let message = compiled.messages[usize::from(*choice) % compiled.messages.len()].clone();
    let transcoder = compiled.remembered(options(&mut dice));
    let id = transcoder.message(message.full_name()).expect("it is declared");
    let mut text = BytesMut::new();
    if transcoder
        .write(Target::Message(id), None, data, &mut text, LIMIT)
        .is_ok()
    {
        assert!(
            serde_json::from_slice::<Value>(&text).is_ok(),
            "{text:?} is not JSON"
        );
        again(&transcoder, id, &text);
    }
}

/// Arbitrary bytes as JSON of the fixed schema.
///
/// # Panics
/// If the transcoder takes a text that is no JSON, or if what it makes of it is no message.
pub fn json(data: &[u8]) {
    let [choice, seed, text @ ..] = data else { return };
    let mut dice = Dice::new(u64::from(*seed));
    let compiled = Compiled::fixed();
    let message = compiled.messages[usize::from(*choice) % compiled.messages.len()].clone();
    let transcoder = compiled.remembered(options(&mut dice));
    let id = transcoder.message(message.full_name()).expect("it is declared");
    let mut wire = BytesMut::new();
    match transcoder.read(Target::Message(id), None, text, &mut wire, LIMIT) {
        Ok(()) => {
            let blank = text.iter().all(|byte| b" \t\r\n".contains(byte));
            assert!(
                blank || serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok(),
                "this is no JSON"
            );
            let found = DynamicMessage::decode(message, &wire[..]);
            assert!(found.is_ok(), "{found:?}");
            let mut text = BytesMut::new();
            if transcoder
                .write(Target::Message(id), None, &wire, &mut text, LIMIT)
                .is_ok()
            {
                again(&transcoder, id, &text);
            }
        }
        Err(error) => {
            assert!(wire.is_empty(), "nothing is appended on failure");
            assert!(!error.to_string().is_empty());
            match error.reason {
                JsonReason::Utf8 => assert!(std::str::from_utf8(text).is_err(), "{error}"),
                JsonReason::Expected("`,` or `}`" | "`,` or `]`" | "`:`") => {
                    assert!(
                        serde_json::from_slice::<serde::de::IgnoredAny>(text).is_err(),
                        "{error}"
                    );
                }
                _ => {}
            }
        }
    }
}

/// What is written is read again, and gives the same text and the same bytes from then on.
fn again(transcoder: &Transcoder, id: MessageId, text: &[u8]) {
    let target = Target::Message(id);
    let (mut wire, mut second, mut wires) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    if let Err(error) = transcoder.read(target, None, text, &mut wire, LIMIT) {
        // The wire can lack a required field, name a type that no descriptor declares, and nest lists more deeply.
        let fine = matches!(
            error.reason,
            JsonReason::Required(_)
                | JsonReason::UnknownType(_)
                | JsonReason::Depth { .. }
                | JsonReason::Expected(_)
        );
        assert!(fine, "{error} in {}", String::from_utf8_lossy(text));
        return;
    }
    transcoder
        .write(target, None, &wire, &mut second, LIMIT)
        .expect("what was read is written");
    transcoder
        .read(target, None, &second, &mut wires, LIMIT)
        .expect("what was written is read");
    assert_eq!(wire, wires, "the wire form is canonical");
}

fn options(dice: &mut Dice) -> JsonOptions {
    JsonOptions {
        unknown_fields: if dice.one_in(2) {
            UnknownFields::Reject
        } else {
            UnknownFields::Ignore
        },
        case_insensitive_enums: dice.one_in(4),
        drop_unknown_enum_names: false,
        emit_defaults: dice.one_in(3),
        proto_names: dice.one_in(3),
        enums_as_ints: dice.one_in(3),
        int64_as_numbers: dice.one_in(3),
    }
}

fn agree(
    transcoder: &Transcoder,
    descriptor: &MessageDescriptor,
    options: JsonOptions,
    wire: &[u8],
    dice: &mut Dice,
) {
    let id = transcoder
        .message(descriptor.full_name())
        .expect("it is declared");
    let target = Target::Message(id);
    let expected = DynamicMessage::decode(descriptor.clone(), wire).expect("the wire is valid");
    let mut text = BytesMut::new();
    transcoder
        .write(target, None, wire, &mut text, LIMIT)
        .expect("it is written");
    let ours: Value = serde_json::from_slice(&text).expect("it is JSON");
    same(&ours, &tree(&expected, options), &text);
    let plain = tree(&expected, JsonOptions::default());
    for _ in 0..3 {
        let spelled = spelling::message(&plain, descriptor, dice);
        let mut again = BytesMut::new();
        if let Err(error) = transcoder.read(target, None, spelled.as_bytes(), &mut again, LIMIT) {
            panic!("{error}: {spelled}");
        }
        let found = DynamicMessage::decode(descriptor.clone(), &again[..]).expect("what is written is valid");
        same(&tree(&found, JsonOptions::default()), &plain, spelled.as_bytes());
    }
}

/// Compares two trees and says where they differ.
fn same(found: &Value, expected: &Value, text: &[u8]) {
    if let Some(path) = difference(found, expected) {
        panic!("{path} in {}", String::from_utf8_lossy(text));
    }
}

fn difference(found: &Value, expected: &Value) -> Option<String> {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            let mut parts = keys.filter_map(|key| {
                let absent = Value::String("absent".to_owned());
                let path = difference(a.get(key).unwrap_or(&absent), b.get(key).unwrap_or(&absent))?;
                Some(format!(".{key}{path}"))
            });
            parts.next()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut parts = a.iter().zip(b).enumerate().filter_map(|(index, (a, b))| {
                let path = difference(a, b)?;
                Some(format!("[{index}]{path}"))
            });
            parts.next()
        }
        // serde tells `1` from `1.0`, which are one number.
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            (a.as_f64() != b.as_f64()).then(|| format!(": {a}, expected {b}"))
        }
        _ => (found != expected).then(|| format!(": {found}, expected {expected}")),
    }
}

/// The JSON of prost-reflect as a tree.
fn tree(message: &DynamicMessage, options: JsonOptions) -> Value {
    let options = SerializeOptions::new()
        .skip_default_fields(!options.emit_defaults)
        .use_proto_field_name(options.proto_names)
        .use_enum_numbers(options.enums_as_ints)
        .stringify_64_bit_integers(!options.int64_as_numbers);
    let mut text = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
        .expect("it has a text");
    let text = String::from_utf8(text).expect("JSON is UTF-8");
    serde_json::from_str(&text).expect("it is JSON")
}

/// What [`Compiled`] needs of a transcoder.
fn transcoder(files: &[Bytes], options: JsonOptions) -> Transcoder {
    Transcoder::from_files(files, options).expect("the descriptors are valid")
}

//! One message, spelled in many ways: order, spaces, names, escapes, quoted and bare numbers, nulls.

use prost_reflect::{Kind, MessageDescriptor};
use serde_json::Value;

use super::Dice;

/// A spelling of the JSON of a message.
pub(super) fn message(tree: &Value, of: &MessageDescriptor, dice: &mut Dice) -> String {
    let mut text = String::new();
    spell(tree, &Kind::Message(of.clone()), dice, &mut text);
    space(dice, &mut text);
    text
}

fn spell(tree: &Value, kind: &Kind, dice: &mut Dice, text: &mut String) {
    space(dice, text);
    match (tree, kind) {
        (Value::Object(members), Kind::Message(of)) if !special(of) => object(members, of, dice, text),
        (Value::Object(members), _) => {
            plain_object(members, dice, text, |value, dice, text| {
                spell(value, kind, dice, text)
            });
        }
        (Value::Array(items), _) => list(items, kind, dice, text),
        (
            Value::String(content),
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64,
        ) => {
            integer(content, dice, text);
        }
        (
            Value::Number(number),
            Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Fixed32 | Kind::Sfixed32,
        ) => {
            integer(&number.to_string(), dice, text);
        }
        (Value::Number(number), Kind::Double | Kind::Float) if dice.one_in(4) => {
            text.push_str(&format!("\"{number}\""));
        }
        (Value::String(name), Kind::Enum(of)) if dice.one_in(3) => match of.get_value_by_name(name) {
            Some(value) => text.push_str(&value.number().to_string()),
            None => string(name, dice, text),
        },
        (Value::String(content), Kind::Bytes) => {
            let content = if dice.one_in(2) {
                content.replace('+', "-").replace('/', "_")
            } else {
                content.clone()
            };
            let content = if dice.one_in(2) {
                content.trim_end_matches('=').to_owned()
            } else {
                content
            };
            string(&content, dice, text);
        }
        (Value::String(content), _) => string(content, dice, text),
        (other, _) => text.push_str(&other.to_string()),
    }
}

/// Messages whose JSON is not an object of their fields.
fn special(of: &MessageDescriptor) -> bool {
    of.full_name().starts_with("google.protobuf.")
}

fn object(
    members: &serde_json::Map<String, Value>,
    of: &MessageDescriptor,
    dice: &mut Dice,
    text: &mut String,
) {
    let mut written: Vec<String> = Vec::new();
    for (name, value) in members {
        let mut member = String::new();
        let field = of
            .get_field_by_json_name(name)
            .or_else(|| of.get_field_by_name(name));
        let Some(field) = field else {
            // An extension, or the `@type` of an `Any`.
            let extension = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
            let extension = extension.and_then(|name| of.get_extension_by_full_name(name));
            string(name, dice, &mut member);
            member.push(':');
            let kind = extension.map_or(Kind::String, |extension| extension.kind());
            spell(value, &kind, dice, &mut member);
            written.push(member);
            continue;
        };
        let called = if dice.one_in(3) {
            field.name()
        } else {
            field.json_name()
        };
        string(called, dice, &mut member);
        space(dice, &mut member);
        member.push(':');
        match field.kind() {
            Kind::Message(entry) if field.is_map() => match value {
                Value::Object(entries) => {
                    let kind = entry.map_entry_value_field().kind();
                    space(dice, &mut member);
                    plain_object(entries, dice, &mut member, |value, dice, text| {
                        spell(value, &kind, dice, text)
                    });
                }
                other => member.push_str(&other.to_string()),
            },
            kind => spell(value, &kind, dice, &mut member),
        }
        written.push(member);
    }
    for field in of.fields() {
        let absent = !members.contains_key(field.json_name());
        let holds_null = match field.kind() {
            Kind::Message(of) => of.full_name() == "google.protobuf.Value" && !field.is_list(),
            _ => false,
        };
        if absent && !holds_null && !field.is_required() && dice.one_in(12) {
            written.push(format!("{:?}:null", field.json_name()));
        }
    }
    shuffle(&mut written, dice);
    join(&written, '{', '}', dice, text);
}

fn plain_object(
    members: &serde_json::Map<String, Value>,
    dice: &mut Dice,
    text: &mut String,
    each: impl Fn(&Value, &mut Dice, &mut String),
) {
    let mut written = Vec::new();
    for (name, value) in members {
        let mut member = String::new();
        string(name, dice, &mut member);
        member.push(':');
        each(value, dice, &mut member);
        written.push(member);
    }
    shuffle(&mut written, dice);
    join(&written, '{', '}', dice, text);
}

fn list(items: &[Value], kind: &Kind, dice: &mut Dice, text: &mut String) {
    let mut written = Vec::new();
    for item in items {
        let mut element = String::new();
        spell(item, kind, dice, &mut element);
        written.push(element);
    }
    join(&written, '[', ']', dice, text);
}

fn shuffle(items: &mut [String], dice: &mut Dice) {
    if dice.one_in(2) {
        for at in (1..items.len()).rev() {
            items.swap(at, dice.below(at + 1));
        }
    }
}

fn join(items: &[String], open: char, close: char, dice: &mut Dice, text: &mut String) {
    text.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        space(dice, text);
        text.push_str(item);
        space(dice, text);
    }
    text.push(close);
}

fn integer(digits: &str, dice: &mut Dice, text: &mut String) {
    let spelled = match dice.below(6) {
        0 => format!("{digits}.0"),
        1 => format!("{digits}e0"),
        2 if digits.trim_start_matches('-') != "0" => format!("{digits}00e-2"),
        3 if digits.ends_with('0') && digits.len() > 1 => format!("{}E+1", &digits[..digits.len() - 1]),
        _ => digits.to_owned(),
    };
    if dice.one_in(2) {
        text.push_str(&format!("\"{spelled}\""));
    } else {
        text.push_str(&spelled);
    }
}

fn string(content: &str, dice: &mut Dice, text: &mut String) {
    if !dice.one_in(4) {
        text.push_str(&Value::String(content.to_owned()).to_string());
        return;
    }
    text.push('"');
    for letter in content.chars() {
        if dice.one_in(3) || letter < ' ' {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else if matches!(letter, '"' | '\\' | '/') {
            text.push('\\');
            text.push(letter);
        } else {
            text.push(letter);
        }
    }
    text.push('"');
}

fn space(dice: &mut Dice, text: &mut String) {
    if dice.one_in(6) {
        text.push_str(dice.pick::<&str>(&[" ", "\n", "\t ", "\r\n  "]));
    }
}

//! Names, tables and enums of a plan.

use super::super::names::Names;
use super::super::plan::{Enum, Field, Form, Kind, NONE, Shape, wire};
use super::super::{JsonOptions, PlanError};
use super::Member;
use crate::schema::descriptor::EnumType;

/// Numbers below this are looked up by index, if their message has that many.
const DENSE: u32 = 1024;

/// What JSON may call the fields: first the names that are written, then the other spellings of those that have two.
pub(super) fn called(members: &[Member]) -> Vec<(&str, u16)> {
    let indexed = || members.iter().zip(0..);
    let json = indexed().map(|(member, index)| (member.json.as_str(), index));
    let proto = indexed().filter(|(member, _)| member.proto != member.json);
    json.chain(proto.map(|(member, index)| (member.proto.as_str(), index)))
        .collect()
}

/// A bit for each wire type that a field takes; of another one it is an unknown field.
pub(super) fn accepts(kind: Kind, shape: Shape) -> u8 {
    match shape {
        Shape::Map(_) => 1 << wire::LEN,
        Shape::List | Shape::Packed if kind.packable() => 1 << kind.wire() | 1 << wire::LEN,
        Shape::Implicit | Shape::Explicit | Shape::List | Shape::Packed => 1 << kind.wire(),
    }
}

pub(super) fn dense(fields: &[Field]) -> Box<[u16]> {
    let last = fields
        .iter()
        .map(|field| field.number)
        .filter(|&number| number < DENSE)
        .max();
    let mut table = vec![NONE; last.map_or(0, |last| last as usize + 1)];
    for (field, index) in fields.iter().zip(0..) {
        if let Some(slot) = table.get_mut(field.number as usize) {
            *slot = index;
        }
    }
    table.into()
}

pub(super) fn form(name: &str) -> Form {
    match name.strip_prefix("google.protobuf.").unwrap_or_default() {
        "Any" => Form::Any,
        "Timestamp" => Form::Timestamp,
        "Duration" => Form::Duration,
        "FieldMask" => Form::FieldMask,
        "Struct" => Form::Struct,
        "Value" => Form::Value,
        "ListValue" => Form::ListValue,
        "DoubleValue" => Form::Wrapper(Kind::Double),
        "FloatValue" => Form::Wrapper(Kind::Float),
        "Int64Value" => Form::Wrapper(Kind::Int64),
        "UInt64Value" => Form::Wrapper(Kind::Uint64),
        "Int32Value" => Form::Wrapper(Kind::Int32),
        "UInt32Value" => Form::Wrapper(Kind::Uint32),
        "BoolValue" => Form::Wrapper(Kind::Bool),
        "StringValue" => Form::Wrapper(Kind::String),
        "BytesValue" => Form::Wrapper(Kind::Bytes),
        _ => Form::Plain,
    }
}

pub(super) fn enumeration(name: &str, declared: &EnumType, options: JsonOptions) -> Result<Enum, PlanError> {
    let fail = |reason| PlanError {
        name: name.to_owned(),
        reason,
    };
    let mut values = Vec::with_capacity(declared.value.len());
    let mut numbers = Vec::with_capacity(declared.value.len());
    let mut named: Vec<(Box<[u8]>, u16)> = Vec::with_capacity(declared.value.len());
    for (value, index) in declared.value.iter().zip(0..NONE) {
        let (text, number) = (
            value.name.as_deref().unwrap_or_default(),
            value.number.unwrap_or_default(),
        );
        values.push((number, format!("\"{text}\"").into_bytes().into_boxed_slice()));
        numbers.push(number);
        named.push((text.as_bytes().into(), index));
    }
    // The sort is stable, so the first of several names for one number stays first.
    values.sort_by_key(|value| value.0);
    values.dedup_by_key(|value| value.0);
    let mut dense = vec![NONE; values.iter().filter(|value| (0..256).contains(&value.0)).count() * 2];
    for (value, index) in values.iter().zip(0..) {
        if let Some(slot) = usize::try_from(value.0).ok().and_then(|at| dense.get_mut(at)) {
            *slot = index;
        }
    }
    let folded = options.case_insensitive_enums.then(|| {
        Names::new(
            named
                .iter()
                .map(|(text, index)| (text.to_ascii_lowercase().into_boxed_slice(), *index)),
        )
    });
    Ok(Enum {
        name: name.into(),
        null: name == "google.protobuf.NullValue",
        values: values.into(),
        dense: dense.into(),
        names: Names::new(named).ok_or_else(|| fail("it has more values than are supported"))?,
        folded: folded.flatten(),
        first: numbers.first().copied().unwrap_or_default(),
        numbers: numbers.into(),
    })
}

/// The JSON name of a field that gives none: `page_size` becomes `pageSize`.
pub(super) fn camel_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                text.push(letter.to_ascii_uppercase());
                upper = false;
            }
            _ => text.push(letter),
        }
    }
    text
}

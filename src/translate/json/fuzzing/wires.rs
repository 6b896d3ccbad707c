//! Random messages as wire bytes: fields in any order, in pieces, packed or not, with lengths and numbers spelled long.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor};

use super::Dice;

/// Deep enough for everything to be inside everything.
const DEEPEST: usize = 6;

/// A valid message.
pub(super) fn message(of: &MessageDescriptor, dice: &mut Dice, depth: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    match of
        .full_name()
        .strip_prefix("google.protobuf.")
        .unwrap_or_default()
    {
        "Timestamp" => time(dice, &mut wire, 253_402_300_800, false),
        "Duration" => time(dice, &mut wire, 315_576_000_000, true),
        "FieldMask" => {
            for _ in 0..dice.below(4) {
                delimited(
                    &mut wire,
                    1,
                    dice.pick(&["a", "foo_bar", "foo.bar_baz", "x1.y2"]).as_bytes(),
                    dice,
                );
            }
        }
        "Any" => any(of, dice, depth, &mut wire),
        "Value" => value(dice, depth, &mut wire),
        "Struct" => structure(dice, depth, &mut wire),
        "ListValue" => {
            for _ in 0..if depth > DEEPEST { 0 } else { dice.below(3) } {
                let mut inner = Vec::new();
                value(dice, depth + 1, &mut inner);
                delimited(&mut wire, 1, &inner, dice);
            }
        }
        // Finite ones: prost-reflect writes the others as `null`.
        "DoubleValue" | "FloatValue" => {
            let value = *dice.pick(&[0.0_f32, 1.5, -2e10, 7.0]);
            let double = of.name() == "DoubleValue";
            tag(&mut wire, 1, if double { 1 } else { 5 }, dice);
            if double {
                wire.extend(f64::from(value).to_le_bytes());
            } else {
                wire.extend(value.to_le_bytes());
            }
        }
        _ => fields(of, dice, depth, &mut wire),
    }
    wire
}

fn fields(of: &MessageDescriptor, dice: &mut Dice, depth: usize, wire: &mut Vec<u8>) {
    let mut all: Vec<FieldDescriptor> = of.fields().collect();
    all.retain(|field| depth < DEEPEST || field.kind().as_message().is_none());
    if all.is_empty() {
        return;
    }
    let count = if depth == 0 { dice.below(30) } else { dice.below(5) };
    for _ in 0..count {
        let field = dice.pick(&all).clone();
        one(&field, dice, depth, wire);
        if dice.one_in(30) {
            unknown(dice, wire, 3);
        }
    }
    // In the order of declaration, as most writers do it, and at least those that must be there.
    if dice.one_in(2) {
        wire.clear();
        for field in &all {
            let in_oneof = field
                .containing_oneof()
                .is_some_and(|oneof: OneofDescriptor| !synthetic(&oneof));
            if !in_oneof && dice.one_in(3) {
                one(field, dice, depth, wire);
            }
        }
    }
    for field in all.iter().filter(|field| field.is_required()) {
        one(field, dice, depth, wire);
    }
    if of.extensions().count() > 0 && dice.one_in(3) {
        delimited(wire, 5000, dice.text().as_bytes(), dice);
    }
}

fn synthetic(oneof: &OneofDescriptor) -> bool {
    oneof.name().starts_with('_')
}

fn one(field: &FieldDescriptor, dice: &mut Dice, depth: usize, wire: &mut Vec<u8>) {
    let number = field.number();
    let kind = field.kind();
    if field.is_map() {
        let Kind::Message(entry) = &kind else { return };
        for _ in 0..dice.below(4) {
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let mut inner = Vec::new();
            if !dice.one_in(6) {
                one(&key, dice, depth + 1, &mut inner);
            }
            // An entry without its value would lack the required fields of a message.
            if value.kind().as_message().is_some() || !dice.one_in(6) {
                let at = inner.len();
                one(&value, dice, depth + 1, &mut inner);
                if dice.one_in(5) {
                    inner.rotate_left(at);
                }
            }
            delimited(wire, number, &inner, dice);
        }
        return;
    }
    if let (true, Kind::Message(inner)) = (field.is_group(), &kind) {
        tag(wire, number, 3, dice);
        let body = message(inner, dice, depth + 1);
        wire.extend(body);
        tag(wire, number, 4, dice);
        return;
    }
    if !field.is_list() {
        return tagged(&kind, number, dice, depth, wire);
    }
    let packable = !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_));
    if packable
        && (if dice.one_in(6) {
            !field.is_packed()
        } else {
            field.is_packed()
        })
    {
        let mut run = Vec::new();
        for _ in 0..dice.below(6) {
            bare(&kind, dice, depth, &mut run);
        }
        delimited(wire, number, &run, dice);
    } else {
        for _ in 0..dice.below(4) {
            tagged(&kind, number, dice, depth, wire);
        }
    }
}

fn tagged(kind: &Kind, number: u32, dice: &mut Dice, depth: usize, wire: &mut Vec<u8>) {
    match kind {
        Kind::Message(inner) => {
            let inner_wire = message(inner, dice, depth + 1);
            delimited(wire, number, &inner_wire, dice);
        }
        Kind::String => delimited(wire, number, dice.text().as_bytes(), dice),
        Kind::Bytes => {
            let bytes: Vec<u8> = (0..dice.below(50))
                .map(|_| dice.roll().to_le_bytes()[0])
                .collect();
            delimited(wire, number, &bytes, dice);
        }
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
            tag(wire, number, 1, dice);
            bare(kind, dice, depth, wire);
        }
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
            tag(wire, number, 5, dice);
            bare(kind, dice, depth, wire);
        }
        _ => {
            tag(wire, number, 0, dice);
            bare(kind, dice, depth, wire);
        }
    }
}

fn bare(kind: &Kind, dice: &mut Dice, _: usize, wire: &mut Vec<u8>) {
    let integer = dice.integer();
    let low = integer.to_le_bytes()[..4]
        .try_into()
        .map_or(0, i32::from_le_bytes);
    match kind {
        // `+ 0.0` makes 0 of -0: prost-reflect takes both for the default.
        Kind::Double => wire.extend((dice.double() + 0.0).to_le_bytes()),
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        Kind::Float => wire.extend((dice.double() as f32 + 0.0).to_le_bytes()),
        Kind::Fixed64 | Kind::Sfixed64 => wire.extend(integer.to_le_bytes()),
        Kind::Fixed32 | Kind::Sfixed32 => wire.extend(low.to_le_bytes()),
        Kind::Int32 => varint(wire, i64::from(low).cast_unsigned(), dice),
        Kind::Uint32 | Kind::Sint32 => varint(wire, low.cast_unsigned().into(), dice),
        Kind::Bool => varint(wire, (integer & 1).cast_unsigned(), dice),
        Kind::Enum(of) => {
            let declared: Vec<i32> = of.values().map(|value| value.number()).collect();
            varint(wire, i64::from(*dice.pick(&declared)).cast_unsigned(), dice);
        }
        _ => varint(wire, integer.cast_unsigned(), dice),
    }
}

fn time(dice: &mut Dice, wire: &mut Vec<u8>, limit: i64, negative: bool) {
    let seconds = dice.integer() % limit;
    let seconds = if negative { seconds } else { seconds.abs() };
    let nanos = *dice.pick(&[0, 1, 999_999_999, 500_000_000, 123_000, 7_000_000]);
    let nanos = if seconds < 0 { -nanos } else { nanos };
    // Both parts always, since two such messages may be merged.
    tag(wire, 1, 0, dice);
    varint(wire, seconds.cast_unsigned(), dice);
    tag(wire, 2, 0, dice);
    varint(wire, i64::from(nanos).cast_unsigned(), dice);
}

fn any(of: &MessageDescriptor, dice: &mut Dice, depth: usize, wire: &mut Vec<u8>) {
    let pool = of.parent_pool();
    let names = [
        "google.protobuf.Timestamp",
        "google.protobuf.Struct",
        "google.protobuf.Any",
        "t.M0",
    ];
    let name = if depth > DEEPEST {
        names[0]
    } else {
        dice.pick(&names)
    };
    let Some(inner) = pool.get_message_by_name(name) else {
        return any(of, dice, DEEPEST + 1, wire);
    };
    delimited(wire, 1, format!("type.googleapis.com/{name}").as_bytes(), dice);
    let body = message(&inner, dice, depth + 1);
    delimited(wire, 2, &body, dice);
}

fn value(dice: &mut Dice, depth: usize, wire: &mut Vec<u8>) {
    match dice.below(if depth > DEEPEST { 4 } else { 6 }) {
        0 => {
            tag(wire, 1, 0, dice);
            varint(wire, 0, dice);
        }
        1 => {
            tag(wire, 2, 1, dice);
            let value = dice.double();
            wire.extend(if value.is_finite() { value } else { 1.5 }.to_le_bytes());
        }
        2 => delimited(wire, 3, dice.text().as_bytes(), dice),
        3 => {
            tag(wire, 4, 0, dice);
            varint(wire, dice.roll() & 1, dice);
        }
        4 => {
            let mut inner = Vec::new();
            structure(dice, depth + 1, &mut inner);
            delimited(wire, 5, &inner, dice);
        }
        _ => {
            let mut inner = Vec::new();
            for _ in 0..dice.below(4) {
                let mut element = Vec::new();
                value(dice, depth + 1, &mut element);
                delimited(&mut inner, 1, &element, dice);
            }
            delimited(wire, 6, &inner, dice);
        }
    }
}

fn structure(dice: &mut Dice, depth: usize, wire: &mut Vec<u8>) {
    for _ in 0..if depth > DEEPEST { 0 } else { dice.below(4) } {
        let (mut entry, mut inner) = (Vec::new(), Vec::new());
        delimited(&mut entry, 1, dice.text().as_bytes(), dice);
        value(dice, depth + 1, &mut inner);
        delimited(&mut entry, 2, &inner, dice);
        delimited(wire, 1, &entry, dice);
    }
}

fn unknown(dice: &mut Dice, wire: &mut Vec<u8>, depth: usize) {
    let number = 20_000 + u32::try_from(dice.below(100)).unwrap_or(0);
    match dice.below(if depth > 0 { 5 } else { 4 }) {
        0 => {
            tag(wire, number, 0, dice);
            varint(wire, dice.roll(), dice);
        }
        1 => {
            tag(wire, number, 1, dice);
            wire.extend(dice.roll().to_le_bytes());
        }
        2 => delimited(wire, number, &[1, 2, 3], dice),
        3 => {
            tag(wire, number, 5, dice);
            wire.extend([1, 2, 3, 4]);
        }
        _ => {
            tag(wire, number, 3, dice);
            unknown(dice, wire, depth - 1);
            tag(wire, number, 4, dice);
        }
    }
}

fn tag(wire: &mut Vec<u8>, number: u32, of: u8, _: &mut Dice) {
    let mut value = u64::from(number) << 3 | u64::from(of);
    while value >= 0x80 {
        wire.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    wire.push(value.to_le_bytes()[0]);
}

fn varint(wire: &mut Vec<u8>, mut value: u64, dice: &mut Dice) {
    let start = wire.len();
    while value >= 0x80 {
        wire.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    wire.push(value.to_le_bytes()[0]);
    // Longer than it must be.
    if wire.len() - start < 9 && dice.one_in(20) {
        if let Some(last) = wire.last_mut() {
            *last |= 0x80;
        }
        wire.push(0);
    }
}

fn delimited(wire: &mut Vec<u8>, number: u32, body: &[u8], dice: &mut Dice) {
    tag(wire, number, 2, dice);
    varint(wire, body.len() as u64, dice);
    wire.extend_from_slice(body);
}

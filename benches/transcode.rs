//! What it costs to turn JSON into the wire format and back, beside what else could do it.
//!
//! `cargo bench --bench transcode` gives times. `benches/instructions.sh` runs one case at a time under callgrind:
//! `COUNT=case` runs that case 2,000 times over an order and 20 times over a list, and nothing else.

#![allow(clippy::expect_used, reason = "a benchmark on fixed data")]

#[path = "transcode/orders.rs"]
mod orders;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput};
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use sabir::translate::json::{JsonOptions, MessageId, Target, Transcoder};
use serde::de::IgnoredAny;

use orders::{Case, Cases};

const LIMIT: usize = 64 << 20;

/// The ways that are compared.
const NAMES: [&str; 7] = [
    "read",
    "read_reflect",
    "read_ignored",
    "write",
    "write_reflect",
    "write_tangled",
    "write_defaults",
];

struct Bench {
    cases: Cases,
    plain: Transcoder,
    defaults: Transcoder,
}

impl Bench {
    fn new() -> Self {
        let cases = Cases::new();
        let defaults = JsonOptions {
            emit_defaults: true,
            ..JsonOptions::default()
        };
        let plain =
            Transcoder::from_files(&cases.files, JsonOptions::default()).expect("the descriptors are valid");
        let defaults = Transcoder::from_files(&cases.files, defaults).expect("the descriptors are valid");
        Self {
            cases,
            plain,
            defaults,
        }
    }

    fn run(&self, name: &str, case: &Case) -> usize {
        let id = self
            .plain
            .message(case.descriptor.full_name())
            .expect("it is declared");
        match name {
            "read" => read(&self.plain, id, &case.json),
            "read_reflect" => {
                let mut input = serde_json::Deserializer::from_slice(&case.json);
                let message =
                    DynamicMessage::deserialize(case.descriptor.clone(), &mut input).expect("it is valid");
                message.encode_to_vec().len()
            }
            "read_ignored" => {
                serde_json::from_slice::<IgnoredAny>(&case.json).expect("it is JSON");
                0
            }
            "write" => write(&self.plain, id, &case.wire),
            "write_reflect" => {
                let message =
                    DynamicMessage::decode(case.descriptor.clone(), &case.wire[..]).expect("it is valid");
                let mut text = Vec::with_capacity(case.wire.len() * 2);
                let mut output = serde_json::Serializer::new(&mut text);
                message
                    .serialize_with_options(&mut output, &SerializeOptions::new())
                    .expect("it has a text");
                text.len()
            }
            "write_tangled" => write(&self.plain, id, &case.tangled),
            "write_defaults" => write(&self.defaults, id, &case.wire),
            _ => panic!("one of {NAMES:?}"),
        }
    }
}

fn read(transcoder: &Transcoder, id: MessageId, json: &[u8]) -> usize {
    let mut out = BytesMut::new();
    transcoder
        .read(Target::Message(id), None, json, &mut out, LIMIT)
        .expect("it is valid");
    out.len()
}

fn write(transcoder: &Transcoder, id: MessageId, wire: &[u8]) -> usize {
    let mut out = BytesMut::new();
    transcoder
        .write(Target::Message(id), None, wire, &mut out, LIMIT)
        .expect("it is valid");
    out.len()
}

fn main() {
    let bench = Bench::new();
    if let Ok(name) = std::env::var("COUNT") {
        let (order, list) = if name == "none" { (0, 0) } else { (2000, 20) };
        for run in 0..order {
            // Half of the messages are tangled, as in the list.
            let even = name == "write_tangled" && run % 2 == 0;
            let name = if even { "write" } else { &*name };
            black_box(bench.run(name, black_box(&bench.cases.order)));
        }
        for _ in 0..list {
            black_box(bench.run(&name, black_box(&bench.cases.list)));
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (size, case) in [("order", &bench.cases.order), ("list", &bench.cases.list)] {
        let mut group = criterion.benchmark_group(size);
        group.throughput(Throughput::Bytes(case.json.len() as u64));
        for name in NAMES {
            group.bench_function(name, |timer| timer.iter(|| bench.run(name, black_box(case))));
        }
        group.finish();
    }
    criterion.final_summary();
}

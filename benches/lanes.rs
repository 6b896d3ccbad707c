//! What one message costs in each lane: relayed, put into an envelope, transcoded both ways. 100 bytes, 10 kB, 1 MB.

#![expect(clippy::unwrap_used, reason = "a bench that can't go on says so")]

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http_body::Body as _;
use prost::Message as _;

use sabir::demo;
use sabir::schema::{Rules, Schema};
use sabir::translate::json::{JsonOptions, Target, Transcoder};
use sabir::translate::messages::{Direction, enveloped};
use sabir::translate::{Bounds, Messages, Tally};
use sabir::wire::body::Body;

const BOUNDS: Bounds = Bounds {
    max_message_bytes: 16 << 20,
    max_decompression_ratio: 100,
};

/// `library.v1.Book`, as far as the bench fills it.
#[derive(Clone, PartialEq, prost::Message)]
struct Book {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    title: String,
}

/// The encoded book of about this many bytes: a title of plain words.
fn book(bytes: usize) -> Bytes {
    let title = "all happy families are alike ".repeat(bytes / 29 + 1);
    Book {
        name: "shelves/1/books/1".to_owned(),
        title,
    }
    .encode_to_vec()
    .into()
}

/// Reads a body to its end, as a connection does.
fn drain(body: Body) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut body = body;
        let mut length = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            length += frame.unwrap().data_ref().map_or(0, Bytes::len);
        }
        length
    })
}

fn lanes(criterion: &mut Criterion) {
    let schema = Schema::from_descriptor_set(demo::DESCRIPTORS, &Rules::empty()).unwrap();
    let json = Transcoder::compile(&schema, JsonOptions::default()).unwrap();
    let target = Target::Message(json.message("library.v1.Book").unwrap());
    for (name, bytes) in [("100 B", 100), ("10 kB", 10_000), ("1 MB", 1_000_000)] {
        let message = book(bytes);
        let framed = enveloped(&message).unwrap();
        let mut text = BytesMut::new();
        json.write(target, None, &message, &mut text, usize::MAX).unwrap();
        let text = text.freeze();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function("relay", |bencher| {
            bencher.iter(|| {
                let body = Body::whole(framed.clone());
                let messages = Messages::raw(body, None, Direction::Request, BOUNDS, Arc::<Tally>::default());
                drain(messages.into_grpc_body())
            });
        });
        group.bench_function("reframe", |bencher| {
            bencher.iter(|| {
                let framed = enveloped(black_box(&message)).unwrap();
                drain(Messages::whole(framed, BOUNDS, Arc::default()).into_grpc_body())
            });
        });
        group.bench_function("transcode from JSON", |bencher| {
            bencher.iter(|| {
                let mut wire = BytesMut::with_capacity(text.len());
                json.read(target, None, black_box(&text), &mut wire, usize::MAX)
                    .unwrap();
                wire.len()
            });
        });
        group.bench_function("transcode to JSON", |bencher| {
            bencher.iter(|| {
                let mut out = BytesMut::with_capacity(text.len());
                json.write(target, None, black_box(&message), &mut out, usize::MAX)
                    .unwrap();
                out.len()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, lanes);
criterion_main!(benches);

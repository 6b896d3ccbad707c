//! Arbitrary bytes as what a client of HTTP/2 sends after the preface, and as a header block: however they come, they mean
//! the same, and reading them ends.

#![no_main]

use sabir::http2::fuzzing::{frames, header_block};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    match first % 2 {
        0 => frames(rest, std::time::Instant::now()),
        _ => header_block(rest),
    }
});

//! Arbitrary bytes as a token, as what an issuer has signed, and as headers that say who calls: only what is signed is
//! believed, and everything is read in one way.

#![no_main]

use sabir::policy::fuzzing::{claims, headers, token};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    match first % 3 {
        0 => token(rest),
        1 => claims(rest),
        _ => headers(rest),
    }
});

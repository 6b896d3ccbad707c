//! Buffers of connections. They belong to the thread: most connections have nothing to read or write most of the time.

mod input;
mod out;
mod pipe;
mod rewound;

use std::cell::RefCell;

pub(crate) use input::{Input, Sender};
pub(crate) use out::Out;
pub(crate) use pipe::{LEAST_PIPED, Pipe};
pub(crate) use rewound::Rewound;

/// What is gathered before it goes out in the middle of a turn. 64 KiB: with four frames of the usual size, a body of
/// 100 KB goes out in two system calls instead of seven.
const MOST: usize = 64 << 10;
/// Buffers that a thread keeps for the next turn.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer, empty.
fn spare() -> Vec<u8> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(MOST))
}

/// Keeps a buffer for the next turn, of whichever connection.
fn give_back(mut buffer: Vec<u8>) {
    buffer.clear();
    SPARE.with_borrow_mut(|kept| {
        // One that had to grow is not kept.
        if kept.len() < KEPT && (MOST..=2 * MOST).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    });
}

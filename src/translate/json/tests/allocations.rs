//! Nothing is allocated for a message but the output.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::BytesMut;

use super::super::JsonOptions;
use super::support::book;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is the system allocator's; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_message_costs_no_allocation_beyond_its_output() {
    let book = book(JsonOptions::default());
    let json = concat!(
        r#"{"name":"a name of some length, longer than a window","pages":3,"copies":"12","tags":["a","b"],"#,
        r#""next":{"name":"x","books":[{"pages":1},{"pages":2}]},"counts":{"a":1,"b":2},"color":"GREEN","#,
        r#""data":"AAECAwQFBgcICQ==","price":19.99,"numbers":[1,2,3],"time":"2024-05-06T07:08:09.123Z","#,
        r#""length":"1.500s","fields":{"a":{"b":[1,null,"c"]}},"wrapped":"5"}"#
    );
    let (mut wire, mut text) = (BytesMut::with_capacity(4096), BytesMut::with_capacity(4096));
    for round in 0..3 {
        wire.clear();
        text.clear();
        let before = COUNT.get();
        book.transcoder
            .read(book.target, None, json.as_bytes(), &mut wire, 4096)
            .unwrap();
        book.transcoder
            .write(book.target, None, &wire, &mut text, 4096)
            .unwrap();
        // The first message of a thread makes the room that the next ones use.
        assert!(
            round == 0 || COUNT.get() == before,
            "{} allocations",
            COUNT.get() - before
        );
    }
    assert_eq!(text, json.as_bytes());
}

//! Calls in flight on a route or a backend, from all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::counter::Place;
use crate::fault::{Fault, Kind, Side};

/// How many calls may be in flight somewhere, and how many are.
#[derive(Debug)]
pub struct Room {
    name: String,
    most: AtomicU32,
    taken: Arc<AtomicU32>,
    refused: AtomicU64,
}

impl Room {
    /// Room for `most` calls on what is called so, such as `route "/legacy/**"`.
    pub(super) fn new(name: String, most: u32) -> Self {
        Self {
            name,
            most: AtomicU32::new(most),
            taken: Arc::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// Another bound from here on; calls in flight stay.
    pub(super) fn resize(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// A place; `None` if all are taken.
    pub fn enter(&self) -> Option<Place> {
        let place = Place::take(&self.taken, self.most.load(Ordering::Relaxed));
        if place.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many calls found no place.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// What a call is told that finds no place.
    pub fn fault(&self) -> Fault {
        let message = format!("{} has as many calls in flight as it may; try again", self.name);
        Fault::new(Kind::Overloaded, Side::Gateway, message)
            .retry_after(Duration::from_secs(1))
            .of_limit(self.name.as_str())
    }
}

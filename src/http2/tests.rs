//! What carries nothing, counted.

use std::time::Duration;

use tokio::time::Instant;

use super::calm::Calm;

#[test]
fn what_carries_nothing_is_counted_for_ten_seconds() {
    let now = Instant::now().into_std();
    let mut calm = Calm::default();
    for _ in 0..2000 {
        calm.spend(1, now).unwrap();
    }
    assert!(calm.spend(1, now + Duration::from_secs(9)).is_err());
    assert!(calm.spend(1, now + Duration::from_secs(10)).is_ok());
}

#[test]
fn what_carries_something_allows_more() {
    let now = Instant::now().into_std();
    let mut calm = Calm::default();
    for _ in 0..6000 {
        calm.spend(1, now).unwrap();
        calm.content(1);
    }
}

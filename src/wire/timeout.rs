//! The grammar of `grpc-timeout`.

use std::time::Duration;

use http::HeaderValue;
use smallvec::SmallVec;
use thiserror::Error;

/// Why a `grpc-timeout` could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TimeoutError {
    /// No digit, or more than eight, or something else in their place.
    #[error("one to eight digits are expected before the unit")]
    Digits,
    /// The last character is no unit.
    #[error("the unit must be one of H, M, S, m, u and n")]
    Unit,
}

/// Parses a `grpc-timeout` value such as `250m` (250 milliseconds).
///
/// One to eight digits and a unit: `H`, `M`, `S`, `m`, `u` or `n`.
/// Source: gRPC over HTTP/2, "Requests".
///
/// # Errors
/// [`TimeoutError::Unit`] for an unknown unit, [`TimeoutError::Digits`] for none or more than eight.
pub fn parse(value: &[u8]) -> Result<Duration, TimeoutError> {
    let (unit, digits) = value.split_last().ok_or(TimeoutError::Digits)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(TimeoutError::Digits);
    }
    let number = digits.iter().fold(0u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit.wrapping_sub(b'0')))
    });
    match unit {
        b'H' => Ok(Duration::from_secs(number.saturating_mul(3600))),
        b'M' => Ok(Duration::from_secs(number.saturating_mul(60))),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(TimeoutError::Unit),
    }
}

/// Writes a `grpc-timeout` value, rounded up to the finest unit that fits eight digits.
///
/// Rounding up keeps a deadline of a few nanoseconds from becoming zero, which some servers take for none. The value is
/// marked as sensitive: no two calls have the same, and HPACK would have each of them push another header out of its table.
pub fn format(left: Duration) -> HeaderValue {
    const MOST: u64 = 99_999_999;
    let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).max(1);
    let (number, unit) = [(1, b'n'), (1_000, b'u'), (1_000_000, b'm'), (1_000_000_000, b'S')]
        .into_iter()
        .map(|(scale, unit): (u64, u8)| (nanos.div_ceil(scale), unit))
        .find(|(number, _)| *number <= MOST)
        .unwrap_or((MOST, b'S'));
    let mut text: SmallVec<[u8; 9]> = SmallVec::from_slice(itoa::Buffer::new().format(number).as_bytes());
    text.push(unit);
    // Digits and a letter are always a valid header value.
    let mut value = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("99999999S"));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_the_grammar() {
        let table: &[(&str, Result<Duration, TimeoutError>)] = &[
            ("1H", Ok(Duration::from_secs(3600))),
            ("2M", Ok(Duration::from_secs(120))),
            ("3S", Ok(Duration::from_secs(3))),
            ("250m", Ok(Duration::from_millis(250))),
            ("7u", Ok(Duration::from_micros(7))),
            ("9n", Ok(Duration::from_nanos(9))),
            ("99999999H", Ok(Duration::from_secs(99_999_999 * 3600))),
            ("999999999S", Err(TimeoutError::Digits)),
            ("", Err(TimeoutError::Digits)),
            ("S", Err(TimeoutError::Digits)),
            ("1", Err(TimeoutError::Digits)),
            ("-1S", Err(TimeoutError::Digits)),
            ("1.5S", Err(TimeoutError::Digits)),
            ("1s", Err(TimeoutError::Unit)),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_no_shorter() {
        for left in [
            0,
            1,
            99_999_999,
            100_000_000,
            15_000_000_000,
            3_600_000_000_000,
            u64::MAX,
        ] {
            let left = Duration::from_nanos(left);
            let back = parse(format(left).as_bytes()).unwrap();
            assert!(
                back >= left || back.as_secs() >= 99_999_999,
                "{left:?} became {back:?}"
            );
        }
    }
}

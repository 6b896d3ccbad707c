//! The text forms of Timestamp, Duration and FieldMask paths.
//!
//! Source: `google/protobuf/{timestamp,duration,field_mask}.proto`, "JSON Mapping".

use super::out::{Out, pair};

/// Seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: i32,
}

/// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// About ten thousand years, either way.
const LONGEST: i64 = 315_576_000_000;
const SECOND: i32 = 1_000_000_000;

/// `2024-02-29T12:00:00.5Z`, or with an offset such as `+02:00`.
pub(super) fn timestamp(text: &[u8]) -> Option<Time> {
    let (head, rest) = text.split_first_chunk::<19>()?;
    for (at, byte) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if head[at] != byte {
            return None;
        }
    }
    let year = two(head, 0)? * 100 + two(head, 2)?;
    let (month, day) = (two(head, 5)?, two(head, 8)?);
    let (hour, minute, second) = (two(head, 11)?, two(head, 14)?, two(head, 17)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let (nanos, zone) = fraction(rest)?;
    let seconds = day_number(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    TIMESTAMPS.contains(&seconds).then_some(Time { seconds, nanos })
}

/// Seconds east of Greenwich.
fn offset(zone: &[u8]) -> Option<i64> {
    if zone == b"Z" {
        return Some(0);
    }
    let zone: &[u8; 6] = zone.try_into().ok()?;
    let &[sign @ (b'+' | b'-'), _, _, b':', _, _] = zone else {
        return None;
    };
    let (hours, minutes) = (two(zone, 1)?, two(zone, 4)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let east = hours * 3600 + minutes * 60;
    Some(if sign == b'+' { east } else { -east })
}

/// `3s`, `-1.5s`.
pub(super) fn duration(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=12).contains(&digits) {
        return None;
    }
    let seconds = text
        .iter()
        .take(digits)
        .fold(0, |sum, &byte| sum * 10 + i64::from(byte - b'0'));
    let (nanos, unit) = fraction(text.get(digits..)?)?;
    if unit != b"s" || seconds > LONGEST {
        return None;
    }
    Some(if negative {
        Time {
            seconds: -seconds,
            nanos: -nanos,
        }
    } else {
        Time { seconds, nanos }
    })
}

/// One to nine digits after a point, or nothing, in nanoseconds; and what follows.
fn fraction(text: &[u8]) -> Option<(i32, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let mut nanos = 0;
    for at in 0..9 {
        let digit = rest.get(at).filter(|_| at < count);
        nanos = nanos * 10 + digit.map_or(0, |digit| i32::from(digit - b'0'));
    }
    Some((nanos, &rest[count..]))
}

/// Two digits.
#[inline]
fn two<const N: usize>(text: &[u8; N], at: usize) -> Option<i64> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

fn days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, whose years are counted from March here, so that the
/// leap day is the last one. An era is 400 years.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Days from 0000-03-01, where the years of [`date`] start, to 0001-01-01, where timestamps start.
const FIRST_DAY: u32 = 306;

/// Year, month and day of a day since 0001-01-01: the inverse of [`day_number`].
fn date(day: u32) -> (u32, u32, u32) {
    let day = day + FIRST_DAY;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u32::from(month <= 2), month, day)
}

impl Time {
    /// Appends the timestamp in quotes; false if it has no text.
    pub(super) fn write_timestamp(self, out: &mut Out<'_>) -> bool {
        if !TIMESTAMPS.contains(&self.seconds) || !(0..SECOND).contains(&self.nanos) {
            return false;
        }
        let since = self.seconds.wrapping_sub(*TIMESTAMPS.start()).cast_unsigned();
        let (day, second) = (low32(since / 86_400), low32(since % 86_400));
        let (year, month, day) = date(day);
        let mut text = *b"\"0000-00-00T00:00:00Z\"\0\0";
        let parts = [
            (1, year / 100),
            (3, year % 100),
            (6, month),
            (9, day),
            (12, second / 3600),
            (15, second / 60 % 60),
            (18, second % 60),
        ];
        for (at, value) in parts {
            [text[at], text[at + 1]] = pair(value.into());
        }
        if self.nanos == 0 {
            out.block(&text, 22);
            return true;
        }
        out.block(&text, 20);
        write_fraction(self.nanos, out);
        out.word(u64::from_le_bytes(*b"Z\"\0\0\0\0\0\0"), 2);
        true
    }

    /// Appends the duration in quotes; false if it has no text.
    pub(super) fn write_duration(self, out: &mut Out<'_>) -> bool {
        let (seconds, nanos) = (self.seconds, self.nanos);
        let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
        let fits = seconds.unsigned_abs() <= LONGEST.unsigned_abs();
        if mixed || !fits || nanos.unsigned_abs() >= SECOND.unsigned_abs() {
            return false;
        }
        out.byte(b'"');
        if seconds < 0 || nanos < 0 {
            out.byte(b'-');
        }
        out.decimal(seconds.unsigned_abs());
        write_fraction(nanos.wrapping_abs(), out);
        out.word(u64::from_le_bytes(*b"s\"\0\0\0\0\0\0"), 2);
        true
    }
}

/// The low half of a number that has no high one.
#[expect(
    clippy::cast_possible_truncation,
    reason = "days and seconds of ten thousand years fit in 32 bits"
)]
fn low32(value: u64) -> u32 {
    value as u32
}

/// Nothing, or a point and three, six or nine digits.
fn write_fraction(nanos: i32, out: &mut Out<'_>) {
    if nanos == 0 {
        return;
    }
    let nanos = nanos.unsigned_abs();
    let mut text = *b".000000000\0\0\0\0\0\0";
    let [mut rest, billionths] = [nanos / 10, nanos % 10];
    for at in [7, 5, 3, 1] {
        [text[at], text[at + 1]] = pair((rest % 100).into());
        rest /= 100;
    }
    text[9] = b'0' | billionths.to_le_bytes()[0];
    let size = if nanos.is_multiple_of(1_000_000) {
        4
    } else if nanos.is_multiple_of(1000) {
        7
    } else {
        10
    };
    out.block(&text, size);
}

/// Appends the paths of a FieldMask's text in proto names, each through `each`; false where a name is none.
pub(super) fn mask_paths(text: &[u8], mut each: impl FnMut(&[u8])) -> bool {
    if text.is_empty() {
        return true;
    }
    let mut name = Vec::new();
    for path in text.split(|&byte| byte == b',') {
        name.clear();
        for &byte in path {
            match byte {
                b'A'..=b'Z' => name.extend([b'_', byte.to_ascii_lowercase()]),
                b'_' => return false,
                _ => name.push(byte),
            }
        }
        each(&name);
    }
    true
}

/// Appends a path in JSON names to a FieldMask's text; false if the way back would give another path.
pub(super) fn mask_text(path: &[u8], text: &mut Vec<u8>) -> bool {
    let mut upper = false;
    for &byte in path {
        match byte {
            b'a'..=b'z' if upper => text.push(byte.to_ascii_uppercase()),
            _ if upper => return false,
            b'A'..=b'Z' => return false,
            b'_' => {}
            _ => text.push(byte),
        }
        upper = byte == b'_';
    }
    !upper
}

#[cfg(test)]
mod tests;

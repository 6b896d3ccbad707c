//! Moments and stretches of time as files have them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};

/// The second in which we are.
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A moment, in seconds of Unix time: a date, or a date and a time in UTC. Source: RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text)
            .map(Self)
            .ok_or("is no moment; write 2027-01-31 or 2027-01-31T12:00:00Z")
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse()
            .map_err(|what| serde::de::Error::custom(format!("\"{text}\" {what}")))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

fn read(text: &str) -> Option<u64> {
    let (day, time) = match text.split_once('T') {
        None => (text, "00:00:00"),
        Some((day, time)) => (day, time.strip_suffix('Z')?),
    };
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 || year < 1970 {
        return None;
    }
    let days = days(year, month, day);
    // A day that is none, such as the thirty-first of April, is another one when it is written back.
    (date(days) == (year, month, day)).then(|| days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, sign: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(sign);
    let mut found = [0; 3];
    for (number, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Days from 1970-01-01 to a date not before it.
///
/// Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
pub(super) fn days(year: u64, month: u64, day: u64) -> u64 {
    // A year begins in March here, so that the leap day is its last.
    let year = year - u64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.saturating_sub(1);
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).saturating_sub(719_468)
}

/// The date of a day, counted from 1970-01-01: the inverse of the function above.
///
/// Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// A stretch of time, more than nothing: a whole number with `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

/// Far above any time-out, and far below where adding to an instant overflows.
const MAX_PERIOD: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let not = "is not a duration; write a whole number and its unit, such as 250ms, 10s, 5m or 1h";
        let (digits, unit) = number_and_unit(text);
        let number: u64 = digits.parse().map_err(|_| not.to_owned())?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" => return Err(format!("has no unit; did you mean \"{text}s\"?")),
            _ => return Err(not.to_owned()),
        };
        match number.checked_mul(millis).map(Duration::from_millis) {
            Some(Duration::ZERO) => Err("is no time at all; write at least 1ms".to_owned()),
            Some(period) if period <= MAX_PERIOD => Ok(Self(period)),
            Some(_) | None => Err("is too long; the longest is ten years".to_owned()),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        match units
            .iter()
            .find(|(_, scale)| millis >= *scale && millis.is_multiple_of(*scale))
        {
            Some((name, scale)) => write!(f, "{}{name}", millis / scale),
            None => write!(f, "{millis}ms"),
        }
    }
}

/// A number and what stands behind it.
pub(crate) fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2099-12-31T23:59:59Z", 4_102_444_799),
        ] {
            assert_eq!(text.parse(), Ok(Moment(seconds)), "{text}");
            assert!(Moment(seconds).to_string().starts_with(text));
        }
        for text in [
            "",
            "2027",
            "2027-1-1",
            "2027-02-29",
            "2027-04-31",
            "2027-13-01",
            "2027-00-10",
            "1969-12-31",
            "2027-01-01T24:00:00Z",
            "2027-01-01T00:00:00",
            "2027-01-01 00:00:00Z",
            "2027-01-01T00:00:00+01:00",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}

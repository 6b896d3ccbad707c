//! How allowances are written, in the configuration as beside API keys. Pure.
//!
//! Errors are what a text is not, such as `is no rate; write …`: whoever reads it puts the text before them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use super::calendar::Calendar;
use super::{Allowance, Rate};
use crate::policy::time::Period;

/// How often something may happen: `100/s`, `1000/m`, `5/10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Often {
    /// How many.
    pub count: u32,
    /// In which time.
    pub period: Duration,
}

impl Often {
    /// The rate that has so many at once; where nothing is said, as many as it has in its time.
    pub fn with_burst(self, burst: Option<u32>) -> Allowance {
        let Self { count, period } = self;
        Allowance::Rate(Rate {
            count,
            period,
            burst: burst.unwrap_or(count),
        })
    }
}

impl FromStr for Often {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        often(text).ok_or("is no rate; write how many in which time, such as 100/s, 1000/m or 5/10s")
    }
}

fn often(text: &str) -> Option<Often> {
    let (count, period) = text.split_once('/')?;
    let count = count.trim().parse::<NonZeroU32>().ok()?.get();
    let period = period.trim();
    let period = if period.starts_with(|letter: char| letter.is_ascii_digit()) {
        period.parse::<Period>().ok()?
    } else {
        format!("1{period}").parse().ok()?
    };
    Some(Often {
        count,
        period: period.0,
    })
}

impl fmt::Display for Often {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = Period(self.period).to_string();
        let each = period
            .strip_prefix('1')
            .filter(|unit| !unit.starts_with(|letter: char| letter.is_ascii_digit()));
        write!(f, "{}/{}", self.count, each.unwrap_or(&period))
    }
}

/// So many in each window of the calendar: `1000/hour`, `10000/day`, `200000/month`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerWindow {
    /// How many.
    pub count: u64,
    /// In which window.
    pub calendar: Calendar,
}

/// The largest quota: a store that counts in floating point numbers still tells one from the next.
const MOST: u64 = 1 << 52;

impl FromStr for PerWindow {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        per_window(text).ok_or(
            "is no quota; write how many in which window, such as 1000/hour, 10000/day or 200000/month",
        )
    }
}

fn per_window(text: &str) -> Option<PerWindow> {
    let (count, window) = text.split_once('/')?;
    let count = count.trim().parse().ok()?;
    let calendar = match window.trim() {
        "hour" => Calendar::Hour,
        "day" => Calendar::Day,
        "month" => Calendar::Month,
        _ => return None,
    };
    (1..=MOST)
        .contains(&count)
        .then_some(PerWindow { count, calendar })
}

impl fmt::Display for PerWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.calendar)
    }
}

impl From<PerWindow> for Allowance {
    fn from(PerWindow { count, calendar }: PerWindow) -> Self {
        Self::Quota { count, calendar }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_written_again() {
        for text in ["100/s", "1000/m", "5/10s", "1/h", "3/250ms", "7/15m", "1/1000h"] {
            let read: Often = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        assert_eq!("100 / 1s".parse::<Often>().unwrap().to_string(), "100/s");
        for text in ["1/hour", "10000/day", "4503599627370496/month"] {
            let read: PerWindow = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "",
            "100",
            "0/s",
            "-1/s",
            "5/0s",
            "5/d",
            "5/10",
            "4294967296/s",
            "5/s/s",
        ] {
            assert!(text.parse::<Often>().is_err(), "{text}");
        }
        for text in [
            "",
            "100",
            "0/day",
            "1/week",
            "1/2day",
            "4503599627370497/day",
            "1.5/day",
        ] {
            assert!(text.parse::<PerWindow>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_burst_is_what_is_written_or_what_the_rate_has_in_its_time() {
        let rate: Often = "5/10s".parse().unwrap();
        let of = |burst| match rate.with_burst(burst) {
            Allowance::Rate(rate) => rate.burst,
            other => panic!("{other}"),
        };
        assert_eq!((of(None), of(Some(7))), (5, 7));
    }
}

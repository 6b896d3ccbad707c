//! Windows of the calendar, in UTC: an hour, a day, a month. Pure.

use std::fmt;

use crate::policy::time::{date, days};

/// How long a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calendar {
    /// From each full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// One window, in seconds of Unix time: the end is the first second of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first second.
    pub start: u64,
    /// The first second after it.
    pub end: u64,
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

impl Calendar {
    /// The window in which a second of Unix time lies.
    pub fn window(self, unix: u64) -> Window {
        let of = |length| {
            let start = unix - unix % length;
            Window {
                start,
                end: start + length,
            }
        };
        match self {
            Self::Hour => of(HOUR),
            Self::Day => of(DAY),
            Self::Month => {
                let (year, month, _) = date(unix / DAY);
                let (next_year, next) = if month == 12 {
                    (year + 1, 1)
                } else {
                    (year, month + 1)
                };
                Window {
                    start: days(year, month, 1) * DAY,
                    end: days(next_year, next, 1) * DAY,
                }
            }
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::time::Moment;

    fn unix(text: &str) -> u64 {
        text.parse::<Moment>().unwrap().0
    }

    #[test]
    fn windows_begin_and_end_where_the_calendar_says() {
        let table = [
            (Calendar::Hour, "2027-03-01T11:00:00Z", "2027-03-01T12:00:00Z"),
            (Calendar::Hour, "2027-12-31T23:00:00Z", "2028-01-01T00:00:00Z"),
            (Calendar::Day, "2028-02-28T00:00:00Z", "2028-02-29T00:00:00Z"),
            (Calendar::Day, "2027-02-28T00:00:00Z", "2027-03-01T00:00:00Z"),
            (Calendar::Month, "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
            (Calendar::Month, "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z"),
            (Calendar::Month, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Calendar::Month, "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"),
            (Calendar::Month, "2027-04-01T00:00:00Z", "2027-05-01T00:00:00Z"),
            (Calendar::Month, "2027-12-01T00:00:00Z", "2028-01-01T00:00:00Z"),
        ];
        for (calendar, start, end) in table {
            let window = Window {
                start: unix(start),
                end: unix(end),
            };
            let inside = [window.start, window.start + 1, window.end - 1];
            for second in inside {
                assert_eq!(
                    calendar.window(second),
                    window,
                    "{calendar} of {start}, at {second}"
                );
            }
            assert_eq!(
                calendar.window(window.end).start,
                window.end,
                "{calendar} after {start}"
            );
            assert_eq!(
                calendar.window(window.start - 1).end,
                window.start,
                "{calendar} before {start}"
            );
        }
        let lengths: Vec<u64> = (1..=12)
            .map(|month| {
                let window = Calendar::Month.window(unix(&format!("2027-{month:02}-15")));
                (window.end - window.start) / DAY
            })
            .collect();
        assert_eq!(lengths, [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]);
    }
}

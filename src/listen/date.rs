//! What time it is, for answers.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The date, as of this second. Source: RFC 9110, section 6.6.1.
pub(crate) fn date() -> HeaderValue {
    thread_local! {
        static NEWEST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    NEWEST.with_borrow_mut(|(newest, text)| {
        if *newest != second || text.is_empty() {
            *newest = second;
            *text =
                HeaderValue::try_from(httpdate::fmt_http_date(now)).unwrap_or(HeaderValue::from_static(""));
        }
        text.clone()
    })
}

//! Where a body ends, and whether its connection goes on. Source: RFC 9112, sections 6 and 9.3.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version, response};

/// How a body is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Nothing,
    /// By its length in bytes.
    Length(u64),
    /// By chunks, each with its length.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

impl Framing {
    /// Of the body of a request; `None` where two readers could differ on it.
    pub(crate) fn of_request(version: Version, headers: &HeaderMap) -> Option<Self> {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        match (codings.next(), lengths.next()) {
            (None, None) => Some(Self::Nothing),
            (None, Some(length)) => {
                let length = digits(length.as_bytes())?;
                lengths.next().is_none().then_some(Self::Length(length))
            }
            (Some(coding), None) => {
                let chunked = version == Version::HTTP_11
                    && codings.next().is_none()
                    && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
                chunked.then_some(Self::Chunked)
            }
            (Some(_), Some(_)) => None,
        }
    }

    /// Of the body of an answer to a request, which was HEAD if `to_head`.
    ///
    /// # Errors
    /// What the server has done wrong: two readers could differ on it.
    pub(crate) fn of_answer(head: &response::Parts, to_head: bool) -> Result<Self, &'static str> {
        let status = head.status;
        if to_head
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
        {
            return Ok(Self::Nothing);
        }
        let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
        let length = length(&head.headers).map_err(|InvalidLength| "declared an invalid Content-Length")?;
        let Some(coding) = codings.next() else {
            return Ok(length.map_or(Self::UntilClose, Self::Length));
        };
        if length.is_some() {
            return Err("declared both a Content-Length and a Transfer-Encoding");
        }
        if head.version != Version::HTTP_11 {
            return Err("declared a Transfer-Encoding in HTTP/1.0");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("declared a Transfer-Encoding other than \"chunked\"");
        }
        Ok(Self::Chunked)
    }
}

/// What a head says of the length of its body can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidLength;

/// The length that a head declares of its body. That it says the same twice is let pass, as section 6.3 does.
pub(crate) fn length(headers: &HeaderMap) -> Result<Option<u64>, InvalidLength> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != value) {
        return Err(InvalidLength);
    }
    digits(value.as_bytes()).map(Some).ok_or(InvalidLength)
}

/// Leaves one of several lengths that say the same, and none that can't be read, in the head of an answer that is framed
/// so.
pub(crate) fn one_length(framing: Framing, headers: &mut HeaderMap) {
    let length = match framing {
        Framing::Length(length) => Some(length),
        // Nobody has read it yet.
        Framing::Nothing => length(headers).ok().flatten(),
        Framing::Chunked | Framing::UntilClose => return,
    };
    match length {
        Some(length) if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Some(_) => {}
        None => {
            headers.remove(CONTENT_LENGTH);
        }
    }
}

/// Whether an answer without a body announces one, which may follow it. Source: RFC 9110, section 15.3.5.
pub(crate) fn has_more(head: &response::Parts) -> bool {
    head.status == StatusCode::NO_CONTENT
        && (head.headers.contains_key(TRANSFER_ENCODING)
            || !matches!(length(&head.headers), Ok(None | Some(0))))
}

/// A number in decimal digits, and nothing but digits.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the sender of a head keeps the connection after its message.
pub(crate) fn is_kept(version: Version, headers: &HeaderMap) -> bool {
    let mut kept = version == Version::HTTP_11;
    for value in headers.get_all(CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            kept |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    kept
}

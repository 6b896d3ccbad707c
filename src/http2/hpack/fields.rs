//! Header fields, and the table of those that everybody knows. Source: RFC 7541, appendix A; RFC 9113, section 8.3.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};

/// The name of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Authority,
    Method,
    Path,
    Protocol,
    Scheme,
    Status,
    Header(HeaderName),
    /// One that no field may have: with capitals, or a colon and what is not defined.
    Invalid,
}

impl Name {
    /// The name that these bytes are.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            other => HeaderName::from_lowercase(other).map_or(Self::Invalid, Self::Header),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Authority => ":authority".len(),
            Self::Method => ":method".len(),
            Self::Path => ":path".len(),
            Self::Protocol => ":protocol".len(),
            Self::Scheme => ":scheme".len(),
            Self::Status => ":status".len(),
            Self::Header(name) => name.as_str().len(),
            Self::Invalid => 0,
        }
    }
}

/// A field. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// A pseudo-header field, whose value is not looked at here.
    Pseudo(Name, Bytes),
    /// A header field.
    Header(HeaderName, HeaderValue),
    /// A field that makes its message malformed; with the bytes of its name and value.
    Invalid(usize),
}

impl Field {
    /// A field; `length` is that of its name as it was written, which may be invalid.
    pub(super) fn new(name: Name, length: usize, value: Bytes) -> Self {
        match name {
            Name::Header(name) => {
                let size = length + value.len();
                HeaderValue::from_maybe_shared(value)
                    .map_or(Self::Invalid(size), |value| Self::Header(name, value))
            }
            Name::Invalid => Self::Invalid(length + value.len()),
            name => Self::Pseudo(name, value),
        }
    }

    pub(super) fn name(&self) -> Name {
        match self {
            Self::Pseudo(name, _) => name.clone(),
            Self::Header(name, _) => Name::Header(name.clone()),
            Self::Invalid(_) => Name::Invalid,
        }
    }

    /// The bytes of its name and value.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Pseudo(name, value) => name.len() + value.len(),
            Self::Header(name, value) => name.as_str().len() + value.len(),
            Self::Invalid(size) => *size,
        }
    }

    /// What it counts in a table or a list.
    pub(crate) fn size(&self) -> usize {
        self.len() + super::OVERHEAD
    }

    /// The same field, whose value is not to be kept or shown.
    pub(super) fn sensitive(mut self) -> Self {
        if let Self::Header(_, value) = &mut self {
            value.set_sensitive(true);
        }
        self
    }
}

/// An entry of the static table; the first is 1.
pub(super) fn known(index: usize) -> Option<Field> {
    let pseudo = |name, value: &'static str| Some(Field::Pseudo(name, Bytes::from_static(value.as_bytes())));
    match index {
        1 => pseudo(Name::Authority, ""),
        2 => pseudo(Name::Method, "GET"),
        3 => pseudo(Name::Method, "POST"),
        4 => pseudo(Name::Path, "/"),
        5 => pseudo(Name::Path, "/index.html"),
        6 => pseudo(Name::Scheme, "http"),
        7 => pseudo(Name::Scheme, "https"),
        8 => pseudo(Name::Status, "200"),
        9 => pseudo(Name::Status, "204"),
        10 => pseudo(Name::Status, "206"),
        11 => pseudo(Name::Status, "304"),
        12 => pseudo(Name::Status, "400"),
        13 => pseudo(Name::Status, "404"),
        14 => pseudo(Name::Status, "500"),
        16 => Some(Field::Header(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("gzip, deflate"),
        )),
        other => {
            let name = NAMES.get(other.checked_sub(FIRST_NAME)?)?;
            Some(Field::Header(name.clone(), HeaderValue::from_static("")))
        }
    }
}

/// Entries of the static table, in all.
pub(super) const KNOWN: usize = 61;

/// The first entry that is no pseudo-header field.
const FIRST_NAME: usize = 15;

/// The place of a name in the static table.
pub(super) fn place(name: &HeaderName) -> Option<usize> {
    let letter = |name: &HeaderName| name.as_str().as_bytes().first().copied();
    let first = letter(name);
    let from = NAMES.partition_point(|known| letter(known) < first);
    let mut alike = NAMES.iter().skip(from).take_while(|known| letter(known) == first);
    Some(from + alike.position(|known| known == name)? + FIRST_NAME)
}

/// In the order of their first letters.
static NAMES: [HeaderName; KNOWN - FIRST_NAME + 1] = [
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::ACCEPT,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::EXPIRES,
    header::FROM,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::REFERER,
    header::REFRESH,
    header::RETRY_AFTER,
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
];

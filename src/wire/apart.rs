//! Copies whose bytes are their own. Who holds the bytes of a clone is counted in one place for all clones; a worker that
//! copies what it puts into every request counts apart from the others.

use http::uri::Authority;
use http::{HeaderName, HeaderValue};

/// A name.
pub fn name(name: &HeaderName) -> HeaderName {
    // What is a name is one once more; so with the others.
    HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone())
}

/// A name and a value.
pub fn field((of, value): &(HeaderName, HeaderValue)) -> (HeaderName, HeaderValue) {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copy.set_sensitive(value.is_sensitive());
    (name(of), copy)
}

/// An authority.
pub fn authority(authority: &Authority) -> Authority {
    Authority::try_from(authority.as_str()).unwrap_or_else(|_| authority.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_equal_and_elsewhere() {
        let mut value = HeaderValue::from_static("edge");
        value.set_sensitive(true);
        let one = (HeaderName::from_static("x-served-by"), value);
        let other = field(&one);
        assert_eq!(one, other);
        assert!(other.1.is_sensitive());
        assert_ne!(one.1.as_bytes().as_ptr(), other.1.as_bytes().as_ptr());
        assert_ne!(one.0.as_str().as_ptr(), other.0.as_str().as_ptr());
        let one = Authority::from_static("orders.example:8443");
        let other = authority(&one);
        assert_eq!(one, other);
        assert_ne!(one.as_str().as_ptr(), other.as_str().as_ptr());
    }
}

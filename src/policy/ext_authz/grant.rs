//! What an authorization service changes in the metadata of a call that it lets pass.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, header};

/// How one header is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Nobody else has written it.
    Remove(HeaderName),
    /// It is this, whatever it was.
    Set(HeaderName, HeaderValue),
    /// It is this too.
    Append(HeaderName, HeaderValue),
    /// It is this, unless it is there.
    Default(HeaderName, HeaderValue),
    /// It is this, if it is there.
    Replace(HeaderName, HeaderValue),
}

impl Edit {
    fn name(&self) -> &HeaderName {
        match self {
            Self::Remove(name)
            | Self::Set(name, _)
            | Self::Append(name, _)
            | Self::Default(name, _)
            | Self::Replace(name, _) => name,
        }
    }
}

/// The changes, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct Grant {
    edits: Vec<Edit>,
}

impl Grant {
    /// The changes among `edits` that are nobody else's to make.
    pub(super) fn new(edits: impl IntoIterator<Item = Edit>) -> Self {
        let edits = edits.into_iter().filter(|edit| may_change(edit.name()));
        Self {
            edits: edits.collect(),
        }
    }

    /// Makes the changes.
    pub(in crate::policy) fn apply(&self, metadata: &mut HeaderMap) {
        for edit in &self.edits {
            match edit {
                Edit::Remove(name) => drop(metadata.remove(name)),
                Edit::Set(name, value) => drop(metadata.insert(name, value.clone())),
                Edit::Append(name, value) => drop(metadata.append(name, value.clone())),
                Edit::Default(name, value) => drop(metadata.entry(name).or_insert_with(|| value.clone())),
                Edit::Replace(name, value) => {
                    if metadata.contains_key(name) {
                        metadata.insert(name, value.clone());
                    }
                }
            }
        }
    }

    /// What a header is made, if one is set.
    pub(super) fn value(&self, wanted: &HeaderName) -> Option<&HeaderValue> {
        self.edits.iter().rev().find_map(|edit| match edit {
            Edit::Set(name, value) | Edit::Append(name, value) | Edit::Default(name, value)
                if name == wanted =>
            {
                Some(value)
            }
            Edit::Set(..) | Edit::Append(..) | Edit::Default(..) | Edit::Remove(_) | Edit::Replace(..) => {
                None
            }
        })
    }
}

/// Whether a header may be changed: not what frames a message, belongs to one hop, or is the gateway's own word.
pub(crate) fn may_change(name: &HeaderName) -> bool {
    let own = ["x-sabir-", "grpc-", "connect-", "sec-websocket-", "content-"];
    !own.iter().any(|own| name.as_str().starts_with(own))
        && ![
            header::HOST,
            header::TE,
            header::TRAILER,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
            header::EXPECT,
            header::ACCEPT_ENCODING,
            header::PROXY_AUTHENTICATE,
            header::PROXY_AUTHORIZATION,
        ]
        .contains(name)
        && !matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings"
        )
}

/// The headers of an answer that a client may be told by somebody else than the gateway.
pub(super) fn tellable(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| {
            (may_change(name) || **name == header::CONTENT_TYPE)
                && **name != header::DATE
                && **name != header::SERVER
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .fold(HeaderMap::new(), |mut told, (name, value)| {
            told.append(name, value);
            told
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_gateway_s_own_stays() {
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        let grant = Grant::new([
            Edit::Set(name("x-sabir-principal"), value("root")),
            Edit::Set(name("host"), value("elsewhere")),
            Edit::Remove(name("content-type")),
            Edit::Append(name("transfer-encoding"), value("chunked")),
            Edit::Remove(name("cookie")),
            Edit::Set(name("x-user"), value("ada")),
            Edit::Append(name("x-team"), value("b")),
            Edit::Default(name("x-tier"), value("free")),
            Edit::Default(name("x-new"), value("1")),
            Edit::Replace(name("x-old"), value("2")),
            Edit::Replace(name("x-absent"), value("2")),
        ]);
        let mut metadata = HeaderMap::new();
        for (key, text) in [
            ("content-type", "application/grpc"),
            ("cookie", "a=b"),
            ("x-user", "eve"),
            ("x-user", "mallory"),
            ("x-team", "a"),
            ("x-tier", "gold"),
            ("x-old", "1"),
        ] {
            metadata.append(key, value(text));
        }
        grant.apply(&mut metadata);
        let mut told: Vec<_> = metadata
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "content-type: application/grpc",
                "x-new: 1",
                "x-old: 2",
                "x-team: a",
                "x-team: b",
                "x-tier: gold",
                "x-user: ada",
            ]
        );
        assert_eq!(grant.value(&name("x-user")), Some(&value("ada")));
        assert_eq!(grant.value(&name("cookie")), None);
    }
}

//! Who and what is not let in at all: lists of addresses, and patterns that attacks look like. Pure.
//!
//! Everything is compiled when the configuration is. A pattern is matched in a time that grows with the length of the text,
//! whatever the text is.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};

use crate::fault::{Fault, Kind};
use crate::wire::percent;

/// What a pattern may be compiled to, in bytes. Not measured: `[a-z]{1000}` has a fifth of it.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build();
        built.map(Self).map_err(|error| {
            // Its last line says what is wrong; the others draw the pattern.
            let told = error.to_string();
            let told = told.lines().last().unwrap_or_default();
            told.trim_start_matches("error: ").to_owned()
        })
    }

    fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Lists of addresses and rules of a listener or a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Those who are let in; empty for all.
    pub allow: Vec<IpNet>,
    /// Those who are not, even if they are among the others.
    pub deny: Vec<IpNet>,
    /// What a request must not look like.
    pub rules: Vec<Rule>,
}

/// What a blocked request looks like; all of its patterns have to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Where it is written, such as `listeners[0].block[1]`.
    pub name: String,
    /// The path, as it is sent or decoded.
    pub path: Option<Pattern>,
    /// The query, as it is sent or decoded.
    pub query: Option<Pattern>,
    /// Headers, of which any value matches.
    pub headers: Vec<(HeaderName, Pattern)>,
    /// The `User-Agent` header; a request that has none has an empty one.
    pub user_agent: Option<Pattern>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred<'s> {
    /// It comes from an address that is not taken.
    Address,
    /// It looks as this rule says.
    Rule(&'s str),
}

impl Barred<'_> {
    /// What the client is told, which is not the rule.
    pub fn fault(self) -> Fault {
        match self {
            Self::Address => Fault::client(
                Kind::AddressDenied,
                "requests from this address are not taken here",
            ),
            Self::Rule(rule) => {
                tracing::debug!(rule, "a request is blocked");
                Fault::client(
                    Kind::RequestBlocked,
                    "requests that look like this are not taken here",
                )
            }
        }
    }
}

impl Screen {
    /// Whether everything is let in.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty() && self.rules.is_empty()
    }

    /// Whether an address is let in.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !among(&self.deny) && (self.allow.is_empty() || among(&self.allow))
    }

    /// Lets a request in that comes from `address`.
    ///
    /// # Errors
    /// What bars it.
    pub fn check(&self, head: &Parts, address: IpAddr) -> Result<(), Barred<'_>> {
        if !self.admits(address) {
            return Err(Barred::Address);
        }
        let rule = self.rules.iter().find(|rule| rule.matches(head));
        rule.map_or(Ok(()), |rule| Err(Barred::Rule(&rule.name)))
    }
}

impl Rule {
    fn matches(&self, head: &Parts) -> bool {
        let text = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern
                .as_ref()
                .is_none_or(|pattern| either(pattern, text.unwrap_or_default()))
        };
        text(&self.path, Some(head.uri.path()))
            && text(&self.query, head.uri.query())
            && self
                .user_agent
                .as_ref()
                .is_none_or(|pattern| agent(pattern, &head.headers))
            && self.headers.iter().all(|(name, pattern)| {
                let mut values = head.headers.get_all(name).iter();
                values.any(|value| pattern.is_match(value.as_bytes()))
            })
    }
}

fn agent(pattern: &Pattern, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(USER_AGENT).iter().peekable();
    if values.peek().is_none() {
        return pattern.is_match(b"");
    }
    values.any(|value| pattern.is_match(value.as_bytes()))
}

/// Whether a text matches as it is or decoded: an escape is no way around a pattern, nor is a plus for a space.
fn either(pattern: &Pattern, text: &str) -> bool {
    if pattern.is_match(text.as_bytes()) {
        return true;
    }
    if !text.contains(['%', '+']) {
        return false;
    }
    let plain: Cow<'_, str> = percent::decode(text.as_bytes()).into();
    pattern.is_match(plain.as_bytes()) || pattern.is_match(plain.replace('+', " ").as_bytes())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_denied_address_is_out_and_one_that_is_not_allowed_too() {
        for (allow, deny, address, admitted) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&[], &["192.0.2.0/24"], "192.0.2.1", false),
            (&[], &["192.0.2.0/24"], "::ffff:192.0.2.1", false),
            (&[], &["192.0.2.0/24"], "192.0.3.0", true),
            (&["10.0.0.0/8"], &[], "10.255.255.255", true),
            (&["10.0.0.0/8"], &[], "11.0.0.0", false),
            (&["10.0.0.0/8"], &[], "2001:db8::1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.0.1", false),
            (&["2001:db8::/32"], &["2001:db8:1::/48"], "2001:db8:1::1", false),
            (&["2001:db8::/32"], &["2001:db8:1::/48"], "2001:db8:2::1", true),
        ] {
            let screen = Screen {
                allow: nets(allow),
                deny: nets(deny),
                rules: Vec::new(),
            };
            assert_eq!(screen.admits(address.parse().unwrap()), admitted, "{address}");
        }
    }

    #[test]
    fn every_pattern_of_a_rule_has_to_match_and_no_escape_helps() {
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        let header = |name, text| (HeaderName::from_static(name), Pattern::parse(text).unwrap());
        let rule = Rule::default;
        type Case<'a> = (Rule, &'a str, &'a [(&'a str, &'a str)], bool);
        let table: &[Case<'_>] = &[
            (
                Rule {
                    path: pattern(r"\.php$"),
                    ..rule()
                },
                "/a/b.php",
                &[],
                true,
            ),
            (
                Rule {
                    path: pattern(r"\.php$"),
                    ..rule()
                },
                "/a/b%2Ephp",
                &[],
                true,
            ),
            (
                Rule {
                    path: pattern(r"\.php$"),
                    ..rule()
                },
                "/a/b.php5",
                &[],
                false,
            ),
            (
                Rule {
                    path: pattern(r"\.php$"),
                    ..rule()
                },
                "/a?b.php",
                &[],
                false,
            ),
            (
                Rule {
                    query: pattern("(?i)union.+select"),
                    ..rule()
                },
                "/a?q=UNION+SELECT",
                &[],
                true,
            ),
            (
                Rule {
                    query: pattern("union select"),
                    ..rule()
                },
                "/a?q=union+select",
                &[],
                true,
            ),
            (
                Rule {
                    query: pattern("union select"),
                    ..rule()
                },
                "/a?q=%75nion%20select",
                &[],
                true,
            ),
            (
                Rule {
                    query: pattern("."),
                    ..rule()
                },
                "/a",
                &[],
                false,
            ),
            (
                Rule {
                    user_agent: pattern("^$"),
                    ..rule()
                },
                "/a",
                &[],
                true,
            ),
            (
                Rule {
                    user_agent: pattern("^$"),
                    ..rule()
                },
                "/a",
                &[("user-agent", "x")],
                false,
            ),
            (
                Rule {
                    user_agent: pattern("bot"),
                    ..rule()
                },
                "/a",
                &[("user-agent", "a bot")],
                true,
            ),
            (
                Rule {
                    headers: vec![header("x-a", "b")],
                    ..rule()
                },
                "/a",
                &[("x-a", "a"), ("x-a", "b")],
                true,
            ),
            (
                Rule {
                    headers: vec![header("x-a", "")],
                    ..rule()
                },
                "/a",
                &[],
                false,
            ),
            (
                Rule {
                    path: pattern("^/a"),
                    user_agent: pattern("bot"),
                    ..rule()
                },
                "/b",
                &[("user-agent", "bot")],
                false,
            ),
        ];
        for (rule, target, headers, matches) in table {
            let request = headers
                .iter()
                .fold(Request::get(*target), |request, (name, value)| {
                    request.header(*name, *value)
                });
            let head = request.body(()).unwrap().into_parts().0;
            assert_eq!(rule.matches(&head), *matches, "{rule:?} {target} {headers:?}");
        }
    }

    #[test]
    fn a_pattern_is_one_or_says_why_not() {
        for (text, told) in [
            ("(", "unclosed group"),
            ("[a-", "unclosed character class"),
            (r"\w{9}{99}{99}", "exceeds size limit"),
        ] {
            let error = Pattern::parse(text).unwrap_err();
            assert!(error.contains(told) && !error.contains('\n'), "{error}");
        }
        assert!(Pattern::parse("[a-z]{1000}").is_ok());
    }
}

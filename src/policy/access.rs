//! What a caller may call: the rules of a route, of which one has to allow it. Pure.

use serde_json::Value;
use thiserror::Error;

use super::condition::Condition;
use super::facts::{Facts, RequestFacts};
use super::identity::Identity;
use super::jwt::at;

/// The rules that speak about one method. Where there are rules and none of them allows, the answer is no; where the
/// route has rules and none speaks about the method, too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// Any of them may allow.
    pub rules: Vec<Rule>,
}

/// Under what conditions a caller is let in. All conditions have to hold; without any, whoever is known is let in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Where it is written, such as `routes[0].authorize[1]`.
    pub name: String,
    /// Scopes that the caller was granted.
    pub scopes: Names,
    /// Roles that it has.
    pub roles: Names,
    /// Who it is; empty for anybody.
    pub principals: Vec<Principals>,
    /// Claims that were made about it: each has to have one of the values, compared by their text, or to be a list with
    /// one of them.
    pub claims: Vec<(String, Vec<String>)>,
    /// What has to be true of the request, the caller and maybe the first message.
    pub when: Option<Condition>,
}

/// What the rules say about a caller whose message nobody has read.
#[derive(Debug)]
pub enum Ruling<'a> {
    /// This rule lets it in.
    Allowed(&'a Rule),
    /// The first message decides, by these rules, counted as in [`Access`].
    ByMessage(Vec<usize>, Box<RequestFacts>),
}

/// Names of which a caller has to have some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// At least one of these; none is asked for if it is empty.
    pub any: Vec<String>,
    /// Every one of these.
    pub all: Vec<String>,
}

/// Which callers, by their name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principals {
    /// The one with this name.
    One(String),
    /// Those whose name begins so.
    Beginning(String),
}

impl Principals {
    /// A name, or the beginning of names, followed by `*`.
    pub fn new(pattern: &str) -> Self {
        match pattern.strip_suffix('*') {
            Some(beginning) => Self::Beginning(beginning.to_owned()),
            None => Self::One(pattern.to_owned()),
        }
    }

    fn take(&self, principal: &str) -> bool {
        match self {
            Self::One(name) => name == principal,
            Self::Beginning(beginning) => principal.starts_with(beginning),
        }
    }
}

/// Nothing lets a caller in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no rule of this route lets this caller do that{}", hint(.scopes))]
pub struct Denied {
    /// Scopes with which the first of the rules would have held, if that is what it lacked.
    pub scopes: Vec<String>,
}

fn hint(scopes: &[String]) -> String {
    match scopes {
        [] => String::new(),
        scopes => format!("; it takes the scope {}", scopes.join(" ")),
    }
}

impl Access {
    /// What lets a caller in: a rule, or the first message by one of some rules. `request` is asked for where a condition
    /// has to know it. A rule that reads no message comes before those that do, so that none is read in vain.
    ///
    /// # Errors
    /// [`Denied`]: there is nothing.
    pub fn decide(
        &self,
        caller: &Identity,
        request: impl FnOnce() -> RequestFacts,
    ) -> Result<Ruling<'_>, Denied> {
        let mut request = Some(request);
        let mut known: Option<RequestFacts> = None;
        let mut by_message = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            if !rule.allows(caller) {
                continue;
            }
            let Some(condition) = &rule.when else {
                return Ok(Ruling::Allowed(rule));
            };
            if let Some(ask) = request.take() {
                known = Some(ask());
            }
            if condition.fields().is_some() {
                by_message.push(at);
            } else if let Some(request) = &known
                && condition.holds(Facts {
                    request,
                    identity: caller,
                    message: None,
                })
            {
                return Ok(Ruling::Allowed(rule));
            }
        }
        match known {
            Some(request) if !by_message.is_empty() => Ok(Ruling::ByMessage(by_message, Box::new(request))),
            Some(_) | None => Err(self.denied(caller)),
        }
    }

    /// The rule among some that lets a caller in by its first message.
    ///
    /// # Errors
    /// [`Denied`]: there is none.
    pub fn decide_by_message(&self, rules: &[usize], facts: Facts<'_>) -> Result<&Rule, Denied> {
        let mut among = rules.iter().filter_map(|at| self.rules.get(*at));
        let holds = |rule: &&Rule| rule.when.as_ref().is_some_and(|condition| condition.holds(facts));
        among.find(holds).ok_or_else(|| self.denied(facts.identity))
    }

    fn denied(&self, caller: &Identity) -> Denied {
        // Scopes help where nothing else is asked for.
        let mut lacking = self.rules.iter().filter(|rule| rule.when.is_none());
        let lacking = lacking.find(|rule| rule.but_for_scopes(caller));
        let scopes = lacking.map(|rule| rule.scopes.all.iter().chain(rule.scopes.any.first()));
        Denied {
            scopes: scopes.into_iter().flatten().cloned().collect(),
        }
    }
}

impl Rule {
    /// Whether every condition holds but that in CEL.
    pub fn allows(&self, caller: &Identity) -> bool {
        self.scopes.held_by(&caller.claims().scopes) && self.but_for_scopes(caller)
    }

    fn but_for_scopes(&self, caller: &Identity) -> bool {
        let known = caller.claims();
        let principal = caller.principal();
        self.roles.held_by(&known.roles)
            && (self.principals.is_empty() || self.principals.iter().any(|one| one.take(principal)))
            && self.claims.iter().all(|(name, wanted)| {
                at(&known.others, name).is_some_and(|value| match value {
                    Value::Array(items) => items.iter().any(|item| is_one_of(item, wanted)),
                    value => is_one_of(value, wanted),
                })
            })
    }
}

fn is_one_of(value: &Value, texts: &[String]) -> bool {
    match value {
        Value::String(text) => texts.contains(text),
        Value::Number(_) | Value::Bool(_) => texts.contains(&value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

impl Names {
    fn held_by(&self, held: &[String]) -> bool {
        self.all.iter().all(|name| held.contains(name))
            && (self.any.is_empty() || self.any.iter().any(|name| held.contains(name)))
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::identity::{Claims, Source};

    fn caller() -> Identity {
        let others = json!({"team": "books", "groups": ["a", "b"], "org": {"id": 7}, "vip": true});
        Identity::new(
            Claims {
                principal: "spiffe://cluster/ns/shop".into(),
                issuer: None,
                source: Source::Token,
                scopes: vec!["read".into(), "list".into()],
                roles: vec!["clerk".into()],
                others: others.as_object().cloned().unwrap(),
                expires: None,
            },
            &[],
        )
    }

    fn names(any: &[&str], all: &[&str]) -> Names {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Names {
            any: owned(any),
            all: owned(all),
        }
    }

    #[test]
    fn every_condition_of_a_rule_has_to_hold() {
        let claim = |name: &str, values: &[&str]| {
            vec![(
                name.to_owned(),
                values.iter().map(|&value| value.to_owned()).collect(),
            )]
        };
        let rule = Rule::default;
        let table: &[(Rule, bool)] = &[
            (rule(), true),
            (
                Rule {
                    scopes: names(&["write", "read"], &[]),
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    scopes: names(&["write"], &[]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    scopes: names(&[], &["read", "list"]),
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    scopes: names(&[], &["read", "write"]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    scopes: names(&["write"], &["read"]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    roles: names(&[], &["clerk"]),
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    roles: names(&["Clerk"], &[]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    principals: vec![Principals::new("spiffe://cluster/*")],
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    principals: vec![Principals::new("spiffe://cluster")],
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    principals: vec![Principals::new("spiffe://cluster/ns/shop")],
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    claims: claim("team", &["toys", "books"]),
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    claims: claim("team", &["toys"]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    claims: claim("groups", &["b"]),
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    claims: claim("groups", &["c"]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    claims: claim("org.id", &["7"]),
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    claims: claim("org.id", &["8"]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    claims: claim("vip", &["true"]),
                    ..rule()
                },
                true,
            ),
            (
                Rule {
                    claims: claim("absent", &["null"]),
                    ..rule()
                },
                false,
            ),
            (
                Rule {
                    scopes: names(&[], &["read"]),
                    roles: names(&[], &["owner"]),
                    ..rule()
                },
                false,
            ),
        ];
        for (rule, allows) in table {
            assert_eq!(rule.allows(&caller()), *allows, "{rule:?}");
        }
    }

    fn request() -> RequestFacts {
        let head = http::Request::get("/v1/x").body(()).unwrap().into_parts().0;
        let peer = crate::peer::Peer::new("192.0.2.1:1".parse().unwrap(), false, false, Vec::new());
        RequestFacts::of(&head, &peer)
    }

    /// The name of the rule that lets the caller in, or of those by which the message decides.
    fn decided(access: &Access) -> Result<String, Denied> {
        access.decide(&caller(), request).map(|ruling| match ruling {
            Ruling::Allowed(rule) => rule.name.clone(),
            Ruling::ByMessage(rules, _) => format!("{rules:?}"),
        })
    }

    #[cfg(feature = "cel")]
    #[test]
    fn conditions_decide_by_the_head_before_anybody_reads_a_message() {
        let when = |name: &str, text: &str| Rule {
            name: name.into(),
            when: Some(Condition::parse(text).unwrap()),
            ..Rule::default()
        };
        let access = |rules: &[&Rule]| Access {
            rules: rules.iter().map(|&rule| rule.clone()).collect(),
        };
        let (yes, no) = (
            when("yes", "request.path == '/v1/x'"),
            when("no", "request.path == '/'"),
        );
        let message = when("message", "message.tenant == 'a'");
        let owners = Rule {
            roles: names(&["owner"], &[]),
            ..message.clone()
        };
        assert_eq!(decided(&access(&[&no, &yes])).unwrap(), "yes");
        assert_eq!(decided(&access(&[&message, &no, &yes])).unwrap(), "yes");
        assert_eq!(
            decided(&access(&[&no, &message, &owners, &message])).unwrap(),
            "[1, 3]"
        );
        assert!(decided(&access(&[&no, &owners])).unwrap_err().scopes.is_empty());
    }

    #[test]
    fn one_rule_is_enough_and_none_is_a_no() {
        let strict = Rule {
            name: "strict".into(),
            roles: names(&[], &["owner"]),
            ..Rule::default()
        };
        let lenient = Rule {
            name: "lenient".into(),
            scopes: names(&["read"], &[]),
            ..Rule::default()
        };
        let writing = Rule {
            scopes: names(&["x"], &["write"]),
            ..Rule::default()
        };
        let both = Access {
            rules: vec![strict.clone(), lenient],
        };
        assert_eq!(decided(&both).unwrap(), "lenient");
        let denied = decided(&Access {
            rules: vec![strict, writing],
        })
        .unwrap_err();
        assert_eq!(denied.scopes, ["write", "x"]);
        assert!(decided(&Access::default()).is_err());
    }
}

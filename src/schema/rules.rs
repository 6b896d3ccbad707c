//! HTTP rules that are given outside the protos: the `http` section of a google.api.Service file.
//!
//! A rule names its method by full name and takes the place of every annotation that the method carries.
//! Source: `google.api.Http`, `google.api.HttpRule`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{SnippetMode, Spanned, UserMessageFormatter};
use thiserror::Error;

use super::annotation;
use super::method::{HttpRule, Method};

/// HTTP rules by the full name of the method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Sorted by selector, so that two equal sets of rules have one fingerprint.
    by_method: BTreeMap<String, Selected>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Selected {
    place: Place,
    rules: Vec<HttpRule>,
}

/// Where something stands in a file; lines and columns start at 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The name under which the file was read.
    pub file: Arc<str>,
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why a rules file was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RulesError {
    /// The file is not YAML of the right form: bad syntax, an unknown key, a wrong type.
    #[error("{place}: {problem}")]
    Form {
        /// Where.
        place: Place,
        /// What was found, and what would be valid.
        problem: String,
    },
    /// A rule has the right form and makes no sense.
    #[error("{place}: the rule for {selector:?}: {problem}")]
    Rule {
        /// Where the rule's selector stands.
        place: Place,
        /// The method that the rule is for.
        selector: String,
        /// What is wrong with it.
        problem: RuleProblem,
    },
}

/// What is wrong with an HTTP rule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RuleProblem {
    /// The bytes of the annotation are not a `google.api.HttpRule`.
    #[error("the annotation is not a google.api.HttpRule")]
    Malformed,
    /// No HTTP method with a path.
    #[error("it has no pattern; give one of get, put, post, delete, patch or custom")]
    NoPattern,
    /// Two HTTP methods in one rule.
    #[error("it has {0} patterns; one rule has one, further ones go into additional_bindings")]
    Patterns(usize),
    /// The kind of a custom pattern can't be an HTTP method.
    #[error("{0:?} is not an HTTP method; `*` stands for any")]
    Kind(String),
    /// `additional_bindings` inside `additional_bindings`.
    #[error("additional_bindings can't hold additional_bindings")]
    Nested,
    /// A selector inside `additional_bindings`.
    #[error("additional_bindings are for the same method and have no selector")]
    NestedSelector,
    /// The selector is not the full name of one method.
    #[error("a selector is the full name of one method, such as library.v1.Library.GetBook")]
    Selector,
}

/// A rule for a method that the schema does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// Where the rule stands.
    pub place: Place,
    /// The full name that no method has.
    pub selector: String,
    /// The full name of a method that is nearly the same.
    pub similar: Option<String>,
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: no method {:?}", self.place, self.selector)?;
        match &self.similar {
            Some(similar) => write!(f, "; did you mean {similar:?}?"),
            None => Ok(()),
        }
    }
}

impl Rules {
    /// No rules: the annotations stand.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.by_method.is_empty()
    }

    /// Reads the text of a rules file, in YAML or JSON; `name` is the file in error messages.
    ///
    /// Of two rules for one method the later one counts, as google.api.Http says. Sections of google.api.Service
    /// other than `http` are passed over.
    ///
    /// # Errors
    /// [`RulesError::Form`] for bad syntax and unknown keys, [`RulesError::Rule`] for a rule that makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, RulesError> {
        let file: Arc<str> = Arc::from(name);
        if text.trim().is_empty() {
            return Ok(Self::empty());
        }
        let service: Service = serde_saphyr::from_str(text).map_err(|error| form_error(&file, &error))?;
        let mut by_method = BTreeMap::new();
        for rule in service.http.unwrap_or_default().rules {
            let place = Place {
                file: Arc::clone(&file),
                line: rule.selector.referenced.line(),
                column: rule.selector.referenced.column(),
            };
            let selector = rule.selector.value;
            match check_selector(&selector).and_then(|()| rule.binding.rules()) {
                Ok(rules) => {
                    by_method.insert(selector, Selected { place, rules });
                }
                Err(problem) => {
                    return Err(RulesError::Rule {
                        place,
                        selector,
                        problem,
                    });
                }
            }
        }
        Ok(Self { by_method })
    }

    /// Adds the rules of `later`, which take the place of rules for the same method.
    pub fn merge(&mut self, later: Self) {
        self.by_method.extend(later.by_method);
    }

    /// Gives each method the rules that are meant for it, and says which rules fit none.
    #[must_use = "a rule that fits no method is most likely a mistake"]
    pub fn apply(&self, methods: &mut [Method]) -> Vec<Unmatched> {
        let mut unmatched: BTreeMap<&str, &Selected> = self
            .by_method
            .iter()
            .map(|(selector, selected)| (selector.as_str(), selected))
            .collect();
        for method in methods.iter_mut() {
            let name = method.full_name();
            if let Some(selected) = self.by_method.get(&name) {
                method.rules.clone_from(&selected.rules);
                unmatched.remove(name.as_str());
            }
        }
        unmatched
            .into_iter()
            .map(|(selector, selected)| Unmatched {
                place: selected.place.clone(),
                selector: selector.to_owned(),
                similar: similar(selector, methods),
            })
            .collect()
    }

    /// Every rule with its selector, in the order of the selectors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[HttpRule])> {
        self.by_method
            .iter()
            .map(|(selector, selected)| (selector.as_str(), selected.rules.as_slice()))
    }
}

/// A selector is a dotted name with at least a service and a method.
fn check_selector(selector: &str) -> Result<(), RuleProblem> {
    let identifier = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part
                .chars()
                .all(|each| each.is_ascii_alphanumeric() || each == '_')
    };
    if selector.contains('.') && selector.split('.').all(identifier) {
        Ok(())
    } else {
        Err(RuleProblem::Selector)
    }
}

/// The method whose full name differs from `selector` by letter case, by its package, or by a slip or two.
fn similar(selector: &str, methods: &[Method]) -> Option<String> {
    let tail = |name: &str| {
        name.rsplit('.')
            .take(2)
            .map(str::to_ascii_lowercase)
            .collect::<Vec<_>>()
    };
    let wanted = tail(selector);
    let names = || methods.iter().map(Method::full_name);
    names().find(|name| tail(name) == wanted).or_else(|| {
        names()
            .map(|name| (distance(selector, &name), name))
            .filter(|(far, _)| *far <= 2)
            .min()
            .map(|(_, name)| name)
    })
}

/// Edits between two names, counted up to the shorter table that two rows need.
fn distance(from: &str, to: &str) -> usize {
    if from.len().abs_diff(to.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, a) in from.bytes().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(to.bytes()) {
            let above = *cell;
            let value = (diagonal + usize::from(a != b)).min(left + 1).min(above + 1);
            diagonal = above;
            left = value;
            *cell = value;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// The error with its place, its message on one line.
fn form_error(file: &Arc<str>, error: &serde_saphyr::Error) -> RulesError {
    let place = error
        .location()
        .map(|location| (location.line(), location.column()));
    let (line, column) = place.unwrap_or((1, 1));
    let options =
        serde_saphyr::render_options! { formatter: &UserMessageFormatter, snippets: SnippetMode::Off };
    let rendered = error.without_snippet().render_with_options(options);
    let said_again = format!(" at line {line}, column {column}");
    RulesError::Form {
        place: Place {
            file: Arc::clone(file),
            line,
            column,
        },
        problem: rendered.strip_suffix(&said_again).unwrap_or(&rendered).to_owned(),
    }
}

/// `google.api.Service`, of which only `http` is read.
#[derive(Debug, Default)]
struct Service {
    http: Option<Http>,
}

/// The fields of google.api.Service that say nothing about HTTP rules, in both spellings.
#[rustfmt::skip]
const PASSED_OVER: [&str; 31] = [
    "apis", "authentication", "backend", "billing", "config_version", "configVersion", "context", "control",
    "documentation", "endpoints", "enums", "id", "logging", "logs", "metrics", "monitored_resources",
    "monitoredResources", "monitoring", "name", "producer_project_id", "producerProjectId", "publishing", "quota",
    "source_info", "sourceInfo", "system_parameters", "systemParameters", "title", "types", "usage", "version",
];

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sections;

        impl<'de> Visitor<'de> for Sections {
            type Value = Service;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a google.api.Service with an `http` section")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Service, A::Error> {
                let mut service = Service::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => {
                            map.next_value::<ServiceType>()?;
                        }
                        "http" => service.http = Some(map.next_value()?),
                        known if PASSED_OVER.contains(&known) => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        unknown => return Err(A::Error::unknown_field(unknown, &["type", "http"])),
                    }
                }
                Ok(service)
            }
        }

        deserializer.deserialize_map(Sections)
    }
}

/// The value of `type`, which can be but one.
struct ServiceType;

impl<'de> Deserialize<'de> for ServiceType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "google.api.Service" {
            Ok(Self)
        } else {
            Err(D::Error::custom(format_args!(
                "type is {name:?}, expected \"google.api.Service\""
            )))
        }
    }
}

/// `google.api.Http`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    #[serde(default)]
    rules: Vec<SelectedRule>,
    #[serde(
        default,
        alias = "fullyDecodeReservedExpansion",
        deserialize_with = "only_false"
    )]
    #[expect(dead_code, reason = "read only to refuse it where it is true")]
    fully_decode_reserved_expansion: (),
}

/// A flag whose other value would ask for what the gateway does not do.
fn only_false<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    if bool::deserialize(deserializer)? {
        return Err(D::Error::custom(
            "fully_decode_reserved_expansion is not supported: a variable of several segments keeps %2F",
        ));
    }
    Ok(())
}

/// A rule of the top level: a selector and a binding.
#[derive(Debug)]
struct SelectedRule {
    selector: Spanned<String>,
    binding: Binding,
}

/// `google.api.HttpRule` as a file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    selector: Option<Spanned<String>>,
    get: Option<String>,
    put: Option<String>,
    post: Option<String>,
    delete: Option<String>,
    patch: Option<String>,
    custom: Option<Custom>,
    #[serde(default)]
    body: String,
    #[serde(default, alias = "responseBody")]
    response_body: String,
    #[serde(default, alias = "additionalBindings")]
    additional_bindings: Vec<Self>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Custom {
    kind: String,
    path: String,
}

impl<'de> Deserialize<'de> for SelectedRule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut binding = Binding::deserialize(deserializer)?;
        let selector = binding
            .selector
            .take()
            .ok_or_else(|| D::Error::missing_field("selector"))?;
        Ok(Self { selector, binding })
    }
}

impl Binding {
    /// This rule and its additional bindings, flattened.
    fn rules(self) -> Result<Vec<HttpRule>, RuleProblem> {
        let mut wire = self.wire()?;
        let additional = std::mem::take(&mut wire.additional_bindings);
        let mut rules = vec![annotation::rule(wire)?];
        for each in additional {
            rules.push(annotation::rule(each)?);
        }
        Ok(rules)
    }

    /// The same as the message that annotations carry.
    fn wire(self) -> Result<annotation::HttpRule, RuleProblem> {
        use annotation::Pattern;
        let custom = self.custom.map(|custom| {
            Pattern::Custom(annotation::CustomHttpPattern {
                kind: custom.kind,
                path: custom.path,
            })
        });
        let patterns: Vec<Pattern> = [
            self.get.map(Pattern::Get),
            self.put.map(Pattern::Put),
            self.post.map(Pattern::Post),
            self.delete.map(Pattern::Delete),
            self.patch.map(Pattern::Patch),
            custom,
        ]
        .into_iter()
        .flatten()
        .collect();
        if patterns.len() > 1 {
            return Err(RuleProblem::Patterns(patterns.len()));
        }
        let mut additional_bindings = Vec::with_capacity(self.additional_bindings.len());
        for each in self.additional_bindings {
            if each.selector.is_some() {
                return Err(RuleProblem::NestedSelector);
            }
            if !each.additional_bindings.is_empty() {
                return Err(RuleProblem::Nested);
            }
            additional_bindings.push(each.wire()?);
        }
        Ok(annotation::HttpRule {
            pattern: patterns.into_iter().next(),
            body: self.body,
            response_body: self.response_body,
            additional_bindings,
        })
    }
}

#[cfg(test)]
mod tests;

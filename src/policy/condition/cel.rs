//! Conditions by the `cel` crate.
//!
//! Every part of an expression that could cost more than its length times the size of what it is asked about is refused
//! when it is compiled: loops in loops, and regular expressions that a client could write.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value};
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage as _, Value as Field};
use serde_json::Value as Json;

use super::super::facts::{Facts, RequestFacts};
use super::super::identity::Identity;

/// The names that expressions may use.
const VARIABLES: [&str; 3] = ["request", "identity", "message"];

/// Expressions in expressions. Each costs the thread that evaluates it some stack.
const MAX_DEPTH: usize = 64;

/// The stack of the thread that compiles: several KiB for each letter that an expression may have.
const STACK_BYTES: usize = 64 << 20;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression, and what it reads.
#[derive(Clone)]
pub(super) struct Compiled {
    program: Arc<Program>,
    request: bool,
    identity: bool,
    /// Fields of the message.
    message: Option<Vec<String>>,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// Compiles an expression, on a thread of its own: how deep the parser goes is for whoever wrote the text to say, and
    /// what turns out to be too deep is thrown away there.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let failed = |what: &dyn fmt::Display| format!("it can't be compiled: {what}");
        let owned = text.to_owned();
        std::thread::Builder::new()
            .name("cel".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || Self::compile(&owned))
            .map_err(|error| failed(&error))?
            .join()
            .unwrap_or_else(|_panic| Err(failed(&"the compiler failed")))
    }

    fn compile(text: &str) -> Result<Self, String> {
        let program = ENVIRONMENT
            .compile(text)
            .map_err(|errors| match errors.errors.first() {
                Some(error) => {
                    let (line, column) = error.pos;
                    format!("{} at {line}:{column}", error.msg)
                }
                None => "it can't be read".to_owned(),
            })?;
        let mut reads = Reads::default();
        reads.look(program.expression(), &mut Vec::new(), 0, 0)?;
        let has = |name: &str| program.references().has_variable(name);
        let message = has("message").then_some(reads.fields);
        Ok(Self {
            request: has("request"),
            identity: has("identity"),
            message,
            program: Arc::new(program),
        })
    }

    pub(super) fn fields(&self) -> Option<&[String]> {
        self.message.as_deref()
    }

    pub(super) fn holds(&self, text: &str, facts: Facts<'_>) -> bool {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        if self.request {
            context.add_variable_from_value("request", request(facts.request));
        }
        if self.identity {
            context.add_variable_from_value("identity", identity(facts.identity));
        }
        if let (Some(_), Some(message)) = (&self.message, facts.message) {
            context.add_variable_from_value("message", of_message(message));
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => holds,
            Ok(other) => {
                tracing::debug!(condition = text, kind = %other.type_of(), "a condition is neither true nor false");
                false
            }
            Err(error) => {
                tracing::debug!(condition = text, %error, "a condition can't be evaluated");
                false
            }
        }
    }
}

/// What an expression reads, and whether it may.
#[derive(Default)]
struct Reads {
    fields: Vec<String>,
}

impl Reads {
    /// Looks through an expression within `loops` loops whose variables are `bound`, and within `depth` others.
    fn look(
        &mut self,
        it: &IdedExpr,
        bound: &mut Vec<String>,
        loops: usize,
        depth: usize,
    ) -> Result<(), String> {
        if depth >= MAX_DEPTH {
            return Err(format!(
                "it has more than {MAX_DEPTH} expressions within each other"
            ));
        }
        let depth = depth + 1;
        match &it.expr {
            Expr::Ident(name) => {
                let own = name.starts_with('@') || bound.contains(name);
                if own || VARIABLES.contains(&name.as_str()) {
                    return Ok(());
                }
                Err(format!(
                    "there is no \"{name}\"; there are {}",
                    VARIABLES.join(", ")
                ))
            }
            Expr::Select(select) => {
                if matches!(&select.operand.expr, Expr::Ident(name) if name == "message" && !bound.contains(name))
                {
                    self.fields.push(select.field.clone());
                }
                self.look(&select.operand, bound, loops, depth)
            }
            Expr::Call(call) => {
                let pattern = call.args.last();
                if call.func_name == "matches"
                    && !pattern.is_some_and(|it| matches!(it.expr, Expr::Literal(_)))
                {
                    return Err("the pattern of `matches` has to be written out".to_owned());
                }
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.look(part, bound, loops, depth)?;
                }
                Ok(())
            }
            Expr::Comprehension(it) => {
                if loops > 0 {
                    return Err(
                        "a loop (all, exists, exists_one, map, filter) in a loop costs too much".to_owned(),
                    );
                }
                self.look(&it.iter_range, bound, loops, depth)?;
                let before = bound.len();
                bound.push(it.iter_var.clone());
                bound.extend(it.iter_var2.clone());
                bound.push(it.accu_var.clone());
                for part in [&it.accu_init, &it.loop_cond, &it.loop_step, &it.result] {
                    self.look(part, bound, loops + 1, depth)?;
                }
                bound.truncate(before);
                Ok(())
            }
            Expr::List(list) => list
                .elements
                .iter()
                .try_for_each(|part| self.look(part, bound, loops, depth)),
            Expr::Map(map) => self.entries(map.entries.iter().map(|entry| &entry.expr), bound, loops, depth),
            Expr::Struct(_) => Err("a message can't be made here".to_owned()),
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        bound: &mut Vec<String>,
        loops: usize,
        depth: usize,
    ) -> Result<(), String> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.look(&field.value, bound, loops, depth)?,
                EntryExpr::MapEntry(entry) => {
                    self.look(&entry.key, bound, loops, depth)?;
                    self.look(&entry.value, bound, loops, depth)?;
                }
            }
        }
        Ok(())
    }
}

fn map(entries: impl IntoIterator<Item = (Key, Value)>) -> Value {
    Value::Map(Map {
        map: Arc::new(entries.into_iter().collect::<HashMap<_, _>>()),
    })
}

fn named<const N: usize>(entries: [(&str, Value); N]) -> Value {
    map(entries.map(|(name, value)| (key(name), value)))
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

fn request(facts: &RequestFacts) -> Value {
    let headers = facts.headers.keys().map(|name| {
        let values = facts.headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (key(name.as_str()), Value::from(values.join(", ")))
    });
    named([
        ("method", Value::from(facts.method.as_str())),
        ("path", Value::from(facts.path.as_str())),
        ("query", Value::from(facts.query.as_str())),
        ("host", Value::from(facts.host.as_str())),
        ("scheme", Value::from(facts.scheme)),
        ("address", Value::from(facts.address.as_str())),
        ("headers", map(headers)),
    ])
}

fn identity(caller: &Identity) -> Value {
    let claims = caller.claims();
    let list = |texts: &[String]| {
        let values = texts.iter().map(|text| Value::from(text.as_str()));
        Value::List(Arc::new(values.collect()))
    };
    let others = claims.others.iter();
    named([
        ("principal", Value::from(claims.principal.as_str())),
        (
            "issuer",
            Value::from(claims.issuer.as_deref().unwrap_or_default()),
        ),
        ("auth", Value::from(claims.source.name())),
        ("scopes", list(&claims.scopes)),
        ("roles", list(&claims.roles)),
        (
            "claims",
            map(others.map(|(name, value)| (key(name), of_json(value)))),
        ),
    ])
}

fn of_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(of_json).collect())),
        Json::Object(members) => map(members.iter().map(|(name, value)| (key(name), of_json(value)))),
    }
}

/// The fields of a message. One that knows whether it is there is absent if it is not; others have their default.
fn of_message(message: &DynamicMessage) -> Value {
    let fields = message.descriptor();
    let fields = fields.fields().filter_map(|field| {
        let absent = field.supports_presence() && !message.has_field(&field);
        (!absent).then(|| (key(field.name()), of_field(&message.get_field(&field))))
    });
    map(fields)
}

fn of_field(value: &Field) -> Value {
    match value {
        Field::Bool(value) => Value::Bool(*value),
        Field::I32(value) => Value::Int(i64::from(*value)),
        Field::I64(value) => Value::Int(*value),
        Field::U32(value) => Value::UInt(u64::from(*value)),
        Field::U64(value) => Value::UInt(*value),
        Field::F32(value) => Value::Float(f64::from(*value)),
        Field::F64(value) => Value::Float(*value),
        Field::String(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => Value::Bytes(Arc::new(bytes.to_vec())),
        Field::EnumNumber(number) => Value::Int(i64::from(*number)),
        // A wrapper is what it wraps. Source: CEL, "Protocol Buffer Data Conversion".
        Field::Message(message) if is_wrapper(message) => message
            .descriptor()
            .get_field(1)
            .map_or(Value::Null, |field| of_field(&message.get_field(&field))),
        Field::Message(message) => of_message(message),
        Field::List(items) => Value::List(Arc::new(items.iter().map(of_field).collect())),
        Field::Map(entries) => map(entries.iter().map(|(name, value)| {
            let key = match name {
                MapKey::Bool(name) => Key::Bool(*name),
                MapKey::I32(name) => Key::Int(i64::from(*name)),
                MapKey::I64(name) => Key::Int(*name),
                MapKey::U32(name) => Key::Uint(u64::from(*name)),
                MapKey::U64(name) => Key::Uint(*name),
                MapKey::String(name) => key(name),
            };
            (key, of_field(value))
        })),
    }
}

fn is_wrapper(message: &DynamicMessage) -> bool {
    let descriptor = message.descriptor();
    let name = descriptor.full_name();
    name.starts_with("google.protobuf.")
        && name.ends_with("Value")
        && descriptor.fields().count() == 1
        && !matches!(name, "google.protobuf.Value" | "google.protobuf.ListValue")
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::super::Condition;
    use super::*;
    use crate::peer::Peer;
    use crate::policy::identity::{Claims, Source};
    use crate::schema::{Rules, Schema};

    fn facts() -> (RequestFacts, Identity) {
        let request = Request::get("/v1/shelves/1?view=all")
            .header("host", "API.example.com")
            .header("x-team", "books")
            .header("x-team", "toys");
        let head = request.body(()).unwrap().into_parts().0;
        let peer = Peer::new("192.0.2.7:1".parse().unwrap(), true, false, Vec::new());
        let claims = Claims {
            principal: "ada".into(),
            issuer: Some("https://id.example.com".into()),
            source: Source::Token,
            scopes: vec!["read".into(), "list".into()],
            roles: vec!["clerk".into()],
            others: json!({"tenant": "t-7", "level": 3, "big": u64::MAX, "teams": ["a"], "org": {"id": 7}})
                .as_object()
                .cloned()
                .unwrap(),
            expires: None,
        };
        (RequestFacts::of(&head, &peer), Identity::new(claims, &[]))
    }

    fn message() -> DynamicMessage {
        let proto = "syntax = \"proto3\"; package a; import \"google/protobuf/wrappers.proto\";
            enum Kind { NONE = 0; SOME = 1; }
            message M { string tenant = 1; int64 pages = 2; optional string note = 3; repeated string tags = 4;
              map<string, int32> counts = 5; M inner = 6; Kind kind = 7; google.protobuf.StringValue word = 8; bytes raw = 9; }
            service S { rpc Do(M) returns (M); }";
        let sources = [("a.proto".to_owned(), proto.to_owned())].into();
        let schema = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty()).unwrap();
        let descriptor = schema.pool.get_message_by_name("a.M").unwrap();
        let text = json!({
            "tenant": "t-7", "pages": "412", "tags": ["x", "y"], "counts": {"a": 2},
            "inner": {"tenant": "t-8"}, "kind": "SOME", "word": "w", "raw": "AQI=",
        });
        DynamicMessage::deserialize(descriptor, text).unwrap()
    }

    #[test]
    fn a_condition_knows_the_request_who_calls_and_the_message() {
        let (request, identity) = facts();
        let message = message();
        let facts = Facts {
            request: &request,
            identity: &identity,
            message: Some(&message),
        };
        for (text, expected) in [
            ("true", true),
            ("request.path.startsWith('/v1/') && request.method == 'GET'", true),
            (
                "request.host == 'api.example.com' && request.scheme == 'https'",
                true,
            ),
            (
                "request.query == 'view=all' && request.address == '192.0.2.7'",
                true,
            ),
            ("request.headers['x-team'] == 'books, toys'", true),
            ("'x-none' in request.headers", false),
            ("request.path.matches('^/v1/shelves/[0-9]+$')", true),
            ("'read' in identity.scopes && 'clerk' in identity.roles", true),
            ("identity.auth == 'jwt' && identity.principal == 'ada'", true),
            ("identity.claims.tenant == message.tenant", true),
            ("identity.claims.tenant == message.inner.tenant", false),
            ("identity.claims.level >= 3 && identity.claims.org.id == 7", true),
            ("identity.claims.teams.exists(t, t == 'a')", true),
            ("message.pages > 400 && message.kind == 1", true),
            (
                "size(message.tags) == 2 && message.tags.all(tag, tag.size() == 1)",
                true,
            ),
            (
                "message.counts['a'] == 2 && message.word == 'w' && message.raw == b'\\x01\\x02'",
                true,
            ),
            ("has(message.note)", false),
            ("has(message.inner) && !has(message.inner.inner)", true),
            ("message.inner.pages == 0", true),
            // What is not there, or is no truth value, does not hold.
            ("identity.claims.absent == 'x'", false),
            ("message.note == ''", false),
            ("!(identity.claims.absent == 'x')", false),
            ("'true'", false),
            ("1", false),
            ("1 / 0 == 1", false),
        ] {
            let condition = Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(condition.holds(facts), expected, "{text}");
        }
        let reads = Condition::parse("message.tenant == 'a' && message.inner.pages == 1").unwrap();
        assert_eq!(reads.fields().unwrap(), ["tenant", "inner"]);
        assert_eq!(
            Condition::parse("request.path == 'message'").unwrap().fields(),
            None
        );
        // Without its message, a condition that reads one does not hold.
        let bare = Facts {
            message: None,
            ..facts
        };
        assert!(!Condition::parse("message.tenant == 't-7'").unwrap().holds(bare));
    }

    #[test]
    fn what_is_wrong_or_costs_too_much_is_refused() {
        let long = format!(
            "true || '{}' == ''",
            "x".repeat(super::super::MAX_EXPRESSION_BYTES)
        );
        for (text, told) in [
            ("request.path ==", "at 1:"),
            ("requst.path == ''", "there is no \"requst\""),
            (
                "message.tags.exists(t, message.tags.exists(u, t == u))",
                "costs too much",
            ),
            ("request.path.matches(request.query)", "written out"),
            ("'x'.matches(request.headers['a'] + 'b')", "written out"),
            (&long, "longer than"),
            ("", "at 1:"),
        ] {
            let error = Condition::parse(text).expect_err(text);
            assert!(error.contains(told) && !error.contains('\n'), "{text}: {error}");
        }
        // A name of a loop is known within it alone.
        assert!(Condition::parse("[1, 2].exists(n, n == 2)").is_ok());
        assert!(Condition::parse("[1].exists(n, n == 2) && n == 1").is_err());
        for deep in [
            format!("{}true{}", "(".repeat(2000), ")".repeat(2000)),
            format!("{}true", "!(".repeat(1000)),
            format!("1{} == 0", " + 1".repeat(500)),
            format!("{}true", "true ? false : ".repeat(200)),
            format!("{}1{}", "[".repeat(1500), "]".repeat(1500)),
            format!("request{}", ".a".repeat(1000)),
            "-".repeat(4000),
        ] {
            assert!(
                Condition::parse(&deep).is_err() || deep.starts_with("(("),
                "{deep}"
            );
        }
    }
}

//! `sabir schema`: descriptors, wherever they are: listed, fetched, compared and registered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Uri;
use prost::Message as _;
use prost_reflect::{EnumDescriptor, FileDescriptor, Kind, MessageDescriptor};
use prost_types::FileDescriptorProto;
use tokio::runtime::Builder;

use super::operator::Which;
use super::{Failure, answer, note};
use crate::config::told;
use crate::discover::{proto_files, reflection};
use crate::schema::{HttpMethod, Method, MethodKind, Rules, Schema};
use crate::upstream::tls::client_config;

/// How long a server may take to tell what it offers.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    /// A descriptor set, a `.proto` file, a folder of them, or the URL of a gRPC server that answers reflection: its
    /// methods are listed.
    #[arg(required = true)]
    source: Option<Source>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the descriptors as a descriptor set, with all that they import.
    Fetch {
        /// Where they are.
        source: Source,
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Say what the second has in the place of the first: `+` is new, `-` is gone, `~` is other than before.
    ///
    /// Ends with 1 if there is a difference.
    Diff {
        /// What there is.
        before: Source,
        /// What there will be.
        after: Source,
    },
    /// Register the descriptors with a running gateway, for backends with `schema: {registry: NAME}`.
    Push {
        /// The name.
        name: String,
        /// Where the descriptors are.
        source: Source,
        #[command(flatten)]
        which: Which,
    },
    /// List what is registered with a running gateway.
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Write a schema that is registered with a running gateway as a descriptor set.
    Pull {
        /// The name.
        name: String,
        /// The file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// Have a running gateway forget a schema.
    Remove {
        /// The name.
        name: String,
        /// Even if a backend goes by it.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        which: Which,
    },
}

/// Where descriptors are.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Server(Uri),
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return text.parse().map(Self::Server).map_err(|error| format!("{error}"));
        }
        Ok(Self::File(text.into()))
    }
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match (self.source, self.command) {
                (Some(source), _) => answer(list(&source.schema().await?)),
                (None, Some(command)) => command.run().await,
                // One of the two is asked for.
                (None, None) => Ok(()),
            }
        })
    }
}

impl Command {
    async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Fetch { source, output } => write(&output, &set(&source.schema().await?)),
            Self::Diff { before, after } => {
                let changes = diff(&before.schema().await?, &after.schema().await?);
                if changes.is_empty() {
                    return note("there is no difference");
                }
                answer(changes.join("\n") + "\n")?;
                Err(Failure::Refused)
            }
            Self::Push { name, source, which } => {
                let operator = which.operator()?;
                let told = operator.put(&name, set(&source.schema().await?)).await?;
                let lines = |key: &str| -> Vec<String> {
                    let lines = told[key].as_array().into_iter().flatten();
                    lines.filter_map(|line| Some(line.as_str()?.to_owned())).collect()
                };
                for warning in lines("warnings") {
                    note(format_args!("warning: {warning}"))?;
                }
                let revision = told["schema"]["revision"].as_str().unwrap_or("?").to_owned();
                let mut text = format!("{name}: revision {revision}\n");
                for change in lines("changes") {
                    // Writing into a string can't fail.
                    let _ = writeln!(text, "  {change}");
                }
                answer(text)
            }
            Self::List { which } => {
                let told = which.operator()?.get("/v1/schemas").await?;
                let mut text = String::new();
                for schema in told["schemas"].as_array().into_iter().flatten() {
                    let of = |key: &str| match &schema[key] {
                        serde_json::Value::String(text) => text.clone(),
                        serde_json::Value::Array(items) => {
                            let items = items.iter().filter_map(|item| item.as_str());
                            items.collect::<Vec<_>>().join(", ")
                        }
                        other => other.to_string(),
                    };
                    // As above.
                    let _ = writeln!(
                        text,
                        "{}  revision {}, {} methods of {}; backends: {}",
                        of("name"),
                        of("revision"),
                        of("methods"),
                        of("services"),
                        of("backends"),
                    );
                }
                answer(text)
            }
            Self::Pull { name, output, which } => {
                write(&output, &which.operator()?.descriptors(&name).await?)
            }
            Self::Remove { name, force, which } => Ok(which.operator()?.delete(&name, force).await?),
        }
    }
}

impl Source {
    async fn schema(&self) -> Result<Schema, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::Failed(told(error));
        match self {
            Self::Server(uri) => {
                let tls = match uri.scheme_str() {
                    Some("https") => Some(std::sync::Arc::new(
                        client_config(None, None).map_err(|error| failed(&error))?,
                    )),
                    _ => None,
                };
                let learned = reflection::fetch(uri.clone(), tls, PATIENCE).await;
                let learned = learned.map_err(|error| failed(&error))?;
                Schema::from_learned(learned, &Rules::empty()).map_err(|error| failed(&error))
            }
            Self::File(path) => {
                let is_proto =
                    path.is_dir() || path.extension().is_some_and(|extension| extension == "proto");
                if is_proto {
                    let loaded = proto_files::load(std::slice::from_ref(path), &[], &Rules::empty());
                    return loaded.map_err(|error| failed(&error));
                }
                let bytes = std::fs::read(path)
                    .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
                Schema::from_descriptor_set(&bytes, &Rules::empty())
                    .map_err(|error| Failure::Failed(format!("{}: {}", path.display(), told(&error))))
            }
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// An encoded `google.protobuf.FileDescriptorSet` of the files that declare services, and of all that they import.
fn set(schema: &Schema) -> Bytes {
    let services = schema
        .methods
        .iter()
        .filter_map(|method| schema.pool.get_service_by_name(&method.service));
    let mut waiting: Vec<FileDescriptor> = services.map(|service| service.parent_file()).collect();
    let mut needed = BTreeSet::new();
    while let Some(file) = waiting.pop() {
        if needed.insert(file.name().to_owned()) {
            waiting.extend(file.dependencies());
        }
    }
    let mut set = Vec::new();
    for file in &schema.files {
        let name = FileDescriptorProto::decode(file.clone())
            .ok()
            .and_then(|file| file.name);
        if name.is_none_or(|name| !needed.contains(&name)) {
            continue;
        }
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut set);
        prost::encoding::encode_varint(file.len() as u64, &mut set);
        set.extend_from_slice(file);
    }
    set.into()
}

/// The methods, each with its HTTP rules below it.
fn list(schema: &Schema) -> String {
    let mut text = String::new();
    for method in &schema.methods {
        // Writing into a string can't fail.
        let _ = writeln!(text, "{}", signature(method));
        for rule in &method.rules {
            let _ = writeln!(text, "  {}", shown(rule));
        }
    }
    text
}

fn signature(method: &Method) -> String {
    let (from, to) = match method.kind {
        MethodKind::Unary => ("", ""),
        MethodKind::ServerStream => ("", "stream "),
        MethodKind::ClientStream => ("stream ", ""),
        MethodKind::Bidi => ("stream ", "stream "),
    };
    format!(
        "{} ({from}{}) returns ({to}{})",
        method.path.trim_start_matches('/'),
        method.input.full_name(),
        method.output.full_name()
    )
}

fn shown(rule: &crate::schema::HttpRule) -> String {
    let verb = match &rule.method {
        HttpMethod::Exact(method) => method.as_str(),
        HttpMethod::Any => "*",
    };
    let body = if rule.body.is_empty() {
        String::new()
    } else {
        format!(" body: {}", rule.body)
    };
    format!("{verb} {}{body}", rule.template)
}

/// What the second schema has in the place of the first: methods, and the fields and values of the types that they use.
fn diff(before: &Schema, after: &Schema) -> Vec<String> {
    let (before, after) = (pieces(before), pieces(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let line = |name: &String| match (before.get(name), after.get(name)) {
        (None, Some(new)) => Some(format!("+ {name}{new}")),
        (Some(old), None) => Some(format!("- {name}{old}")),
        (Some(old), Some(new)) if old != new => Some(format!("~ {name}{old} became {name}{new}")),
        _ => None,
    };
    names.into_iter().filter_map(line).collect()
}

/// Each piece of a schema with what it is like.
fn pieces(schema: &Schema) -> BTreeMap<String, String> {
    let mut pieces = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut waiting = Vec::new();
    for method in &schema.methods {
        let rules: Vec<String> = method.rules.iter().map(shown).collect();
        let name = method.path.trim_start_matches('/').to_owned();
        let rest = signature(method).trim_start_matches(&name).to_owned();
        pieces.insert(format!("method {name}"), format!("{rest} [{}]", rules.join("; ")));
        waiting.extend([method.input.clone(), method.output.clone()]);
    }
    while let Some(message) = waiting.pop() {
        if !seen.insert(message.full_name().to_owned()) {
            continue;
        }
        fields(&message, &mut pieces, &mut waiting);
    }
    pieces
}

fn fields(
    message: &MessageDescriptor,
    pieces: &mut BTreeMap<String, String>,
    waiting: &mut Vec<MessageDescriptor>,
) {
    for field in message.fields() {
        let kind = match field.kind() {
            Kind::Message(inner) => {
                let name = inner.full_name().to_owned();
                waiting.push(inner);
                name
            }
            Kind::Enum(values) => {
                enum_values(&values, pieces);
                values.full_name().to_owned()
            }
            scalar => format!("{scalar:?}").to_lowercase(),
        };
        let many = if field.is_list() || field.is_map() {
            "repeated "
        } else {
            ""
        };
        let text = format!(": {many}{kind} = {} ({})", field.number(), field.json_name());
        pieces.insert(format!("field {}.{}", message.full_name(), field.name()), text);
    }
}

fn enum_values(values: &EnumDescriptor, pieces: &mut BTreeMap<String, String>) {
    for value in values.values() {
        let name = format!("value {}.{}", values.full_name(), value.name());
        pieces.insert(name, format!(" = {}", value.number()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(body: &str) -> Schema {
        let text = format!("syntax = \"proto3\";\npackage a.v1;\n{body}");
        let sources = BTreeMap::from([("a.proto".to_owned(), text)]);
        Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty()).expect("a schema")
    }

    #[test]
    fn a_difference_names_what_callers_meet() {
        let before = schema(
            "enum E { ZERO = 0; ONE = 1; }\nmessage M { string name = 1; E e = 2; Inner inner = 3; }\n\
             message Inner { int32 x = 1; }\nservice S { rpc Get(M) returns (M); rpc Old(M) returns (M); }",
        );
        let after = schema(
            "enum E { ZERO = 0; ONE = 2; }\nmessage M { bytes name = 1; E e = 2; Inner inner = 3; M more = 4; }\n\
             message Inner { int32 x = 1; int32 y = 2; }\nservice S { rpc Get(M) returns (stream M); rpc New(M) returns (M); }",
        );
        assert!(diff(&before, &before).is_empty());
        let expected = [
            "+ field a.v1.Inner.y: int32 = 2 (y)",
            "~ field a.v1.M.name: string = 1 (name) became field a.v1.M.name: bytes = 1 (name)",
            "+ field a.v1.M.more: a.v1.M = 4 (more)",
            "~ method a.v1.S/Get (a.v1.M) returns (a.v1.M) [] became method a.v1.S/Get (a.v1.M) returns (stream a.v1.M) []",
            "+ method a.v1.S/New (a.v1.M) returns (a.v1.M) []",
            "- method a.v1.S/Old (a.v1.M) returns (a.v1.M) []",
            "~ value a.v1.E.ONE = 1 became value a.v1.E.ONE = 2",
        ];
        let mut got = diff(&before, &after);
        let mut expected = expected.map(str::to_owned).to_vec();
        got.sort();
        expected.sort();
        assert_eq!(got, expected);
    }
}

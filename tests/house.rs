//! The rules of the house, held by reading the source: who may import whom, what pure modules never do, which names
//! and words have no place here. No dependencies, well under a second: `cargo house`.

// Test code, which clippy sees only within functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Imports go from a later row to an earlier one, or sideways where the other does not import back.
const ROWS: &[&[&str]] = &[
    &["status", "fault", "peer", "limits", "buffers", "pulse"],
    &["http1"],
    &["http2"],
    &["wire", "schema"],
    &["translate"],
    &[
        "call", "listen", "identify", "route", "policy", "upstream", "observe",
    ],
    &["stack", "balance", "frontend"],
    &["backend", "compose", "config", "describe", "discover"],
    &["gateway"],
    &["admin", "demo"],
    &["serve"],
    &["cli"],
    &["main"],
];

/// Who never imports whom, whatever their rows.
const STRANGERS: &[(&str, &str)] = &[
    ("frontend", "backend"),
    ("backend", "frontend"),
    ("policy", "frontend"),
    ("policy", "backend"),
];

/// Modules that are functions of their arguments.
const PURE: &[&str] = &["http1", "http2", "wire", "schema", "translate", "route"];

/// What a pure module never says: sockets, files, clocks, tasks.
const IMPURE: &[&str] = &[
    "tokio::net",
    "tokio::fs",
    "tokio::time",
    "tokio::spawn",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::env",
    "std::thread::sleep",
    "Instant::now",
    "SystemTime::now",
];

/// Where a dialect may be told from another. ARCHITECTURE.md names the same files.
const DIALECT_IS_MATCHED_IN: &[&str] = &[
    "src/identify.rs",
    "src/wire/mod.rs",
    "src/frontend/mod.rs",
    "src/frontend/refuse.rs",
];

/// File and folder names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "misc",
    "manager",
    "handler",
    "handler_main",
    "context",
    "stuff",
];

/// A Rust file of the crate.
struct Source {
    /// From the root of the crate, with `/`.
    path: String,
    text: String,
    /// The text without comments, string contents and unit tests.
    code: String,
}

impl Source {
    /// The module below `src/` that the file belongs to, such as `wire`.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    /// The modules of the crate that the code names.
    fn imports(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for start in ["crate::", "sabir::"] {
            for (at, _) in self.code.match_indices(start) {
                // `some_crate::` is not `crate::`.
                if self.code[..at]
                    .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$')
                {
                    continue;
                }
                let rest = &self.code[at + start.len()..];
                found.extend(heads(rest));
            }
        }
        found
    }
}

/// The first names of a path or of a `{…}` group of paths.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![identifier(rest)];
    };
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut at_start = true;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            _ if letter.is_whitespace() => {}
            _ if at_start && depth == 0 => {
                heads.push(identifier(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Takes comments out, empties string literals, and ends at the unit tests.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if rest.starts_with("#[cfg(test)]") {
            // Unit tests are last in a file, or in a file of their own that the last line declares.
            break;
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &rest[hashes + 2..];
            code.push_str("\"\"");
            rest = body.find(&close).map_or("", |end| &body[end + close.len()..]);
        } else if letter == '"' {
            code.push_str("\"\"");
            rest = after_string(&rest[1..]);
        } else if let Some(length) = character(rest) {
            code.push_str("' '");
            rest = &rest[length..];
        } else {
            code.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    code
}

/// How many hashes a raw string that starts here has.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// What follows the closing quote of a string.
fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The length of a character literal that starts here; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let mut letters = escape.char_indices().skip(1);
        return letters.find(|(_, letter)| *letter == '\'').map(|(at, _)| at + 3);
    }
    let letter = inside.chars().next()?;
    inside[letter.len_utf8()..]
        .starts_with('\'')
        .then(|| letter.len_utf8() + 2)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder of the crate, by path.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What npm has put beside the clients, and cargo beside the fuzz targets, is other people's house.
                if !path.ends_with("node_modules") && !path.ends_with("target") {
                    open.push(path);
                }
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .replace('\\', "/")
}

/// The Rust files below these folders that people write.
fn sources(folders: &[&str]) -> impl Iterator<Item = &'static Source> {
    ALL.iter().filter(|source| {
        let folder = source.path.split('/').next();
        folder.is_some_and(|folder| folders.contains(&folder))
    })
}

/// Every Rust file that people write, read once for all rules.
static ALL: LazyLock<Vec<Source>> = LazyLock::new(|| {
    ["src", "tests", "benches", "examples", "fuzz"]
        .into_iter()
        .flat_map(files)
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            Source {
                path: relative(&path),
                code: code(&text),
                text,
            }
        })
        .filter(|source| !source.path.contains("/generated/") || source.path.ends_with("/mod.rs"))
        .collect()
});

/// Product code: unit tests in files of their own are left out.
fn product() -> impl Iterator<Item = &'static Source> {
    sources(&["src"]).filter(|source| !source.path.ends_with("/tests.rs") && !source.path.contains("/tests/"))
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// Fails with every broken rule at once.
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn imports_go_down() {
    let mut broken = Vec::new();
    let mut sideways: BTreeMap<(String, String), String> = BTreeMap::new();
    for source in product() {
        let Some(from) = source.module().filter(|module| *module != "lib") else {
            continue;
        };
        let Some(from_row) = row(from) else {
            broken.push(format!(
                "{}: the module {from} has no place in the order",
                source.path
            ));
            continue;
        };
        for to in source.imports() {
            // Names that are no module (a macro, a re-export of the crate) have no row.
            let Some(to_row) = row(&to).filter(|_| to != from) else {
                continue;
            };
            if to_row > from_row {
                broken.push(format!("{}: {from} imports {to}, which is above it", source.path));
            } else if to_row == from_row {
                sideways.insert((from.to_owned(), to), source.path.clone());
            }
        }
    }
    for ((from, to), path) in &sideways {
        if from < to && sideways.contains_key(&(to.clone(), from.clone())) {
            broken.push(format!("{path}: {from} and {to} import each other"));
        }
    }
    none(&broken);
}

#[test]
fn strangers_stay_strangers() {
    let mut broken = Vec::new();
    for source in product() {
        for (from, to) in STRANGERS {
            if source.module() == Some(from) && source.imports().contains(*to) {
                broken.push(format!("{}: {from} does not know {to}", source.path));
            }
        }
    }
    none(&broken);
}

#[test]
fn pure_modules() {
    let mut broken = Vec::new();
    for source in product() {
        if source.module().is_some_and(|module| PURE.contains(&module)) {
            for word in IMPURE.iter().filter(|word| source.code.contains(**word)) {
                broken.push(format!("{}: a pure module says {word}", source.path));
            }
        }
    }
    none(&broken);
}

#[test]
fn dialect_is_matched_in_few_files() {
    let mut broken = Vec::new();
    for source in product() {
        // Where the enum is defined, it is told apart as `Self`.
        if DIALECT_IS_MATCHED_IN.contains(&source.path.as_str()) || source.module() == Some("demo") {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            let told_apart = ["=>", "==", "!=", "matches!", "if let", "let else"];
            if line.contains("Dialect::") && told_apart.iter().any(|sign| line.contains(sign)) {
                broken.push(format!(
                    "{}: matches a dialect near line {}",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    if let Ok(architecture) = fs::read_to_string(root().join("ARCHITECTURE.md")) {
        for path in DIALECT_IS_MATCHED_IN {
            let name = path.trim_start_matches("src/");
            if !architecture.contains(name) {
                broken.push(format!(
                    "ARCHITECTURE.md does not name {name} as a place that matches a dialect"
                ));
            }
        }
    }
    none(&broken);
}

#[test]
fn every_file_says_what_it_promises() {
    let broken: Vec<String> = sources(&["src", "tests", "benches", "examples", "fuzz"])
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: opens with something else than //!", source.path))
        .collect();
    none(&broken);
}

#[test]
fn names_say_something() {
    let broken: Vec<String> = ["src", "tests", "benches", "examples"]
        .iter()
        .flat_map(|folder| files(folder))
        .map(|path| relative(&path))
        .filter(|path| {
            path.split('/')
                .any(|part| EMPTY_NAMES.contains(&part.strip_suffix(".rs").unwrap_or(part)))
        })
        .collect();
    none(&broken);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not break its own rule.
    let words = ["TO DO", "FIX ME", "HA CK", "XX X"].map(|word| word.replace(' ', ""));
    let macros = ["to do!(", "unimpl emented!(", "d bg!("].map(|word| word.replace(' ', ""));
    let ignored = "#[ig nore".replace(' ', "");
    let mut broken = Vec::new();
    for source in sources(&["src", "tests", "benches", "examples"]) {
        for (number, line) in source.text.lines().enumerate() {
            let place = || format!("{}:{}", source.path, number + 1);
            let word = line
                .split(|c: char| !c.is_alphanumeric())
                .find(|word| words.iter().any(|left| left == word));
            if let Some(word) = word {
                broken.push(format!("{}: {word}", place()));
            }
            if let Some(name) = macros.iter().find(|name| line.contains(name.as_str())) {
                broken.push(format!("{}: {name}", place()));
            }
            if line.contains(&ignored) {
                broken.push(format!("{}: a test that does not run is no test", place()));
            }
        }
    }
    none(&broken);
}

#[test]
fn no_path_of_a_machine() {
    let folders = ["ho me", "ro ot", "wo rk", "Us ers"].map(|name| format!("/{}/", name.replace(' ', "")));
    let mut texts: Vec<PathBuf> = ["src", "tests", "benches", "examples", "proto", ".ci", ".cargo"]
        .iter()
        .flat_map(|folder| files(folder))
        .collect();
    texts
        .extend(["Cargo.toml", "README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut broken = Vec::new();
    for path in texts {
        // What is not text, or not there yet, has no paths to show.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if folders.iter().any(|folder| line.contains(folder.as_str())) {
                broken.push(format!("{}:{}: {}", relative(&path), number + 1, line.trim()));
            }
        }
    }
    none(&broken);
}

#[test]
fn errors_of_the_library_are_types() {
    let mut broken = Vec::new();
    for source in product() {
        if source.code.contains("anyhow") && source.path != "src/main.rs" {
            broken.push(format!(
                "{}: the library's errors are types of its own",
                source.path
            ));
        }
    }
    none(&broken);
}

#[test]
fn the_reader_of_the_source_sees_code_alone() {
    let text = "use crate::{wire::Body, call::{Call, Reply},\n    stack};\n// crate::gateway\nlet a = \"crate::admin\";\n\
                let b = r#\"crate::demo \"quoted\" \"#; let c = '\"'; fn f<'a>() { crate::fault::x() }\n\
                my_crate::config::y();\n#[cfg(test)]\nmod tests { use crate::discover; }\n";
    let source = Source {
        path: "src/x.rs".to_owned(),
        code: code(text),
        text: text.to_owned(),
    };
    let mut seen = String::new();
    for name in source.imports() {
        write!(seen, "{name} ").unwrap();
    }
    assert_eq!(seen, "call fault stack wire ");
}

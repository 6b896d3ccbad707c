//! `.proto` sources compiled in the process.

use std::collections::BTreeMap;

use bytes::Bytes;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::edition_source::{self, Lowered};
use super::embedded;
use super::error::SchemaError;
use super::files;

/// Brackets within brackets that a source may hold. The compiler allows 32 messages within messages; beyond that,
/// only option values nest, and it follows them on the stack: about 90 fill the 2 MiB of a thread in a debug build.
const MAX_DEPTH: usize = 64;

/// Compiles `entries` and what they import.
pub(super) fn compile(
    entries: &[String],
    sources: &BTreeMap<String, String>,
) -> Result<Vec<Bytes>, SchemaError> {
    let mut texts = BTreeMap::new();
    let mut lowered = BTreeMap::new();
    for (name, source) in sources {
        check_depth(name, source)?;
        let edition = lower(name, source)?;
        texts.insert(
            name.clone(),
            edition.as_ref().map_or(source, |edition| &edition.text).clone(),
        );
        lowered.extend(edition.map(|edition| (name.clone(), edition)));
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(texts));
    resolver.add(embedded_resolver());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for entry in entries {
        compiler
            .open_file(entry)
            .map_err(|error| source_error(&error, entry, sources))?;
    }
    let mut compiled = files::split(&compiler.encode_file_descriptor_set())?;
    for file in &mut compiled {
        let name = files::Header::read(file)
            .map(|header| header.name)
            .unwrap_or_default();
        if let Some(edition) = lowered.get(&name) {
            *file = edition.attach(file)?;
        }
    }
    Ok(compiled)
}

/// The source in a syntax that the compiler knows, if it is of an edition.
fn lower(name: &str, source: &str) -> Result<Option<Lowered>, SchemaError> {
    edition_source::lower(source).map_err(|edition| SchemaError::Source {
        file: name.to_owned(),
        place: None,
        problem: format!("edition {edition:?} is not known; \"2023\" and \"2024\" are"),
    })
}

/// The names that a source imports, in the order in which it does.
///
/// # Errors
/// [`SchemaError::Source`] where it does not parse.
pub(crate) fn imports(name: &str, source: &str) -> Result<Vec<String>, SchemaError> {
    check_depth(name, source)?;
    let edition = lower(name, source)?;
    let text = edition.as_ref().map_or(source, |edition| edition.text.as_str());
    let file = File::from_source(name, text).map_err(|error| {
        source_error(
            &error,
            name,
            &BTreeMap::from([(name.to_owned(), source.to_owned())]),
        )
    })?;
    Ok(file.file_descriptor_proto().dependency.clone())
}

/// Whether an import of this name needs no source.
pub(crate) fn is_embedded(name: &str) -> bool {
    embedded::file(name).is_some() || embedded_resolver().open_file(name).is_ok()
}

/// Finds what the gateway brings along.
pub(super) fn embedded_resolver() -> ChainFileResolver {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(
        embedded::SOURCES
            .iter()
            .map(|(name, source)| ((*name).to_owned(), (*source).to_owned()))
            .collect(),
    ));
    resolver.add(GoogleFileResolver::new());
    resolver
}

/// Sources by name.
struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(source) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The compiler's error with its place.
fn source_error(error: &protox::Error, entry: &str, sources: &BTreeMap<String, String>) -> SchemaError {
    let problem = error.to_string();
    let Some(file) = error.file() else {
        return SchemaError::Source {
            file: entry.to_owned(),
            place: None,
            problem,
        };
    };
    // The compiler tells the place in its debug form alone: `file:line:column: problem`.
    let debug = format!("{error:?}");
    let place = debug
        .strip_prefix(file)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|rest| {
            let mut numbers = rest.splitn(3, ':');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        });
    let end = || {
        let source = sources.get(file).filter(|_| problem.contains("end of file"))?;
        let last = source.lines().last()?;
        Some((source.lines().count(), last.chars().count() + 1))
    };
    SchemaError::Source {
        file: file.to_owned(),
        place: place.or_else(end),
        problem,
    }
}

/// Refuses a source whose brackets nest too deeply; comments and strings hold none.
fn check_depth(name: &str, source: &str) -> Result<(), SchemaError> {
    let mut depth: usize = 0;
    let mut place = (1, 0);
    let mut letters = source.chars().peekable();
    let mut step = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        let letter = letters.next()?;
        place = if letter == '\n' {
            (place.0 + 1, 0)
        } else {
            (place.0, place.1 + 1)
        };
        Some((letter, place))
    };
    while let Some((letter, place)) = step(&mut letters) {
        match letter {
            '{' | '[' | '(' | '<' => depth += 1,
            '}' | ']' | ')' | '>' => depth = depth.saturating_sub(1),
            '"' | '\'' => {
                while let Some((inner, _)) = step(&mut letters) {
                    // A string ends on its line; where it does not, the compiler says so.
                    if inner == letter || inner == '\n' {
                        break;
                    }
                    if inner == '\\' {
                        step(&mut letters);
                    }
                }
            }
            '/' if letters.peek() == Some(&'/') => {
                while step(&mut letters).is_some_and(|(inner, _)| inner != '\n') {}
            }
            '/' if letters.peek() == Some(&'*') => {
                step(&mut letters);
                let mut star = false;
                while let Some((inner, _)) = step(&mut letters) {
                    if star && inner == '/' {
                        break;
                    }
                    star = inner == '*';
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(SchemaError::Source {
                file: name.to_owned(),
                place: Some(place),
                problem: format!("brackets nest more than {MAX_DEPTH} times"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brackets_that_count_are_counted() {
        let nested = |depth: usize| format!("{}{}", "{".repeat(depth), "}".repeat(depth));
        assert!(check_depth("a", &nested(MAX_DEPTH)).is_ok());
        let error = check_depth("a", &format!("\n {}", nested(MAX_DEPTH + 1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("a:2:{}: brackets nest more than 64 times", MAX_DEPTH + 2)
        );
        let many = "{".repeat(1000);
        for hidden in [
            format!("// {many}\n"),
            format!("/* {many} */"),
            format!("\"{many}\""),
            format!("'\\'{many}'"),
            format!("/**{many}**/"),
        ] {
            assert!(check_depth("a", &hidden).is_ok(), "{hidden}");
        }
        assert!(check_depth("a", &format!("/*/{many}")).is_ok());
        assert!(check_depth("a", &format!("\"\\\\\"{many}")).is_err());
    }
}

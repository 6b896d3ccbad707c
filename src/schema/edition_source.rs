//! `.proto` sources of an edition, rewritten for a compiler that knows proto2.
//!
//! What an edition adds to the language is little: its first line, features, names of reserved fields without quotes,
//! `export` and `local`, imports for options; and it leaves labels out. [`lower`] rewrites these in place, so that lines
//! stay where they are, and notes the features; [`Lowered::attach`] puts them into the descriptor that was compiled.
//! What is no proto source stays as it is, for the compiler to complain about.
//!
//! Source: "Protocol Buffers Edition 2023/2024 Language Specification" of protobuf.dev.

mod rewriter;
mod tokens;

use bytes::Bytes;
use prost::Message;

use self::rewriter::Rewriter;
use self::tokens::tokens;
use super::descriptor::{
    EDITION_2023, EDITION_2024, EnumOptions, Features, FieldOptions, File, FileOptions, MessageOptions,
    MessageType, OneofOptions,
};
use super::editions::{EditionError, EditionReason};

/// A source in proto2, and what was taken out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// The rewritten source. Columns behind a label that was added are off by its length.
    pub text: String,
    edition: i32,
    features: Vec<Noted>,
}

/// Features of one declaration.
#[derive(Clone, Debug, PartialEq)]
struct Noted {
    what: What,
    /// The names of the messages around it and its own; empty for the file.
    path: Vec<String>,
    features: Features,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    File,
    Message,
    Enum,
    Field,
    Extension,
    Oneof,
    /// Something whose features change nothing here.
    Other,
}

/// Rewrites a source if it is of an edition.
///
/// # Errors
/// The edition's name, if it is not one that is known.
pub fn lower(text: &str) -> Result<Option<Lowered>, String> {
    let tokens = tokens(text);
    let mut rewriter = Rewriter {
        text,
        tokens: &tokens,
        at: 0,
        edits: Vec::new(),
        features: Vec::new(),
    };
    if !rewriter.takes_word("edition") || !rewriter.takes_symbol(b'=') {
        return Ok(None);
    }
    let name = rewriter.quoted().unwrap_or_default();
    let edition = match name.as_str() {
        "2023" => EDITION_2023,
        "2024" => EDITION_2024,
        _ => return Err(name),
    };
    rewriter.replace(0, "syntax ");
    rewriter.replace(rewriter.at - 1, "\"proto2\"");
    rewriter.takes_symbol(b';');
    // What does not parse is the compiler's to say.
    let _incomplete = rewriter.file();
    let Rewriter { edits, features, .. } = rewriter;
    Ok(Some(Lowered {
        text: apply(text, edits),
        edition,
        features,
    }))
}

impl Lowered {
    /// The descriptor that the rewritten source was compiled to, as that of the source.
    ///
    /// # Errors
    /// [`EditionError`] if the bytes are no descriptor.
    pub fn attach(&self, file: &Bytes) -> Result<Bytes, EditionError> {
        let malformed = |_| EditionError {
            file: String::new(),
            reason: EditionReason::Malformed,
        };
        let mut file = File::decode(file.clone()).map_err(malformed)?;
        file.syntax = Some("editions".to_owned());
        file.edition = Some(self.edition);
        for noted in &self.features {
            add(&mut file, noted);
        }
        Ok(file.encode_to_vec().into())
    }
}

/// Adds features to the options of a declaration. Options that come twice are merged by every reader.
fn add(file: &mut File, noted: &Noted) {
    let features = Some(noted.features);
    let encoded = match noted.what {
        What::File => FileOptions { features }.encode_to_vec(),
        What::Message => MessageOptions {
            features,
            ..MessageOptions::default()
        }
        .encode_to_vec(),
        What::Enum => EnumOptions { features }.encode_to_vec(),
        What::Field | What::Extension => FieldOptions {
            features,
            ..FieldOptions::default()
        }
        .encode_to_vec(),
        What::Oneof => OneofOptions { features }.encode_to_vec(),
        What::Other => return,
    };
    if let Some(options) = options_of(file, noted.what, &noted.path) {
        let whole = [&options.take().unwrap_or_default()[..], &encoded].concat();
        *options = Some(whole.into());
    }
}

/// The options of a declaration.
fn options_of<'a>(file: &'a mut File, what: What, path: &[String]) -> Option<&'a mut Option<Bytes>> {
    if what == What::File {
        return Some(&mut file.options);
    }
    let (name, around) = path.split_last()?;
    let named = |other: &Option<String>| other.as_ref() == Some(name);
    let (messages, enums, extensions, members) = if around.is_empty() {
        (
            &mut file.message_type,
            &mut file.enum_type,
            &mut file.extension,
            None,
        )
    } else {
        let around = message(&mut file.message_type, around)?;
        let members = Some((&mut around.field, &mut around.oneof_decl));
        (
            &mut around.nested_type,
            &mut around.enum_type,
            &mut around.extension,
            members,
        )
    };
    Some(match what {
        What::Message => &mut messages.iter_mut().find(|message| named(&message.name))?.options,
        What::Enum => &mut enums.iter_mut().find(|declared| named(&declared.name))?.options,
        What::Extension => &mut extensions.iter_mut().find(|field| named(&field.name))?.options,
        What::Field => &mut members?.0.iter_mut().find(|field| named(&field.name))?.options,
        What::Oneof => &mut members?.1.iter_mut().find(|oneof| named(&oneof.name))?.options,
        What::File | What::Other => return None,
    })
}

fn message<'a>(messages: &'a mut [MessageType], path: &[String]) -> Option<&'a mut MessageType> {
    let (first, rest) = path.split_first()?;
    let found = messages
        .iter_mut()
        .find(|message| message.name.as_ref() == Some(first))?;
    if rest.is_empty() {
        Some(found)
    } else {
        message(&mut found.nested_type, rest)
    }
}

/// Puts the edits into the text. They do not overlap.
fn apply(text: &str, mut edits: Vec<(usize, usize, String)>) -> String {
    edits.sort_by_key(|edit| edit.0);
    let mut result = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for (start, end, new) in edits {
        result.push_str(text.get(at..start).unwrap_or_default());
        result.push_str(&new);
        at = end.max(at);
    }
    result.push_str(text.get(at..).unwrap_or_default());
    result
}

#[cfg(test)]
mod tests;

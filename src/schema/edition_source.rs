//! `.proto` sources of an edition, rewritten for a compiler that knows proto2.
//!
//! What an edition adds to the language is little: its first line, features, names of reserved fields without quotes,
//! `export` and `local`, imports for options; and it leaves labels out. [`lower`] rewrites these in place, so that lines
//! stay where they are, and notes the features; [`Lowered::attach`] puts them into the descriptor that was compiled.
//! What is no proto source stays as it is, for the compiler to complain about.
//!
//! Source: "Protocol Buffers Edition 2023/2024 Language Specification" of protobuf.dev.

mod tokens;

use bytes::Bytes;
use prost::Message;

use self::tokens::{Token, Word, tokens};
use super::descriptor::{
    EDITION_2023, EDITION_2024, EnumOptions, Features, FieldOptions, File, FileOptions, MessageOptions,
    MessageType, OneofOptions,
};
use super::editions::{EditionError, EditionReason};

/// Messages within messages; the compiler allows 32.
const MAX_DEPTH: usize = 64;

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

/// Walks over the declarations of a source.
struct Rewriter<'a> {
    text: &'a str,
    tokens: &'a [Token],
    /// The next token.
    at: usize,
    /// Byte ranges and what stands there instead.
    edits: Vec<(usize, usize, String)>,
    features: Vec<Noted>,
}

/// Nothing where the source is no proto source.
type Parsed = Option<()>;

impl<'a> Rewriter<'a> {
    fn file(&mut self) -> Parsed {
        while self.at < self.tokens.len() {
            let start = self.at;
            match self.word()? {
                "option" => self.option(What::File, &[])?,
                "import" => self.import(start)?,
                "message" | "enum" | "extend" | "export" | "local" => {
                    self.at = start;
                    self.declaration(&[])?;
                }
                "service" => self.service()?,
                _ => self.statement()?,
            }
        }
        Some(())
    }

    /// A message, an enum or an extension, in a file or in a message.
    fn declaration(&mut self, around: &[String]) -> Parsed {
        if around.len() > MAX_DEPTH {
            return None;
        }
        let mut start = self.at;
        let mut keyword = self.word()?;
        if matches!(keyword, "export" | "local") {
            self.blank(start, start + 1);
            start = self.at;
            keyword = self.word()?;
        }
        let inside = |name: &str| [around, &[name.to_owned()]].concat();
        match keyword {
            "message" => {
                let path = inside(self.word()?);
                self.block(|rewriter| rewriter.member(&path))
            }
            "enum" => {
                let path = inside(self.word()?);
                self.block(|rewriter| rewriter.enum_member(&path))
            }
            "extend" => {
                self.until(b'{')?;
                self.block(|rewriter| rewriter.field(What::Extension, around))
            }
            _ => {
                self.at = start;
                None
            }
        }
    }

    /// One statement in a message.
    fn member(&mut self, path: &[String]) -> Parsed {
        let start = self.at;
        // A field may have a keyword for its name, but not for its type, unless a dot follows.
        let dotted = matches!(self.tokens.get(start + 1), Some(token) if token.word == Word::Symbol(b'.'));
        match self.peek_word() {
            Some("option") => {
                self.at += 1;
                self.option(What::Message, path)
            }
            Some("message" | "enum" | "extend" | "export" | "local") if !dotted => self.declaration(path),
            Some("reserved") => self.reserved(),
            Some("extensions") => {
                self.statement()?;
                self.bracketed(What::Other, path, start)
            }
            Some("oneof") if !dotted => {
                self.at += 1;
                let oneof = [path, &[self.word()?.to_owned()]].concat();
                self.block(|rewriter| {
                    if rewriter.takes_word("option") {
                        return rewriter.option(What::Oneof, &oneof);
                    }
                    rewriter.declared(What::Field, path)
                })
            }
            _ => self.field(What::Field, path),
        }
    }

    /// A field that has a label in proto2.
    fn field(&mut self, what: What, around: &[String]) -> Parsed {
        let labelled = matches!(self.peek_word(), Some("repeated" | "optional" | "required"));
        let is_map = self.peek_word() == Some("map")
            && matches!(self.tokens.get(self.at + 1), Some(token) if token.word == Word::Symbol(b'<'));
        if !labelled && !is_map && !self.peek_symbol(b';') {
            let start = self.tokens.get(self.at)?.start;
            self.edits.push((start, start, "optional ".to_owned()));
        }
        self.declared(what, around)
    }

    /// A field from its type on: its name stands before the first `=`.
    fn declared(&mut self, what: What, around: &[String]) -> Parsed {
        if self.takes_symbol(b';') {
            return Some(());
        }
        let start = self.at;
        self.until(b'=')?;
        let name = self.tokens.get(self.at.checked_sub(1)?)?;
        let path = [around, &[self.text.get(name.start..name.end)?.to_owned()]].concat();
        self.statement()?;
        self.bracketed(what, &path, start)
    }

    fn enum_member(&mut self, path: &[String]) -> Parsed {
        let start = self.at;
        match self.peek_word() {
            Some("option") => {
                self.at += 1;
                self.option(What::Enum, path)
            }
            Some("reserved") => self.reserved(),
            _ => {
                self.statement()?;
                self.bracketed(What::Other, path, start)
            }
        }
    }

    /// Services have options, whose features change nothing here.
    fn service(&mut self) -> Parsed {
        self.word()?;
        self.block(|rewriter| {
            if rewriter.takes_word("option") {
                return rewriter.option(What::Other, &[]);
            }
            // A method ends at its semicolon or with its block of options.
            loop {
                if rewriter.peek_symbol(b'{') {
                    return rewriter.block(|rewriter| {
                        if rewriter.takes_word("option") {
                            return rewriter.option(What::Other, &[]);
                        }
                        rewriter.statement()
                    });
                }
                if rewriter.takes_symbol(b';') {
                    return Some(());
                }
                rewriter.next()?;
            }
        })
    }

    /// `option name = value;` behind its first word.
    fn option(&mut self, what: What, path: &[String]) -> Parsed {
        let start = self.at - 1;
        let features = self.peek_word() == Some("features");
        let first = self.at;
        self.statement()?;
        if features {
            self.note(what, path, first + 1, self.at - 1);
            self.blank(start, self.at);
        }
        Some(())
    }

    /// The options in brackets of the statement that started at `start` and was just passed.
    fn bracketed(&mut self, what: What, path: &[String], start: usize) -> Parsed {
        let end = self.at - 1;
        let Some(open) = (start..end).find(|&at| self.is_symbol(at, b'[')) else {
            return Some(());
        };
        // One option lasts to the next comma that stands in no further bracket.
        let (mut options, mut depth, mut first) = (Vec::new(), 0_usize, open + 1);
        for at in open..end {
            match self.tokens.get(at)?.word {
                Word::Symbol(b'[' | b'{' | b'(') => depth += 1,
                Word::Symbol(b']' | b'}' | b')') => depth = depth.checked_sub(1)?,
                _ => {}
            }
            let comma = depth == 1 && self.is_symbol(at, b',');
            if comma || depth == 0 {
                options.push((first, at));
                first = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
        let close = first - 1;
        let (gone, kept): (Vec<_>, Vec<_>) = options
            .iter()
            .partition(|option| self.word_at(option.0) == Some("features"));
        for &(from, to) in &gone {
            self.note(what, path, from + 1, to);
        }
        match (gone.is_empty(), kept.is_empty()) {
            (true, _) => {}
            (false, true) => self.blank(open, close + 1),
            (false, false) => {
                let text: Vec<&str> = kept
                    .iter()
                    .filter_map(|&(from, to)| self.source(from, to))
                    .collect();
                let lines = self.source(open, close + 1)?.matches('\n').count();
                let kept_lines: usize = text.iter().map(|text| text.matches('\n').count()).sum();
                let text = format!(
                    "[{}{}]",
                    text.join(", "),
                    "\n".repeat(lines.saturating_sub(kept_lines))
                );
                let (from, to) = (self.tokens.get(open)?.start, self.tokens.get(close)?.end);
                self.edits.push((from, to, text));
            }
        }
        Some(())
    }

    /// Notes the features between two tokens: `.name = VALUE`, or `= {name: VALUE …}`.
    fn note(&mut self, what: What, path: &[String], from: usize, to: usize) {
        let mut features = Features::default();
        if self.is_symbol(from, b'.') && !self.is_symbol(from + 1, b'(') {
            if let (Some(name), Some(value)) = (self.word_at(from + 1), self.word_at(from + 3)) {
                set(&mut features, name, value);
            }
        } else {
            for at in from..to {
                if let (Some(name), true, Some(value)) = (
                    self.word_at(at),
                    self.is_symbol(at + 1, b':'),
                    self.word_at(at + 2),
                ) {
                    set(&mut features, name, value);
                }
            }
        }
        if features != Features::default() {
            self.features.push(Noted {
                what,
                path: path.to_vec(),
                features,
            });
        }
    }

    /// Names stand without quotes in an edition.
    fn reserved(&mut self) -> Parsed {
        let start = self.at + 1;
        self.statement()?;
        if self.word_at(start).is_some() {
            for at in start..self.at - 1 {
                if let Some(name) = self.word_at(at) {
                    self.replace(at, &format!("\"{name}\""));
                }
            }
        }
        Some(())
    }

    /// Languages' own features go with their options.
    fn import(&mut self, start: usize) -> Parsed {
        let option = self.at;
        let for_options = self.takes_word("option");
        self.statement()?;
        let name = self.tokens.get(self.at.checked_sub(2)?)?;
        let name = self.text.get(name.start + 1..name.end - 1)?;
        if name.starts_with("google/protobuf/") && name.ends_with("_features.proto") {
            self.blank(start, self.at);
        } else if for_options {
            self.blank(option, option + 1);
        }
        Some(())
    }

    /// Braces with statements in them.
    fn block(&mut self, mut each: impl FnMut(&mut Self) -> Parsed) -> Parsed {
        self.takes_symbol(b'{').then_some(())?;
        while !self.takes_symbol(b'}') {
            let before = self.at;
            if !self.takes_symbol(b';') {
                each(self)?;
            }
            if self.at == before {
                return None;
            }
        }
        Some(())
    }

    /// Passes what is left of a statement, its semicolon too. Braces in it are values of options.
    fn statement(&mut self) -> Parsed {
        self.until(b';')?;
        self.at += 1;
        Some(())
    }

    /// Passes tokens up to a symbol that stands in no bracket.
    fn until(&mut self, symbol: u8) -> Parsed {
        let mut depth = 0_usize;
        loop {
            let token = self.tokens.get(self.at)?;
            if depth == 0 && token.word == Word::Symbol(symbol) {
                return Some(());
            }
            match token.word {
                Word::Symbol(b'[' | b'{' | b'(') => depth += 1,
                Word::Symbol(b']' | b'}' | b')') => depth = depth.checked_sub(1)?,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    fn word(&mut self) -> Option<&'a str> {
        let word = self.word_at(self.at)?;
        self.at += 1;
        Some(word)
    }

    fn peek_word(&self) -> Option<&'a str> {
        self.word_at(self.at)
    }

    fn word_at(&self, at: usize) -> Option<&'a str> {
        let token = self.tokens.get(at).filter(|token| token.word == Word::Name)?;
        self.text.get(token.start..token.end)
    }

    fn is_symbol(&self, at: usize, symbol: u8) -> bool {
        self.tokens
            .get(at)
            .is_some_and(|token| token.word == Word::Symbol(symbol))
    }

    fn peek_symbol(&self, symbol: u8) -> bool {
        self.is_symbol(self.at, symbol)
    }

    fn takes_symbol(&mut self, symbol: u8) -> bool {
        let takes = self.peek_symbol(symbol);
        self.at += usize::from(takes);
        takes
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let takes = self.peek_word() == Some(word);
        self.at += usize::from(takes);
        takes
    }

    /// The content of a string.
    fn quoted(&mut self) -> Option<String> {
        let token = self.next().filter(|token| token.word == Word::Text)?;
        Some(self.text.get(token.start + 1..token.end - 1)?.to_owned())
    }

    /// The text from one token up to another.
    fn source(&self, from: usize, to: usize) -> Option<&'a str> {
        self.text
            .get(self.tokens.get(from)?.start..self.tokens.get(to.checked_sub(1)?)?.end)
    }

    fn replace(&mut self, at: usize, new: &str) {
        if let Some(token) = self.tokens.get(at) {
            self.edits.push((token.start, token.end, new.to_owned()));
        }
    }

    /// Takes tokens out, but not their lines.
    fn blank(&mut self, from: usize, to: usize) {
        let (Some(first), Some(last)) = (
            self.tokens.get(from),
            to.checked_sub(1).and_then(|at| self.tokens.get(at)),
        ) else {
            return;
        };
        let lines = self
            .text
            .get(first.start..last.end)
            .unwrap_or_default()
            .matches('\n')
            .count();
        self.edits.push((first.start, last.end, "\n".repeat(lines)));
    }
}

fn set(features: &mut Features, name: &str, value: &str) {
    let choose = |values: &[&str]| {
        let at = values.iter().position(|known| *known == value)?;
        i32::try_from(at + 1).ok()
    };
    match name {
        "field_presence" => features.field_presence = choose(&["EXPLICIT", "IMPLICIT", "LEGACY_REQUIRED"]),
        "enum_type" => features.enum_type = choose(&["OPEN", "CLOSED"]),
        "repeated_field_encoding" => features.repeated_field_encoding = choose(&["PACKED", "EXPANDED"]),
        "utf8_validation" => features.utf8_validation = choose(&["", "VERIFY", "NONE"]),
        "message_encoding" => features.message_encoding = choose(&["LENGTH_PREFIXED", "DELIMITED"]),
        "json_format" => features.json_format = choose(&["ALLOW", "LEGACY_BEST_EFFORT"]),
        _ => {}
    }
}

#[cfg(test)]
mod tests;

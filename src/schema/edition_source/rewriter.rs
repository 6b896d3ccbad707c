//! The walk over the declarations of a source, which notes what to change.

use super::tokens::{Token, Word};
use super::{Features, Noted, What};

/// Messages within messages; the compiler allows 32.
const MAX_DEPTH: usize = 64;

/// Walks over the declarations of a source.
pub(super) struct Rewriter<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: &'a [Token],
    /// The next token.
    pub(super) at: usize,
    /// Byte ranges and what stands there instead.
    pub(super) edits: Vec<(usize, usize, String)>,
    pub(super) features: Vec<Noted>,
}

/// Nothing where the source is no proto source.
pub(super) type Parsed = Option<()>;

impl<'a> Rewriter<'a> {
    pub(super) fn file(&mut self) -> Parsed {
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

    pub(super) fn takes_symbol(&mut self, symbol: u8) -> bool {
        let takes = self.peek_symbol(symbol);
        self.at += usize::from(takes);
        takes
    }

    pub(super) fn takes_word(&mut self, word: &str) -> bool {
        let takes = self.peek_word() == Some(word);
        self.at += usize::from(takes);
        takes
    }

    /// The content of a string.
    pub(super) fn quoted(&mut self) -> Option<String> {
        let token = self.next().filter(|token| token.word == Word::Text)?;
        Some(self.text.get(token.start + 1..token.end - 1)?.to_owned())
    }

    /// The text from one token up to another.
    fn source(&self, from: usize, to: usize) -> Option<&'a str> {
        self.text
            .get(self.tokens.get(from)?.start..self.tokens.get(to.checked_sub(1)?)?.end)
    }

    pub(super) fn replace(&mut self, at: usize, new: &str) {
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

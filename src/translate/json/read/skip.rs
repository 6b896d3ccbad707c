//! Passing a value that nobody wants: its syntax and depth are checked all the same.

use super::super::scan;
use super::Reader;
use super::failure::Done;

impl Reader<'_> {
    /// Passes one value.
    pub(super) fn skip(&mut self) -> Done {
        match self.token() {
            b'{' => self.skip_object(),
            b'[' => self.skip_array(),
            b'"' => self.skip_string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            b'-' | b'0'..=b'9' => self.skip_number(),
            _ => Err(self.expected("a JSON value")),
        }
    }

    fn skip_object(&mut self) -> Done {
        self.enter(b'{', "an object")?;
        if self.token() != b'}' {
            loop {
                if self.token() != b'"' {
                    return Err(self.expected("a name in double quotes"));
                }
                self.skip_string()?;
                self.colon()?;
                self.skip()?;
                match self.token() {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(self.expected("`,` or `}`")),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn skip_array(&mut self) -> Done {
        self.enter(b'[', "an array")?;
        if self.token() != b']' {
            loop {
                self.skip()?;
                match self.token() {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return Err(self.expected("`,` or `]`")),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    fn skip_string(&mut self) -> Done {
        let end = scan::plain(self.text, self.at + 1);
        if self.text.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(());
        }
        self.at += 1;
        self.unescape()
    }
}

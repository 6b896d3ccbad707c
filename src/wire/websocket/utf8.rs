//! UTF-8 that comes in pieces, refused at its first wrong byte.

/// A text so far. Holds the bytes of a character that is not complete yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character; 0 <= length <= 3.
    pending: [u8; 4],
    length: usize,
}

/// The text is wrong from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

impl Utf8 {
    /// Takes the next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), Invalid> {
        while self.length > 0 {
            let Some((byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            if let Some(room) = self.pending.get_mut(self.length) {
                *room = *byte;
            }
            self.length = self.length.saturating_add(1);
            let character = self.pending.get(..self.length).unwrap_or_default();
            match std::str::from_utf8(character) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return Err(Invalid),
                Err(_) => {}
            }
        }
        let Err(error) = simdutf8::compat::from_utf8(piece) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(Invalid);
        }
        let rest = piece.get(error.valid_up_to()..).unwrap_or_default();
        for (room, byte) in self.pending.iter_mut().zip(rest) {
            *room = *byte;
        }
        self.length = rest.len();
        Ok(())
    }

    /// Whether the text may end here.
    pub(super) fn is_complete(self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_gives_the_same_answer_and_the_first_wrong_byte_ends_it() {
        let table: &[(&[u8], bool)] = &[
            ("κόσμε and 😀".as_bytes(), true),
            (b"\xce\xba\xed\xa0\x80", false),
            (b"\xf4\x90\x80\x80", false),
            (b"\xc0\xaf", false),
            (b"\xf0\x9f\x98", false),
            (b"plain", true),
            (b"", true),
        ];
        for (text, valid) in table {
            for cut in 0..=text.len() {
                let mut utf8 = Utf8::default();
                let got = utf8
                    .push(&text[..cut])
                    .and_then(|()| utf8.push(&text[cut..]))
                    .is_ok()
                    && utf8.is_complete();
                assert_eq!(got, *valid, "{text:?} cut at {cut}");
            }
        }
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"\xf4"), Ok(()));
        assert_eq!(utf8.push(b"\x90"), Err(Invalid));
    }
}

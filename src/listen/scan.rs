//! What the HTTP/1.1 parser does not hand on: a `Content-Length` beside `Transfer-Encoding`, or a second one.
//!
//! The parser drops the first and folds equal values of the second, which is safe (bodies are framed anew) and
//! leaves nothing to refuse. So the lines of a head that opens an idle connection are counted as they are read. The
//! head of a request sent ahead of the previous answer is not seen here; it has the parser's treatment.

/// The longest name looked for, with its colon.
const LONGEST: usize = TRANSFER_ENCODING.len();
const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// How the head frames its body, as far as it is ambiguous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// In one way or not at all.
    #[default]
    Clear,
    /// By more than one length.
    Lengths,
    /// By length and by transfer coding.
    Both,
}

/// The part of the head that the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    RequestLine,
    Headers,
    Over,
}

/// A head, line by line.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    part: Part,
    /// The first bytes of the line that is being read.
    start: [u8; LONGEST],
    /// Bytes of that line so far, without the line feed.
    length: usize,
    lengths: usize,
    codings: usize,
}

impl Scan {
    /// Takes the next bytes; the framing is known when the head is over.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Option<Framing> {
        while self.part != Part::Over && !bytes.is_empty() {
            match memchr::memchr(b'\n', bytes) {
                Some(at) => {
                    let (line, rest) = bytes.split_at(at);
                    self.extend(line);
                    self.end_line();
                    bytes = rest.get(1..).unwrap_or_default();
                }
                None => {
                    self.extend(bytes);
                    return None;
                }
            }
        }
        (self.part == Part::Over).then(|| self.framing())
    }

    /// Whether the request line is still being read.
    pub(crate) fn in_request_line(&self) -> bool {
        self.part == Part::RequestLine
    }

    fn extend(&mut self, bytes: &[u8]) {
        if let Some(room) = self.start.get_mut(self.length..) {
            let fits = room.len().min(bytes.len());
            room[..fits].copy_from_slice(&bytes[..fits]);
        }
        self.length = self.length.saturating_add(bytes.len());
    }

    fn end_line(&mut self) {
        let line = &self.start[..self.length.min(LONGEST)];
        let blank = matches!(line, b"" | b"\r");
        match self.part {
            // Empty lines before the request line are ignored, as RFC 9112 section 2.2 advises and the parser does.
            Part::RequestLine if !blank => self.part = Part::Headers,
            Part::Headers if blank => self.part = Part::Over,
            Part::Headers => {
                self.lengths += usize::from(begins(line, CONTENT_LENGTH));
                self.codings += usize::from(begins(line, TRANSFER_ENCODING));
            }
            Part::RequestLine | Part::Over => {}
        }
        self.length = 0;
    }

    fn framing(&self) -> Framing {
        if self.codings > 0 && self.lengths > 0 {
            Framing::Both
        } else if self.lengths > 1 {
            Framing::Lengths
        } else {
            Framing::Clear
        }
    }
}

fn begins(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framings_are_told_apart_however_the_head_is_cut() {
        let table = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Clear),
            (
                "\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
                Framing::Clear,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Framing::Clear,
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 1\r\nCONTENT-LENGTH: 1\r\n\r\n",
                Framing::Lengths,
            ),
            (
                "POST / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
                Framing::Both,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-A: b\r\nContent-Length: 1\r\n\r\n",
                Framing::Both,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nContent-Length: 1\r\n\r\n",
                Framing::Clear,
            ),
        ];
        for (head, framing) in table {
            assert_eq!(Scan::default().feed(head.as_bytes()), Some(framing), "{head}");
            let mut scan = Scan::default();
            let mut last = None;
            for byte in head.as_bytes() {
                last = last.or_else(|| scan.feed(&[*byte]));
            }
            assert_eq!(last, Some(framing), "byte by byte: {head}");
        }
    }
}

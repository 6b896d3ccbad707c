//! What must hold of a connection whatever its peer sends. Called by `fuzz/` and, on fixed seeds, by `cargo test`.

use super::{Decoder, Framing, Heads, Input, Piece, Sender};

/// What comes of `data`, read in pieces of so many bytes, as requests or as answers: a line for each head, for each body
/// and for each section of trailers; and whether it was broken off.
fn heard(data: &[u8], piece: usize, answers: bool) -> (Vec<String>, bool) {
    let mut input = Input::new(Sender::Client);
    let mut heads = Heads::new(2_000, 10);
    let mut body: Option<(Decoder, Vec<u8>)> = None;
    let mut heard = Vec::new();
    for bytes in data.chunks(piece.max(1)) {
        input.room().extend_from_slice(bytes);
        loop {
            let Some((decoder, read)) = &mut body else {
                let framing = if answers {
                    heads.answer(&mut input).map(|head| {
                        head.map(|head| {
                            heard.push(format!("{} {:?}", head.status, head.headers));
                            Framing::of_answer(&head, false).ok()
                        })
                    })
                } else {
                    heads.request(&mut input).map(|head| {
                        head.map(|head| {
                            heard.push(format!("{} {} {:?}", head.method, head.uri, head.headers));
                            Framing::of_request(head.version, &head.headers)
                        })
                    })
                };
                match framing {
                    Ok(None) => break,
                    Ok(Some(Some(framing))) => body = Some((Decoder::new(framing), Vec::new())),
                    Ok(Some(None)) | Err(_) => return (heard, true),
                }
                continue;
            };
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Piece::Data(bytes))) => read.extend_from_slice(&bytes),
                Ok(Some(Piece::End(trailers))) => {
                    heard.push(format!("{} {trailers:?}", read.escape_ascii()));
                    body = None;
                }
                Err(_) => {
                    heard.push(read.escape_ascii().to_string());
                    return (heard, true);
                }
            }
        }
        input.rest();
    }
    heard.extend(body.map(|(_, read)| read.escape_ascii().to_string()));
    (heard, false)
}

/// Requests, or answers: however their bytes are cut into pieces, they mean the same or are broken off at the same place.
///
/// # Panics
/// Something does not hold.
pub fn messages(data: &[u8], answers: bool) {
    // A head that has no end yet is looked at when a line ends.
    let data = [data, b"\n"].concat();
    let whole = heard(&data, data.len(), answers);
    for piece in [1, 7, 10, 100] {
        assert_eq!(whole, heard(&data, piece, answers), "in pieces of {piece}");
    }
}

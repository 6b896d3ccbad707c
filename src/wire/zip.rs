//! Reading a ZIP archive that is in memory: its files, stored or deflated, within bounds.
//!
//! Source: PKWARE APPNOTE 6.3.10. No encryption, no ZIP64, no archive in several parts: none of them is of use for a
//! handful of text files, and what is not read can't be misread.

use std::io::Read as _;

use flate2::Crc;
use flate2::read::DeflateDecoder;

/// The beginning of a central directory's end.
const END: [u8; 4] = *b"PK\x05\x06";
/// Its length without its comment.
const END_BYTES: usize = 22;
/// The longest comment after it.
const MAX_COMMENT: usize = 65_535;
/// The beginning of a central directory's entry.
const ENTRY: [u8; 4] = *b"PK\x01\x02";
/// Its length without its name and what follows.
const ENTRY_BYTES: usize = 46;
/// The beginning of a file.
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Its length without its name and what follows.
const LOCAL_BYTES: usize = 30;

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct ZipLimits {
    /// Files.
    pub files: usize,
    /// Bytes of all files together, unpacked.
    pub bytes: usize,
}

/// Why an archive can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// It has no central directory.
    #[error("this is not a ZIP archive")]
    NoArchive,
    /// It ends too early, or its parts contradict each other.
    #[error("the ZIP archive is damaged")]
    Damaged,
    /// It uses something that is not read.
    #[error("{name}: {what} is not supported in ZIP archives")]
    Unsupported {
        /// The file in question.
        name: String,
        /// What is not read.
        what: &'static str,
    },
    /// It holds more than allowed.
    #[error("the ZIP archive holds more than {limit} {what}")]
    TooMuch {
        /// What is counted.
        what: &'static str,
        /// How much may be.
        limit: usize,
    },
    /// A file is not what its check sum says.
    #[error("{0}: damaged in the ZIP archive")]
    Checksum(String),
}

/// The files of an archive whose names `wanted` takes, in its order.
///
/// # Errors
/// [`ZipError`].
pub fn files(
    archive: &[u8],
    limits: ZipLimits,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Vec<u8>)>, ZipError> {
    let end = find_end(archive).ok_or(ZipError::NoArchive)?;
    let entries = usize::from(u16_at(end, 10)?);
    let offset = u32_at(end, 16)?;
    if entries == 0xffff || offset == 0xffff_ffff {
        return Err(unsupported("", "ZIP64"));
    }
    if u16_at(end, 4)? != 0 {
        return Err(unsupported("", "an archive in several parts"));
    }
    let mut at = size(offset)?;
    let mut found = Vec::new();
    let mut left = limits.bytes;
    for _ in 0..entries {
        let entry = archive.get(at..).ok_or(ZipError::Damaged)?;
        if !entry.starts_with(&ENTRY) {
            return Err(ZipError::Damaged);
        }
        let name_bytes = usize::from(u16_at(entry, 28)?);
        let name = text(slice(entry, ENTRY_BYTES, name_bytes)?)?;
        let rest = usize::from(u16_at(entry, 30)?).saturating_add(usize::from(u16_at(entry, 32)?));
        at = at
            .saturating_add(ENTRY_BYTES)
            .saturating_add(name_bytes)
            .saturating_add(rest);
        if name.ends_with('/') || !wanted(&name) {
            continue;
        }
        if found.len() == limits.files {
            return Err(ZipError::TooMuch {
                what: "files",
                limit: limits.files,
            });
        }
        let too_large = ZipError::TooMuch {
            what: "bytes",
            limit: limits.bytes,
        };
        let bytes = unpack(archive, entry, &name, left, too_large)?;
        left = left.saturating_sub(bytes.len());
        found.push((name, bytes));
    }
    Ok(found)
}

fn unpack(
    archive: &[u8],
    entry: &[u8],
    name: &str,
    left: usize,
    too_large: ZipError,
) -> Result<Vec<u8>, ZipError> {
    if u16_at(entry, 8)? & 1 != 0 {
        return Err(unsupported(name, "encryption"));
    }
    let packed_bytes = size(u32_at(entry, 20)?)?;
    let local = size(u32_at(entry, 42)?)?;
    let head = archive.get(local..).ok_or(ZipError::Damaged)?;
    if !head.starts_with(&LOCAL) {
        return Err(ZipError::Damaged);
    }
    let skipped = usize::from(u16_at(head, 26)?).saturating_add(usize::from(u16_at(head, 28)?));
    let packed = slice(head, LOCAL_BYTES.saturating_add(skipped), packed_bytes)?;
    let bytes = match u16_at(entry, 10)? {
        0 => packed.to_vec(),
        8 => {
            let mut bytes = Vec::new();
            // One more than may be, to tell too much from enough.
            let most = u64::try_from(left).unwrap_or(u64::MAX).saturating_add(1);
            DeflateDecoder::new(packed)
                .take(most)
                .read_to_end(&mut bytes)
                .map_err(|_| ZipError::Checksum(name.to_owned()))?;
            bytes
        }
        _ => return Err(unsupported(name, "a compression other than deflate")),
    };
    if bytes.len() > left {
        return Err(too_large);
    }
    let mut sum = Crc::new();
    sum.update(&bytes);
    if sum.sum() != u32_at(entry, 16)? {
        return Err(ZipError::Checksum(name.to_owned()));
    }
    Ok(bytes)
}

/// The end of the central directory, which a comment may follow.
fn find_end(archive: &[u8]) -> Option<&[u8]> {
    let last = archive.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(MAX_COMMENT);
    (first..=last)
        .rev()
        .filter_map(|at| archive.get(at..))
        .find(|end| {
            let comment = u16_at(end, 20).map(usize::from);
            end.starts_with(&END)
                && comment.is_ok_and(|comment| comment == end.len().saturating_sub(END_BYTES))
        })
}

fn unsupported(name: &str, what: &'static str) -> ZipError {
    ZipError::Unsupported {
        name: name.to_owned(),
        what,
    }
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], ZipError> {
    bytes.get(at..at.saturating_add(length)).ok_or(ZipError::Damaged)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, ZipError> {
    let two = slice(bytes, at, 2)?.try_into().map_err(|_| ZipError::Damaged)?;
    Ok(u16::from_le_bytes(two))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ZipError> {
    let four = slice(bytes, at, 4)?.try_into().map_err(|_| ZipError::Damaged)?;
    Ok(u32::from_le_bytes(four))
}

fn size(number: u32) -> Result<usize, ZipError> {
    usize::try_from(number).map_err(|_| ZipError::Damaged)
}

fn text(name: &[u8]) -> Result<String, ZipError> {
    String::from_utf8(name.to_vec()).map_err(|_| ZipError::Damaged)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    const LIMITS: ZipLimits = ZipLimits {
        files: 3,
        bytes: 1000,
    };

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// An archive as any tool writes it: name, method, text, flags.
    fn archive(files: &[(&str, u16, &[u8], u16)]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, method, text, flags) in files {
            let packed = if *method == 8 {
                deflated(text)
            } else {
                text.to_vec()
            };
            let mut sum = Crc::new();
            sum.update(text);
            let at = u32::try_from(out.len()).unwrap();
            let mut common = Vec::new();
            common.extend(20_u16.to_le_bytes());
            common.extend(flags.to_le_bytes());
            common.extend(method.to_le_bytes());
            common.extend([0; 4]);
            common.extend(sum.sum().to_le_bytes());
            common.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            common.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            out.extend(LOCAL);
            out.extend(&common);
            out.extend([3, 0]);
            out.extend(name.as_bytes());
            out.extend([7; 3]);
            out.extend(&packed);
            directory.extend(ENTRY);
            directory.extend([0; 2]);
            directory.extend(&common);
            directory.extend([0; 12]);
            directory.extend(at.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let at = u32::try_from(out.len()).unwrap();
        let count = u16::try_from(files.len()).unwrap();
        out.extend(&directory);
        out.extend(END);
        out.extend([0; 4]);
        out.extend(count.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
        out.extend(at.to_le_bytes());
        out.extend(4_u16.to_le_bytes());
        out.extend(b"note");
        out
    }

    #[test]
    fn files_are_unpacked_and_others_are_passed_over() {
        let zip = archive(&[
            ("a/", 0, b"", 0),
            ("a/one.proto", 0, b"one", 0),
            ("a/two.proto", 8, &[b'2'; 500], 0),
            ("notes.txt", 0, b"no", 0),
        ]);
        let found = files(&zip, LIMITS, |name| name.ends_with(".proto")).unwrap();
        assert_eq!(
            found,
            [
                ("a/one.proto".to_owned(), b"one".to_vec()),
                ("a/two.proto".to_owned(), vec![b'2'; 500])
            ]
        );
    }

    #[test]
    fn bounds_hold_before_anything_is_unpacked_whole() {
        let all = |_: &str| true;
        let many = archive(&[
            ("a", 0, b"", 0),
            ("b", 0, b"", 0),
            ("c", 0, b"", 0),
            ("d", 0, b"", 0),
        ]);
        assert!(matches!(
            files(&many, LIMITS, all),
            Err(ZipError::TooMuch { what: "files", .. })
        ));
        let bomb = archive(&[("a", 8, &[0; 100_000], 0)]);
        assert!(bomb.len() < 1000);
        assert!(matches!(
            files(&bomb, LIMITS, all),
            Err(ZipError::TooMuch { what: "bytes", .. })
        ));
        let enough = archive(&[("a", 8, &[0; 1000], 0)]);
        assert_eq!(files(&enough, LIMITS, all).unwrap()[0].1.len(), 1000);
    }

    #[test]
    fn what_is_no_archive_or_a_broken_one_is_said() {
        let all = |_: &str| true;
        assert_eq!(
            files(b"syntax = \"proto3\";", LIMITS, all),
            Err(ZipError::NoArchive)
        );
        assert_eq!(files(b"", LIMITS, all), Err(ZipError::NoArchive));
        let secret = archive(&[("a", 0, b"x", 1)]);
        assert!(matches!(
            files(&secret, LIMITS, all),
            Err(ZipError::Unsupported { .. })
        ));
        let good = archive(&[("a.proto", 8, b"some text", 0)]);
        // No byte that is turned around, and no cut, makes it panic or pass as something else.
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            if let Ok(found) = files(&bad, LIMITS, all) {
                assert!(found.iter().all(|(_, text)| text == b"some text"), "{at}");
            }
            let _ = files(&good[..at], LIMITS, all);
        }
    }
}

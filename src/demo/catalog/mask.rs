//! Field masks over books: which fields to keep, which to change.

use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _};

use super::super::generated::library::v1::Book;
use super::super::refusal::Refusal;

/// The book with the fields of the mask alone; an empty mask keeps everything.
pub(super) fn keep(descriptor: &MessageDescriptor, book: &Book, paths: &[String]) -> Result<Book, Refusal> {
    if paths.is_empty() || paths == ["*"] {
        return Ok(book.clone());
    }
    change(descriptor, &Book::default(), book, paths)
}

/// `book` with the fields of the mask taken from `wanted`; one that `wanted` lacks is cleared.
pub(super) fn change(
    descriptor: &MessageDescriptor,
    book: &Book,
    wanted: &Book,
    paths: &[String],
) -> Result<Book, Refusal> {
    if paths.is_empty() || paths == ["*"] {
        return Ok(wanted.clone());
    }
    let from = dynamic(descriptor, wanted)?;
    let mut to = dynamic(descriptor, book)?;
    for path in paths {
        copy(&from, &mut to, path, path)?;
    }
    Book::decode(&*to.encode_to_vec()).map_err(|error| unfit(&error))
}

/// Copies what is at `rest` below both messages; `whole` is the path that a refusal names.
fn copy(from: &DynamicMessage, to: &mut DynamicMessage, rest: &str, whole: &str) -> Result<(), Refusal> {
    let (name, below) = match rest.split_once('.') {
        Some((name, below)) => (name, Some(below)),
        None => (rest, None),
    };
    let descriptor = to.descriptor();
    let unknown = || Refusal::invalid("mask", format!("\"{whole}\" is not a field of a book"));
    let field = descriptor.get_field_by_name(name).ok_or_else(unknown)?;
    let Some(below) = below else {
        if from.has_field(&field) {
            to.set_field(&field, from.get_field(&field).into_owned());
        } else {
            to.clear_field(&field);
        }
        return Ok(());
    };
    if field.is_list() || field.is_map() || !matches!(field.kind(), Kind::Message(_)) {
        return Err(unknown());
    }
    let inner_from = from.get_field(&field);
    let mut inner_to = to.get_field(&field).into_owned();
    if let (Some(inner_from), Some(inner_to)) = (inner_from.as_message(), inner_to.as_message_mut()) {
        copy(inner_from, inner_to, below, whole)?;
    }
    to.set_field(&field, inner_to);
    Ok(())
}

fn dynamic(descriptor: &MessageDescriptor, book: &Book) -> Result<DynamicMessage, Refusal> {
    DynamicMessage::decode(descriptor.clone(), &*book.encode_to_vec()).map_err(|error| unfit(&error))
}

/// Generated code and descriptor come from one file, so this does not happen; it is told and not a panic.
fn unfit(error: &prost::DecodeError) -> Refusal {
    Refusal::invalid("book", error.to_string())
}

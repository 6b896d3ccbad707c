//! What is on the shelves on the first day.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use prost_types::{Duration, Struct, Timestamp, Value, value};

use super::super::generated::library::v1::book::{Loan, Whereabouts};
use super::super::generated::library::v1::{Author, Book, Genre};

/// Seconds in a day.
const DAY: i64 = 86_400;

/// The books of the first day: two shelves are stocked, the third is empty.
pub(super) fn books() -> Vec<Book> {
    vec![
        Book {
            rating: 4.5,
            tags: words(["classic", "manners"]),
            translations: titles([("de", "Stolz und Vorurteil"), ("fr", "Orgueil et Préjugés")]),
            ..book(
                "shelves/1/books/1",
                "Pride and Prejudice",
                author("Jane", "Austen", 1817),
                Genre::Novel,
                day(-57_316),
                432,
            )
        },
        Book {
            rating: 4.25,
            tags: words(["classic", "gothic"]),
            subtitle: Some("The Modern Prometheus".to_owned()),
            ..book(
                "shelves/1/books/2",
                "Frankenstein",
                author("Mary", "Shelley", 1851),
                Genre::ScienceFiction,
                day(-55_517),
                280,
            )
        },
        Book {
            rating: 4.75,
            isbn: "9780441172719".to_owned(),
            tags: words(["desert", "classic"]),
            translations: titles([("de", "Der Wüstenplanet"), ("fr", "Dune")]),
            copies_sold: Some(20_000_000),
            whereabouts: Some(Whereabouts::Loan(Loan {
                reader: "Leto".to_owned(),
                due: Some(day(20_500)),
            })),
            ..book(
                "shelves/1/books/7",
                "Dune",
                author("Frank", "Herbert", 1986),
                Genre::ScienceFiction,
                day(-1_614),
                412,
            )
        },
        Book {
            rating: 4.5,
            tags: words(["winter"]),
            notes: Some(notes([
                ("signed", value::Kind::BoolValue(true)),
                ("copy", value::Kind::NumberValue(2.0)),
                ("condition", value::Kind::StringValue("worn".to_owned())),
            ])),
            ..book(
                "shelves/1/books/8",
                "The Left Hand of Darkness",
                author("Ursula K.", "Le Guin", 2018),
                Genre::ScienceFiction,
                day(-306),
                286,
            )
        },
        Book {
            rating: 4.0,
            tags: words(["classic"]),
            ..book(
                "shelves/2/books/1",
                "Leaves of Grass",
                author("Walt", "Whitman", 1892),
                Genre::Poetry,
                day(-41_819),
                95,
            )
        },
        Book {
            rating: 4.0,
            tags: words(["classic", "nature"]),
            ..book(
                "shelves/2/books/2",
                "On the Origin of Species",
                author("Charles", "Darwin", 1882),
                Genre::Science,
                day(-40_215),
                502,
            )
        },
        Book {
            rating: 4.25,
            tags: words(["nature", "sea"]),
            ..book(
                "shelves/2/books/3",
                "The Sea Around Us",
                author("Rachel", "Carson", 1964),
                Genre::Science,
                day(-6_758),
                230,
            )
        },
    ]
}

/// What every book has; the rest is left to its entry.
fn book(name: &str, title: &str, author: Author, genre: Genre, published: Timestamp, pages: u32) -> Book {
    Book {
        name: name.to_owned(),
        title: title.to_owned(),
        authors: vec![author],
        genre: genre.into(),
        published: Some(published),
        pages,
        // A page takes a reader two minutes.
        reading_time: Some(Duration {
            seconds: i64::from(pages) * 120,
            nanos: 0,
        }),
        whereabouts: Some(Whereabouts::Place("on its shelf".to_owned())),
        ..Book::default()
    }
}

fn author(given: &str, family: &str, died: i32) -> Author {
    Author {
        given_name: given.to_owned(),
        family_name: family.to_owned(),
        died: Some(died),
    }
}

/// Midnight UTC of the day that is so many days after 1 January 1970.
fn day(days: i64) -> Timestamp {
    Timestamp {
        seconds: days * DAY,
        nanos: 0,
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn titles<const N: usize>(titles: [(&str, &str); N]) -> BTreeMap<String, String> {
    titles
        .into_iter()
        .map(|(language, title)| (language.to_owned(), title.to_owned()))
        .collect()
}

fn notes<const N: usize>(notes: [(&str, value::Kind); N]) -> Struct {
    Struct {
        fields: notes
            .into_iter()
            .map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }))
            .collect(),
    }
}

/// Files at several depths, with names that a path has to escape.
pub(super) fn files() -> BTreeMap<String, Bytes> {
    [
        ("readme.txt", "Ask a librarian.\n"),
        ("maps/sea/north.txt", "Here be dragons.\n"),
        ("maps/a b.txt", "A name with a space.\n"),
    ]
    .into_iter()
    .map(|(path, content)| (path.to_owned(), Bytes::from_static(content.as_bytes())))
    .collect()
}

/// The text of a book that nobody uploaded: a line a page.
pub(super) fn text(book: &Book) -> Bytes {
    let mut text = String::new();
    for page in 1..=book.pages.min(1_000) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}, page {page} of {}.", book.title, book.pages);
    }
    Bytes::from(text)
}

/// A cover that nobody painted: the title on a colour of the genre.
pub(super) fn cover(book: &Book) -> Bytes {
    let colour = match book.genre() {
        Genre::Unspecified => "#777777",
        Genre::Novel => "#8c2f39",
        Genre::ScienceFiction => "#1d3557",
        Genre::Poetry => "#6a4c93",
        Genre::Science => "#2a6f4e",
    };
    let title = book.title.replace('&', "&amp;").replace('<', "&lt;");
    Bytes::from(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 200 300\">\
         <rect width=\"200\" height=\"300\" fill=\"{colour}\"/>\
         <text x=\"100\" y=\"150\" fill=\"#ffffff\" font-size=\"14\" text-anchor=\"middle\">{title}</text>\
         </svg>\n"
    ))
}

//! The books: what is on which shelf, and the rules for changing it. No I/O and no clock, so that two runs agree.

mod mask;
mod stock;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::Timestamp;

use super::DemoError;
use super::generated::google::api::HttpBody;
use super::generated::library::v1::{
    Book, BookFilter, CreateBookRequest, GenreCount, ListBooksReply, ListBooksRequest, MoveBookRequest,
    UpdateBookRequest,
};
use super::refusal::Refusal;

/// The most books in the library: the service is an example and lives in memory.
const MAX_BOOKS: usize = 1_000;
/// The most bytes of one text or cover: 1 MiB.
pub(super) const MAX_CONTENT_BYTES: usize = 1 << 20;
/// The most books on a page, and how many there are where the caller does not say.
const PAGE_SIZE: usize = 50;
/// Midnight of 1 January 2026 UTC, in seconds: the time of the first change. Each further change is a second later.
const EPOCH: i64 = 1_767_225_600;

/// Everything that the library holds.
pub(super) struct Catalog {
    /// Numbers of the shelves; fixed.
    shelves: Vec<String>,
    /// Books by name. At most [`MAX_BOOKS`].
    books: BTreeMap<String, Book>,
    /// Covers that somebody set, by the name of the book.
    covers: BTreeMap<String, HttpBody>,
    /// Texts that somebody uploaded, by the name of the book.
    texts: BTreeMap<String, Bytes>,
    /// Files by path.
    files: BTreeMap<String, Bytes>,
    /// How often the library changed; the clock of `update_time`.
    changes: i64,
    /// The descriptor of `Book`, for field masks.
    book: MessageDescriptor,
}

/// A name such as `shelves/1/books/7`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BookName {
    pub(super) shelf: String,
    pub(super) id: String,
}

impl BookName {
    /// Takes a name apart; `field` is what a refusal names.
    pub(super) fn parse(field: &str, name: &str) -> Result<Self, Refusal> {
        let mut parts = name.split('/');
        match (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) {
            (Some("shelves"), Some(shelf), Some("books"), Some(id), None)
                if !shelf.is_empty() && !id.is_empty() =>
            {
                Ok(Self {
                    shelf: shelf.to_owned(),
                    id: id.to_owned(),
                })
            }
            _ => Err(Refusal::invalid(
                field,
                format!("\"{name}\" is not a name such as shelves/1/books/7"),
            )),
        }
    }

    /// The name as a string.
    pub(super) fn full(&self) -> String {
        format!("shelves/{}/books/{}", self.shelf, self.id)
    }
}

impl Catalog {
    /// The library as it is on the first day.
    pub(super) fn stocked(pool: &DescriptorPool) -> Result<Self, DemoError> {
        let book = pool
            .get_message_by_name("library.v1.Book")
            .ok_or(DemoError::Missing("library.v1.Book"))?;
        let mut catalog = Self {
            shelves: ["1", "2", "3"].map(str::to_owned).to_vec(),
            books: BTreeMap::new(),
            covers: BTreeMap::new(),
            texts: BTreeMap::new(),
            files: stock::files(),
            changes: 0,
            book,
        };
        for book in stock::books() {
            catalog.books.insert(book.name.clone(), book);
        }
        Ok(catalog)
    }

    /// One book.
    pub(super) fn book(&self, name: &str) -> Result<&Book, Refusal> {
        let name = BookName::parse("name", name)?.full();
        self.books
            .get(&name)
            .ok_or(Refusal::NotFound { what: "book", name })
    }

    /// The books of a shelf (`shelves/1`), in the order of their names.
    pub(super) fn on_shelf(&self, parent: &str) -> Result<Vec<Book>, Refusal> {
        let prefix = format!("shelves/{}/books/", self.shelf("parent", parent)?);
        Ok(self
            .books
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(_, book)| book.clone())
            .collect())
    }

    /// A page of books.
    pub(super) fn list(&self, request: &ListBooksRequest) -> Result<ListBooksReply, Refusal> {
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_SIZE,
            Ok(size) => size.min(PAGE_SIZE),
            Err(_) => return Err(Refusal::invalid("page_size", "0 or more")),
        };
        let start = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse::<usize>()
                .map_err(|_| Refusal::invalid("page_token", "not a token that this library gave"))?,
        };
        let everywhere = matches!(request.parent.as_str(), "" | "shelves/-");
        let mut found = if everywhere {
            self.books.values().cloned().collect()
        } else {
            self.on_shelf(&request.parent)?
        };
        if let Some(filter) = &request.filter {
            found.retain(|book| passes(filter, book));
        }
        let total = found.len();
        let mut books: Vec<Book> = found.into_iter().skip(start).take(size).collect();
        let end = start.saturating_add(books.len());
        if let Some(mask) = &request.read_mask {
            for book in &mut books {
                *book = mask::keep(&self.book, book, &mask.paths)?;
            }
        }
        Ok(ListBooksReply {
            books,
            next_page_token: if end < total {
                end.to_string()
            } else {
                String::new()
            },
            total_size: i64::try_from(total).unwrap_or(i64::MAX),
        })
    }

    /// How many books of each genre there are, in the order of the enum.
    pub(super) fn genres(&self) -> Vec<GenreCount> {
        let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
        for book in self.books.values() {
            *counts.entry(book.genre).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|(genre, books)| GenreCount { genre, books })
            .collect()
    }

    /// Adds a book and gives it as it now is.
    pub(super) fn create(&mut self, request: CreateBookRequest) -> Result<Book, Refusal> {
        let shelf = self.shelf("parent", &request.parent)?;
        let mut book = request
            .book
            .ok_or_else(|| Refusal::invalid("book", "a book is wanted"))?;
        let id = match request.book_id {
            id if id.is_empty() => self.free_id(&shelf),
            id if id.contains('/') => return Err(Refusal::invalid("book_id", "no slash is allowed")),
            id => id,
        };
        book.name = BookName { shelf, id }.full();
        if self.books.contains_key(&book.name) {
            return Err(Refusal::Exists { name: book.name });
        }
        self.put(book)
    }

    /// Changes the fields that the mask names, or all without one. True says that the book is new.
    pub(super) fn update(&mut self, request: UpdateBookRequest) -> Result<(Book, bool), Refusal> {
        let wanted = request
            .book
            .ok_or_else(|| Refusal::invalid("book", "a book is wanted"))?;
        let name = BookName::parse("book.name", &wanted.name)?;
        let present = self.books.get(&name.full());
        let changed = match (present, request.update_mask) {
            (None, _) if !request.allow_missing => {
                return Err(Refusal::NotFound {
                    what: "book",
                    name: name.full(),
                });
            }
            (Some(book), Some(mask)) => mask::change(&self.book, book, &wanted, &mask.paths)?,
            (None, _) | (_, None) => wanted,
        };
        if changed.name != name.full() {
            return Err(Refusal::invalid("update_mask", "a name never changes; use :move"));
        }
        let new = present.is_none();
        self.shelf("book.name", &format!("shelves/{}", name.shelf))?;
        Ok((self.put(changed)?, new))
    }

    /// Takes a book out, with its cover and its text.
    pub(super) fn delete(&mut self, name: &str) -> Result<Book, Refusal> {
        let name = BookName::parse("name", name)?.full();
        let book = self.books.remove(&name).ok_or_else(|| Refusal::NotFound {
            what: "book",
            name: name.clone(),
        })?;
        self.covers.remove(&name);
        self.texts.remove(&name);
        self.changes += 1;
        Ok(book)
    }

    /// Puts a book on another shelf. Gives it as it was and as it is.
    pub(super) fn relocate(&mut self, request: &MoveBookRequest) -> Result<(Book, Book), Refusal> {
        let old = self.book(&request.name)?.clone();
        let shelf = self.shelf("shelf", &request.shelf)?;
        let id = BookName::parse("name", &request.name)?.id;
        let mut book = old.clone();
        book.name = BookName { shelf, id }.full();
        if self.books.contains_key(&book.name) {
            return Err(Refusal::Exists { name: book.name });
        }
        self.books.remove(&old.name);
        if let Some(cover) = self.covers.remove(&old.name) {
            self.covers.insert(book.name.clone(), cover);
        }
        if let Some(text) = self.texts.remove(&old.name) {
            self.texts.insert(book.name.clone(), text);
        }
        Ok((old, self.put(book)?))
    }

    /// The cover at `shelves/1/books/7/cover`: the one that was set, or a drawn one.
    pub(super) fn cover(&self, name: &str) -> Result<HttpBody, Refusal> {
        let book = self.book(cover_of(name)?)?;
        Ok(match self.covers.get(&book.name) {
            Some(cover) => cover.clone(),
            None => HttpBody {
                content_type: "image/svg+xml".to_owned(),
                data: stock::cover(book),
                extensions: Vec::new(),
            },
        })
    }

    /// Replaces the cover at `shelves/1/books/7/cover`.
    pub(super) fn set_cover(&mut self, name: &str, cover: HttpBody) -> Result<(), Refusal> {
        let name = self.book(cover_of(name)?)?.name.clone();
        fits(cover.data.len())?;
        self.covers.insert(name, cover);
        self.changes += 1;
        Ok(())
    }

    /// The text of a book: what was uploaded, or a line a page.
    pub(super) fn text(&self, name: &str) -> Result<Bytes, Refusal> {
        let book = self.book(name)?;
        Ok(self
            .texts
            .get(&book.name)
            .cloned()
            .unwrap_or_else(|| stock::text(book)))
    }

    /// Replaces the text of a book.
    pub(super) fn set_text(&mut self, name: &str, text: Bytes) -> Result<(), Refusal> {
        let name = self.book(name)?.name.clone();
        fits(text.len())?;
        self.texts.insert(name, text);
        self.changes += 1;
        Ok(())
    }

    /// A file by its path.
    pub(super) fn file(&self, path: &str) -> Result<Bytes, Refusal> {
        self.files.get(path).cloned().ok_or_else(|| Refusal::NotFound {
            what: "file",
            name: path.to_owned(),
        })
    }

    /// Checks a book, dates it and stores it.
    fn put(&mut self, mut book: Book) -> Result<Book, Refusal> {
        if book.title.is_empty() {
            return Err(Refusal::invalid("book.title", "a title is wanted"));
        }
        if !(0.0..=5.0).contains(&book.rating) {
            return Err(Refusal::invalid("book.rating", "0 to 5"));
        }
        if self.books.len() >= MAX_BOOKS && !self.books.contains_key(&book.name) {
            return Err(Refusal::Full {
                what: "books",
                limit: MAX_BOOKS,
            });
        }
        self.changes += 1;
        book.update_time = Some(Timestamp {
            seconds: EPOCH + self.changes,
            nanos: 0,
        });
        self.books.insert(book.name.clone(), book.clone());
        Ok(book)
    }

    /// The number of a shelf such as `shelves/1`, if there is one.
    fn shelf(&self, field: &str, name: &str) -> Result<String, Refusal> {
        let number = name
            .strip_prefix("shelves/")
            .filter(|number| !number.is_empty() && !number.contains('/'))
            .ok_or_else(|| Refusal::invalid(field, format!("\"{name}\" is not a name such as shelves/1")))?;
        if !self.shelves.iter().any(|shelf| shelf == number) {
            return Err(Refusal::NotFound {
                what: "shelf",
                name: name.to_owned(),
            });
        }
        Ok(number.to_owned())
    }

    /// The lowest number above those in use on the shelf.
    fn free_id(&self, shelf: &str) -> String {
        let prefix = format!("shelves/{shelf}/books/");
        let highest = self
            .books
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .filter_map(|id| id.parse::<u64>().ok())
            .max()
            .unwrap_or(0);
        highest.saturating_add(1).to_string()
    }
}

/// The name of the book whose cover this is.
fn cover_of(name: &str) -> Result<&str, Refusal> {
    name.strip_suffix("/cover").ok_or_else(|| {
        Refusal::invalid(
            "name",
            format!("\"{name}\" is not a name such as shelves/1/books/7/cover"),
        )
    })
}

/// Checks the size of a cover or a text.
pub(super) fn fits(bytes: usize) -> Result<(), Refusal> {
    if bytes > MAX_CONTENT_BYTES {
        return Err(Refusal::Full {
            what: "bytes of content",
            limit: MAX_CONTENT_BYTES,
        });
    }
    Ok(())
}

/// Whether a book is what the filter asks for.
fn passes(filter: &BookFilter, book: &Book) -> bool {
    let published = book.published.map_or(i64::MIN, |time| time.seconds);
    (filter.genres.is_empty() || filter.genres.contains(&book.genre))
        && filter.min_pages.is_none_or(|pages| book.pages >= pages)
        && filter
            .published_after
            .is_none_or(|after| published > after.seconds)
        && filter.min_rating.is_none_or(|rating| book.rating >= rating)
        && filter.tags.iter().all(|tag| book.tags.contains(tag))
}

#[cfg(test)]
mod tests;

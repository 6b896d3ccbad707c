//! The rules of the catalogue, one table or claim a test.

use prost_types::FieldMask;

use super::super::generated::DESCRIPTORS;
use super::super::generated::library::v1::Genre;
use super::*;

fn stocked() -> Catalog {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    Catalog::stocked(&pool).unwrap()
}

fn named(name: &str, title: &str) -> Book {
    Book {
        name: name.into(),
        title: title.into(),
        ..Book::default()
    }
}

#[test]
fn names_are_four_parts() {
    for (name, good) in [
        ("shelves/1/books/7", true),
        ("shelves/1/books/", false),
        ("shelves//books/7", false),
        ("shelves/1/books/7/cover", false),
        ("books/7", false),
        ("", false),
    ] {
        assert_eq!(BookName::parse("name", name).is_ok(), good, "{name:?}");
    }
}

#[test]
fn two_libraries_are_the_same_on_the_first_day() {
    assert_eq!(stocked().books, stocked().books);
}

#[test]
fn pages_cover_every_book_once() {
    let catalog = stocked();
    let mut request = ListBooksRequest {
        page_size: 3,
        ..ListBooksRequest::default()
    };
    let mut names = Vec::new();
    loop {
        let page = catalog.list(&request).unwrap();
        assert_eq!(page.total_size, 7);
        names.extend(page.books.into_iter().map(|book| book.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, catalog.books.keys().cloned().collect::<Vec<_>>());
}

#[test]
fn a_filter_asks_for_all_that_it_names() {
    let request = ListBooksRequest {
        filter: Some(BookFilter {
            genres: vec![Genre::ScienceFiction.into()],
            min_pages: Some(286),
            tags: vec!["classic".into()],
            ..BookFilter::default()
        }),
        read_mask: Some(FieldMask {
            paths: vec!["title".into(), "loan.reader".into()],
        }),
        ..ListBooksRequest::default()
    };
    let page = stocked().list(&request).unwrap();
    let [dune] = page.books.as_slice() else {
        panic!("one book passes: {:?}", page.books)
    };
    assert_eq!(
        (dune.title.as_str(), dune.pages, dune.name.as_str()),
        ("Dune", 0, "")
    );
    assert!(dune.whereabouts.is_some());
}

#[test]
fn an_update_changes_what_its_mask_names_and_nothing_else() {
    let mut catalog = stocked();
    let wanted = Book {
        rating: 1.5,
        ..named("shelves/1/books/7", "Not this")
    };
    let mask = |paths: &[&str]| {
        Some(FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        })
    };
    let request = |paths| UpdateBookRequest {
        book: Some(wanted.clone()),
        update_mask: mask(paths),
        allow_missing: false,
    };
    let (book, new) = catalog.update(request(&["rating", "tags"])).unwrap();
    assert!(!new);
    assert_eq!(
        (book.title.as_str(), book.rating, book.tags.len()),
        ("Dune", 1.5, 0)
    );
    assert_eq!(book.update_time.unwrap().seconds, EPOCH + 1);

    for paths in [&["no_such"][..], &["tags.x"], &["title.x"]] {
        assert!(
            matches!(catalog.update(request(paths)), Err(Refusal::Invalid { .. })),
            "{paths:?}"
        );
    }
}

#[test]
fn an_update_makes_a_book_only_where_that_is_asked_for() {
    let mut catalog = stocked();
    let request = |allow_missing| UpdateBookRequest {
        book: Some(named("shelves/3/books/1", "Emma")),
        update_mask: None,
        allow_missing,
    };
    assert!(matches!(
        catalog.update(request(false)),
        Err(Refusal::NotFound { .. })
    ));
    assert!(catalog.update(request(true)).unwrap().1);
}

#[test]
fn a_book_moves_with_its_text_and_leaves_nothing_behind() {
    let mut catalog = stocked();
    catalog
        .set_text("shelves/1/books/7", Bytes::from_static(b"sand"))
        .unwrap();
    let request = MoveBookRequest {
        name: "shelves/1/books/7".into(),
        shelf: "shelves/3".into(),
    };
    let (old, new) = catalog.relocate(&request).unwrap();
    assert_eq!(
        (old.name.as_str(), new.name.as_str()),
        ("shelves/1/books/7", "shelves/3/books/7")
    );
    assert!(matches!(catalog.book(&old.name), Err(Refusal::NotFound { .. })));
    assert_eq!(catalog.text(&new.name).unwrap(), "sand");
}

#[test]
fn the_library_takes_no_more_than_its_limit() {
    let mut catalog = stocked();
    let request = || CreateBookRequest {
        parent: "shelves/3".into(),
        book: Some(named("", "One more")),
        book_id: String::new(),
    };
    for _ in catalog.books.len()..MAX_BOOKS {
        catalog.create(request()).unwrap();
    }
    assert!(matches!(catalog.create(request()), Err(Refusal::Full { .. })));
}

#[test]
fn content_is_taken_up_to_its_limit() {
    for (bytes, good) in [
        (MAX_CONTENT_BYTES - 1, true),
        (MAX_CONTENT_BYTES, true),
        (MAX_CONTENT_BYTES + 1, false),
    ] {
        assert_eq!(fits(bytes).is_ok(), good, "{bytes}");
    }
}

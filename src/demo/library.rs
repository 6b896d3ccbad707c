//! The `Library` service: calls and streams around the catalogue.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use parking_lot::Mutex;
use prost_reflect::DescriptorPool;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status, Streaming};

use super::DemoError;
use super::catalog::{Catalog, fits};
use super::generated::google::api::HttpBody;
use super::generated::google::rpc::bad_request::FieldViolation;
use super::generated::library::v1::book_event::Kind;
use super::generated::library::v1::library_server::Library;
use super::generated::library::v1::{
    Book, BookEvent, CreateBookRequest, DeleteBookRequest, DownloadTextRequest, File, GetBookRequest,
    GetCoverRequest, GetFileRequest, ImportBooksReply, ImportBooksRequest, ListBooksReply, ListBooksRequest,
    ListGenresReply, MoveBookRequest, SetCoverRequest, UpdateBookRequest, UploadTextReply, UploadTextRequest,
    WatchBooksRequest,
};
use super::refusal::Refusal;

/// Changes that a watcher may be behind before it is told that it missed some.
const CHANGES_KEPT: usize = 64;
/// The longest pause between the books of a watch.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of one piece of a download, where the caller does not say.
const CHUNK_BYTES: usize = 1_024;
/// The most bytes of one piece: 64 KiB.
const MAX_CHUNK_BYTES: usize = 64 << 10;

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The catalogue and who watches it.
#[derive(Clone)]
pub(super) struct Shelves {
    catalog: Arc<Mutex<Catalog>>,
    changes: broadcast::Sender<(Kind, Book)>,
}

impl Shelves {
    /// The library as it is on the first day.
    pub(super) fn stocked(pool: &DescriptorPool) -> Result<Self, DemoError> {
        Ok(Self {
            catalog: Arc::new(Mutex::new(Catalog::stocked(pool)?)),
            changes: broadcast::channel(CHANGES_KEPT).0,
        })
    }

    /// Tells the watchers; that there are none is fine.
    fn tell(&self, kind: Kind, book: &Book) {
        let _ = self.changes.send((kind, book.clone()));
    }
}

#[tonic::async_trait]
impl Library for Shelves {
    async fn get_book(&self, request: Request<GetBookRequest>) -> Result<Response<Book>, Status> {
        let book = self.catalog.lock().book(&request.get_ref().name)?.clone();
        Ok(Response::new(book))
    }

    async fn list_books(
        &self,
        request: Request<ListBooksRequest>,
    ) -> Result<Response<ListBooksReply>, Status> {
        Ok(Response::new(self.catalog.lock().list(request.get_ref())?))
    }

    async fn list_genres(&self, _: Request<()>) -> Result<Response<ListGenresReply>, Status> {
        let genres = self.catalog.lock().genres();
        Ok(Response::new(ListGenresReply { genres }))
    }

    async fn create_book(&self, request: Request<CreateBookRequest>) -> Result<Response<Book>, Status> {
        let book = self.catalog.lock().create(request.into_inner())?;
        self.tell(Kind::Added, &book);
        Ok(Response::new(book))
    }

    async fn update_book(&self, request: Request<UpdateBookRequest>) -> Result<Response<Book>, Status> {
        let (book, new) = self.catalog.lock().update(request.into_inner())?;
        self.tell(if new { Kind::Added } else { Kind::Changed }, &book);
        Ok(Response::new(book))
    }

    async fn delete_book(&self, request: Request<DeleteBookRequest>) -> Result<Response<()>, Status> {
        let book = self.catalog.lock().delete(&request.get_ref().name)?;
        self.tell(Kind::Removed, &book);
        Ok(Response::new(()))
    }

    async fn move_book(&self, request: Request<MoveBookRequest>) -> Result<Response<Book>, Status> {
        let (old, book) = self.catalog.lock().relocate(request.get_ref())?;
        self.tell(Kind::Removed, &old);
        self.tell(Kind::Added, &book);
        Ok(Response::new(book))
    }

    type WatchBooksStream = Answers<BookEvent>;

    async fn watch_books(
        &self,
        request: Request<WatchBooksRequest>,
    ) -> Result<Response<Self::WatchBooksStream>, Status> {
        let request = request.into_inner();
        let interval = pause(request.interval)?;
        // The lock is held for both, so that no change falls between them.
        let catalog = self.catalog.lock();
        let present: VecDeque<Book> = catalog.on_shelf(&request.parent)?.into();
        let changes = request.follow.then(|| self.changes.subscribe());
        drop(catalog);
        let watch = Watch {
            prefix: format!("{}/books/", request.parent),
            present,
            changes,
            interval,
            number: 0,
        };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }

    async fn import_books(
        &self,
        request: Request<Streaming<ImportBooksRequest>>,
    ) -> Result<Response<ImportBooksReply>, Status> {
        let mut messages = request.into_inner();
        let mut parent = String::new();
        let mut reply = ImportBooksReply::default();
        let mut index = 0_usize;
        while let Some(message) = messages.message().await? {
            if index == 0 {
                parent = message.parent;
            }
            let wanted = CreateBookRequest {
                parent: parent.clone(),
                book: message.book,
                book_id: String::new(),
            };
            let added = self.catalog.lock().create(wanted);
            match added {
                Ok(book) => {
                    self.tell(Kind::Added, &book);
                    reply.names.push(book.name);
                }
                Err(Refusal::Invalid { field, description }) if field.starts_with("book") => {
                    let below = field.trim_start_matches("book");
                    reply.refused.push(FieldViolation {
                        field: format!("books[{index}]{below}"),
                        description,
                        ..FieldViolation::default()
                    });
                }
                Err(refusal) => return Err(refusal.into()),
            }
            index += 1;
        }
        Ok(Response::new(reply))
    }

    async fn get_cover(&self, request: Request<GetCoverRequest>) -> Result<Response<HttpBody>, Status> {
        Ok(Response::new(self.catalog.lock().cover(&request.get_ref().name)?))
    }

    async fn set_cover(&self, request: Request<SetCoverRequest>) -> Result<Response<()>, Status> {
        let SetCoverRequest { name, content } = request.into_inner();
        let cover = content.ok_or_else(|| Refusal::invalid("content", "a picture is wanted"))?;
        self.catalog.lock().set_cover(&name, cover)?;
        Ok(Response::new(()))
    }

    type DownloadTextStream = Answers<HttpBody>;

    async fn download_text(
        &self,
        request: Request<DownloadTextRequest>,
    ) -> Result<Response<Self::DownloadTextStream>, Status> {
        let request = request.into_inner();
        let size = match usize::try_from(request.chunk_bytes) {
            Ok(0) | Err(_) => CHUNK_BYTES,
            Ok(size) => size.min(MAX_CHUNK_BYTES),
        };
        let text = self.catalog.lock().text(&request.name)?;
        let chunks = stream::unfold((text, true), move |(rest, first)| async move {
            piece(rest, first, size)
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn upload_text(
        &self,
        request: Request<Streaming<UploadTextRequest>>,
    ) -> Result<Response<UploadTextReply>, Status> {
        let mut messages = request.into_inner();
        let mut reply = UploadTextReply::default();
        let mut text = BytesMut::new();
        while let Some(message) = messages.message().await? {
            let content = message.content.unwrap_or_default();
            if reply.chunks == 0 {
                reply.name = message.name;
                reply.language = message.language;
                reply.content_type = content.content_type;
            }
            fits(text.len().saturating_add(content.data.len()))?;
            text.extend_from_slice(&content.data);
            reply.chunks += 1;
        }
        reply.bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.catalog.lock().set_text(&reply.name, text.freeze())?;
        Ok(Response::new(reply))
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Result<Response<File>, Status> {
        let path = request.into_inner().path;
        let content = self.catalog.lock().file(&path)?;
        Ok(Response::new(File { path, content }))
    }
}

/// The next piece of a download, and what is left. The first one says what it is; an empty text is one empty piece.
fn piece(mut rest: Bytes, first: bool, size: usize) -> Option<(Result<HttpBody, Status>, (Bytes, bool))> {
    if !rest.has_remaining() && !first {
        return None;
    }
    let data = rest.split_to(size.min(rest.len()));
    let content_type = if first { "text/plain; charset=utf-8" } else { "" };
    let body = HttpBody {
        content_type: content_type.to_owned(),
        data,
        extensions: Vec::new(),
    };
    Some((Ok(body), (rest, false)))
}

/// The pause that a watcher asks for.
fn pause(interval: Option<prost_types::Duration>) -> Result<Duration, Refusal> {
    match Duration::try_from(interval.unwrap_or_default()) {
        Ok(interval) if interval <= LONGEST_INTERVAL => Ok(interval),
        Ok(_) | Err(_) => Err(Refusal::invalid("interval", "0s to 10s")),
    }
}

/// A watch of a shelf: first what is there, then what changes.
struct Watch {
    /// What the names of the shelf's books begin with.
    prefix: String,
    /// Books that were there and are not told yet.
    present: VecDeque<Book>,
    /// What changes, for those who follow.
    changes: Option<broadcast::Receiver<(Kind, Book)>>,
    interval: Duration,
    /// Events told so far.
    number: u64,
}

impl Watch {
    /// Tells the next event; the end is a shelf that is told without following.
    async fn next(mut self) -> Option<(Result<BookEvent, Status>, Self)> {
        if let Some(book) = self.present.pop_front() {
            if self.number > 0 {
                tokio::time::sleep(self.interval).await;
            }
            return Some(self.event(Kind::Present, book));
        }
        let changes = self.changes.as_mut()?;
        loop {
            match changes.recv().await {
                Ok((kind, book)) if book.name.starts_with(&self.prefix) => {
                    return Some(self.event(kind, book));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.changes = None;
                    let status = Status::data_loss(format!("{missed} changes were missed; watch anew"));
                    return Some((Err(status), self));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn event(mut self, kind: Kind, book: Book) -> (Result<BookEvent, Status>, Self) {
        self.number += 1;
        let event = BookEvent {
            kind: kind.into(),
            book: Some(book),
            number: self.number,
        };
        (Ok(event), self)
    }
}

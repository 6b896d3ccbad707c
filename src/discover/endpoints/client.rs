//! A GET whose answer may last: lines as they come, each of bounded length.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::time::timeout;

use super::SourceError;
use crate::upstream::fetch::{Answer, FetchError, Fetcher};
use crate::upstream::tls;

/// The longest answer, or line of one: a list of a thousand endpoints has half a mebibyte.
const MAX_BYTES: usize = 16 << 20;
/// How long a server may take until it answers, beside what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// A secret that is sent, read anew each time where it is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Text(HeaderName, String),
    Bearer(PathBuf),
}

/// Asks one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    fetcher: Fetcher,
    token: Option<Token>,
}

impl Client {
    /// A client of a server whose certificate comes from `ca`, or an authority of the system.
    ///
    /// # Errors
    /// The file of authorities can't be read.
    pub(super) fn new(
        server: &Uri,
        ca: Option<&std::path::Path>,
        token: Option<Token>,
    ) -> Result<Self, SourceError> {
        let secure = server.scheme_str() == Some("https");
        let tls = secure
            .then(|| tls::client_config(ca, None))
            .transpose()
            .map_err(|error| SourceError::Answer(error.to_string()))?;
        Ok(Self {
            fetcher: Fetcher::new(tls.map(Arc::new)),
            token,
        })
    }

    /// Asks for a path; an answer may take as long as `waits` to begin.
    pub(super) async fn get(&self, server: &Uri, path: &str, waits: Duration) -> Result<Answer, SourceError> {
        let base = server.to_string();
        let uri: Uri = format!("{}{path}", base.trim_end_matches('/'))
            .parse()
            .map_err(|_| SourceError::Answer(format!("{path} is no path")))?;
        let mut headers = HeaderMap::new();
        match &self.token {
            None => {}
            Some(Token::Text(name, text)) => {
                let value = HeaderValue::try_from(text.as_str());
                let mut value =
                    value.map_err(|_| SourceError::Answer("the token is no header value".to_owned()))?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            Some(Token::Bearer(path)) => {
                let wrong = |what: String| SourceError::File {
                    path: path.clone(),
                    what,
                };
                let token = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
                let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
                let mut value = value.map_err(|_| wrong("it holds no token".to_owned()))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
        }
        match timeout(waits + PATIENCE, self.fetcher.open(&uri, headers)).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(FetchError::Timeout.into()),
        }
    }

    /// All of an answer.
    pub(super) async fn whole(mut answer: Answer) -> Result<BytesMut, SourceError> {
        let mut all = BytesMut::new();
        let reading = async {
            while let Some(data) = answer.chunk().await? {
                all.extend_from_slice(&data);
                if all.len() > MAX_BYTES {
                    return Err(SourceError::Answer("it is too long".to_owned()));
                }
            }
            Ok(())
        };
        match timeout(PATIENCE, reading).await {
            Ok(read) => read.map(|()| all),
            Err(_elapsed) => Err(FetchError::Timeout.into()),
        }
    }
}

/// The lines of an answer.
pub(super) struct Lines {
    answer: Answer,
    buffer: BytesMut,
}

impl Lines {
    pub(super) fn new(answer: Answer) -> Self {
        Self {
            answer,
            buffer: BytesMut::new(),
        }
    }

    /// The next line; `None` after the last one, and where nothing comes for so long.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Option<BytesMut>, SourceError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_BYTES {
                return Err(SourceError::Answer("a line is too long".to_owned()));
            }
            match timeout(patience, self.answer.chunk()).await {
                Err(_elapsed) => return Ok(None),
                Ok(chunk) => match chunk? {
                    Some(data) => self.buffer.extend_from_slice(&data),
                    None => return Ok(None),
                },
            }
        }
    }
}

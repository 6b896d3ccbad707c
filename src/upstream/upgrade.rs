//! A connection of HTTP/1.1 that is asked to become something else, and is nobody else's from then on.

use http::response;
use http::{Request, Response, StatusCode};
use tokio_util::task::TaskTracker;

use crate::buffers::Rewound;
use crate::http1::Framing;
use crate::upstream::connect::{Connector, Stream};
use crate::upstream::exchange::answer;
use crate::upstream::http1::Connection;
use crate::upstream::stream::{SendError, Wanted};
use crate::wire::body::Body;

/// What an upstream says when it is asked.
pub(crate) enum Answered {
    /// 101, and the bytes of the connection.
    Switched(Box<response::Parts>, Rewound<Stream>),
    /// Anything else.
    Refused(Response<Body>),
}

/// Asks the other end of `stream`.
///
/// # Errors
/// [`SendError`]; nothing is sent twice.
///
/// # Cancel safety
/// Dropping it closes the connection.
pub(crate) async fn ask(
    stream: Stream,
    request: &Request<()>,
    connector: &Connector,
    tasks: &TaskTracker,
) -> Result<Answered, SendError> {
    let mut connection = Box::new(Connection::new(stream, &connector.settings().http1));
    connection.send(request, Body::empty(), tasks).await?;
    let head = connection.head(Wanted::Read).await?;
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        let framing = Framing::of_answer(&head, false).map_err(SendError::Protocol)?;
        return Ok(Answered::Refused(answer(head, framing, connection, None)));
    }
    let stream = connection
        .into_stream()
        .ok_or(SendError::Protocol("closed the connection that it switched"))?;
    Ok(Answered::Switched(Box::new(head), stream))
}

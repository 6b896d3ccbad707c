//! The relay backend: requests of a path go to an HTTP backend as they are, and its answers back.
//!
//! What belongs to one hop is taken off in both directions, every message is framed anew, and neither side can send more
//! than the other one takes.

use std::future::ready as at_once;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, LOCATION, TE, TRAILER};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::backend::dispatch::{Asked, Dispatch, Sent, Twice, Upload};
use crate::backend::replay::Replay;
use crate::backend::tee::{self, Copy};
use crate::backend::websocket::{Handshake, Terms};
use crate::balance::{Ending, Target, Wish};
use crate::buffers::Pipe;
use crate::call::{Deadline, metadata};
use crate::fault::{Fault, Kind};
use crate::policy::Permit;
use crate::route::Captures;
use crate::route::entry::WebSocket;
use crate::route::relay::{Action, AskedHost, Carries, Page, PathRoute, Redirect, Relay as Plan, Rewrite};
use crate::stack::deadline::TimedBody;
use crate::stack::held::{held, held_body};
use crate::status::Code;
use crate::translate::Tally;
use crate::translate::tally::Outcome;
use crate::upstream::dice;
use crate::upstream::stream::Wanted;
use crate::upstream::upgrade::Answered;
use crate::wire::body::{Body, Piped};

/// Copies of requests that are under way at once, of one route and worker. Not measured: a mirror that is slow must not
/// keep more of them than there are requests.
const MOST_COPIES: usize = 64;

/// One route of paths, for one worker.
#[derive(Debug)]
pub struct Relay {
    route: Arc<PathRoute>,
    /// As the route's shares.
    shares: Vec<(Dispatch, u32)>,
    mirror: Option<(Dispatch, u8)>,
    idle_timeout: Duration,
    copies: Arc<AtomicUsize>,
}

/// A request that the gate let pass.
#[derive(Debug)]
pub struct Relayed {
    /// Its head, as the client sent it.
    pub head: Parts,
    /// Its body, unread.
    pub body: Body,
    /// The path that was matched, in its normal form.
    pub path: String,
    /// The path variables.
    pub captures: Captures,
    /// Whether the client uses TLS.
    pub secure: bool,
    /// The gate's word.
    pub permit: Permit,
    /// The counts of the request.
    pub tally: Arc<Tally>,
}

impl Relay {
    /// A relay of `route`; `backend` gives the endpoints of the backend with an index.
    ///
    /// # Errors
    /// The index of a backend that is not there.
    pub fn new(
        route: Arc<PathRoute>,
        backend: impl Fn(usize) -> Option<Dispatch>,
        idle_timeout: Duration,
    ) -> Result<Self, usize> {
        let dispatch = |at: usize| backend(at).ok_or(at);
        let (shares, mirror) = match &route.action {
            Action::Redirect(_) => (Vec::new(), None),
            Action::Relay(relay) => {
                let shares = relay
                    .shares
                    .iter()
                    .map(|(at, weight)| Ok((dispatch(*at)?, *weight)))
                    .collect::<Result<_, usize>>()?;
                let mirror = match relay.mirror {
                    Some((at, percent)) => Some((dispatch(at)?, percent)),
                    None => None,
                };
                (shares, mirror)
            }
        };
        Ok(Self {
            route,
            shares,
            mirror,
            idle_timeout,
            copies: Arc::default(),
        })
    }

    /// Serves one request.
    ///
    /// # Errors
    /// An upstream fault where no endpoint can be reached, or answers.
    ///
    /// # Cancel safety
    /// Dropping it, or the body of the answer, cancels the request upstream.
    pub fn serve(&self, relayed: Relayed) -> impl Future<Output = Result<Response<Body>, Fault>> + Send {
        let answered = match &self.route.action {
            Action::Redirect(redirect) => {
                relayed.tally.end(Outcome::Upstream(Code::Ok));
                Either::Left(Either::Left(at_once(elsewhere(redirect, &relayed))))
            }
            Action::Relay(plan) => match &plan.carries {
                Carries::Http => match self.forward(plan, relayed) {
                    Ok(forwarded) => Either::Right(forwarded),
                    Err(fault) => Either::Left(Either::Left(at_once(Err(fault)))),
                },
                // Boxed: it is rare, and large.
                Carries::WebSocket(options) => {
                    Either::Left(Either::Right(Box::pin(self.bridge(plan, options, relayed))))
                }
            },
        };
        answered.map_ok(|mut response| {
            self.route.response_headers.apply(response.headers_mut());
            response
        })
    }

    /// Opens a WebSocket of the upstream for one of the client; the answer carries the tunnel between them.
    async fn bridge(
        &self,
        plan: &Plan,
        options: &WebSocket,
        relayed: Relayed,
    ) -> Result<Response<Body>, Fault> {
        let handshake = Handshake::read(&relayed, options)?;
        let tally = Arc::clone(&relayed.tally);
        let permit = relayed.permit;
        let (mut request, way) = outgoing(plan, relayed.head, &relayed.path, &relayed.captures, &permit);
        *request.method_mut() = Method::GET;
        handshake.ask(request.headers_mut());
        let share = self.any_share()?;
        let place = share.enter()?;
        let wish = share.wish(&share.key_source(None), request.headers(), permit.identity());
        let asked = share.ask(wish, &tally, request, |request, target| {
            way.address(request, target)
        });
        let (answered, in_flight) = patiently(asked, &tally, plan.patience).await?;
        match answered {
            Answered::Switched(head, upstream) => {
                let terms = Terms {
                    holds_for: permit.holds_for(),
                    standing: permit.standing(),
                    pace: self.route.checks.pace,
                };
                handshake.accept(*head, upstream, options.clone(), terms, tally, (in_flight, place))
            }
            // To an extended CONNECT, any success would mean that the WebSocket is open.
            Answered::Refused(response) if response.status().is_success() => Err(Fault::upstream(
                Kind::UpstreamProtocol,
                "the upstream opened no WebSocket",
            )),
            Answered::Refused(response) => Ok(self.answer(response, (in_flight, place), tally)),
        }
    }

    /// The answer that becomes of an upstream's.
    /// It keeps `held` as long as it streams.
    fn answer(
        &self,
        response: Response<Body>,
        held: impl Send + 'static,
        tally: Arc<Tally>,
    ) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        metadata::end_to_end(&mut head.headers);
        let code = Code::from_origin(head.status);
        let body = if body.is_whole() || body.is_end_stream() {
            tally.end(Outcome::Upstream(code));
            body
        } else {
            Body::piped(Answer {
                body: TimedBody::new(body, None, self.idle_timeout, Arc::clone(&tally)),
                tally,
                code,
            })
            .holding(held)
        };
        Response::from_parts(head, body)
    }

    /// Sends a request on. All that needs no waiting is done at once, so that no room for it is in what waits.
    fn forward(
        &self,
        plan: &Plan,
        relayed: Relayed,
    ) -> Result<impl Future<Output = Result<Response<Body>, Fault>> + Send, Fault> {
        let Relayed {
            head,
            body,
            path,
            captures,
            secure,
            permit,
            tally,
        } = relayed;
        if head.method == Method::CONNECT {
            return Err(Fault::client(
                Kind::MethodNotAllowed,
                "no WebSocket is opened here",
            ));
        }
        let standing = permit.standing();
        // Only HTTP/1.1 has no frames of its own, and what is held back or encrypted goes through memory.
        let wanted = match standing {
            None if !secure && head.version <= Version::HTTP_11 => Wanted::Piped,
            _ => Wanted::Read,
        };
        let (mut request, way) = outgoing(plan, head, &path, &captures, &permit);
        // What is known to be whole can be sent again; its length is told, where it is no stream.
        let body = if body.is_end_stream() { Body::empty() } else { body };
        if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let body = self.mirrored(&request, &way, body);
        let share = self.any_share()?;
        let place = share.enter()?;
        let wish = share.wish(&share.key_source(None), request.headers(), permit.identity());
        let patience = plan.patience;
        Ok(async move {
            let _held = &permit;
            let (sent, standing) = {
                let asked = Asked {
                    twice: twice(request.method()),
                    deadline: None,
                    tally: &tally,
                    wish,
                    ending: Ending::Any,
                    is_unary: false,
                    has_answer: share.page().is_some(),
                    wanted,
                };
                // Pinned here and lent, so that there is one of it in this future and not one for each of those who wait
                // for it.
                let sent = pin!(async {
                    let mut body = share.keep(body, Upload::Plain).await?;
                    let address = |request: &mut Request<()>, target: &Target, _: Option<Deadline>| {
                        way.address(request, target)
                    };
                    share.send(&asked, &mut request, &mut body, &address).await
                });
                let asked = patiently(sent, &tally, patience);
                match standing {
                    None => (asked.await?, None),
                    Some(mut standing) => (held(&mut standing, asked).await?, Some(standing)),
                }
            };
            let mut response = match sent {
                Sent::Answered(response) => response,
                Sent::Unanswered => instead(share.page()),
            };
            if let Some(standing) = standing {
                response.body_mut().wrap(|body| held_body(body, standing));
            }
            Ok(self.answer(response, place, tally))
        })
    }

    fn any_share(&self) -> Result<&Dispatch, Fault> {
        self.share()
            .ok_or_else(|| Fault::gateway(Kind::Internal, "the route has no backend"))
    }

    /// The backend that takes the next request: by chance, and as often as its share says.
    fn share(&self) -> Option<&Dispatch> {
        if let [(only, _)] = self.shares.as_slice() {
            return Some(only);
        }
        let weight = |share: &(Dispatch, u32)| usize::try_from(share.1).unwrap_or(usize::MAX);
        let total = self.shares.iter().map(weight).fold(0, usize::saturating_add);
        let mut at = dice::below(total);
        self.shares
            .iter()
            .find(|share| match at.checked_sub(weight(share)) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            })
            .map(|(dispatch, _)| dispatch)
    }

    /// The body, which also goes to the mirror if this request is one of those that do.
    fn mirrored(&self, request: &Request<()>, way: &Way, body: Body) -> Body {
        let Some((mirror, percent)) = &self.mirror else {
            return body;
        };
        if dice::below(100) >= usize::from(*percent) {
            return body;
        }
        let Some(place) = Place::take(&self.copies) else {
            return body;
        };
        let (body, copy) = match body.as_whole() {
            Some(bytes) => (Body::whole(bytes.clone()), Body::whole(bytes)),
            None => {
                let (body, copy): (Body, Copy) = tee::split(body);
                (body, Body::stream(copy))
            }
        };
        let (dispatch, idle) = (mirror.clone(), self.idle_timeout);
        let (request, way) = (request.clone(), way.clone());
        mirror.tasks().spawn(async move {
            let copied = async {
                // Nobody counts what a copy does.
                let tally = Tally::default();
                let asked = Asked {
                    twice: Twice::Never,
                    deadline: None,
                    tally: &tally,
                    wish: Wish::default(),
                    ending: Ending::Any,
                    is_unary: false,
                    has_answer: false,
                    wanted: Wanted::Read,
                };
                let (mut request, mut copy) = (request, Replay::once(copy));
                let address = |request: &mut Request<()>, target: &Target, _: Option<Deadline>| {
                    way.address(request, target)
                };
                match dispatch.send(&asked, &mut request, &mut copy, &address).await {
                    Ok(Sent::Answered(response)) => drain(response.into_body()).await,
                    Ok(Sent::Unanswered) => {}
                    Err(error) => tracing::debug!(%error, "a mirror did not answer"),
                }
            };
            // Nobody waits for it: what takes longer is given up.
            let _ = timeout(idle, copied).await;
            drop(place);
        });
        body
    }
}

/// The fixed answer of a backend that can't give one.
fn instead(page: Option<&Page>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    if let Some(page) = page {
        *response.body_mut() = Body::whole(page.body.clone());
        *response.status_mut() = page.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, page.content_type.clone());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(page.body.len()));
    }
    response
}

/// What goes to the upstream of a request, less its body and what its endpoint decides.
fn outgoing(
    plan: &Plan,
    mut head: Parts,
    path: &str,
    captures: &Captures,
    permit: &Permit,
) -> (Request<()>, Way) {
    let host = match plan.host {
        AskedHost::Endpoint => None,
        AskedHost::Client => asked_host(&head),
    };
    metadata::end_to_end(&mut head.headers);
    // What a client says after its body is not passed on, so it is not announced.
    head.headers.remove(TRAILER);
    if head.version == Version::HTTP_2 {
        // Its clients read trailers without saying so.
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    head.headers.remove(HOST);
    head.headers.remove(CONTENT_LENGTH);
    plan.request_headers.apply(&mut head.headers);
    // Last, so that nothing else says who calls.
    permit.tell(&mut head.headers);
    let target = match head.uri.path_and_query() {
        Some(target) if plan.rewrite == Rewrite::None && target.path() == path => {
            Asks::AsItCame(target.clone())
        }
        _ => Asks::Made(written(&plan.rewrite, path, captures, head.uri.query())),
    };
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.headers_mut() = head.headers;
    (request, Way { target, host })
}

/// The path that `path` becomes, with the query.
fn written(rewrite: &Rewrite, path: &str, captures: &Captures, query: Option<&str>) -> String {
    let mut target = rewrite.apply(path, captures);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    target
}

/// Path and query of a request.
#[derive(Clone, Debug)]
enum Asks {
    /// Those of the client.
    AsItCame(PathAndQuery),
    /// Others.
    Made(String),
}

impl Asks {
    fn as_str(&self) -> &str {
        match self {
            Self::AsItCame(target) => target.as_str(),
            Self::Made(target) => target,
        }
    }
}

/// What a request asks for, at whichever endpoint.
#[derive(Clone, Debug)]
struct Way {
    target: Asks,
    /// The host to ask for; nothing for that of the endpoint.
    host: Option<Authority>,
}

impl Way {
    /// Makes a request one for this endpoint.
    fn address(&self, request: &mut Request<()>, target: &Target) -> Result<(), Fault> {
        let connector = target.pool.connector();
        let path = match (connector.prefix(), &self.target) {
            ("", Asks::AsItCame(target)) => Ok(target.clone()),
            ("", Asks::Made(target)) => PathAndQuery::try_from(target.as_str()),
            (prefix, target) => PathAndQuery::try_from(format!("{prefix}{}", target.as_str())),
        };
        let unfit = |error: Box<dyn std::error::Error + Send + Sync>| {
            Fault::client(Kind::BadRequest, "the URL can't be sent on").caused_by(error)
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(connector.scheme().clone());
        parts.authority = Some(self.host.clone().unwrap_or_else(|| connector.authority().clone()));
        parts.path_and_query = Some(path.map_err(|error| unfit(error.into()))?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| unfit(error.into()))?;
        Ok(())
    }
}

/// The host that the client asked for.
fn asked_host(head: &Parts) -> Option<Authority> {
    head.uri.authority().cloned().or_else(|| {
        let host = head.headers.get(HOST)?;
        Authority::try_from(host.as_bytes()).ok()
    })
}

/// Whether a request may reach a backend twice. Source: RFC 9110, section 9.2.2.
fn twice(method: &Method) -> Twice {
    match *method {
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS => Twice::Harmless,
        _ => Twice::Never,
    }
}

/// Waits for the head of an answer, and no longer than `patience` after the client has sent something.
async fn patiently<T>(
    sent: impl Future<Output = Result<T, Fault>>,
    tally: &Tally,
    patience: Duration,
) -> Result<T, Fault> {
    let mut sent = pin!(sent);
    let mut heard = tally.request_bytes();
    loop {
        match timeout(patience, &mut sent).await {
            Ok(answered) => return answered,
            Err(_elapsed) => {
                let now = tally.request_bytes();
                if now == heard {
                    return Err(Fault::upstream(
                        Kind::DeadlineExceeded,
                        "the upstream did not begin to answer in time",
                    ));
                }
                heard = now;
            }
        }
    }
}

/// The answer that sends a client elsewhere.
fn elsewhere(redirect: &Redirect, relayed: &Relayed) -> Result<Response<Body>, Fault> {
    let query = relayed.head.uri.query();
    let mut target = written(&redirect.rewrite, &relayed.path, &relayed.captures, query);
    if redirect.scheme.is_some() || redirect.host.is_some() {
        let own = if relayed.secure {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let scheme = redirect.scheme.clone().unwrap_or(own);
        let host = redirect.host.clone().or_else(|| asked_host(&relayed.head));
        let host = host.ok_or_else(|| Fault::client(Kind::BadRequest, "the request names no host"))?;
        target = format!("{scheme}://{host}{target}");
    } else if target.starts_with("//") {
        // Without a scheme, it would name another host.
        return Err(Fault::client(Kind::BadRequest, "the URL begins with two slashes"));
    }
    let location = HeaderValue::try_from(target)
        .map_err(|error| Fault::client(Kind::BadRequest, "the URL can't be sent back").caused_by(error))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Reads what is left of an answer, so that its connection can be kept.
async fn drain(mut body: Body) {
    while let Some(Ok(_frame)) = body.frame().await {}
}

/// One of the places for copies.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(copies: &Arc<AtomicUsize>) -> Option<Self> {
        let free = copies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |copies| {
            (copies < MOST_COPIES).then_some(copies + 1)
        });
        free.ok().map(|_| Self(Arc::clone(copies)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A frame of an answer, less what an upstream may not say after its body.
fn passed_on(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            metadata::trailing(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// The body of an answer on its way to the client; notes how it ended.
struct Answer {
    body: TimedBody,
    tally: Arc<Tally>,
    code: Code,
}

impl Piped for Answer {
    fn poll_pipe(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Option<Result<usize, Fault>>> {
        let piped = ready!(Pin::new(&mut self.body).poll_pipe(cx, pipe));
        match &piped {
            Some(Err(fault)) => self.tally.end(Outcome::Gateway(fault.kind(), fault.side())),
            Some(Ok(_)) if self.body.is_end_stream() => self.tally.end(Outcome::Upstream(self.code)),
            Some(Ok(_)) | None => {}
        }
        Poll::Ready(piped)
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            // An empty frame says nothing, and costs one on the way to the client.
            let is_empty = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
            if !matches!(&frame, Some(Ok(frame)) if is_empty(frame)) {
                break frame;
            }
        };
        match &frame {
            Some(Err(fault)) => self.tally.end(Outcome::Gateway(fault.kind(), fault.side())),
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => self.tally.end(Outcome::Upstream(self.code)),
        }
        Poll::Ready(frame.map(|frame| frame.map(passed_on)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

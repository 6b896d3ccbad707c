//! Active health checks: every endpoint is asked once in a while whether it serves.
//!
//! Checks run on the control runtime, over connections of their own. gRPC backends are asked by `grpc.health.v1`: by
//! `Check` at each interval, and by `Watch`, where it is offered, so that a change is known at once.

mod grpc;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{ACCEPT, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri, uri};
use http_body_util::{BodyExt as _, Limited};
use thiserror::Error;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::balance::Endpoint;
use crate::balance::group::Group;
use crate::fault::Fault;
use crate::upstream::pools::{Dialling, connector};
use crate::upstream::stream::SendError;
use crate::upstream::{ConnectError, Connector, Pool, Unreachable, dice};
use crate::wire::body::Body;

/// The largest answer that is looked through for a text. 64 KiB: a health page is small.
const MAX_BODY: usize = 64 << 10;

/// How endpoints are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Time between two checks; a tenth more or less by chance, so that gateways do not ask in step.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Checks in a row that have to go well before an endpoint is called again.
    pub up: u32,
    /// Checks in a row that have to fail before an endpoint is not called any more.
    pub down: u32,
    /// What is asked.
    pub probe: Probe,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `grpc.health.v1`, about this service; an empty name is the server as a whole.
    Grpc(String),
    /// An HTTP page.
    Http(Page),
    /// Nothing: it has to take a connection.
    Tcp,
}

/// An HTTP page that tells whether an endpoint serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its path, maybe with a query.
    pub path: PathAndQuery,
    /// Statuses that are good: ranges, with both ends.
    pub expected: Vec<(u16, u16)>,
    /// What has to stand in it.
    pub contains: Option<String>,
}

/// Why an endpoint is not taken to serve.
#[derive(Debug, Error)]
enum Trouble {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Unreachable(#[from] Unreachable),
    #[error("{0}")]
    Send(#[from] SendError),
    #[error("the answer broke off: {0}")]
    Body(Fault),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer is too long, or does not say what it should")]
    Says,
    #[error("it says that it does not serve")]
    NotServing,
    #[error("it does not know the health protocol")]
    Unimplemented,
    #[error("it answers with gRPC status {0}")]
    Grpc(String),
    #[error("the request can't be made")]
    Request,
}

/// Checks the endpoints of a group for as long as it is there, dialling them by `dialling`.
///
/// # Cancel safety
/// Its connections are closed.
pub async fn watch(group: Weak<Group>, check: Check, dialling: Dialling) {
    let Some(gone) = group.upgrade().map(|group| group.gone().clone()) else {
        return;
    };
    let mut probes: JoinSet<()> = JoinSet::new();
    let mut running: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        let Some(alive) = group.upgrade() else { return };
        let notify = Arc::clone(&alive.changed);
        let changed = notify.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let members = alive.members();
        running.retain(|number, task| {
            let stays = members
                .list()
                .iter()
                .any(|member| member.endpoint.number() == *number);
            if !stays {
                task.abort();
            }
            stays
        });
        for member in members.list() {
            let endpoint = &member.endpoint;
            if running.contains_key(&endpoint.number()) {
                continue;
            }
            match connector(&endpoint.uri, &dialling) {
                Ok(connector) => {
                    let prober = Prober::new(endpoint, &group, &check, connector);
                    running.insert(endpoint.number(), probes.spawn(prober.run()));
                }
                Err(error) => {
                    tracing::error!(endpoint = %endpoint.label(), %error, "an endpoint can't be checked");
                }
            }
        }
        // Kept while waiting, the group could never go.
        drop(alive);
        tokio::select! {
            () = gone.cancelled() => return,
            () = changed => {}
            // Whatever a probe ends by, its endpoint has gone.
            Some(_ended) = probes.join_next() => {}
        }
    }
}

/// Checks one endpoint.
struct Prober {
    endpoint: Arc<Endpoint>,
    group: Weak<Group>,
    check: Check,
    pool: Pool,
    tasks: TaskTracker,
    good: u32,
    bad: u32,
    /// What is asked; a server that does not know what it is asked is asked for less.
    probe: Probe,
}

impl Prober {
    fn new(endpoint: &Arc<Endpoint>, group: &Weak<Group>, check: &Check, connector: Connector) -> Self {
        let tasks = TaskTracker::new();
        Self {
            endpoint: Arc::clone(endpoint),
            group: Weak::clone(group),
            pool: Pool::new(connector, tasks.clone()),
            tasks,
            good: 0,
            bad: 0,
            probe: check.probe.clone(),
            check: check.clone(),
        }
    }

    async fn run(mut self) {
        let mut watched: Option<grpc::Watch> = None;
        let mut watches = matches!(self.probe, Probe::Grpc(_));
        loop {
            let outcome = timeout(self.check.timeout, self.once())
                .await
                .unwrap_or(Err(Trouble::Late(self.check.timeout)));
            if matches!(outcome, Err(Trouble::Unimplemented)) {
                tracing::warn!(
                    endpoint = %self.endpoint.label(),
                    "the endpoint does not know grpc.health.v1: from now on, it is checked by whether it takes a connection"
                );
                self.probe = Probe::Tcp;
                watches = false;
                continue;
            }
            let serves = outcome.is_ok();
            if !self.tell(outcome.err().as_ref()) {
                return;
            }
            if serves
                && watches
                && watched.is_none()
                && let Probe::Grpc(service) = &self.probe
            {
                match timeout(self.check.timeout, grpc::watch(&self.pool, service, &self.tasks)).await {
                    Ok(Ok(watch)) => watched = Some(watch),
                    Ok(Err(Trouble::Unimplemented)) => watches = false,
                    // The next check says what is wrong.
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            let pause = jittered(self.check.interval);
            let next = Instant::now() + pause;
            loop {
                let said = match &mut watched {
                    None => {
                        sleep(next.saturating_duration_since(Instant::now())).await;
                        break;
                    }
                    Some(watch) => {
                        match timeout(next.saturating_duration_since(Instant::now()), watch.next()).await {
                            Err(_elapsed) => break,
                            Ok(said) => said,
                        }
                    }
                };
                match said {
                    Ok(Some(serves)) => {
                        if !self.told_at_once(serves) {
                            return;
                        }
                    }
                    Ok(None) => watched = None,
                    Err(Trouble::Unimplemented) => {
                        watched = None;
                        watches = false;
                    }
                    Err(_) => {
                        // It broke off: what that means, a check says now and not in a while.
                        watched = None;
                        sleep(jittered(self.check.interval / 10)).await;
                        break;
                    }
                }
            }
        }
    }

    /// One check.
    async fn once(&self) -> Result<(), Trouble> {
        match &self.probe {
            Probe::Tcp => {
                drop(self.pool.connector().stream().await?);
                Ok(())
            }
            Probe::Grpc(service) => grpc::check(&self.pool, service, &self.tasks).await,
            Probe::Http(page) => self.page(page).await,
        }
    }

    async fn page(&self, page: &Page) -> Result<(), Trouble> {
        let connector = self.pool.connector();
        let mut request = request(connector, Method::GET, &page.path).ok_or(Trouble::Request)?;
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("*/*"));
        let response = self
            .pool
            .lease()
            .await?
            .send(&request, Body::empty(), &self.tasks)
            .await?;
        let status = response.status();
        let expected = |range: &(u16, u16)| (range.0..=range.1).contains(&status.as_u16());
        if !page.expected.iter().any(expected) {
            return Err(Trouble::Status(status));
        }
        // The rest is read too, so that the connection can be kept.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let Some(text) = &page.contains else { return Ok(()) };
        let body = body.map_err(|_| Trouble::Says)?.to_bytes();
        if memchr::memmem::find(&body, text.as_bytes()).is_none() {
            return Err(Trouble::Says);
        }
        Ok(())
    }

    /// Counts an outcome; false when there is nobody to tell any more.
    fn tell(&mut self, trouble: Option<&Trouble>) -> bool {
        let Some(group) = self.group.upgrade() else {
            return false;
        };
        match trouble {
            None => {
                self.bad = 0;
                self.good = self.good.saturating_add(1);
                if self.good >= self.check.up {
                    group.checked(&self.endpoint, true, "", Instant::now());
                }
            }
            Some(trouble) => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                if self.bad >= self.check.down {
                    group.checked(&self.endpoint, false, &trouble.to_string(), Instant::now());
                }
            }
        }
        true
    }

    /// What a server says by itself counts at once.
    fn told_at_once(&mut self, serves: bool) -> bool {
        if serves {
            self.good = self.check.up;
            self.tell(None)
        } else {
            self.bad = self.check.down;
            self.tell(Some(&Trouble::NotServing))
        }
    }
}

/// A request to an endpoint, below its prefix.
fn request(connector: &Connector, method: Method, path: &PathAndQuery) -> Option<Request<()>> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(connector.scheme().clone());
    parts.authority = Some(connector.authority().clone());
    parts.path_and_query = Some(match connector.prefix() {
        "" => path.clone(),
        prefix => format!("{prefix}{path}").parse().ok()?,
    });
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static("sabir-health"));
    Some(request)
}

/// A time with up to a tenth more or less.
fn jittered(interval: Duration) -> Duration {
    let tenth = interval / 10;
    let micros = usize::try_from(tenth.as_micros()).unwrap_or(usize::MAX);
    let chance = Duration::from_micros(dice::below(micros.saturating_mul(2)) as u64);
    (interval - tenth + chance).max(Duration::from_millis(1))
}

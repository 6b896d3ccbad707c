//! An identity provider that rotates, fails, is slow and talks garbage; each fetch is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::policy::jwt::Algorithm;
use crate::upstream::fetch::Fetcher;

/// What the provider says when it is asked for its keys.
#[derive(Clone, Debug)]
enum Says {
    Keys(&'static str),
    Status(u16),
    Garbage,
    TooMuch,
    Nothing,
}

struct Provider {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    /// How often it was asked for keys.
    asked: Arc<AtomicUsize>,
    /// How often it was asked where they are.
    discovered: Arc<AtomicUsize>,
    max_age: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

/// A set with one key of this name.
fn set(kid: &str) -> String {
    format!(
        r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{kid}", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}"#
    )
}

impl Provider {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(says));
        let (asked, discovered, max_age) = (Arc::default(), Arc::default(), Arc::new(AtomicUsize::new(300)));
        let mut tasks = JoinSet::new();
        let shared = (
            Arc::clone(&says),
            Arc::clone(&asked),
            Arc::clone(&discovered),
            Arc::clone(&max_age),
        );
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = shared.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (says, asked, discovered, max_age) = shared.clone();
                    async move {
                        if request.uri().path() == "/.well-known/openid-configuration" {
                            AtomicUsize::fetch_add(&discovered, 1, Ordering::SeqCst);
                            let body = format!(
                                r#"{{"issuer": "http://{address}", "jwks_uri": "http://{address}/keys"}}"#
                            );
                            return http::Response::builder().body(Full::<Bytes>::from(body));
                        }
                        assert_eq!(request.headers()["host"], address.to_string());
                        AtomicUsize::fetch_add(&asked, 1, Ordering::SeqCst);
                        let says = says.lock().clone();
                        let age = AtomicUsize::load(&max_age, Ordering::SeqCst);
                        let response =
                            http::Response::builder().header("cache-control", format!("max-age={age}"));
                        match says {
                            Says::Keys(kid) => response.body(Full::from(set(kid))),
                            Says::Status(status) => response.status(status).body(Full::from(set("wrong"))),
                            Says::Garbage => response.body(Full::from("<html>sorry</html>")),
                            Says::TooMuch => response.body(Full::from(" ".repeat(300 << 10))),
                            Says::Nothing => std::future::pending().await,
                        }
                    }
                });
                serving.spawn(async move {
                    // A client that goes away is no failure of the test.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            says,
            asked,
            discovered,
            max_age,
            _tasks: tasks,
        }
    }

    fn say(&self, says: Says) {
        *self.says.lock() = says;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn keeper(&self, pace: Pace) -> (Keeper, Arc<Store>) {
        let store = Arc::new(Store::new(pace));
        let uri = format!("http://{}/keys", self.address).parse().unwrap();
        let fetcher = Fetcher::new(None);
        (
            Keeper::new("test".into(), Place::Url(uri), fetcher, Arc::clone(&store), pace),
            store,
        )
    }

    fn kept(&self, pace: Pace, tasks: &mut JoinSet<()>) -> Arc<Store> {
        let (keeper, store) = self.keeper(pace);
        tasks.spawn(keeper.run());
        store
    }
}

/// Nothing happens by itself within the life of a test.
const STILL: Pace = Pace {
    least: Duration::from_secs(60),
    most: Duration::from_secs(3600),
    retry: Duration::from_secs(60),
    between_asked: Duration::from_secs(60),
    keep: Duration::from_secs(3600),
};

fn has(store: &Store, kid: &str) -> bool {
    let keys = store.now();
    keys.is_some_and(|(keys, _)| keys.candidates(Some(kid), Algorithm::EdDsa).next().is_some())
}

/// Looks again until it is so.
async fn until(what: impl Fn() -> bool) {
    let looking = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_first_call_waits_for_the_first_fetch_and_all_share_it() {
    let provider = Provider::start(Says::Keys("one")).await;
    let mut tasks = JoinSet::new();
    let (keeper, store) = provider.keeper(STILL);
    assert!(store.now().is_none());
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let store = Arc::clone(&store);
        calls.spawn(async move { store.refetched(Some("one")).await && has(&store, "one") });
    }
    tasks.spawn(keeper.run());
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap());
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn a_new_key_is_fetched_once_when_a_call_needs_it() {
    let provider = Provider::start(Says::Keys("one")).await;
    let mut tasks = JoinSet::new();
    let pace = Pace {
        between_asked: Duration::from_millis(300),
        ..STILL
    };
    let store = provider.kept(pace, &mut tasks);
    until(|| has(&store, "one")).await;
    let generation = store.generation();
    // Too soon after the first fetch: refused without asking.
    assert!(!store.refetched(Some("two")).await);
    provider.say(Says::Keys("two"));
    tokio::time::sleep(Duration::from_millis(350)).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let store = Arc::clone(&store);
        calls.spawn(async move { store.refetched(Some("two")).await });
    }
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap(), "all wait for the one fetch");
    }
    assert_eq!(provider.asked(), 2);
    assert!(has(&store, "two") && !has(&store, "one"));
    assert_ne!(
        store.generation(),
        generation,
        "what was verified before is verified again"
    );
}

#[tokio::test]
async fn names_that_are_made_up_cost_one_fetch_in_the_interval_and_are_remembered() {
    let provider = Provider::start(Says::Keys("one")).await;
    let mut tasks = JoinSet::new();
    let pace = Pace {
        between_asked: Duration::from_millis(300),
        ..STILL
    };
    let store = provider.kept(pace, &mut tasks);
    until(|| has(&store, "one")).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    let generation = store.generation();
    for number in 0..1000 {
        let kid = format!("made up {number}");
        if store.refetched(Some(&kid)).await {
            store.missing(&kid);
        }
    }
    assert_eq!(provider.asked(), 2);
    assert_eq!(
        store.generation(),
        generation,
        "the same keys are the same generation"
    );
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(
        !store.refetched(Some("made up 0")).await,
        "looked for in vain already"
    );
    assert_eq!(provider.asked(), 2);
    assert!(store.refetched(Some("made up 5000")).await);
    assert_eq!(provider.asked(), 3);
}

#[tokio::test]
async fn the_last_good_keys_stay_while_the_provider_fails() {
    let provider = Provider::start(Says::Keys("one")).await;
    provider.max_age.store(0, Ordering::SeqCst);
    let mut tasks = JoinSet::new();
    let quick = Duration::from_millis(20);
    let pace = Pace {
        least: quick,
        retry: quick,
        keep: Duration::from_millis(1500),
        ..STILL
    };
    let store = provider.kept(pace, &mut tasks);
    until(|| has(&store, "one")).await;
    for says in [Says::Status(500), Says::Status(302), Says::Garbage, Says::TooMuch] {
        provider.say(says.clone());
        let before = provider.asked();
        until(|| provider.asked() > before + 2).await;
        assert!(has(&store, "one"), "{says:?}");
        provider.say(Says::Keys("one"));
        let before = provider.asked();
        until(|| provider.asked() > before + 2).await;
    }
    provider.say(Says::Status(503));
    until(|| !has(&store, "one")).await;
    assert!(
        store.now().is_none() && store.generation().is_none(),
        "too old to be believed"
    );
    provider.say(Says::Keys("two"));
    until(|| has(&store, "two")).await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_holds_a_call_for_a_moment_only() {
    let provider = Provider::start(Says::Nothing).await;
    let mut tasks = JoinSet::new();
    let store = provider.kept(STILL, &mut tasks);
    let began = tokio::time::Instant::now();
    assert!(!store.refetched(None).await);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn an_issuer_says_where_its_keys_are_and_is_asked_for_that_once() {
    let provider = Provider::start(Says::Keys("one")).await;
    provider.max_age.store(0, Ordering::SeqCst);
    let quick = Duration::from_millis(20);
    let pace = Pace {
        least: quick,
        retry: quick,
        ..STILL
    };
    let mut tasks = JoinSet::new();
    for (issuer, believed) in [
        (format!("http://{}", provider.address), true),
        // The provider says its own name, and not this one.
        (format!("http://localhost:{}", provider.address.port()), false),
    ] {
        let store = Arc::new(Store::new(pace));
        let place = Place::Discovery(issuer);
        let keeper = Keeper::new("test".into(), place, Fetcher::new(None), Arc::clone(&store), pace);
        let task = tasks.spawn(keeper.run());
        if believed {
            until(|| provider.asked() > 5).await;
            assert!(has(&store, "one"));
            assert_eq!(provider.discovered.load(Ordering::SeqCst), 1);
            task.abort();
        } else {
            assert!(store.refetched(None).await);
            assert!(store.now().is_none());
        }
    }
}

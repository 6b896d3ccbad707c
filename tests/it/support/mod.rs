//! The kit of the integration tests: the gateway as a process, backends and clients that other people wrote, and
//! conversations that run over all of them. Everything listens on 127.0.0.1:0 and stops when it is dropped.

pub(crate) mod backends;
pub(crate) mod clients;
pub(crate) mod etcd;
pub(crate) mod framing;
pub(crate) mod gateway;
pub(crate) mod messages;
pub(crate) mod origin;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod script;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

/// How long anything may take on a busy machine before a test gives up. Nothing waits for this long to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An address where nobody is, for as long as the tests run: a port that is given back may become somebody else's.
pub(crate) fn nowhere() -> SocketAddr {
    static HELD: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Bound, and not listening: who connects is refused.
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    HELD.lock().push(socket);
    address
}

/// Waits for an event, and says which one did not come.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Waits until a counter moves no more.
pub(crate) async fn stalls(count: &AtomicUsize) -> usize {
    within("the stall", async {
        let (mut last, mut quiet) = (0, 0);
        // That nothing happens has no event to wait for: ten looks at the same number have to do.
        while quiet < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = count.load(Ordering::Relaxed);
            quiet = if now == last && now > 0 { quiet + 1 } else { 0 };
            last = now;
        }
        last
    })
    .await
}

/// Waits until something is true, which is looked at again and again.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_true: impl FnMut() -> F) {
    within(what, async {
        while !is_true().await {
            // Nobody tells of it; the pause is between looks, not before them.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Compares two texts and shows both between rulers where they differ.
#[track_caller]
pub(crate) fn same(what: &str, expected: &str, got: &str) {
    let ruler = "-".repeat(72);
    assert!(
        expected == got,
        "{what}\n{ruler} expected\n{expected}\n{ruler} got\n{got}\n{ruler}"
    );
}

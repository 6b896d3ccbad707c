//! Limits that several gateways share through Redis, with Redis and without it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;

use crate::support::backends::{Backend, answering};
use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::redis::Redis;
use crate::support::within;

const BOOK: &str = "/v1/shelves/1/books/7";

/// A gateway of the cluster, with this one limit.
async fn node(backend: &Backend, redis: &Redis, on_loss: &str, limit: &str) -> Gateway {
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 2
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
routes:
  - {{services: [\"*\"], backend: library, rate_limit: shared}}
rate_limits:
  shared: {limit}
redis: {{url: \"{}\", on_loss: {on_loss}, timeout: 5s}}
",
        backend.address,
        redis.url()
    );
    Gateway::with_config(&yaml).await
}

/// Waits until the metrics of a gateway have this line.
async fn shows(gateway: &Gateway, line: &str) {
    within(line, async {
        loop {
            let page = once(gateway.admin, request(Method::GET, "/metrics", "")).await;
            if page.text().lines().any(|shown| shown == line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until each of them knows of all.
pub(crate) async fn together(gateways: &[Gateway]) {
    let line = format!("sabir_cluster_nodes {}", gateways.len());
    join_all(gateways.iter().map(|gateway| shows(gateway, &line))).await;
}

/// The statuses of so many calls, one after the other.
async fn calls(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut connection = Rest::connect(gateway.address, Version::Http2).await;
    let mut statuses = Vec::with_capacity(count);
    for _ in 0..count {
        statuses.push(connection.get(BOOK).await.status.as_u16());
    }
    statuses
}

fn allowed(statuses: &[u16]) -> usize {
    statuses.iter().filter(|status| **status == 200).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_share_a_rate_within_the_bound() {
    let Some(redis) = Redis::start("limits shared by three gateways").await else {
        return;
    };
    let backend = answering().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(
            node(
                &backend,
                &redis,
                "share",
                "{rate: 100/s, burst: 400, key: global}",
            )
            .await,
        );
    }
    together(&gateways).await;
    let began = Instant::now();
    // Several clients at each gateway at once, all of them more often than is allowed.
    let clients = gateways
        .iter()
        .flat_map(|gateway| (0..4).map(|_| calls(gateway, 150)));
    let statuses: Vec<u16> = join_all(clients).await.concat();
    let seconds = began.elapsed().as_secs_f64();
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 429)),
        "{statuses:?}"
    );
    let allowed = allowed(&statuses);
    // The burst, what came back meanwhile, and a batch of a twentieth at each of the three.
    let bound = 400.0 + 100.0 * seconds + 3.0 * 20.0;
    println!("{allowed} of 1800 allowed in {seconds:.2} s, at most {bound:.0}");
    assert!((allowed as f64) <= bound, "{allowed} in {seconds} s");
    assert!(allowed >= 300, "what is there can be used: {allowed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_limit_redis_is_seldom_asked() {
    let Some(redis) = Redis::start("how seldom redis is asked").await else {
        return;
    };
    let backend = answering().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(node(&backend, &redis, "closed", "{rate: 20000/s, key: global}").await);
    }
    together(&gateways).await;
    let before = redis.scripts().await;
    let began = Instant::now();
    let clients = gateways
        .iter()
        .flat_map(|gateway| (0..4).map(|_| calls(gateway, 150)));
    let statuses: Vec<u16> = join_all(clients).await.concat();
    let asked = redis.scripts().await - before;
    let seconds = began.elapsed().as_secs() + 2;
    assert_eq!(allowed(&statuses), 1800);
    println!("redis was asked {asked} times for 1800 calls");
    // Each node says once a second that it is there; what it has borrowed lapses after a second; and 600 calls of each are
    // two refills.
    let most = 3 * (seconds + seconds + 2);
    assert!(asked as u64 <= most, "{asked} questions in {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_used_up_to_the_last_and_never_beyond() {
    let Some(redis) = Redis::start("a quota shared by three gateways").await else {
        return;
    };
    let backend = answering().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(node(&backend, &redis, "share", "{quota: 100/month, key: global}").await);
    }
    together(&gateways).await;
    let clients = gateways
        .iter()
        .flat_map(|gateway| (0..2).map(|_| calls(gateway, 60)));
    let statuses: Vec<u16> = join_all(clients).await.concat();
    assert_eq!(allowed(&statuses), 100);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 260);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_node_has_its_share_or_all_or_nothing_and_with_it_again_the_whole() {
    let Some(mut redis) = Redis::start("the loss of redis").await else {
        return;
    };
    let backend = answering().await;
    let limit = "{rate: 90/h, burst: 90, key: global}";
    let mut gateways = Vec::new();
    for on_loss in ["share", "open", "closed"] {
        gateways.push(node(&backend, &redis, on_loss, limit).await);
    }
    together(&gateways).await;
    assert_eq!(calls(&gateways[0], 1).await, [200]);
    // In the middle of calls: none of them hangs, and none fails otherwise than as configured.
    let running = gateways.iter().map(|gateway| calls(gateway, 40));
    let (during, ()) = futures_util::future::join(join_all(running), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        redis.kill();
    })
    .await;
    assert!(
        during[2].iter().all(|status| matches!(status, 200 | 429 | 503)),
        "{during:?}"
    );
    assert!(
        during[1].iter().all(|status| matches!(status, 200 | 429)),
        "{during:?}"
    );
    join_all(
        gateways
            .iter()
            .map(|gateway| shows(gateway, "sabir_cluster_up 0")),
    )
    .await;
    assert_eq!(calls(&gateways[2], 20).await, [503; 20]);
    let open = calls(&gateways[1], 100).await;
    assert_eq!(allowed(&open), 100, "{open:?}");
    // A third of the limit, of which some may be used already, and what was borrowed before.
    let alone = [during[0].clone(), calls(&gateways[0], 90).await].concat();
    let tail = allowed(&alone[40..]);
    assert!(tail <= 30 + 4, "{tail}");
    assert_eq!(alone.last(), Some(&429));
    redis.restart().await;
    join_all(
        gateways
            .iter()
            .map(|gateway| shows(gateway, "sabir_cluster_up 1")),
    )
    .await;
    // It is empty, so that the whole limit is there again, for all of them together.
    let clients = gateways.iter().map(|gateway| calls(gateway, 60));
    let after: Vec<u16> = join_all(clients).await.concat();
    let allowed = allowed(&after);
    assert!((80..=90 + 3 * 4 + 2).contains(&allowed), "{allowed}: {after:?}");
}

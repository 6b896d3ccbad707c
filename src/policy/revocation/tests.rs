//! Tokens that are taken back, and what was begun with them.

use std::future::poll_fn;

use serde_json::json;

use super::list::Entry;
use super::*;
use crate::policy::identity::Claims;

fn identity(subject: &str, source: Source) -> Arc<Identity> {
    let claims = Claims {
        principal: subject.to_owned(),
        issuer: None,
        source,
        scopes: Vec::new(),
        roles: Vec::new(),
        others: json!({"jti": "t-1"}).as_object().cloned().unwrap(),
        expires: None,
    };
    Arc::new(Identity::new(claims, &[]))
}

fn by_redis(on_loss: OnLoss) -> RevocationSetup {
    RevocationSetup {
        file: None,
        redis: Some(RedisSetup {
            url: Secret("redis://127.0.0.1:1".into()),
            prefix: "sabir".into(),
            on_loss,
        }),
    }
}

fn list(text: &str) -> List {
    List::new(&[Entry::parse(text).unwrap()], 0)
}

#[test]
fn tokens_are_refused_before_redis_was_heard_and_others_are_not() {
    for on_loss in [OnLoss::Keep, OnLoss::Closed] {
        let revocations = Revocations::new(&by_redis(on_loss)).unwrap();
        for source in [Source::Token, Source::Introspection] {
            let told = revocations.check(&identity("ada", source), 100);
            assert_eq!(told, Err(Refusal::RevocationUnknown));
        }
        for source in [
            Source::ApiKey,
            Source::Password,
            Source::Certificate,
            Source::External,
        ] {
            assert_eq!(revocations.check(&identity("ada", source), 100), Ok(()));
        }
    }
}

#[test]
fn silence_of_redis_closes_or_not_as_is_configured() {
    for (on_loss, at_the_end) in [
        (OnLoss::Keep, Ok(())),
        (OnLoss::Closed, Err(Refusal::RevocationUnknown)),
    ] {
        let revocations = Revocations::new(&by_redis(on_loss)).unwrap();
        revocations.heard.store(100, Ordering::Relaxed);
        revocations.cluster.store(Arc::new(list(r#"{"sub": "eve"}"#)));
        let check = |subject, now| revocations.check(&identity(subject, Source::Token), now);
        assert_eq!(check("ada", 100 + SILENCE_SECONDS), Ok(()));
        assert_eq!(check("eve", 100 + SILENCE_SECONDS), Err(Refusal::Revoked));
        assert_eq!(check("ada", 101 + SILENCE_SECONDS), at_the_end);
    }
}

#[tokio::test]
async fn what_was_begun_with_a_token_ends_when_it_is_revoked() {
    let revocations = Arc::new(
        Revocations::new(&RevocationSetup {
            file: None,
            redis: None,
        })
        .unwrap(),
    );
    let bell = Arc::new(Bell::new(&revocations, &TaskTracker::new()));
    let mut standings =
        ["ada", "eve"].map(|subject| Standing::new(&bell, &identity(subject, Source::Token)).unwrap());
    for standing in &mut standings {
        let polled = poll_fn(|cx| Poll::Ready(standing.poll_revoked(cx))).await;
        assert!(polled.is_pending());
    }
    revocations.told_by_file(list(r#"{"sub": "eve"}"#));
    let [ada, eve] = standings.each_mut();
    let fault = poll_fn(|cx| eve.poll_revoked(cx)).await;
    assert_eq!(fault.kind(), crate::fault::Kind::CredentialsRevoked);
    // The bell has been rung for both.
    let polled = poll_fn(|cx| Poll::Ready(ada.poll_revoked(cx))).await;
    assert!(polled.is_pending());
    let mut late = Standing::new(&bell, &identity("eve", Source::Token)).unwrap();
    let fault = poll_fn(|cx| late.poll_revoked(cx)).await;
    assert_eq!(fault.kind(), crate::fault::Kind::CredentialsRevoked);
}

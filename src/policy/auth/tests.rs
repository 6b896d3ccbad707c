//! Credentials in request heads, and what is remembered of them.

use std::net::{Ipv4Addr, SocketAddr};

use aws_lc_rs::hmac;
use base64_simd::URL_SAFE_NO_PAD;
use http::Request;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::json;

use super::*;
use crate::policy::api_keys::{KeyFile, hash};
use crate::policy::identity::Source;
use crate::policy::jwks::{KeySet, Pace, Store};
use crate::policy::jwt::{Algorithm, ClaimNames, Issuer};

const NOW: u64 = 1_800_000_000;

fn token(secret: &[u8], expires: u64) -> String {
    let claims = json!({"iss": "tests", "aud": "library", "sub": "ada", "exp": expires}).to_string();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode_to_string(r#"{"alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode_to_string(claims)
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode_to_string(tag.as_ref()))
}

fn keys(secret: &[u8]) -> KeySet {
    KeySet::shared(secret, &[Algorithm::Hs256]).unwrap()
}

fn desk(store: &Arc<Store>) -> Arc<Desk> {
    let tokens = Verifier {
        issuers: vec![Issuer {
            name: "tests".into(),
            audiences: vec!["library".into()],
            algorithms: vec![Algorithm::Hs256],
            keys: Keys::Fetched(Arc::clone(store)),
            names: ClaimNames::default(),
        }],
        forwarded: Vec::new(),
    };
    let file = format!("keys: [{{label: program, sha256: {}}}]", hash("the key"));
    let carriers = KeyCarriers {
        header: Some(HeaderName::from_static("x-api-key")),
        cookie: Some("session".into()),
    };
    let api_keys = ApiKeys::new(KeyFile::parse(&file).unwrap()).unwrap();
    let setup = Setup {
        name: "members".into(),
        certificates: true,
        ..Setup::default()
    };
    let authenticator = Authenticator::new(
        &setup,
        Ways {
            tokens,
            api_keys: Some((api_keys, carriers)),
            ..Ways::default()
        },
    );
    Arc::new(Desk::new(Arc::new(authenticator), &TaskTracker::new()))
}

fn head(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn peer(certificates: Vec<Vec<u8>>) -> Peer {
    Peer::new(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        true,
        false,
        certificates,
    )
}

async fn asked(desk: &Arc<Desk>, headers: &[(&str, &str)], now: u64) -> Result<(String, Source), Refusal> {
    let proof = desk
        .identify(&mut head(headers), &peer(Vec::new()), &[], now)
        .await?;
    let proof = proof.unwrap();
    let claims = proof.identity.claims();
    Ok((claims.principal.clone(), claims.source))
}

fn store() -> Arc<Store> {
    let store = Arc::new(Store::new(Pace::default()));
    store.begin();
    store.put(keys(&[1; 32]), b"one");
    store.end();
    store
}

#[tokio::test]
async fn what_was_proven_is_remembered_until_it_ends_or_the_keys_change() {
    let store = store();
    let desk = desk(&store);
    let bearer = format!("Bearer {}", token(&[1; 32], NOW + 60));
    let headers = [("authorization", bearer.as_str())];
    for now in [NOW, NOW, NOW + 89] {
        assert_eq!(
            asked(&desk, &headers, now).await.unwrap(),
            ("ada".to_owned(), Source::Token)
        );
    }
    let expired = asked(&desk, &headers, NOW + 90).await;
    assert_eq!(expired, Err(Refusal::Token(TokenError::Expired)));
    asked(&desk, &headers, NOW).await.unwrap();
    store.put(keys(&[2; 32]), b"two");
    let withdrawn = asked(&desk, &headers, NOW).await;
    assert_eq!(
        withdrawn,
        Err(Refusal::Token(TokenError::Signature)),
        "the key is withdrawn"
    );
    let other = format!("Bearer {}", token(&[2; 32], NOW + 60));
    asked(&desk, &[("authorization", &other)], NOW).await.unwrap();
}

#[tokio::test]
async fn who_has_an_api_key_is_found_once_at_each_desk_and_every_time_while_the_key_holds() {
    let desk = desk(&store());
    let other = Arc::new(Desk::new(Arc::clone(desk.authenticator()), &TaskTracker::new()));
    let mut found = Vec::new();
    for desk in [&desk, &desk, &other] {
        let mut head = head(&[("x-api-key", "the key")]);
        let proof = desk.identify(&mut head, &peer(Vec::new()), &[], NOW).await;
        found.push(proof.unwrap().unwrap().identity);
    }
    let [first, second, third] = found.try_into().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!Arc::ptr_eq(&first, &third));
    assert_eq!(first.key(), third.key());
    // The same text as a token is no key, and does not make the key unknown.
    assert!(
        asked(&desk, &[("authorization", "Bearer the key")], NOW)
            .await
            .is_err()
    );
    let (who, _) = asked(&desk, &[("x-api-key", "the key")], NOW).await.unwrap();
    assert_eq!(who, first.principal());
}

#[tokio::test]
async fn the_first_credential_decides_and_a_wrong_one_is_not_made_up_for() {
    let desk = desk(&store());
    let good = format!("bearer  {}", token(&[1; 32], NOW + 60));
    let (bearer, bad) = (
        ("authorization", good.as_str()),
        ("authorization", "Bearer a.b.c"),
    );
    let (key, wrong) = (("x-api-key", "the key"), ("x-api-key", "a key"));
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let table: &[(Headers<'_>, Result<Source, Refusal>)] = &[
        (&[bearer], Ok(Source::Token)),
        (&[bearer, wrong], Ok(Source::Token)),
        (
            &[bad, key],
            Err(Refusal::Token(TokenError::Base64(
                crate::policy::jwt::Part::Header,
            ))),
        ),
        (&[bearer, bad], Err(Refusal::Header)),
        (&[("authorization", "Basic eA=="), key], Ok(Source::ApiKey)),
        (&[key], Ok(Source::ApiKey)),
        (&[wrong, ("cookie", "session=the key")], Err(Refusal::UnknownKey)),
        (&[key, key], Err(Refusal::UnknownKey)),
        (&[("cookie", "x=1; session=the key")], Ok(Source::ApiKey)),
        (
            &[("cookie", "x=1"), ("cookie", "session=the key")],
            Ok(Source::ApiKey),
        ),
        (
            &[("cookie", "xsession=the key")],
            Err(Refusal::Missing(String::new())),
        ),
        (
            &[("cookie", "session=the key"), ("sec-websocket-version", "13")],
            Err(Refusal::Origin),
        ),
    ];
    for (headers, expected) in table {
        let found = asked(&desk, headers, NOW).await.map(|(_, source)| source);
        match (found, expected) {
            (Err(Refusal::Missing(wanted)), Err(Refusal::Missing(_))) => {
                assert!(
                    wanted.contains("Bearer") && wanted.contains("x-api-key"),
                    "{wanted}"
                );
            }
            (found, expected) => assert_eq!(found, *expected, "{headers:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_a_caller_and_backends_see_no_secret() {
    let desk = desk(&store());
    let mut params = CertificateParams::default();
    let name = "spiffe://cluster/shop".try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(name)];
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let peer = peer(vec![certificate.der().to_vec()]);
    for _ in 0..2 {
        let mut head = head(&[
            ("cookie", "a=b"),
            ("x-sabir-principal", "root"),
            ("authorization", "Basic eA=="),
        ]);
        let proof = desk.identify(&mut head, &peer, &[], NOW).await.unwrap();
        let mut metadata = head.headers;
        proof.unwrap().tell(&mut metadata);
        assert_eq!(metadata["x-sabir-principal"], "spiffe://cluster/shop");
        assert_eq!(metadata["x-sabir-auth"], "mtls");
        assert_eq!(metadata["cookie"], "a=b");
        assert!(!metadata.contains_key("authorization"));
    }
    let nobody = CertificateParams::default()
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap();
    let peer = Peer::new(peer.address(), true, false, vec![nobody.der().to_vec()]);
    let refused = desk.identify(&mut head(&[]), &peer, &[], NOW).await;
    assert_eq!(refused.map(drop), Err(Refusal::Certificate));
}

//! Tokens that are believed, and everything that looks like one. Signatures are made by the tests' own few lines.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64_simd::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

/// The second in which these tests take place.
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example.com/";
const SECRET: &[u8; 64] = &[7; 64];

/// Signs with one key.
pub(in crate::policy) enum Signer {
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Hmac(Box<hmac::Key>),
}

impl Signer {
    fn sign(&self, signed: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair, encoding) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, signed, &mut out).unwrap();
                out
            }
            Self::Ec(pair) => pair.sign(&random, signed).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(signed).as_ref().to_vec(),
            Self::Hmac(key) => hmac::sign(key, signed).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims, as they are.
    pub(in crate::policy) fn token(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

fn rsa(size: KeySize) -> RsaKeyPair {
    RsaKeyPair::generate(size).unwrap()
}

fn copy(pair: &RsaKeyPair) -> RsaKeyPair {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    RsaKeyPair::from_pkcs8(der.as_ref()).unwrap()
}

fn ec(algorithm: &'static signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

fn rsa_jwk(pair: &RsaKeyPair) -> Value {
    // The DER of a key of 2,048 bits: a sequence of a modulus of 257 bytes, the first of them zero, and 65537.
    let der = pair.public_key().as_ref();
    assert_eq!((der[8], der.len()), (0, 270));
    json!({"kty": "RSA", "n": encode(&der[9..265]), "e": encode(&der[267..])})
}

fn ec_jwk(pair: &EcdsaKeyPair, crv: &str) -> Value {
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(point.len() / 2);
    json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
}

fn with(mut jwk: Value, members: &Value) -> Value {
    let (Some(jwk_members), Some(members)) = (jwk.as_object_mut(), members.as_object()) else {
        panic!("not objects");
    };
    jwk_members.extend(members.clone());
    jwk
}

/// Keys of every kind, made once: RSA takes its time.
struct World {
    rsa: RsaKeyPair,
    small: RsaKeyPair,
    other: Signer,
    es: [(EcdsaKeyPair, Algorithm, &'static str); 3],
    ed: Vec<u8>,
    set: String,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let rsa_pair = rsa(KeySize::Rsa2048);
    let es = [
        (
            ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es256,
            "P-256",
        ),
        (
            ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es384,
            "P-384",
        ),
        (
            ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::Es512,
            "P-521",
        ),
    ];
    let ed = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .unwrap()
        .as_ref()
        .to_vec();
    let ed_pair = Ed25519KeyPair::from_pkcs8(&ed).unwrap();
    let mut keys = vec![
        with(rsa_jwk(&rsa_pair), &json!({"kid": "rsa"})),
        with(
            rsa_jwk(&rsa_pair),
            &json!({"kid": "rs256 only", "alg": "RS256", "use": "sig"}),
        ),
        with(
            rsa_jwk(&rsa_pair),
            &json!({"kid": "for encryption", "use": "enc"}),
        ),
        with(
            rsa_jwk(&rsa_pair),
            &json!({"kid": "for signing", "key_ops": ["sign"]}),
        ),
        with(
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(ed_pair.public_key().as_ref())}),
            &json!({"kid": "EdDSA"}),
        ),
        json!({"kid": "oct", "kty": "oct", "k": encode(SECRET), "alg": "HS256"}),
        json!({"kid": "unknown", "kty": "XYZ"}),
    ];
    for (pair, algorithm, crv) in &es {
        keys.push(with(ec_jwk(pair, crv), &json!({"kid": algorithm.name()})));
    }
    World {
        set: json!({ "keys": keys }).to_string(),
        other: Signer::Rsa(rsa(KeySize::Rsa2048), &signature::RSA_PKCS1_SHA256),
        small: rsa(KeySize::Rsa2048),
        rsa: rsa_pair,
        es,
        ed,
    }
});

fn rs(encoding: &'static dyn signature::RsaEncoding) -> Signer {
    Signer::Rsa(copy(&WORLD.rsa), encoding)
}

fn rs256() -> Signer {
    rs(&signature::RSA_PKCS1_SHA256)
}

fn public() -> Vec<Algorithm> {
    let all = Algorithm::ALL.into_iter();
    all.filter(|algorithm| algorithm.key() != KeyKind::Secret)
        .collect()
}

fn issuer(keys: KeySet, algorithms: Vec<Algorithm>) -> Issuer {
    Issuer {
        name: ISSUER.into(),
        audiences: vec!["library".into(), "shop".into()],
        algorithms,
        keys: Keys::Fixed(Arc::new(keys)),
        names: ClaimNames::default(),
    }
}

fn verifier() -> Verifier {
    let mut second = issuer(
        KeySet::shared(SECRET, &[Algorithm::Hs256]).unwrap(),
        vec![Algorithm::Hs256],
    );
    second.name = "second".into();
    Verifier {
        issuers: vec![
            issuer(KeySet::parse(WORLD.set.as_bytes()).unwrap(), public()),
            second,
        ],
        forwarded: Vec::new(),
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "library", "sub": "ada", "exp": NOW + 60, "scope": "read write"})
}

fn changed(changes: &Value) -> String {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims.to_string()
}

#[track_caller]
fn refused(token: &str, expected: &TokenError) {
    match verifier().verify(token, NOW) {
        Ok(verified) => panic!("{token} was believed: {verified:?}"),
        Err(no) => assert_eq!(no.error, *expected, "{token}"),
    }
}

const HEADER: &str = r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#;

#[test]
fn every_algorithm_is_verified_with_its_own_kind_of_key() {
    let encodings: [(Algorithm, &'static dyn signature::RsaEncoding); 6] = [
        (Algorithm::Rs256, &signature::RSA_PKCS1_SHA256),
        (Algorithm::Rs384, &signature::RSA_PKCS1_SHA384),
        (Algorithm::Rs512, &signature::RSA_PKCS1_SHA512),
        (Algorithm::Ps256, &signature::RSA_PSS_SHA256),
        (Algorithm::Ps384, &signature::RSA_PSS_SHA384),
        (Algorithm::Ps512, &signature::RSA_PSS_SHA512),
    ];
    let mut signers: Vec<(Algorithm, &str, Signer)> = Vec::new();
    for (algorithm, encoding) in encodings {
        signers.push((algorithm, "rsa", rs(encoding)));
    }
    for (pair, algorithm, _) in &WORLD.es {
        let der = pair.to_pkcs8v1().unwrap();
        let signing = match algorithm {
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        let pair = EcdsaKeyPair::from_pkcs8(signing, der.as_ref()).unwrap();
        signers.push((*algorithm, algorithm.name(), Signer::Ec(pair)));
    }
    let ed = Ed25519KeyPair::from_pkcs8(&WORLD.ed).unwrap();
    signers.push((Algorithm::EdDsa, "EdDSA", Signer::Ed(ed)));
    for (algorithm, kid, signer) in &signers {
        let token = |name: &str| {
            signer.token(
                &json!({"alg": name, "kid": kid}).to_string(),
                &claims().to_string(),
            )
        };
        let verified = verifier().verify(&token(algorithm.name()), NOW).unwrap();
        assert_eq!(verified.identity.principal(), "ada");
        assert_eq!(verified.identity.claims().scopes, ["read", "write"]);
        // The same signature under every other name is refused, whatever the key.
        for other in Algorithm::ALL.into_iter().filter(|other| other != algorithm) {
            let error = verifier().verify(&token(other.name()), NOW).unwrap_err().error;
            let expected = match (other.key() == algorithm.key(), other.key()) {
                (true, _) => TokenError::Signature,
                (false, KeyKind::Secret) => TokenError::Algorithm,
                (false, _) => TokenError::UnknownKey,
            };
            assert_eq!(error, expected, "{algorithm} as {other}");
        }
    }
}

#[test]
fn a_token_never_chooses_its_algorithm() {
    for name in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "rs256",
        "RS256 ",
        "HS256\u{0}",
        "ES256K",
        "RSA-OAEP",
    ] {
        let header = json!({"alg": name, "kid": "rsa"}).to_string();
        refused(
            &rs256().token(&header, &claims().to_string()),
            &TokenError::Algorithm,
        );
    }
    for header in [
        r#"{"kid":"rsa"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["RS256"]}"#,
        r#"{"alg":256}"#,
    ] {
        refused(
            &rs256().token(header, &claims().to_string()),
            &TokenError::Algorithm,
        );
    }
    // The public key as the secret of an HMAC, in every form that a library might take it.
    let set: Value = serde_json::from_str(&WORLD.set).unwrap();
    let n = set["keys"][0]["n"].as_str().unwrap();
    for secret in [
        n.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode_to_vec(n).unwrap(),
        WORLD.set.clone().into_bytes(),
    ] {
        let signer = Signer::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
        let token = signer.token(r#"{"alg":"HS256","kid":"rsa"}"#, &claims().to_string());
        refused(&token, &TokenError::Algorithm);
    }
    // A secret in a set of public keys is not taken from there.
    let signer = Signer::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, SECRET)));
    refused(
        &signer.token(r#"{"alg":"HS256","kid":"oct"}"#, &claims().to_string()),
        &TokenError::Algorithm,
    );
    // The issuer that shares a secret takes no public key, and its algorithm alone.
    let second = changed(&json!({"iss": "second"}));
    let taken = signer.token(r#"{"alg":"HS256","kid":"any"}"#, &second);
    assert!(verifier().verify(&taken, NOW).is_ok());
    refused(&rs256().token(HEADER, &second), &TokenError::Algorithm);
    let longer = Signer::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA512, SECRET)));
    refused(
        &longer.token(r#"{"alg":"HS512"}"#, &second),
        &TokenError::Algorithm,
    );
}

#[test]
fn a_key_is_bound_to_its_algorithm_and_purpose() {
    let claims = claims().to_string();
    let token = |alg: &str, kid: &str, signer: &Signer| {
        signer.token(&json!({"alg": alg, "kid": kid}).to_string(), &claims)
    };
    assert!(
        verifier()
            .verify(&token("RS256", "rs256 only", &rs256()), NOW)
            .is_ok()
    );
    refused(
        &token("PS256", "rs256 only", &rs(&signature::RSA_PSS_SHA256)),
        &TokenError::UnknownKey,
    );
    for kid in [
        "for encryption",
        "for signing",
        "nobody",
        "",
        "../../rsa",
        "rsa' OR '1'='1",
        "RSA",
    ] {
        refused(&token("RS256", kid, &rs256()), &TokenError::UnknownKey);
    }
    refused(&token("RS256", "rsa", &WORLD.other), &TokenError::Signature);
    // Several keys fit, and the token names none.
    refused(
        &rs256().token(r#"{"alg":"RS256"}"#, &claims),
        &TokenError::UnknownKey,
    );
    let kid = "k".repeat(257);
    refused(&token("RS256", &kid, &rs256()), &TokenError::Kid);
    refused(
        &rs256().token(r#"{"alg":"RS256","kid":7}"#, &claims),
        &TokenError::Kid,
    );
    // With one key there is nothing to choose.
    let set = json!({"keys": [rsa_jwk(&WORLD.rsa)]}).to_string();
    let one = Verifier {
        issuers: vec![issuer(
            KeySet::parse(set.as_bytes()).unwrap(),
            vec![Algorithm::Rs256],
        )],
        forwarded: Vec::new(),
    };
    assert!(
        one.verify(&rs256().token(r#"{"alg":"RS256"}"#, &claims), NOW)
            .is_ok()
    );
    // The list of the issuer counts even where the key would do.
    let token = rs(&signature::RSA_PSS_SHA256).token(r#"{"alg":"PS256"}"#, &claims);
    assert_eq!(one.verify(&token, NOW).unwrap_err().error, TokenError::Algorithm);
}

#[test]
fn a_token_does_not_bring_its_own_key() {
    let claims = claims().to_string();
    let own = rsa_jwk(&WORLD.small);
    let signer = Signer::Rsa(copy(&WORLD.small), &signature::RSA_PKCS1_SHA256);
    for more in [
        json!({"jwk": own}),
        json!({"jku": "http://127.0.0.1:1/keys"}),
        json!({"x5u": "http://127.0.0.1:1/chain"}),
        json!({"x5c": ["AAAA"]}),
    ] {
        let header = with(json!({"alg": "RS256", "kid": "rsa"}), &more).to_string();
        refused(&signer.token(&header, &claims), &TokenError::Signature);
        // Signed by the issuer, the same header is passed over.
        assert!(
            verifier().verify(&rs256().token(&header, &claims), NOW).is_ok(),
            "{header}"
        );
    }
}

#[test]
fn what_has_two_readings_is_not_read() {
    let good = rs256().token(HEADER, &claims().to_string());
    assert!(verifier().verify(&good, NOW).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    let json_error = |part| TokenError::Json(part);
    for (token, expected) in [
        (String::new(), TokenError::Parts(1)),
        ("a".into(), TokenError::Parts(1)),
        (format!("{header}.{payload}"), TokenError::Parts(2)),
        (format!("{good}."), TokenError::Parts(4)),
        (format!("{good}.{signature}"), TokenError::Parts(4)),
        (format!("{header}.{payload}.."), TokenError::Parts(4)),
        (format!("{header}.{payload}.a.b"), TokenError::Parts(4)),
        (
            format!("{header}.{payload}."),
            TokenError::Base64(Part::Signature),
        ),
        (
            format!(".{payload}.{signature}"),
            TokenError::Base64(Part::Header),
        ),
        (format!("{header}..{signature}"), TokenError::Base64(Part::Claims)),
        (format!("{good}="), TokenError::Base64(Part::Signature)),
        (format!("{good}=="), TokenError::Base64(Part::Signature)),
        (
            format!("{header}=.{payload}.{signature}"),
            TokenError::Base64(Part::Header),
        ),
        (format!(" {good}"), TokenError::Base64(Part::Header)),
        (format!("{good} "), TokenError::Base64(Part::Signature)),
        (format!("{good}\n"), TokenError::Base64(Part::Signature)),
        (
            format!("{header}.{payload}\n.{signature}"),
            TokenError::Base64(Part::Claims),
        ),
        (
            good.replace(signature, &format!("+{}", &signature[1..])),
            TokenError::Base64(Part::Signature),
        ),
        (
            good.replace(signature, &format!("/{}", &signature[1..])),
            TokenError::Base64(Part::Signature),
        ),
        (
            format!("{header}.{payload}.é"),
            TokenError::Base64(Part::Signature),
        ),
    ] {
        refused(&token, &expected);
    }
    // A tail whose unused bits are set reads to the same bytes in lenient decoders.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let tail = format!("{}{next}", &good[..good.len() - 1]);
    refused(&tail, &TokenError::Base64(Part::Signature));
    // Names that stand twice, in either part and however they are spelt.
    for header in [
        r#"{"alg":"RS256","alg":"RS256","kid":"rsa"}"#,
        r#"{"alg":"RS256","\u0061lg":"none","kid":"rsa"}"#,
        "[]",
        "\"RS256\"",
        r#"{"alg":"RS256","kid":"rsa"}{}"#,
        "\u{feff}{\"alg\":\"RS256\",\"kid\":\"rsa\"}",
    ] {
        refused(
            &rs256().token(header, &claims().to_string()),
            &json_error(Part::Header),
        );
    }
    let text = claims().to_string();
    let twice = text.replace("\"sub\"", "\"sub\":\"eve\",\"sub\"");
    let nested = text.replace("\"sub\"", "\"realm\":{\"a\":1,\"a\":2},\"sub\"");
    for claims in [
        twice.as_str(),
        nested.as_str(),
        "[]",
        "null",
        "7",
        "{",
        &text.replace('}', "}}"),
    ] {
        refused(&rs256().token(HEADER, claims), &json_error(Part::Claims));
    }
}

#[test]
fn an_extension_that_is_not_known_is_refused() {
    for more in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
    ] {
        let header = with(json!({"alg": "RS256", "kid": "rsa"}), &more).to_string();
        refused(
            &rs256().token(&header, &claims().to_string()),
            &TokenError::Extension,
        );
    }
    for (kind, taken) in [
        ("JWT", true),
        ("jwt", true),
        ("at+jwt", true),
        ("application/at+jwt", true),
        ("logout+jwt", false),
        ("secevent+jwt", false),
        ("dpop+jwt", false),
        ("", false),
    ] {
        let header = json!({"alg": "RS256", "kid": "rsa", "typ": kind}).to_string();
        let token = rs256().token(&header, &claims().to_string());
        assert_eq!(verifier().verify(&token, NOW).is_ok(), taken, "{kind}");
    }
}

#[test]
fn a_token_has_a_largest_size() {
    let padded = |filler: usize| rs256().token(HEADER, &changed(&json!({"filler": "x".repeat(filler)})));
    let base = padded(0).len();
    let mut filler = (MAX_TOKEN_BYTES - base) * 3 / 4;
    while padded(filler).len() < MAX_TOKEN_BYTES {
        filler += 1;
    }
    let largest = padded(filler);
    assert_eq!(
        largest.len() > MAX_TOKEN_BYTES,
        verifier().verify(&largest, NOW).is_err()
    );
    assert!(verifier().verify(&padded(filler - 2), NOW).is_ok());
    refused(&padded(filler + 2), &TokenError::TooLarge);
    refused(&".".repeat(1 << 20), &TokenError::TooLarge);
    refused(
        &format!(
            "{}.{}.AAAA",
            encode(HEADER.as_bytes()),
            encode("[".repeat(5000).as_bytes())
        ),
        &TokenError::Json(Part::Claims),
    );
}

#[test]
fn claims_are_required_and_exact() {
    let table: &[(Value, Option<TokenError>)] = &[
        (json!({}), None),
        (json!({"iss": null}), Some(TokenError::Issuer)),
        (json!({"iss": "https://id.example.com"}), Some(TokenError::Issuer)),
        (
            json!({"iss": "HTTPS://id.example.com/"}),
            Some(TokenError::Issuer),
        ),
        (
            json!({"iss": "https://id.example.com/ "}),
            Some(TokenError::Issuer),
        ),
        (json!({"iss": [ISSUER]}), Some(TokenError::Issuer)),
        (json!({"aud": null}), Some(TokenError::Audience)),
        (json!({"aud": "other"}), Some(TokenError::Audience)),
        (json!({"aud": "Library"}), Some(TokenError::Audience)),
        (json!({"aud": "library shop"}), Some(TokenError::Audience)),
        (json!({"aud": []}), Some(TokenError::Audience)),
        (json!({"aud": ["other", "shop"]}), None),
        (json!({"aud": ["library", 7]}), Some(TokenError::Audience)),
        (json!({"aud": {"library": true}}), Some(TokenError::Audience)),
        (json!({"exp": null}), Some(TokenError::NoExpiry)),
        (
            json!({"exp": (NOW + 60).to_string()}),
            Some(TokenError::Date("exp")),
        ),
        (json!({"exp": true}), Some(TokenError::Date("exp"))),
        (json!({"exp": -1}), Some(TokenError::Date("exp"))),
        (json!({"exp": 1e300}), Some(TokenError::Date("exp"))),
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": NOW - 30}), Some(TokenError::Expired)),
        (json!({"exp": NOW as f64 - 29.5}), None),
        (json!({"exp": 0}), Some(TokenError::Expired)),
        (json!({"nbf": NOW + 30}), None),
        (json!({"nbf": NOW + 31}), Some(TokenError::NotYet)),
        (json!({"nbf": "now"}), Some(TokenError::Date("nbf"))),
        (json!({"iat": NOW + 30}), None),
        (json!({"iat": NOW + 31}), Some(TokenError::FromTheFuture)),
        (json!({"sub": null}), Some(TokenError::NoSubject)),
        (json!({"sub": ""}), Some(TokenError::NoSubject)),
        (json!({"sub": 7}), Some(TokenError::NoSubject)),
        (json!({"sub": null, "client_id": "robot"}), None),
    ];
    for (changes, expected) in table {
        let token = rs256().token(HEADER, &changed(changes));
        let outcome = verifier().verify(&token, NOW);
        assert_eq!(outcome.err().map(|no| no.error), *expected, "{changes}");
    }
    // The signature is looked at before the claims: what is forged learns nothing about them.
    refused(
        &WORLD.other.token(HEADER, &changed(&json!({"exp": 0}))),
        &TokenError::Signature,
    );
}

#[test]
fn what_was_signed_can_not_be_changed() {
    let good = rs256().token(HEADER, &claims().to_string());
    let parts: Vec<&str> = good.split('.').collect();
    let root = encode(changed(&json!({"sub": "root"})).as_bytes());
    refused(
        &format!("{}.{root}.{}", parts[0], parts[2]),
        &TokenError::Signature,
    );
    let header = encode(br#"{"alg":"RS256","kid":"rsa","typ":"JWT" }"#);
    refused(
        &format!("{header}.{}.{}", parts[1], parts[2]),
        &TokenError::Signature,
    );
    for wrong in [vec![0; 256], vec![0], vec![255; 257]] {
        refused(
            &format!("{}.{}.{}", parts[0], parts[1], encode(&wrong)),
            &TokenError::Signature,
        );
    }
    // ECDSA signatures of zeros, and in the other encoding.
    for length in [64, 63, 65, 70] {
        let signed = format!("{}.{}", encode(br#"{"alg":"ES256","kid":"ES256"}"#), parts[1]);
        refused(
            &format!("{signed}.{}", encode(&vec![0; length])),
            &TokenError::Signature,
        );
    }
}

#[test]
fn scopes_and_roles_are_where_the_issuer_has_them() {
    let mut verifier = verifier();
    let claims = changed(&json!({
        "scope": null, "scp": ["a", 7, "b"], "roles": "one two",
        "realm_access": {"roles": ["clerk"]}, "https://example.com/roles": ["owner"],
    }));
    let token = rs256().token(HEADER, &claims);
    let mut seen = |names: ClaimNames| {
        verifier.issuers[0].names = names;
        let verified = verifier.verify(&token, NOW).unwrap();
        let claims = verified.identity.claims();
        (claims.scopes.join(","), claims.roles.join(","))
    };
    let roles = |path: &str| ClaimNames {
        roles: Some(path.into()),
        scopes: None,
    };
    assert_eq!(seen(ClaimNames::default()), ("a,b".into(), "one,two".into()));
    assert_eq!(seen(roles("realm_access.roles")).1, "clerk");
    assert_eq!(seen(roles("https://example.com/roles")).1, "owner");
    assert_eq!(seen(roles("absent.roles")).1, "");
}

#[test]
fn a_set_of_keys_has_a_usable_one_or_is_none() {
    let n_of = |pair: &RsaKeyPair| rsa_jwk(pair)["n"].as_str().unwrap().to_owned();
    let n = n_of(&WORLD.rsa);
    let ec = ec_jwk(&WORLD.es[0].0, "P-256");
    for (key, usable) in [
        (rsa_jwk(&WORLD.rsa), true),
        (json!({"kty": "RSA", "n": n, "e": "AQAB=="}), false),
        (json!({"kty": "RSA", "n": &n[..n.len() / 2], "e": "AQAB"}), false),
        (
            json!({"kty": "RSA", "n": encode(&[0xff; 1025]), "e": "AQAB"}),
            false,
        ),
        (json!({"kty": "RSA", "n": n}), false),
        (with(rsa_jwk(&WORLD.rsa), &json!({"d": "AQAB"})), false),
        (with(rsa_jwk(&WORLD.rsa), &json!({"alg": "HS256"})), false),
        (with(rsa_jwk(&WORLD.rsa), &json!({"alg": "ES256"})), false),
        (with(rsa_jwk(&WORLD.rsa), &json!({"alg": "RSA-OAEP"})), false),
        (with(rsa_jwk(&WORLD.rsa), &json!({"alg": 7})), false),
        (with(rsa_jwk(&WORLD.rsa), &json!({"kid": 7})), false),
        (ec.clone(), true),
        (with(ec.clone(), &json!({"crv": "P-384"})), false),
        (with(ec.clone(), &json!({"crv": "secp256k1"})), false),
        (with(ec.clone(), &json!({"x": encode(&[1; 31])})), false),
        (with(ec, &json!({"x": encode(&[1; 32])})), false),
        (
            json!({"kty": "OKP", "crv": "X25519", "x": encode(&[1; 32])}),
            false,
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&[1; 31])}),
            false,
        ),
        (json!({"kty": "oct", "k": encode(SECRET)}), false),
        (json!("key"), false),
    ] {
        let set = json!({"keys": [key]}).to_string();
        assert_eq!(KeySet::parse(set.as_bytes()).is_ok(), usable, "{set}");
    }
    let many = json!({"keys": vec![rsa_jwk(&WORLD.rsa); 101]}).to_string();
    assert!(KeySet::parse(many.as_bytes()).is_err());
    for text in [
        "",
        "{}",
        "[]",
        "<html>",
        r#"{"keys": {}}"#,
        r#"{"keys": [], "keys": []}"#,
    ] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
    for (length, fits) in [(31, false), (32, true), (33, true)] {
        assert_eq!(
            KeySet::shared(&SECRET[..length], &[Algorithm::Hs256]).is_ok(),
            fits
        );
    }
}

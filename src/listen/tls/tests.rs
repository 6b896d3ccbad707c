//! Certificate files: what is wrong with them and how it is told.

use rcgen::{CertifiedKey as Made, KeyPair, generate_simple_self_signed};

use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn identity(&self, name: &str, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let Made { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        Identity {
            certificate: self.write(&format!("{name}.pem"), &cert.pem()),
            key: self.write(&format!("{name}.key"), &signing_key.serialize_pem()),
        }
    }
}

#[test]
fn each_error_names_its_file_and_what_is_wrong() {
    let files = Files::new();
    let good = files.identity("good", &["a"]);
    let empty = files.write("empty.pem", "no sections here\n");
    let torn = files.write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let garbage = files.write(
        "garbage.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let other = files.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    let junk = files.write(
        "junk.key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    let missing = files.0.path().join("missing.pem");
    let load = |certificate: &Path, key: &Path| {
        let identity = Identity {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        Tls::load(&[identity], None).unwrap_err().to_string()
    };
    let table = [
        (load(&missing, &good.key), "missing.pem: can't be read"),
        (load(&empty, &good.key), "empty.pem: no certificate in the file"),
        (load(&torn, &good.key), "torn.pem: not a PEM file"),
        (
            load(&garbage, &good.key),
            "garbage.pem: the certificate can't be used",
        ),
        (
            load(&good.certificate, &empty),
            "empty.pem: no private key in the file",
        ),
        (
            load(&good.certificate, &junk),
            "junk.key: the private key can't be used",
        ),
        (
            load(&good.certificate, &other),
            "other.key: the private key does not belong to the certificate in",
        ),
    ];
    for (error, expected) in table {
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    }
    let error = Tls::load(std::slice::from_ref(&good), Some(&empty)).unwrap_err();
    assert!(error.to_string().contains("empty.pem: no certificate"), "{error}");
    assert!(matches!(Tls::load(&[], None), Err(TlsError::Empty)));
    Tls::load(std::slice::from_ref(&good), Some(&good.certificate)).unwrap();
}

#[test]
fn names_are_exact_or_one_label_under_a_wildcard() {
    let files = Files::new();
    let identities = [
        files.identity("first", &["first.example"]),
        files.identity("wild", &["*.example.com"]),
        files.identity("exact", &["API.example.com", "first.example"]),
    ];
    let names = Names::load(&identities, &aws_lc_rs::default_provider()).unwrap();
    let expected = [
        ("first.example", Some(0)),
        ("api.example.com", Some(2)),
        ("Api.Example.com", Some(2)),
        ("www.example.com", Some(1)),
        ("a.www.example.com", None),
        ("example.com", None),
        ("", None),
    ];
    let files: Vec<_> = identities
        .iter()
        .map(|identity| certificates(&identity.certificate).unwrap())
        .collect();
    for (name, at) in expected {
        let found = names.find(name).map(|key| &key.cert);
        assert_eq!(found, at.map(|at: usize| &files[at]), "{name}");
    }
}

//! TLS from an independent client: names, protocols, client certificates.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{Gateway, refuse};
use crate::limits::Limits;
use crate::listen::Settings;
use crate::listen::tls::{Identity, Tls};

/// An authority and what it issues, as files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    files: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = name.replace('*', "any");
        Identity {
            certificate: self.write(&format!("{file}.pem"), &certificate.pem()),
            key: self.write(&format!("{file}.key"), &key.serialize_pem()),
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A client that trusts this authority, and shows `identity` if there is one.
    fn client(&self, alpn: &[&str], identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(
                    CertificateDer::pem_file_iter(&identity.certificate)
                        .unwrap()
                        .collect::<Result<_, _>>()
                        .unwrap(),
                    PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn gateway(identities: &[Identity], client_ca: Option<&Authority>) -> Gateway {
    let ca = client_ca.map(|authority| authority.write("ca.pem", &authority.pem));
    let mut settings = Settings::new(Limits::default(), refuse);
    settings.tls = Some(Tls::load(identities, ca.as_deref()).unwrap());
    Gateway::with(settings)
}

async fn connect(
    gateway: &Gateway,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// What `/peer` says over HTTP/1.1.
async fn peer(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream
        .write_all(b"GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn the_certificate_follows_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let names = ["first.example", "*.example.com", "api.example.com"];
    let identities = names.map(|name| authority.identity(name));
    let gateway = gateway(&identities, None);
    let config = authority.client(&["http/1.1"], None);
    // The client itself checks the name; which one of two valid ones it got shows in the certificate.
    for (name, at) in [
        ("first.example", 0),
        ("www.example.com", 1),
        ("api.example.com", 2),
    ] {
        let mut stream = connect(&gateway, &config, name).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let expected = CertificateDer::from_pem_file(&identities[at].certificate).unwrap();
        assert!(shown == expected, "{name}");
        assert!(peer(&mut stream).await.unwrap().contains("secure=true"));
    }
    let error = connect(&gateway, &config, "other.example").await.unwrap_err();
    assert!(error.to_string().contains("first.example"), "{error}");
}

#[tokio::test]
async fn alpn_chooses_the_protocol_and_its_absence_leaves_the_first_bytes() {
    let authority = Authority::new();
    let gateway = gateway(&[authority.identity("localhost")], None);
    for (alpn, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let config = authority.client(alpn, None);
        let mut stream = connect(&gateway, &config, "localhost").await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(protocol.as_deref(), chosen.map(str::as_bytes));
        if chosen != Some("h2") {
            assert!(peer(&mut stream).await.unwrap().starts_with("HTTP/1.1 200 "));
        }
    }
    for alpn in [&["h2"][..], &[]] {
        let config = authority.client(alpn, None);
        let stream = connect(&gateway, &config, "localhost").await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let _connection = tokio::spawn(connection);
        let request = http::Request::get("https://localhost/a").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_has_said_nothing_since_the_handshake_does_not_hold_up_draining() {
    let authority = Authority::new();
    let gateway = gateway(&[authority.identity("localhost")], None);
    let config = authority.client(&["http/1.1"], None);
    let mut silent = connect(&gateway, &config, "localhost").await.unwrap();
    gateway.drain.begin();
    let began = std::time::Instant::now();
    let mut rest = Vec::new();
    let _closed = silent.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(gateway.drain.done().await, crate::listen::Drained::Clean);
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let gateway = gateway(&[authority.identity("localhost")], None);
    let config = authority.client(&["http/1.1"], None);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = connect(&gateway, &config, "localhost").await.unwrap();
        peer(&mut stream).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
}

#[tokio::test]
async fn mutual_tls_wants_a_certificate_of_the_right_authority() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let clients = Authority::new();
    let gateway = gateway(&[authority.identity("localhost")], Some(&clients));
    let good = clients.identity("client");
    let bad = stranger.identity("client");
    for identity in [None, Some(&bad)] {
        let config = authority.client(&["http/1.1"], identity);
        // With TLS 1.3 the client is done before the server has judged it, so the error may come when it reads.
        let refused = match connect(&gateway, &config, "localhost").await {
            Ok(mut stream) => peer(&mut stream).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
    let config = authority.client(&["http/1.1"], Some(&good));
    for _ in 0..2 {
        let mut stream = connect(&gateway, &config, "localhost").await.unwrap();
        let said = peer(&mut stream).await.unwrap();
        assert!(
            said.ends_with("secure=true trusted=false certificates=1"),
            "{said}"
        );
    }
    assert_eq!(gateway.settings.counters.handshakes_failed.value(), 2);
}

#[tokio::test]
async fn cleartext_on_a_tls_port_is_told_so() {
    let authority = Authority::new();
    let gateway = gateway(&[authority.identity("localhost")], None);
    let mut client = gateway.client().await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert!(answer.status == 400 && answer.body.contains("TLS"), "{answer:?}");
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let authority = Authority::new();
    let limits = Limits {
        handshake_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let mut settings = Settings::new(limits, refuse);
    settings.tls = Some(Tls::load(&[authority.identity("localhost")], None).unwrap());
    let gateway = Gateway::with(settings);
    for bytes in ["", "\x16\x03\x01"] {
        let mut client = gateway.client().await;
        client.say(bytes).await;
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(gateway.settings.counters.handshakes_failed.value(), 2);
}

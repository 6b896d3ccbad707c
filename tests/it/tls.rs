//! TLS on a listener: certificates by name, ALPN, mutual TLS; and TLS towards a backend.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::backends::library;
use crate::support::clients::raw::Raw;
use crate::support::clients::rest::{Rest, Version, request};
use crate::support::gateway::{Gateway, Settings};
use crate::support::origin::{Origin, answer};
use crate::support::within;

/// A certificate chain and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An authority that a test makes up, and a folder for what it signs.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate for a name, into `NAME.pem` and `NAME.key`.
    pub(crate) fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// `certificate: …, key: …` in YAML.
    pub(crate) fn pair(&self, name: &str) -> String {
        format!(
            "certificate: {}, key: {}",
            self.file(&format!("{name}.pem")).display(),
            self.file(&format!("{name}.key")).display()
        )
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        let chain = CertificateDer::pem_file_iter(self.file(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
        (chain.map(Result::unwrap).collect(), key)
    }

    /// A client that trusts this authority, with a certificate of its own if one is given.
    pub(crate) fn client(&self, protocols: &[&[u8]], own: Option<Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}

pub(crate) async fn connect(
    address: SocketAddr,
    name: &'static str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    within(
        "the handshake",
        TlsConnector::from(Arc::new(config)).connect(name, socket),
    )
    .await
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_protocols_by_alpn() {
    let authority = Authority::new();
    authority.sign("one.test");
    authority.sign("two.test");
    let backend = library().await;
    let tls = format!(
        "tls: {{certificates: [{{{}}}, {{{}}}]}}",
        authority.pair("one.test"),
        authority.pair("two.test")
    );
    let gateway = Gateway::start(&Settings::to(backend.address).listener(&tls)).await;
    for name in ["one.test", "two.test"] {
        for (protocol, version) in [(&b"h2"[..], Version::Http2), (b"http/1.1", Version::Http1)] {
            let stream = connect(gateway.address, name, authority.client(&[protocol], None))
                .await
                .unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), Some(protocol));
            let mut client = Rest::over(stream, version).await;
            let mut call = request(Method::GET, &format!("https://{name}/v1/genres"), "");
            if version == Version::Http1 {
                call = request(Method::GET, "/v1/genres", "");
                call.headers_mut().insert("host", name.parse().unwrap());
            }
            assert_eq!(client.send(call).await.status, 200, "{name} {version:?}");
        }
    }
    // Who offers both gets HTTP/2.
    let stream = connect(
        gateway.address,
        "one.test",
        authority.client(&[b"http/1.1", b"h2"], None),
    )
    .await
    .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn mutual_tls_takes_certificates_of_its_authority_alone() {
    let authority = Authority::new();
    authority.sign("one.test");
    authority.sign("client.test");
    let stranger = Authority::new();
    stranger.sign("client.test");
    let backend = library().await;
    let tls = format!(
        "tls: {{{}, client_ca: {}}}",
        authority.pair("one.test"),
        authority.file("ca.pem").display()
    );
    let gateway = Gateway::start(&Settings::to(backend.address).listener(&tls)).await;
    let call = || request(Method::GET, "https://one.test/v1/genres", "");

    let known = authority.client(&[b"h2"], Some(authority.identity("client.test")));
    let stream = connect(gateway.address, "one.test", known).await.unwrap();
    let answer = Rest::over(stream, Version::Http2).await.send(call()).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let unknown = authority.client(&[b"h2"], Some(stranger.identity("client.test")));
    for config in [authority.client(&[b"h2"], None), unknown] {
        // With TLS 1.3 the client hears of it on its first read.
        if let Ok(stream) = connect(gateway.address, "one.test", config).await {
            let mut client = Rest::over(stream, Version::Http2).await;
            assert!(
                within("the refusal", client.start(call())).await.is_err(),
                "a stranger was served"
            );
        }
    }
}

#[tokio::test]
async fn cleartext_on_a_tls_port_is_not_served() {
    let authority = Authority::new();
    authority.sign("one.test");
    let backend = library().await;
    let tls = format!("tls: {{{}}}", authority.pair("one.test"));
    let gateway = Gateway::start(&Settings::to(backend.address).listener(&tls)).await;
    let told = Raw::exchange(
        gateway.address,
        "GET /v1/genres HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(!told.contains("200 OK"), "{told:?}");
}

/// A relay that ends TLS in front of a cleartext backend, with ALPN for this protocol.
async fn tls_in_front_of(
    backend: SocketAddr,
    authority: &Authority,
    name: &str,
    protocol: &str,
) -> SocketAddr {
    let (chain, key) = authority.identity(name);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.into()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(socket).await else {
                    return;
                };
                let mut inside = TcpStream::connect(backend).await.unwrap();
                // Either side may break it off, which ends the relay.
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_backend_behind_tls_is_believed_by_its_authority() {
    let authority = Authority::new();
    authority.sign("localhost");
    let backend = library().await;
    let secured = tls_in_front_of(backend.address, &authority, "localhost", "h2").await;
    let ca = authority.file("ca.pem");
    let to = |ca: &str| {
        let mut settings = Settings::to(secured)
            .schema("reflection")
            .backend(&format!("tls: {{ca: {ca}}}"));
        settings.endpoints = vec![format!("https://localhost:{}", secured.port())];
        settings
    };
    let gateway = Gateway::start(&to(ca.to_str().unwrap())).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let answer = client.get("/v1/shelves/1/books/7").await;
    assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.said());

    let other = Authority::new();
    let schema = format!("{{descriptors: {}}}", crate::support::messages::DESCRIPTORS);
    let gateway = Gateway::start(&to(other.file("ca.pem").to_str().unwrap()).schema(&schema)).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    client.get("/v1/shelves/1/books/7").await.error(503, 14);
}

#[tokio::test]
async fn an_origin_behind_tls_is_spoken_to_in_http1_on_a_connection_that_is_kept() {
    let authority = Authority::new();
    authority.sign("localhost");
    let origin = Origin::start(|seen| {
        // As long as what was sent, and longer than a record of TLS and than what is read at a time.
        let mut body = seen.body.to_vec();
        body.extend_from_slice(seen.line.as_bytes());
        answer(200, "text/plain", body)
    })
    .await;
    let secured = tls_in_front_of(origin.address, &authority, "localhost", "http/1.1").await;
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  site: {{protocol: rest, endpoints: [\"https://localhost:{}\"], tls: {{ca: {}}}}}
routes:
  - {{path: /**, backend: site}}
",
        secured.port(),
        authority.file("ca.pem").display(),
    ))
    .await;
    for version in [Version::Http1, Version::Http2] {
        let mut client = Rest::connect(gateway.address, version).await;
        for size in [0, 1, 20_000, 500_000] {
            let sent = client.post("/x", &"x".repeat(size)).await;
            assert_eq!(
                (sent.status.as_u16(), sent.text().len()),
                (200, size + 7),
                "{size}"
            );
            assert_eq!(client.get("/y").await.text(), "GET /y");
        }
    }
    assert_eq!(origin.connections(), 1, "{}", gateway.said());
}

//! Who a client certificate is for: its SPIFFE id, another URI, or a DNS name. The listener has verified the chain.

use serde_json::{Map, Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::identity::{Claims, Source};

/// The caller that a certificate, in DER, is for; `None` if it names nobody. Its common name is not looked at: nobody
/// who issues certificates promises what stands there.
pub(super) fn caller(der: &[u8]) -> Option<Claims> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(host) => hosts.push(host.to_ascii_lowercase()),
            _ => {}
        }
    }
    let spiffe = uris.iter().filter(|uri| uri.starts_with("spiffe://"));
    let principal = match spiffe.collect::<Vec<_>>().as_slice() {
        [one] => (*one).clone(),
        [] => uris.first().or_else(|| hosts.first())?.clone(),
        // Source: X.509-SVID, section 2: exactly one.
        _ => return None,
    };
    let end = certificate.validity().not_after.timestamp();
    let mut others = Map::new();
    others.insert("san".to_owned(), json!({"uri": uris, "dns": hosts}));
    others.insert(
        "serial".to_owned(),
        Value::String(certificate.raw_serial_as_string()),
    );
    Some(Claims {
        principal,
        issuer: None,
        source: Source::Certificate,
        scopes: Vec::new(),
        roles: Vec::new(),
        others,
        expires: Some(u64::try_from(end).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, string::Ia5String};

    use super::*;

    fn certificate(names: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text).unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(Ia5String::try_from(text).unwrap())
    }

    #[test]
    fn the_most_telling_name_is_the_principal() {
        let table: &[(&[SanType], Option<&str>)] = &[
            (
                &[dns("a.example"), uri("spiffe://cluster/shop")],
                Some("spiffe://cluster/shop"),
            ),
            (&[dns("A.example"), dns("b.example")], Some("a.example")),
            (
                &[dns("a.example"), uri("https://x/y"), uri("urn:z")],
                Some("https://x/y"),
            ),
            (
                &[uri("spiffe://cluster/shop"), uri("spiffe://cluster/till")],
                None,
            ),
            (&[], None),
        ];
        for (names, principal) in table {
            let found = caller(&certificate(names));
            assert_eq!(
                found.map(|caller| caller.principal).as_deref(),
                *principal,
                "{names:?}"
            );
        }
        assert_eq!(caller(b"not a certificate"), None);
    }
}

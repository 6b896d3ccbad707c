//! Where endpoints are, as written, with what the environment of a pod says filled in.

use std::path::PathBuf;

use http::Uri;
use http::uri::Scheme;

use super::file::{self, Endpoints, File};
use super::located::Located;
use crate::balance::Listed;
use crate::discover::endpoints::{Consul, Kubernetes, Name, Source};

/// Where Kubernetes puts what a pod's account is. Source: Kubernetes, "Accessing the API from within a Pod".
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the endpoints of a backend are.
pub fn source(file: &File, written: &file::Backend) -> Source {
    let resolve = |path: &Located<PathBuf>| file.origin.resolve(path);
    let by = match &written.endpoints.value {
        Endpoints::List(listed) => return Source::Listed(listed.iter().map(|it| self::listed(it)).collect()),
        Endpoints::Found(by) => by,
    };
    let name = |url: &Located<super::value::Endpoint>| Name {
        url: url.dialled(),
        server: by.server.as_ref().map(|server| server.0),
    };
    if let Some(path) = &by.file {
        return Source::File(resolve(path));
    }
    if let Some(url) = &by.dns {
        return Source::Dns(name(url));
    }
    if let Some(url) = &by.srv {
        return Source::Srv(name(url));
    }
    if let Some(consul) = &by.consul {
        return Source::Consul(Consul {
            url: match &consul.url {
                Some(url) => url.0.clone(),
                None => Uri::from_static("http://127.0.0.1:8500"),
            },
            service: consul.service.clone(),
            tag: consul.tag.clone(),
            datacenter: consul.datacenter.clone(),
            token: consul.token.as_ref().map(|token| token.0.clone()),
            ca: consul.ca.as_ref().map(resolve),
            scheme: scheme(consul.tls),
        });
    }
    match &by.kubernetes {
        Some(it) => Source::Kubernetes(Kubernetes {
            server: match &it.server {
                Some(url) => url.0.clone(),
                None => own_server().unwrap_or_else(|| Uri::from_static("https://kubernetes.default.svc")),
            },
            namespace: it.namespace.clone().or_else(own_namespace).unwrap_or_default(),
            service: it.service.clone(),
            port: it.port.clone(),
            scheme: scheme(it.tls),
            token: it.token.as_ref().map(resolve).or_else(|| own("token")),
            ca: it.ca.as_ref().map(resolve).or_else(|| own("ca.crt")),
        }),
        // The file was refused for it.
        None => Source::Listed(Vec::new()),
    }
}

fn listed(written: &file::Listed) -> Listed {
    Listed {
        uri: written.url.dialled(),
        weight: written.weight.map_or(1, |weight| weight.0),
        zone: written.zone.as_deref().map(Into::into),
    }
}

fn scheme(tls: bool) -> Scheme {
    if tls { Scheme::HTTPS } else { Scheme::HTTP }
}

/// A file of the pod's account, if the gateway runs in a pod.
fn own(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(ACCOUNT).join(name);
    path.exists().then_some(path)
}

/// The namespace of the pod that the gateway runs in.
pub(super) fn own_namespace() -> Option<String> {
    let text = std::fs::read_to_string(own("namespace")?).ok()?;
    Some(text.trim().to_owned())
}

/// Where the environment of the pod says that the API server is.
pub(super) fn own_server() -> Option<Uri> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    format!("https://{host}:{port}").parse().ok()
}

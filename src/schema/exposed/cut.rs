//! Which files may be seen, and files without what may not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::schema::files::{Header, MethodHeader, ServiceHeader};
use crate::schema::{FileProblem, Method, is_own, raw};

/// The exposed methods by the full name of their service.
#[derive(Debug, Default)]
pub(super) struct Visible(HashMap<String, HashSet<String>>);

impl<'a> FromIterator<&'a Arc<Method>> for Visible {
    fn from_iter<I: IntoIterator<Item = &'a Arc<Method>>>(methods: I) -> Self {
        let mut visible: HashMap<String, HashSet<String>> = HashMap::new();
        for method in methods {
            visible
                .entry(method.service.to_string())
                .or_default()
                .insert(method.name.to_string());
        }
        Self(visible)
    }
}

impl Visible {
    /// The full names of the services that have an exposed method.
    pub(super) fn services(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    fn service(&self, service: &str) -> bool {
        is_own(service) || self.0.contains_key(service)
    }

    fn method(&self, service: &str, method: &str) -> bool {
        is_own(service)
            || self
                .0
                .get(service)
                .is_some_and(|methods| methods.contains(method))
    }

    /// Whether everything that the service declares may be seen.
    fn whole(&self, full_name: &str, service: &ServiceHeader) -> bool {
        self.service(full_name)
            && service
                .methods
                .iter()
                .all(|method| self.method(full_name, &method.name))
    }
}

/// The names of the files that are served: what visible services need, and what no hidden service needs.
///
/// The second half is for types that travel in `google.protobuf.Any` alone.
pub(super) fn served(files: &[(Header, &Bytes)], visible: &Visible) -> HashSet<String> {
    let by_name: HashMap<&str, &Header> = files
        .iter()
        .map(|(header, _)| (header.name.as_str(), header))
        .collect();
    let needed_by = |wanted: &dyn Fn(&str) -> bool| {
        let mut needed: HashSet<&str> = HashSet::new();
        let mut waiting: Vec<&Header> = files
            .iter()
            .map(|(header, _)| header)
            .filter(|header| {
                header
                    .services
                    .iter()
                    .any(|service| wanted(&header.full_name(&service.name)))
            })
            .collect();
        while let Some(header) = waiting.pop() {
            if needed.insert(&header.name) {
                waiting.extend(
                    header
                        .imports
                        .iter()
                        .filter_map(|import| by_name.get(import.as_str()).copied()),
                );
            }
        }
        needed
    };
    let shown = needed_by(&|service| visible.service(service));
    let hidden = needed_by(&|service| !visible.service(service));
    by_name
        .keys()
        .filter(|name| shown.contains(*name) || !hidden.contains(*name))
        .map(|name| (*name).to_owned())
        .collect()
}

/// The file without its hidden services and methods; the same bytes where nothing is hidden.
///
/// Comments and positions go too: they count declarations by position, and a comment may speak of its neighbour.
pub(super) fn hide(header: &Header, file: &Bytes, visible: &Visible) -> Result<Bytes, FileProblem> {
    let whole = |service: &ServiceHeader| visible.whole(&header.full_name(&service.name), service);
    if header.services.iter().all(whole) {
        return Ok(file.clone());
    }
    let mut cut = Vec::with_capacity(file.len());
    for field in raw::fields(file) {
        let field = field?;
        match (field.number, field.value.bytes()) {
            (6, Some(declaration)) => {
                let service = ServiceHeader::read(declaration)?;
                let full_name = header.full_name(&service.name);
                if visible.whole(&full_name, &service) {
                    cut.extend_from_slice(field.span);
                } else if visible.service(&full_name) {
                    raw::put_bytes(&mut cut, 6, &hide_methods(&full_name, declaration, visible)?);
                }
            }
            (9, _) => {}
            _ => cut.extend_from_slice(field.span),
        }
    }
    Ok(cut.into())
}

fn hide_methods(full_name: &str, service: &[u8], visible: &Visible) -> Result<Vec<u8>, FileProblem> {
    let mut cut = Vec::with_capacity(service.len());
    for field in raw::fields(service) {
        let field = field?;
        let hidden = match (field.number, field.value.bytes()) {
            (2, Some(method)) => !visible.method(full_name, &MethodHeader::read(method)?.name),
            _ => false,
        };
        if !hidden {
            cut.extend_from_slice(field.span);
        }
    }
    Ok(cut)
}

/// The file under another name, importing by other names; everything else as it is.
pub(super) fn rename(
    file: &[u8],
    name: &str,
    imports: &HashMap<String, String>,
) -> Result<Bytes, FileProblem> {
    let mut renamed = Vec::with_capacity(file.len());
    for field in raw::fields(file) {
        let field = field?;
        match (field.number, field.value.text()) {
            (1, Some(_)) => raw::put_bytes(&mut renamed, 1, name.as_bytes()),
            (3, Some(import)) => {
                let import = imports.get(import).map_or(import, String::as_str);
                raw::put_bytes(&mut renamed, 3, import.as_bytes());
            }
            _ => renamed.extend_from_slice(field.span),
        }
    }
    Ok(renamed.into())
}

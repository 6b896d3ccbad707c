//! What was read and learned of schemas, so that what stays the same is not compiled again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::file::SchemaSource;
use crate::config::watch::Digest;
use crate::config::{self, Diagnostic, File, SchemaCache, SchemaState, told};
use crate::schema::Schema;
use crate::schema::reflection::Learned;
use crate::serve::lessons::State;
use crate::serve::registry::Entries;

/// What was read and learned, so that what stays the same is not compiled again.
#[derive(Debug, Default)]
pub(super) struct Known {
    files: SchemaCache,
    /// By backend: what it told, its rules, and what the two came to.
    taught: BTreeMap<String, (Arc<Learned>, Digest, SchemaState)>,
    /// By backend: what was registered, its rules, and what the two came to.
    registered: BTreeMap<String, (Arc<Schema>, Digest, SchemaState)>,
}

impl Known {
    /// Reads the files of a configuration's backends.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn files(&mut self, file: &File) -> Result<BTreeMap<String, SchemaState>, Vec<Diagnostic>> {
        self.files.schemas(file)
    }

    /// Adds what backends said to what files say.
    pub(super) fn learned(
        &mut self,
        file: &File,
        states: Vec<(String, State)>,
        schemas: &mut BTreeMap<String, SchemaState>,
    ) {
        for (name, state) in states {
            let Some(backend) = file.backends.get(&name) else {
                continue;
            };
            let state = match state {
                // What stands in its place says that it will be asked.
                State::Silent => continue,
                State::Refused(reason) => SchemaState::Pending(reason),
                State::Told(learned) => self.taught(file, &name, backend, learned),
            };
            schemas.insert(name, state);
        }
        self.taught.retain(|name, _| file.backends.contains_key(name));
    }

    /// Adds what is registered to what files say.
    ///
    /// # Errors
    /// What is wrong with rules that a backend has beside it.
    pub(super) fn registered(
        &mut self,
        file: &File,
        entries: &Entries,
        schemas: &mut BTreeMap<String, SchemaState>,
    ) -> Result<(), Vec<Diagnostic>> {
        self.registered.retain(|name, _| file.backends.contains_key(name));
        for (name, backend) in &file.backends {
            let Some(SchemaSource::Registry(wanted)) = backend.source() else {
                continue;
            };
            // What stands in its place says that it is not registered.
            let Some(entry) = entries.get(&wanted.value) else {
                continue;
            };
            let rules: Vec<_> = backend
                .rules
                .iter()
                .map(|path| file.origin.resolve(path))
                .collect();
            let digest = Digest::of(&rules);
            let state = match self.registered.get(name) {
                Some((known, its_rules, state))
                    if Arc::ptr_eq(known, &entry.schema) && *its_rules == digest =>
                {
                    state.clone()
                }
                Some(_) | None if rules.is_empty() => SchemaState::Ready(Arc::clone(&entry.schema)),
                Some(_) | None => {
                    let rules = config::rules(file, backend)?;
                    let schema = Schema::from_descriptor_set(&entry.registered.set, &rules)
                        .map_err(|error| vec![Diagnostic::error(format!("backends.{name}"), told(&error))])?;
                    SchemaState::Ready(Arc::new(schema))
                }
            };
            let known = (Arc::clone(&entry.schema), digest, state.clone());
            self.registered.insert(name.clone(), known);
            schemas.insert(name.clone(), state);
        }
        Ok(())
    }

    fn taught(
        &mut self,
        file: &File,
        name: &str,
        backend: &config::file::Backend,
        learned: Arc<Learned>,
    ) -> SchemaState {
        let rules: Vec<_> = backend
            .rules
            .iter()
            .map(|path| file.origin.resolve(path))
            .collect();
        let rules = Digest::of(&rules);
        let before = self.taught.get(name);
        if let Some((known, its_rules, state)) = before
            && Arc::ptr_eq(known, &learned)
            && *its_rules == rules
        {
            return state.clone();
        }
        let state = match config::taught(file, backend, Learned::clone(&learned)) {
            Ok(schema) => SchemaState::Ready(Arc::new(schema)),
            Err(error) => match before {
                Some((_, _, state @ SchemaState::Ready(_))) => {
                    tracing::error!(backend = name, error = %told(&error), "what a backend tells now makes no schema; the last one stays");
                    state.clone()
                }
                Some(_) | None => SchemaState::Pending(told(&error)),
            },
        };
        self.taught
            .insert(name.to_owned(), (learned, rules, state.clone()));
        state
    }
}

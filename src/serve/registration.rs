//! Orders about registered schemas: what is put is compiled, and the plan that it leads to, before it counts.

use std::sync::Arc;

use crate::admin::{PutSchema, Registered, RegistryError, Upload, WhileInUse};
use crate::config::told;
use crate::describe::inventory::Inventory;
use crate::serve::control::{Control, errors};
use crate::serve::registry;

impl Control {
    /// Registers a schema: it is compiled, and the plan that it leads to, and it is kept, before it counts.
    pub(super) async fn put_schema(
        &mut self,
        name: &str,
        upload: Upload,
    ) -> Result<PutSchema, RegistryError> {
        let failed = |error: &dyn std::error::Error| RegistryError::Kept(told(error));
        let compiled = {
            let (name, entries) = (name.to_owned(), self.entries.clone());
            self.aside(move |_, _| Ok(registry::compile(&name, upload, &entries)))
                .await
                .map_err(|error| failed(&error))?
        };
        let entry = compiled?;
        let registered = Arc::clone(&entry.registered);
        let mut warnings: Vec<String> = entry.schema.warnings.iter().map(ToString::to_string).collect();
        if self.fixed.data_dir.is_none() {
            warnings
                .push("there is no data_dir, so the schema is forgotten when the gateway ends".to_owned());
        }
        let before = self.entries.clone();
        self.entries.insert(name.to_owned(), entry);
        let outcome = self.entered(name, Some(&registered)).await;
        match outcome {
            Ok(changes) => Ok(PutSchema {
                registered,
                warnings,
                changes,
            }),
            Err(error) => {
                self.entries = before;
                Err(error)
            }
        }
    }

    pub(super) async fn delete_schema(
        &mut self,
        name: &str,
        in_use: WhileInUse,
    ) -> Result<(), RegistryError> {
        if !self.entries.contains_key(name) {
            return Err(RegistryError::Absent(name.to_owned()));
        }
        let plan = Arc::clone(&self.plans.borrow().plan);
        let goes_by = plan
            .backends
            .iter()
            .filter(|backend| backend.registry.as_deref() == Some(name));
        let users: Vec<String> = goes_by.map(|backend| backend.name.clone()).collect();
        if in_use == WhileInUse::Refuse && !users.is_empty() {
            return Err(RegistryError::InUse(users));
        }
        let before = self.entries.clone();
        self.entries.remove(name);
        let outcome = self.entered(name, None).await;
        if outcome.is_err() {
            self.entries = before;
        }
        outcome.map(drop)
    }

    /// Puts in place what the schemas that are registered now lead to, and keeps the one of this name, or forgets it. Says
    /// what has changed.
    async fn entered(
        &mut self,
        name: &str,
        registered: Option<&Arc<Registered>>,
    ) -> Result<Vec<String>, RegistryError> {
        let prepared = self
            .renewed()
            .await
            .map_err(|error| RegistryError::Plan(errors(&error)))?;
        let (before, after) = (Arc::clone(&self.plans.borrow().plan), Arc::clone(&prepared.plan));
        let (store, name, registered) = (self.store.clone(), name.to_owned(), registered.map(Arc::clone));
        let changes = self
            .aside(move |_, _| {
                match registered {
                    Some(registered) => store.keep(&name, &registered)?,
                    None => store.forget(&name)?,
                }
                Ok(Inventory::of(&before).changes(&Inventory::of(&after)))
            })
            .await
            .map_err(|error| RegistryError::Kept(told(&error)))?;
        self.place(prepared).await;
        self.registry.send_replace(registry::view(&self.entries));
        Ok(changes)
    }
}

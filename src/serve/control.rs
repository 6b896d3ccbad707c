//! The control task: what is learned becomes a plan, and the plan reaches the workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::admin::Readiness;
use crate::config::{self, File, Plan, SchemaState, told};
use crate::gateway::{Prepared, Shared};
use crate::observe::Metrics;
use crate::serve::ServeError;
use crate::serve::lessons::{Lessons, state};

/// Turns what is learned into plans.
pub(super) struct Control {
    pub(super) file: File,
    pub(super) schemas: BTreeMap<String, SchemaState>,
    pub(super) shared: Arc<Shared>,
    pub(super) plans: watch::Sender<Arc<Prepared>>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Metrics,
}

impl Control {
    pub(super) async fn run(mut self, mut lessons: Lessons) {
        while let Some((name, outcome)) = lessons.learned.recv().await {
            let ready = outcome.is_ok();
            self.schemas.insert(name.clone(), state(outcome));
            if ready {
                self.readiness.arrived(&format!("backend {name}"));
            }
            self.plan();
        }
    }

    fn plan(&self) {
        let generation = self.plans.borrow().plan.generation + 1;
        let prepared = compile(&self.file, &self.schemas, generation)
            .and_then(|plan| Ok(self.shared.prepare(Arc::new(plan))?));
        match prepared {
            Ok(prepared) => {
                announce(&prepared.plan, &self.readiness, &self.metrics);
                self.plans.send_replace(Arc::new(prepared));
            }
            Err(ServeError::Config(errors)) => {
                self.metrics.plan_refused();
                for error in errors {
                    tracing::error!("{error}");
                }
                tracing::error!("what was learned does not compile; the plan before stays");
            }
            Err(error) => {
                self.metrics.plan_refused();
                tracing::error!(error = %told(&error), "the plan before stays");
            }
        }
    }
}

pub(super) fn compile(
    file: &File,
    schemas: &BTreeMap<String, SchemaState>,
    generation: u64,
) -> Result<Plan, ServeError> {
    let mut plan = config::compile(file, schemas).map_err(ServeError::Config)?;
    plan.generation = generation;
    Ok(plan)
}

/// Tells operators what a plan leaves out.
pub(super) fn announce(plan: &Plan, readiness: &Readiness, metrics: &Metrics) {
    metrics.planned(plan.generation);
    for disabled in &plan.disabled {
        tracing::warn!(method = %disabled.method, rule = %disabled.rule, reason = %disabled.reason, "an HTTP rule is not in use");
    }
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    for pending in &plan.pending {
        tracing::warn!(backend = %pending.backend, reason = %pending.reason, "a backend has not told its schema yet");
        readiness.wait_for(format!("backend {}", pending.backend), pending.reason.clone());
    }
    tracing::info!(
        generation = plan.generation,
        methods = plan.entries.len(),
        "a plan is in place"
    );
}

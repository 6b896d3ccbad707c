//! Learning what backends offer, however long they take to say it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{self, File, SchemaState, told};
use crate::schema::Schema;
use crate::upstream::dice;

/// How long a start waits for backends to tell their schema; what comes later is learned while serving.
const FIRST_LESSON: Duration = Duration::from_secs(3);
/// How long one attempt to learn a schema may take.
const LESSON: Duration = Duration::from_secs(10);
/// The first pause between attempts; it doubles. Jitter takes up to half of it away.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause: a backend that comes up is found within a breath.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Schemas that may wait for the control task; each backend has at most one on its way.
const SCHEMAS_WAITING: usize = 16;

/// Schemas as they are learned by reflection.
pub(super) struct Lessons {
    pub(super) learned: mpsc::Receiver<(String, Result<Schema, String>)>,
    waiting: usize,
}

/// Starts a task for each backend that is to be asked.
pub(super) fn learn(
    file: &File,
    schemas: &BTreeMap<String, SchemaState>,
    background: &mut JoinSet<()>,
) -> Lessons {
    let (sender, learned) = mpsc::channel(SCHEMAS_WAITING);
    let mut waiting = 0;
    for (name, backend) in &file.backends {
        if matches!(schemas.get(name), Some(SchemaState::Ready(_))) {
            continue;
        }
        waiting += 1;
        let student = Student {
            name: name.clone(),
            file: file.clone(),
            endpoints: backend
                .endpoints
                .listed()
                .iter()
                .map(|listed| listed.url.0.clone())
                .collect(),
        };
        background.spawn(student.run(sender.clone()));
    }
    Lessons { learned, waiting }
}

impl Lessons {
    /// Waits for the first word of each backend, but not long.
    pub(super) async fn first(&mut self, schemas: &mut BTreeMap<String, SchemaState>) {
        let mut silent = self.waiting;
        let gathering = async {
            while silent > 0
                && let Some((name, outcome)) = self.learned.recv().await
            {
                silent -= 1;
                schemas.insert(name, state(outcome));
            }
        };
        // Who is silent for longer is learned while serving.
        let _ = tokio::time::timeout(FIRST_LESSON, gathering).await;
    }
}

pub(super) fn state(outcome: Result<Schema, String>) -> SchemaState {
    match outcome {
        Ok(schema) => SchemaState::Ready(Arc::new(schema)),
        Err(reason) => SchemaState::Pending(reason),
    }
}

/// Learns the schema of one backend, however long it takes.
struct Student {
    name: String,
    file: File,
    endpoints: Vec<http::Uri>,
}

impl Student {
    async fn run(self, sender: mpsc::Sender<(String, Result<Schema, String>)>) {
        let mut pause = FIRST_PAUSE;
        let mut said: Option<String> = None;
        for endpoint in self.endpoints.iter().cycle() {
            let outcome = self.ask(endpoint).await;
            let done = outcome.is_ok();
            // The same reason again is no news.
            if said.as_ref() != outcome.as_ref().err() || said.is_none() {
                said = outcome.as_ref().err().cloned();
                if sender.send((self.name.clone(), outcome)).await.is_err() {
                    return;
                }
            }
            if done {
                return;
            }
            let half = pause / 2;
            let jitter = dice::below(usize::try_from(half.as_millis()).unwrap_or(usize::MAX));
            tokio::time::sleep(half + Duration::from_millis(jitter as u64)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask(&self, endpoint: &http::Uri) -> Result<Schema, String> {
        let Some(backend) = self.file.backends.get(&self.name) else {
            return Err("it is not configured".to_owned());
        };
        config::learn(&self.file, backend, endpoint.clone(), LESSON)
            .await
            .map_err(|error| told(&error))
    }
}

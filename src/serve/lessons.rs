//! Learning what backends offer, however long they take to say it, and learning it anew when it changes.
//!
//! A backend that tells its schema is asked again and again, ever more seldom while it says the same. A call that it
//! does not understand although its schema has the method, one for a method that nobody has told of, and an endpoint that
//! comes beside others are doubts, and have it asked soon. One that falls silent keeps the schema that it told last.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::balance::Group;
use crate::config::file::SchemaSource;
use crate::config::watch::Digest;
use crate::config::{self, File, Plan, backend_tls, told};
use crate::discover::endpoints::Source;
use crate::route::entry::Doubt;
use crate::schema::reflection::Learned;
use crate::upstream::dice;

/// How long a start, or a reload with a new backend, waits for backends to tell their schema; what comes later is
/// learned while serving.
const FIRST_LESSON: Duration = Duration::from_secs(3);
/// How long one attempt to learn a schema may take.
const LESSON: Duration = Duration::from_secs(10);
/// The first pause between attempts at a backend that has told nothing yet; it doubles. Jitter takes up to half of any
/// pause away.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest of them: a backend that comes up is found within a breath.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The first pause after a backend has told something new; it doubles up to `reflection_interval`.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How often doubts are looked at.
const DOUBTS: Duration = Duration::from_millis(500);
/// The shortest time from one question to the next, however many doubts there are.
const LEAST: Duration = Duration::from_secs(2);
/// Lessons that may wait for the control task; each backend has at most one on its way.
const WAITING: usize = 16;

/// What a backend said, or why it said nothing.
#[derive(Debug)]
pub(super) struct Lesson {
    pupil: u64,
    outcome: Result<Arc<Learned>, String>,
}

/// All backends that are asked.
pub(super) struct Lessons {
    pupils: Vec<Pupil>,
    numbered: u64,
    tell: mpsc::Sender<Lesson>,
    heard: mpsc::Receiver<Lesson>,
    tasks: JoinSet<()>,
}

/// A backend that is asked, as this process knows it.
struct Pupil {
    number: u64,
    name: String,
    asked: Asked,
    state: State,
    doubts: Doubts,
    task: AbortHandle,
}

/// What makes a backend another one: it is asked anew.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    source: Source,
    tls: config::plan::BackendTls,
    files: Digest,
    longest: Duration,
}

/// What is known of a backend.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It has said nothing yet.
    Silent,
    /// It can't be asked, and why.
    Refused(String),
    /// What it said last.
    Told(Arc<Learned>),
}

/// The doubts about a backend that a plan has: one for each of its routes, and one for endpoints that come.
type Doubts = Arc<Mutex<Vec<Doubt>>>;

impl Drop for Pupil {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lessons {
    pub(super) fn new() -> Self {
        let (tell, heard) = mpsc::channel(WAITING);
        Self {
            pupils: Vec::new(),
            numbered: 0,
            tell,
            heard,
            tasks: JoinSet::new(),
        }
    }

    /// Begins to ask the backends of a configuration that are not asked yet. Those of another one go on.
    pub(super) fn follow(&mut self, file: &Arc<File>) {
        // Those that have ended are forgotten.
        while self.tasks.try_join_next().is_some() {}
        for (name, backend) in &file.backends {
            let Some(asked) = asked(file, backend) else {
                continue;
            };
            if self.pupils.iter().any(|pupil| pupil.is(name, &asked)) {
                continue;
            }
            self.numbered += 1;
            // Until it speaks for itself, what the backend of this name told before is most likely still true.
            let state = match self.pupils.iter().rfind(|pupil| pupil.name == *name) {
                Some(Pupil {
                    state: State::Told(learned),
                    ..
                }) => State::Told(Arc::clone(learned)),
                Some(_) | None => State::Silent,
            };
            let doubts = Doubts::default();
            let student = Student {
                number: self.numbered,
                name: name.clone(),
                file: Arc::clone(file),
                source: asked.source.clone(),
                longest: asked.longest,
                known: match &state {
                    State::Told(learned) => Some(Arc::clone(learned)),
                    State::Silent | State::Refused(_) => None,
                },
                doubts: Arc::clone(&doubts),
                tell: self.tell.clone(),
            };
            let task = self.tasks.spawn(student.run());
            self.pupils.push(Pupil {
                number: self.numbered,
                name: name.clone(),
                asked,
                state,
                doubts,
                task,
            });
        }
    }

    /// Goes on with the backends of a configuration alone.
    pub(super) fn settle(&mut self, file: &File) {
        self.pupils.retain(|pupil| {
            let asked = file
                .backends
                .get(&pupil.name)
                .and_then(|backend| asked(file, backend));
            asked.is_some_and(|asked| asked == pupil.asked)
        });
    }

    /// Listens for doubts about the routes of a plan, and for endpoints that come.
    pub(super) fn doubted(&self, plan: &Plan, groups: &[Arc<Group>]) {
        for pupil in &self.pupils {
            let at = plan
                .backends
                .iter()
                .position(|backend| backend.name == pupil.name);
            let routes = plan.declared.iter().map(|declared| &declared.route);
            let doubts = routes
                .filter(|route| Some(route.backend) == at)
                .map(|route| route.doubt.clone());
            let group = groups.iter().find(|group| **group.name() == *pupil.name);
            let newcomers = group.map(|group| group.newcomers().clone());
            *pupil.doubts.lock() = doubts.chain(newcomers).collect();
        }
    }

    /// What the backends of a configuration said, by name.
    pub(super) fn states(&self, file: &File) -> Vec<(String, State)> {
        let state = |(name, backend): (&String, _)| {
            let asked = asked(file, backend)?;
            let pupil = self.pupils.iter().find(|pupil| pupil.is(name, &asked))?;
            Some((name.clone(), pupil.state.clone()))
        };
        file.backends
            .iter()
            .map(|(name, backend)| (name, &backend.value))
            .filter_map(state)
            .collect()
    }

    /// Waits for the first word of each backend of a configuration, but not long.
    pub(super) async fn first(&mut self, file: &File) {
        let gathering = async {
            while self
                .states(file)
                .iter()
                .any(|(_, state)| matches!(state, State::Silent))
            {
                self.next().await;
            }
        };
        // Who is silent for longer is learned while serving.
        let _ = tokio::time::timeout(FIRST_LESSON, gathering).await;
    }

    /// Waits until a backend says something, takes what others have said as well, and says whether anything is other than
    /// it was.
    ///
    /// # Cancel safety
    /// What was said is taken or waits.
    pub(super) async fn next(&mut self) -> bool {
        let mut is_news = false;
        if let Some(lesson) = self.heard.recv().await {
            is_news |= self.take(lesson);
        }
        while let Ok(lesson) = self.heard.try_recv() {
            is_news |= self.take(lesson);
        }
        is_news
    }

    fn take(&mut self, lesson: Lesson) -> bool {
        let Some(pupil) = self.pupils.iter_mut().find(|pupil| pupil.number == lesson.pupil) else {
            return false;
        };
        match (lesson.outcome, &pupil.state) {
            (Ok(learned), _) => pupil.state = State::Told(learned),
            (Err(reason), State::Told(_)) => {
                tracing::warn!(backend = %pupil.name, %reason, "a backend can't be asked for its schema; the last one stays");
                return false;
            }
            (Err(reason), State::Silent | State::Refused(_)) => pupil.state = State::Refused(reason),
        }
        true
    }
}

impl Pupil {
    fn is(&self, name: &str, asked: &Asked) -> bool {
        self.name == name && self.asked == *asked
    }
}

/// How a backend is asked; nothing for one that is not.
fn asked(file: &File, backend: &config::file::Backend) -> Option<Asked> {
    match backend.source()? {
        SchemaSource::Reflection => {}
        SchemaSource::Protos(_) | SchemaSource::Descriptors(_) | SchemaSource::Registry(_) => return None,
    }
    let tls = backend_tls(file, backend);
    Some(Asked {
        source: config::source(file, backend),
        files: Digest::of(&tls.paths()),
        tls,
        longest: backend.reflection_interval.0,
    })
}

/// Asks one backend for as long as it is wanted.
struct Student {
    number: u64,
    name: String,
    file: Arc<File>,
    source: Source,
    /// The longest pause once it has told something.
    longest: Duration,
    known: Option<Arc<Learned>>,
    doubts: Doubts,
    tell: mpsc::Sender<Lesson>,
}

impl Student {
    async fn run(mut self) {
        let mut at = 0;
        let mut pause = FIRST_PAUSE;
        let mut said: Option<String> = None;
        loop {
            let asked = Instant::now();
            match self.ask(at).await {
                Ok(learned) => {
                    said = None;
                    let is_news = self.known.as_deref() != Some(&learned);
                    pause = if is_news {
                        FIRST_LOOK.min(self.longest)
                    } else {
                        (pause * 2).clamp(FIRST_LOOK.min(self.longest), self.longest)
                    };
                    if is_news {
                        let learned = Arc::new(learned);
                        self.known = Some(Arc::clone(&learned));
                        self.tell(Ok(learned)).await;
                    }
                    // The one that answered is asked again: of endpoints that are not of one mind, as in the middle of a
                    // roll-out, asking around would put one plan in place after the other.
                    if self.rest(asked, pause).await {
                        at += 1;
                    }
                }
                Err(reason) => {
                    // The same reason again is no news.
                    if said.as_ref() != Some(&reason) {
                        said = Some(reason.clone());
                        self.tell(Err(reason)).await;
                    }
                    at += 1;
                    let longest = if self.known.is_some() {
                        self.longest
                    } else {
                        LONGEST_PAUSE
                    };
                    pause = pause.min(longest.min(LONGEST_PAUSE));
                    self.rest(asked, pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if self.tell.is_closed() {
                return;
            }
        }
    }

    /// Waits for so long, less up to a half by chance, or until there is a doubt; says whether there is one.
    async fn rest(&self, asked: Instant, pause: Duration) -> bool {
        let half = pause / 2;
        let jitter = dice::below(usize::try_from(half.as_millis()).unwrap_or(usize::MAX));
        let until = Instant::now() + half + Duration::from_millis(jitter as u64);
        loop {
            let now = Instant::now();
            if now >= until {
                return false;
            }
            if self.is_doubted() {
                // Sooner than the next look anyway, if it is due before.
                tokio::time::sleep_until((asked + LEAST.min(self.longest)).min(until)).await;
                return true;
            }
            tokio::time::sleep_until(until.min(now + DOUBTS)).await;
        }
    }

    /// Whether there is a doubt. Each is lowered: it is answered once.
    fn is_doubted(&self) -> bool {
        let mut doubted = false;
        for doubt in &*self.doubts.lock() {
            doubted |= doubt.lower();
        }
        doubted
    }

    async fn tell(&self, outcome: Result<Arc<Learned>, String>) {
        // Where nobody listens any more, the task is about to be ended.
        let _ = self
            .tell
            .send(Lesson {
                pupil: self.number,
                outcome,
            })
            .await;
    }

    /// Asks one of the endpoints that are there now: `at` counts around.
    async fn ask(&self, at: usize) -> Result<Learned, String> {
        let endpoints = self.source.urls().await.map_err(|error| told(&error))?;
        let endpoint = at.checked_rem(endpoints.len()).and_then(|at| endpoints.get(at));
        let endpoint = endpoint.ok_or("it has no endpoint")?.clone();
        let Some(backend) = self.file.backends.get(&self.name) else {
            return Err("it is not configured".to_owned());
        };
        config::learn(&self.file, backend, endpoint, LESSON)
            .await
            .map_err(|error| told(&error))
    }
}

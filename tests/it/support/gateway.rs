//! The gateway as users run it: the built binary with a configuration file, on ports of its own.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::messages::DESCRIPTORS;
use super::within;

/// The file with HTTP rules.
const RULES: &str = "rules.yaml";

/// What to run the gateway with. Text fields are YAML, put in as they are.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What the backend speaks.
    pub(crate) protocol: &'static str,
    /// Endpoints of the backend.
    pub(crate) endpoints: Vec<String>,
    /// How the schema is learned.
    pub(crate) schema: String,
    /// Members of the backend, a line each.
    pub(crate) backend: String,
    /// Members of the route, a line each.
    pub(crate) route: String,
    /// Members of the listener, a line each.
    pub(crate) listener: String,
    /// Members of `limits`, a line each.
    pub(crate) limits: String,
    /// The text of a file with HTTP rules, if there is one.
    pub(crate) rules: Option<String>,
}

impl Settings {
    /// One gRPC backend whose schema is the compiled example service.
    pub(crate) fn to(backend: SocketAddr) -> Self {
        Self {
            protocol: "grpc",
            endpoints: vec![format!("http://{backend}")],
            schema: format!("{{descriptors: {DESCRIPTORS}}}"),
            backend: String::new(),
            route: String::new(),
            listener: String::new(),
            limits: String::new(),
            rules: None,
        }
    }

    pub(crate) fn schema(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.schema);
        self
    }

    pub(crate) fn backend(mut self, line: &str) -> Self {
        add(&mut self.backend, line);
        self
    }

    pub(crate) fn route(mut self, line: &str) -> Self {
        add(&mut self.route, line);
        self
    }

    pub(crate) fn listener(mut self, line: &str) -> Self {
        add(&mut self.listener, line);
        self
    }

    pub(crate) fn limit(mut self, line: &str) -> Self {
        add(&mut self.limits, line);
        self
    }

    /// The configuration file.
    fn yaml(&self) -> String {
        let mut yaml = String::from("listeners:\n  - address: 127.0.0.1:0\n");
        indent(&mut yaml, 4, &self.listener);
        yaml.push_str("admin:\n  address: 127.0.0.1:0\nworkers: 1\n");
        if !self.limits.is_empty() {
            yaml.push_str("limits:\n");
            indent(&mut yaml, 2, &self.limits);
        }
        yaml.push_str("backends:\n  library:\n");
        writeln!(yaml, "    protocol: {}", self.protocol).unwrap();
        writeln!(yaml, "    endpoints: [{}]", self.endpoints.join(", ")).unwrap();
        writeln!(yaml, "    schema: {}", self.schema).unwrap();
        if self.rules.is_some() {
            writeln!(yaml, "    rules: [{RULES}]").unwrap();
        }
        indent(&mut yaml, 4, &self.backend);
        yaml.push_str("routes:\n  - services: [\"*\"]\n    backend: library\n");
        indent(&mut yaml, 4, &self.route);
        yaml
    }
}

fn add(lines: &mut String, line: &str) {
    lines.push_str(line);
    lines.push('\n');
}

fn indent(yaml: &mut String, by: usize, lines: &str) {
    for line in lines.lines() {
        writeln!(yaml, "{:by$}{line}", "").unwrap();
    }
}

/// A running gateway. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Where health and metrics are.
    pub(crate) admin: SocketAddr,
    process: Process,
    /// Holds the configuration file for as long as the process may read it.
    folder: TempDir,
}

impl Gateway {
    /// Starts the gateway and waits until it serves.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let rules = settings.rules.as_ref().map(|text| (RULES, text.as_str()));
        Self::with_files(&settings.yaml(), rules).await
    }

    /// The same in front of one backend, with nothing special.
    pub(crate) async fn to(backend: SocketAddr) -> Self {
        Self::start(&Settings::to(backend)).await
    }

    /// Starts the gateway with a whole configuration.
    pub(crate) async fn with_config(yaml: &str) -> Self {
        Self::with_files(yaml, None).await
    }

    /// The same with more files beside it, each a name and its text.
    pub(crate) async fn with_files<'a>(
        yaml: &str,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self::in_folder(folder, yaml).await
    }

    /// The same, in a folder that holds what the configuration names.
    pub(crate) async fn in_folder(folder: TempDir, yaml: &str) -> Self {
        let file = folder.path().join("sabir.yaml");
        std::fs::write(&file, yaml).unwrap();
        let process = Process::start(&["serve", "--config", file.to_str().unwrap()], folder.path());
        let admin = process.address_after("admin on ").await;
        let address = process.address_after("listening on ").await;
        Self {
            address,
            admin,
            process,
            folder,
        }
    }

    /// Where the configuration file is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts another configuration in the place of the file, at once.
    pub(crate) fn rewrite(&self, yaml: &str) {
        let next = self.folder.path().join("next.yaml");
        std::fs::write(&next, yaml).unwrap();
        std::fs::rename(next, self.folder.path().join("sabir.yaml")).unwrap();
    }

    /// Sends the process a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// What the gateway has said so far.
    pub(crate) fn said(&self) -> String {
        self.process.said()
    }

    /// Waits until the gateway has said this.
    pub(crate) async fn says(&self, what: &str) -> String {
        self.process.says(what).await
    }

    /// Asks the process to end, as an init system does.
    pub(crate) fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// Resident memory in bytes, without the pages of the program, which come and go.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// How many pipes the process has, standard output among them.
    #[cfg(target_os = "linux")]
    pub(crate) fn pipes(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process.child.id())).unwrap();
        let names = open.filter_map(|one| std::fs::read_link(one.unwrap().path()).ok());
        let pipes = names.filter(|name| name.to_string_lossy().starts_with("pipe:"));
        pipes.collect::<std::collections::HashSet<_>>().len()
    }
}

/// A program of this crate, with what it says on both of its outputs.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<String>,
    /// Pipes that may still say something: two at first.
    open: AtomicUsize,
    more: Notify,
}

impl Output {
    /// Collects a pipe, line by line, on a thread of its own.
    fn collect(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut lines = output.lines.lock();
                lines.push_str(&line);
                lines.push('\n');
                drop(lines);
                output.more.notify_waiters();
            }
            output.open.fetch_sub(1, Ordering::AcqRel);
            output.more.notify_waiters();
        });
    }
}

impl Process {
    /// Runs the gateway's binary with these arguments in this folder.
    pub(crate) fn start(arguments: &[&str], folder: &Path) -> Self {
        Self::run(Path::new(env!("CARGO_BIN_EXE_sabir")), arguments, folder)
    }

    /// The same with variables of the environment.
    pub(crate) fn with_environment(arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sabir"));
        command.envs(variables.iter().copied());
        Self::spawn(command, arguments, folder)
    }

    /// Runs any program.
    pub(crate) fn run(program: &Path, arguments: &[&str], folder: &Path) -> Self {
        Self::spawn(Command::new(program), arguments, folder)
    }

    fn spawn(mut command: Command, arguments: &[&str], folder: &Path) -> Self {
        let mut child = command
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let output = Arc::new(Output {
            open: AtomicUsize::new(2),
            ..Output::default()
        });
        output.collect(child.stdout.take().unwrap());
        output.collect(child.stderr.take().unwrap());
        Self { child, output }
    }

    pub(crate) fn said(&self) -> String {
        self.output.lines.lock().clone()
    }

    /// Whether both of its outputs have ended.
    pub(crate) fn has_said_all(&self) -> bool {
        self.output.open.load(Ordering::Acquire) == 0
    }

    /// Waits until a line with `what` is there, and gives it.
    pub(crate) async fn says(&self, what: &str) -> String {
        let line = async {
            loop {
                let more = self.output.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                let silent = self.output.open.load(Ordering::Acquire) == 0;
                if let Some(line) = self.said().lines().find(|line| line.contains(what)) {
                    return line.to_owned();
                }
                assert!(
                    !silent,
                    "it ended without saying {what:?}; all it said:\n{}",
                    self.said()
                );
                more.await;
            }
        };
        match tokio::time::timeout(super::PATIENCE, line).await {
            Ok(line) => line,
            Err(_) => panic!("never said {what:?}; all it said:\n{}", self.said()),
        }
    }

    /// The address that follows these words in a line.
    pub(crate) async fn address_after(&self, words: &str) -> SocketAddr {
        let line = self.says(words).await;
        let (_, rest) = line.split_once(words).unwrap();
        let address: String = rest
            .chars()
            .take_while(|letter| letter.is_ascii_hexdigit() || ".:[]".contains(*letter))
            .collect();
        address
            .parse()
            .unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} failed");
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("the end of the process", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                // The standard library has no event for this; the pause is between looks, not before them.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended on its own, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("what the process said:\n{}", self.said());
        }
    }
}

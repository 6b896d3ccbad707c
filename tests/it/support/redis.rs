//! Redis as Debian has it, on a port of its own. Tests that need it say so, and pass, where it is not installed.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::gateway::Process;
use super::within;

/// A running Redis. Dropping it kills the process.
pub(crate) struct Redis {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    program: PathBuf,
    folder: TempDir,
    process: Option<Process>,
}

/// The program: `SABIR_TEST_REDIS` names it, or it is on the path.
fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("SABIR_TEST_REDIS") {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("redis-server"))
        .find(|program| program.is_file())
}

impl Redis {
    /// Starts it, where it is installed; otherwise says what is left out.
    pub(crate) async fn start(what: &str) -> Option<Self> {
        let Some(program) = program() else {
            println!("left out, for want of redis-server: {what}");
            return None;
        };
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut redis = Self {
            address,
            program,
            folder: TempDir::new().unwrap(),
            process: None,
        };
        redis.restart().await;
        Some(redis)
    }

    /// Ends it at once, without a word to anybody.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it anew, empty, at the same address.
    pub(crate) async fn restart(&mut self) {
        let port = self.address.port().to_string();
        let arguments = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let folder: &Path = self.folder.path();
        let process = Process::run(&self.program, &arguments, folder);
        process.says("Ready to accept connections").await;
        self.process = Some(process);
    }

    /// The URL for gateways.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Asks it something in one line, and gives what it answers in one go.
    pub(crate) async fn ask(&self, line: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket
            .write_all(format!("{line}\r\nQUIT\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = Vec::new();
        within("the answer of redis", socket.read_to_end(&mut answer))
            .await
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// How often scripts were run.
    pub(crate) async fn scripts(&self) -> usize {
        let stats = self.ask("INFO commandstats").await;
        let calls = |name: &str| {
            let line = stats.lines().find(|line| line.starts_with(name))?;
            let (_, rest) = line.split_once("calls=")?;
            rest.split(',').next()?.parse::<usize>().ok()
        };
        calls("cmdstat_evalsha:").unwrap_or(0)
    }
}

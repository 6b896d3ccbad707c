//! The gateway in a process of its own, for examples that look at it from outside.

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::NamedTempFile;

/// How long a gateway may take to listen; under an instrument that is long.
const STARTING: Duration = Duration::from_secs(60);

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A running gateway; it ends with this value.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Where it listens for clients.
    pub(crate) address: SocketAddr,
    child: Child,
    /// Where its configuration is.
    _file: NamedTempFile,
}

impl Gateway {
    /// Starts `command`, which is the program with what stands before it, on a configuration.
    ///
    /// # Errors
    /// It can't be started, or ends before it listens; what it said is in the error.
    pub(crate) fn start(mut command: Command, configuration: &str) -> Result<Self, Failure> {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        file.write_all(configuration.as_bytes())?;
        let mut child = command
            .args(["--log-format", "json", "serve", "--config"])
            .arg(file.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (told, heard) = mpsc::channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let told = told.clone();
            std::thread::spawn(move || {
                // Read to the end, so that the gateway is never held up; after the start nobody listens.
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = told.send(line);
                }
            });
        }
        drop(told);
        let mut gateway = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            _file: file,
        };
        let mut said = String::new();
        while let Ok(line) = heard.recv_timeout(STARTING) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                gateway.address = rest.split('"').next().unwrap_or_default().parse()?;
                return Ok(gateway);
            }
            said.push_str(&line);
            said.push('\n');
        }
        Err(format!("the gateway does not listen: {said}").into())
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

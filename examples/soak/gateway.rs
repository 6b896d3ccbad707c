//! The gateway as users run it: a process with a configuration that changes.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::Failure;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: u64,
}

/// A running gateway; it ends with this.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    folder: TempDir,
    upstreams: Vec<SocketAddr>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Gateway {
    /// Starts the program and waits until it serves.
    pub(crate) async fn start(program: &Path, upstreams: Vec<SocketAddr>) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        let file = folder.path().join("sabir.yaml");
        fs::write(&file, configuration(&upstreams, 0))?;
        let mut child = Command::new(program)
            .args(["--log-format", "text", "serve", "--config"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                format!(
                    "{} does not start: {error}; build it by cargo build --release",
                    program.display()
                )
            })?;
        let output = child.stdout.take().ok_or("no output")?;
        let words = ["listening on ", "admin on "];
        let (sender, mut addresses) = mpsc::channel(2);
        // Reads to the end, so that the gateway never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                for (at, words) in words.iter().enumerate() {
                    if let Some((_, address)) = line.split_once(words) {
                        // Nobody waits for more than the two.
                        let _ = sender.try_send((at, address.trim().to_owned()));
                    }
                }
            }
        });
        let mut said = [const { None }; 2];
        while said.iter().any(Option::is_none) {
            let (at, address) = addresses.recv().await.ok_or("the gateway ended")?;
            if let Some(said) = said.get_mut(at) {
                *said = Some(address.parse()?);
            }
        }
        let [Some(address), Some(admin)] = said else {
            return Err("the gateway does not say where it is".into());
        };
        Ok(Self {
            address,
            admin,
            child,
            folder,
            upstreams,
        })
    }

    /// Writes another configuration; each round differs from the one before.
    pub(crate) fn configure(&self, round: u64) -> Result<(), Failure> {
        let next = self.folder.path().join("next.yaml");
        fs::write(&next, configuration(&self.upstreams, round))?;
        fs::rename(next, self.folder.path().join("sabir.yaml"))?;
        Ok(())
    }

    /// Has it put in place what is written.
    pub(crate) async fn reload(&self) -> Result<(), Failure> {
        let stream = TcpStream::connect(self.admin).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::post("/v1/reload")
            .header("host", self.admin.to_string())
            .body(Full::new(Bytes::from_static(b"{}")))?;
        let response = sender.send_request(request).await?;
        let (status, body) = (
            response.status(),
            response.into_body().collect().await?.to_bytes(),
        );
        let told: serde_json::Value = serde_json::from_slice(&body)?;
        if status != 200 || told["errors"].as_array().is_some_and(|errors| !errors.is_empty()) {
            return Err(format!("{status} {told}").into());
        }
        Ok(())
    }

    /// What it holds now.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let process = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = line.and_then(|line| line.split_whitespace().next());
        Ok(Usage {
            resident_kib: resident.ok_or("the gateway has no memory")?.parse()?,
            descriptors: fs::read_dir(format!("{process}/fd"))?.count() as u64,
        })
    }
}

/// The configuration of a round: limits, a route and the order of endpoints come and go.
fn configuration(upstreams: &[SocketAddr], round: u64) -> String {
    let mut endpoints: Vec<String> = upstreams.iter().map(|at| format!("\"http://{at}\"")).collect();
    let many = endpoints.len() as u64;
    endpoints.rotate_left(usize::try_from(round % many).unwrap_or_default());
    let more = match round % 2 {
        0 => "",
        _ => "  - {services: [library.v1.Library], backend: library, json: {emit_defaults: true}}\n",
    };
    format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 2
limits: {{request_timeout: {}s}}
backends:
  library:
    endpoints: [{}]
    slow_start: 1s
    health_check: {{interval: 300ms, timeout: 1s, healthy: 1, unhealthy: 2}}
    ejection: {{base: 500ms, longest: 2s}}
    retry: {{max: 3, budget_per_second: 100}}
    timeout: {{per_try: 2s}}
routes:
  - {{services: [\"*\"], backend: library}}
{more}",
        14 + round % 3,
        endpoints.join(", ")
    )
}

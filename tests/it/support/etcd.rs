//! etcd as Debian has it, with its own client. Tests that need them say so, and pass, where they are not installed.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::gateway::Process;
use super::within;

/// A running etcd. Dropping it kills the process.
pub(crate) struct Etcd {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    client: PathBuf,
    _process: Process,
    _folder: TempDir,
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

impl Etcd {
    /// Starts it, where it is installed; otherwise says what is left out.
    pub(crate) async fn start(what: &str) -> Option<Self> {
        let (Some(program), Some(client)) = (on_path("etcd"), on_path("etcdctl")) else {
            println!("left out, for want of etcd and etcdctl: {what}");
            return None;
        };
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (url, any) = (format!("http://{address}"), "http://127.0.0.1:0");
        let folder = TempDir::new().unwrap();
        let arguments = [
            "--data-dir",
            "data",
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            any,
            "--initial-advertise-peer-urls",
            any,
            "--initial-cluster",
            "default=http://127.0.0.1:0",
        ];
        let process = Process::run(&program, &arguments, folder.path());
        process.says("ready to serve client requests").await;
        Some(Self {
            address,
            client,
            _process: process,
            _folder: folder,
        })
    }

    /// What its own client says, in one go.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.client);
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=http://{}", self.address))
            .args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = within("the end of etcdctl", output).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON.
    pub(crate) async fn ctl_json(&self, arguments: &[&str]) -> Value {
        let text = self.ctl(&[arguments, &["-w", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

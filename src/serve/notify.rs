//! Telling the service manager how far the process is, in the few words that systemd understands.
//!
//! Source: sd_notify(3). A process that was not started by a service manager tells nobody.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct Manager(Option<UnixDatagram>);

impl Manager {
    /// The one that `NOTIFY_SOCKET` names. What can't be reached is told once and left alone.
    pub(super) fn of_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self(None);
        };
        match connect(name.as_bytes()) {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                tracing::warn!(%error, "the service manager can't be reached");
                Self(None)
            }
        }
    }

    /// The process serves. `MAINPID` is said because it may have taken over from the one that the manager knows.
    pub(super) fn ready(&self) {
        self.tell(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// The configuration is read again; [`Manager::ready`] follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now
            .tv_sec
            .saturating_mul(1_000_000)
            .saturating_add(now.tv_nsec / 1_000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The process is about to end.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Every worker is alive.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, words: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(words.as_bytes())
        {
            tracing::debug!(%error, words, "the service manager does not listen");
        }
    }
}

/// How often the manager wants to hear that the process is alive: half the time after which it would end it.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0)?;
    // What is meant for a process that started this one is not meant for this one.
    if number("WATCHDOG_PID").is_some_and(|meant| meant != u64::from(std::process::id())) {
        return None;
    }
    Some(Duration::from_micros(micros) / 2)
}

/// A name that begins with `@` is one of the abstract ones, which no file stands for.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some(_) => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        None => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not read keeps nobody from serving.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn both_kinds_of_names_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("sabir-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (heard, at) in [
            (by_path, path.as_os_str().as_bytes().to_vec()),
            (by_name, format!("@{name}").into_bytes()),
        ] {
            let manager = Manager(Some(connect(&at).unwrap()));
            manager.reloading();
            let words = hear(&heard);
            let micros = words.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(micros.parse::<u64>().is_ok_and(|micros| micros > 0), "{words}");
            manager.ready();
            assert_eq!(hear(&heard), format!("READY=1\nMAINPID={}", std::process::id()));
        }
        assert!(connect(b"").is_err());
        assert!(connect(b"/nowhere/at/all").is_err());
        // Nobody is told, and nothing happens.
        Manager::default().stopping();
    }
}

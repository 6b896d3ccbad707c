//! Listening sockets: one for each worker on the same address, made only when the address is free.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds until a worker accepts them; it lowers the number to its own `somaxconn`.
const BACKLOG: i32 = 1024;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error("{0}: the port is taken; another process listens there, choose another port or stop it")]
    Taken(SocketAddr),
    /// Ports below 1024 want a privilege.
    #[error("{0}: no permission to listen there; a port from 1024 on needs none")]
    Denied(SocketAddr),
    /// The address is not one of this machine.
    #[error("{0}: this machine does not have that address; 0.0.0.0 or [::] listens on all of its addresses")]
    NotHere(SocketAddr),
    /// Anything else.
    #[error("{0}: can't listen there")]
    Other(SocketAddr, #[source] io::Error),
}

impl BindError {
    fn from_io(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken(address),
            io::ErrorKind::PermissionDenied => Self::Denied(address),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(address),
            _ => Self::Other(address, error),
        }
    }
}

/// The sockets of one listener.
#[derive(Debug)]
pub struct Sockets {
    address: SocketAddr,
    listeners: Vec<Option<TcpListener>>,
}

impl Sockets {
    /// Binds `address` once for each of `workers`; port 0 takes one free port for all of them.
    ///
    /// # Errors
    /// [`BindError`], which names the address: the port is taken, even by a process that shares its ports; the
    /// address is not local; a privilege is missing.
    pub fn bind(address: SocketAddr, workers: usize) -> Result<Self, BindError> {
        let failed = |error| BindError::from_io(address, error);
        // SO_REUSEPORT would let this process share the port with another one that uses it too, and each would get
        // a part of the connections. So the first socket is bound without it, which the kernel refuses if anybody
        // listens, and opens the port to the others only afterwards: there is no moment at which it is free.
        let first = open(address).map_err(failed)?;
        first.bind(&address.into()).map_err(failed)?;
        first.set_reuse_port(true).map_err(failed)?;
        let real = first.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
        let mut sockets = vec![first];
        for _ in 1..workers.max(1) {
            let socket = open(real).map_err(failed)?;
            socket.set_reuse_port(true).map_err(failed)?;
            socket.bind(&real.into()).map_err(failed)?;
            sockets.push(socket);
        }
        let mut listeners = Vec::with_capacity(sockets.len());
        for socket in sockets {
            socket.listen(BACKLOG).map_err(failed)?;
            listeners.push(Some(socket.into()));
        }
        Ok(Self {
            address: real,
            listeners,
        })
    }

    /// The address, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket of one worker, counted from 0; `None` when there is no such worker or it has taken it already.
    pub fn take(&mut self, worker: usize) -> Option<TcpListener> {
        self.listeners.get_mut(worker).and_then(Option::take)
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier run that linger in TIME_WAIT do not keep the port.
    socket.set_reuse_address(true)?;
    // `[::]` takes IPv4 too, whatever the system's default is.
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    fn local() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn port_zero_is_one_port_for_all_workers() {
        let mut sockets = Sockets::bind(local(), 3).unwrap();
        assert_ne!(sockets.address().port(), 0);
        for worker in 0..3 {
            let listener = sockets.take(worker).unwrap();
            assert_eq!(listener.local_addr().unwrap(), sockets.address());
        }
        assert!(sockets.take(0).is_none() && sockets.take(3).is_none());
    }

    #[test]
    fn a_taken_port_is_an_error_that_says_so() {
        let first = Sockets::bind(local(), 2).unwrap();
        let error = Sockets::bind(first.address(), 2).unwrap_err();
        assert!(matches!(error, BindError::Taken(_)), "{error:?}");
        assert!(error.to_string().contains("taken"), "{error}");
        let plain = TcpListener::bind(local()).unwrap();
        assert!(matches!(
            Sockets::bind(plain.local_addr().unwrap(), 1),
            Err(BindError::Taken(_))
        ));
    }

    #[test]
    fn a_port_is_free_again_once_its_sockets_are_dropped() {
        let first = Sockets::bind(local(), 2).unwrap();
        let address = first.address();
        let client = TcpStream::connect(address).unwrap();
        drop(first);
        drop(client);
        assert_eq!(Sockets::bind(address, 2).unwrap().address(), address);
    }

    #[test]
    fn every_worker_gets_connections() {
        let mut sockets = Sockets::bind(local(), 2).unwrap();
        let listeners: Vec<_> = (0..2).map(|at| sockets.take(at).unwrap()).collect();
        let _clients: Vec<_> = (0..64)
            .map(|_| TcpStream::connect(sockets.address()).unwrap())
            .collect();
        for listener in listeners {
            assert!(listener.accept().is_ok());
        }
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = Sockets::bind("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, BindError::NotHere(_)), "{error:?}");
    }
}

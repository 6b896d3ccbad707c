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
    /// For each worker its own. More than one where the process before had more workers: none of its sockets may be
    /// dropped, since connections may wait at it.
    listeners: Vec<Vec<TcpListener>>,
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
            sockets.push(another(real).map_err(failed)?);
        }
        let mut listeners = Vec::with_capacity(sockets.len());
        for socket in sockets {
            socket.listen(BACKLOG).map_err(failed)?;
            listeners.push(vec![socket.into()]);
        }
        Ok(Self {
            address: real,
            listeners,
        })
    }

    /// The sockets of `address` among those that another process handed over, completed to one for each of `workers`;
    /// without any, the address is bound. What is taken is removed from `inherited`.
    ///
    /// # Errors
    /// As [`Sockets::bind`].
    pub fn with(
        address: SocketAddr,
        workers: usize,
        inherited: &mut Vec<TcpListener>,
    ) -> Result<Self, BindError> {
        let here = |socket: &TcpListener| socket.local_addr().is_ok_and(|local| local == address);
        let mut taken = Vec::new();
        while let Some(at) = inherited.iter().position(here) {
            taken.push(inherited.swap_remove(at));
        }
        if taken.is_empty() {
            return Self::bind(address, workers);
        }
        let failed = |error| BindError::from_io(address, error);
        while taken.len() < workers {
            let socket = another(address).map_err(failed)?;
            socket.listen(BACKLOG).map_err(failed)?;
            taken.push(socket.into());
        }
        let mut listeners: Vec<Vec<TcpListener>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
        for (at, socket) in taken.into_iter().enumerate() {
            if let Some(share) = listeners.get_mut(at % workers.max(1)) {
                share.push(socket);
            }
        }
        Ok(Self { address, listeners })
    }

    /// The address, with the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sockets of one worker, counted from 0: one, unless they were handed over; none when there is no such worker or
    /// it has taken them already.
    pub fn take(&mut self, worker: usize) -> Vec<TcpListener> {
        self.listeners
            .get_mut(worker)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Copies of all sockets that were not taken yet.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn copies(&self) -> io::Result<Vec<TcpListener>> {
        self.listeners
            .iter()
            .flatten()
            .map(TcpListener::try_clone)
            .collect()
    }
}

/// A socket that shares a port of this process.
fn another(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
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
            let listeners = sockets.take(worker);
            assert_eq!(listeners.len(), 1);
            assert_eq!(listeners[0].local_addr().unwrap(), sockets.address());
        }
        assert!(sockets.take(0).is_empty() && sockets.take(3).is_empty());
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
        let listeners: Vec<_> = (0..2).flat_map(|at| sockets.take(at)).collect();
        let _clients: Vec<_> = (0..64)
            .map(|_| TcpStream::connect(sockets.address()).unwrap())
            .collect();
        for listener in listeners {
            assert!(listener.accept().is_ok());
        }
    }

    #[test]
    fn what_was_handed_over_is_completed_and_shared_out_whole() {
        let first = Sockets::bind(local(), 3).unwrap();
        let address = first.address();
        for workers in [1, 2, 3, 5] {
            let mut inherited = first.copies().unwrap();
            inherited.push(TcpListener::bind(local()).unwrap());
            let mut sockets = Sockets::with(address, workers, &mut inherited).unwrap();
            assert_eq!(inherited.len(), 1, "another address is another's");
            let shares: Vec<usize> = (0..workers).map(|worker| sockets.take(worker).len()).collect();
            assert_eq!(shares.iter().sum::<usize>(), workers.max(3), "{shares:?}");
            assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
        }
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = Sockets::bind("192.0.2.1:0".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, BindError::NotHere(_)), "{error:?}");
    }
}

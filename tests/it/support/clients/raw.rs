//! A bare socket, for requests that no HTTP library would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::within;

/// A connection to write bytes to.
#[derive(Debug)]
pub(crate) struct Raw {
    socket: TcpStream,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket }
    }

    /// Writes; that the gateway has closed by then is for the reader to see.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref()).await;
    }

    /// Everything until the gateway closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        within("the end of the connection", async {
            // A reset ends the connection as well as a close does.
            let _ = self.socket.read_to_end(&mut bytes).await;
        })
        .await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until this has arrived, and gives everything so far.
    pub(crate) async fn until(&mut self, mark: &str) -> String {
        let mut bytes = Vec::new();
        within(mark, async {
            loop {
                let text = String::from_utf8_lossy(&bytes);
                if text.contains(mark) {
                    return text.into_owned();
                }
                let mut piece = [0_u8; 4096];
                let length = self.socket.read(&mut piece).await.unwrap_or(0);
                assert!(length > 0, "closed after {text:?}, before {mark:?}");
                bytes.extend_from_slice(&piece[..length]);
            }
        })
        .await
    }

    /// Writes, and gives everything that the gateway says until it closes the connection. What is said is read while
    /// the rest is written, so that neither side waits for the other.
    pub(crate) async fn exchange_and_close(&mut self, bytes: &[u8]) -> String {
        let (mut reading, mut writing) = self.socket.split();
        let mut told = Vec::new();
        let write = async {
            // The gateway may close before it has taken all.
            let _ = writing.write_all(bytes).await;
        };
        let read = async {
            let _ = reading.read_to_end(&mut told).await;
        };
        within("the end of the connection", async { tokio::join!(write, read) }).await;
        String::from_utf8_lossy(&told).into_owned()
    }

    /// Writes a whole request and gives the whole answer; the request should ask for closing.
    pub(crate) async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut raw = Self::connect(address).await;
        raw.write(request).await;
        raw.rest().await
    }
}

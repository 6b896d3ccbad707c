//! What the gateway holds for clients that are there and say nothing.

use std::future::ready;
use std::net::SocketAddr;

use serde_json::json;

use crate::support::backends::library;
use crate::support::clients::websocket::Client;
use crate::support::gateway::Gateway;
use crate::support::until;

/// Sockets that are counted: so many that what all share is of no account, and fewer than a process may open.
const SOCKETS: usize = 400;

/// Sockets before them, for which the process gets what it needs anyway.
const BEFORE: usize = 40;

/// What one of them may hold. 7 KiB were measured.
const MOST: usize = 16 << 10;

/// Opens a socket, and hears what it says itself from the room that it is in.
async fn talk(gateway: SocketAddr, room: usize) -> Client {
    let mut client = Client::open(gateway, &format!("/v1/rooms/{room}:chat"), "sabir.v1.json").await;
    client.say(&json!({"text": "here"})).await;
    client.hear().await;
    client
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_websocket_with_a_call_holds_at_most_16_kib() {
    let service = library().await;
    let gateway = Gateway::to(service.address).await;
    let mut sockets = Vec::new();
    for room in 0..BEFORE {
        sockets.push(talk(gateway.address, room).await);
    }
    let before = gateway.resident_bytes();
    for room in BEFORE..BEFORE + SOCKETS {
        sockets.push(talk(gateway.address, room).await);
    }
    until("the end of what is only needed to open a socket", || {
        ready(gateway.resident_bytes().saturating_sub(before) <= SOCKETS * MOST)
    })
    .await;
    drop(sockets);
}

//! A bridge with tungstenite at both ends.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as PeerRole};
use tokio_util::task::TaskTracker;

use super::*;
use crate::listen::Drain;
use crate::wire::websocket::{Limits, Reader, Role, Unit, Writer};

/// A bridge with tungstenite at both ends.
struct Stage {
    client: WebSocketStream<DuplexStream>,
    upstream: WebSocketStream<DuplexStream>,
    drain: Drain,
    tally: Arc<Tally>,
    task: JoinHandle<()>,
}

/// Bytes on their way between a peer and the bridge.
const PIPE: usize = 1024;

async fn stage() -> Stage {
    let limits = Limits::of_messages(1 << 20);
    let (near, client) = tokio::io::duplex(PIPE);
    let (far, upstream) = tokio::io::duplex(PIPE);
    let reader = |role| Reader::new(role, Unit::Frame, limits, false);
    let drain = Drain::new(Duration::from_secs(1));
    let tally: Arc<Tally> = Arc::default();
    let bridge = Bridge::new(
        Socket::new(near, reader(Role::Server), Writer::new(Role::Server, None)),
        Socket::new(far, reader(Role::Client), Writer::new(Role::Client, None)),
        &WebSocket::of(&crate::limits::Limits::default()),
        Leave::of(&drain),
        Arc::clone(&tally),
    );
    Stage {
        client: WebSocketStream::from_raw_socket(client, PeerRole::Client, None).await,
        upstream: WebSocketStream::from_raw_socket(upstream, PeerRole::Server, None).await,
        drain,
        tally,
        task: TaskTracker::new().spawn(bridge.run()),
    }
}

async fn next(socket: &mut WebSocketStream<DuplexStream>) -> Message {
    loop {
        match socket.next().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return message,
            other => panic!("the connection ended: {other:?}"),
        }
    }
}

async fn closed(socket: &mut WebSocketStream<DuplexStream>) -> Option<(u16, String)> {
    match next(socket).await {
        Message::Close(close) => close.map(|close| (close.code.into(), close.reason.to_string())),
        other => panic!("no close frame: {other:?}"),
    }
}

#[tokio::test]
async fn messages_and_the_close_pass_in_both_directions() {
    let mut stage = stage().await;
    let large = Message::binary(vec![7; 100_000]);
    let echo = async {
        for _ in 0..2 {
            let message = next(&mut stage.upstream).await;
            stage.upstream.send(message).await.unwrap();
        }
        closed(&mut stage.upstream).await
    };
    let talk = async {
        for message in [Message::text("héllo"), large] {
            stage.client.send(message.clone()).await.unwrap();
            assert_eq!(next(&mut stage.client).await, message);
        }
        let close = CloseFrame {
            code: 4321.into(),
            reason: "done".into(),
        };
        stage.client.close(Some(close)).await.unwrap();
        closed(&mut stage.client).await
    };
    let (upstream, client) = tokio::join!(echo, talk);
    let expected = Some((4321, "done".to_owned()));
    assert_eq!((upstream, client), (expected.clone(), expected));
    drop((stage.client, stage.upstream));
    stage.task.await.unwrap();
    assert_eq!(stage.tally.request_messages(), 2);
    assert_eq!(stage.tally.reply_messages(), 2);
    assert_eq!(stage.tally.close_code(), Some(4321));
}

#[tokio::test]
async fn an_upstream_that_closes_closes_the_client() {
    let mut stage = stage().await;
    stage.upstream.close(None).await.unwrap();
    assert_eq!(closed(&mut stage.client).await, None);
    assert_eq!(closed(&mut stage.upstream).await, None);
}

#[tokio::test]
async fn who_goes_without_a_word_is_missed_on_the_other_side() {
    let mut stage = stage().await;
    drop(stage.upstream);
    assert_eq!(closed(&mut stage.client).await.unwrap().0, Close::INTERNAL);

    let mut stage = self::stage().await;
    drop(stage.client);
    assert_eq!(closed(&mut stage.upstream).await.unwrap().0, Close::GOING_AWAY);
    assert_eq!(
        stage.tally.outcome(),
        Some(Outcome::Gateway(Kind::Cancelled, Side::Client))
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_the_rules_is_told_which() {
    let mut stage = stage().await;
    stage
        .client
        .send(Message::binary(vec![0; (1 << 20) + 1]))
        .await
        .ok();
    let (client, upstream) = tokio::join!(closed(&mut stage.client), closed(&mut stage.upstream));
    assert_eq!(client.unwrap().0, Close::TOO_BIG);
    assert_eq!(upstream.unwrap().0, Close::GOING_AWAY);
}

#[tokio::test(start_paused = true)]
async fn both_sides_are_told_that_the_gateway_stops() {
    let mut stage = stage().await;
    stage.drain.begin();
    let (client, upstream) = tokio::join!(closed(&mut stage.client), closed(&mut stage.upstream));
    assert_eq!(client.unwrap().0, Close::GOING_AWAY);
    assert_eq!(upstream.unwrap().0, Close::GOING_AWAY);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_mistake_is_still_answered() {
    let mut stage = stage().await;
    let echo = async {
        let message = next(&mut stage.upstream).await;
        stage.upstream.send(message).await.unwrap();
        closed(&mut stage.upstream).await
    };
    let talk = async {
        stage.client.feed(Message::text("first")).await.unwrap();
        let odd = Frame::from_payload(
            FrameHeader {
                rsv2: true,
                opcode: OpCode::Data(Data::Text),
                ..FrameHeader::default()
            },
            "x".into(),
        );
        stage.client.send(Message::Frame(odd)).await.unwrap();
        assert_eq!(next(&mut stage.client).await, Message::text("first"));
        closed(&mut stage.client).await
    };
    let (upstream, client) = tokio::join!(echo, talk);
    assert_eq!(upstream.unwrap().0, Close::GOING_AWAY);
    assert_eq!(client.unwrap().0, Close::PROTOCOL);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_does_not_read_holds_the_other_one_back() {
    let mut stage = stage().await;
    let sent = async {
        for _ in 0..1000 {
            stage.client.send(Message::binary(vec![0; 10_000])).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_secs(5), sent).await.is_err());
    assert!(
        stage.tally.request_bytes() < 200_000,
        "{}",
        stage.tally.request_bytes()
    );
}

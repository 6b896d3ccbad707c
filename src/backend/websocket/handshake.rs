//! The handshake of a client becomes one of the gateway's own, and the upstream's answer one to the client.

use std::sync::Arc;

use http::header::{
    CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, TE,
};
use http::{Response, response};
use http_body::Body as _;

use crate::backend::relay::Relayed;
use crate::backend::websocket::{Bridge, Terms};
use crate::buffers::Rewound;
use crate::call::metadata;
use crate::fault::{Fault, Kind};
use crate::listen::tunnel::Tunnel;
use crate::route::entry::WebSocket;
use crate::translate::Tally;
use crate::upstream::connect::Stream;
use crate::wire::body::Body;
use crate::wire::websocket::deflate::Agreed;
use crate::wire::websocket::handshake::{self, Opening, Question};
use crate::wire::websocket::{Reader, Role, Socket, Unit, Writer};

/// A handshake of a client, on its way to an upstream.
pub(in crate::backend) struct Handshake {
    opening: Opening,
    question: Question,
    /// The subprotocols that the client offers, which are passed on as they are.
    offered: Vec<String>,
    /// permessage-deflate with the client; towards the upstream it is not offered.
    deflate: Option<Agreed>,
}

impl Handshake {
    /// What a client asks for.
    ///
    /// # Errors
    /// A client fault: the request asks for no WebSocket, or not as it must.
    pub(in crate::backend) fn read(relayed: &Relayed, options: &WebSocket) -> Result<Self, Fault> {
        let head = &relayed.head;
        if !handshake::asks(head) {
            return Err(Fault::client(
                Kind::WebSocketVersion,
                "this path is for WebSockets; open one",
            ));
        }
        if !relayed.body.is_end_stream() {
            return Err(Fault::client(
                Kind::BadRequest,
                "a WebSocket handshake has no body",
            ));
        }
        Ok(Self {
            opening: handshake::check(head)?,
            question: Question::new().map_err(|error| {
                Fault::gateway(Kind::Internal, "a handshake could not be written").caused_by(error)
            })?,
            offered: handshake::subprotocols(&head.headers)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            deflate: Agreed::offered(&head.headers).filter(|_| options.deflate),
        })
    }

    /// Makes the headers of the client those of the gateway's own handshake.
    pub(in crate::backend) fn ask(&self, headers: &mut HeaderMap) {
        headers.remove(TE);
        own(headers);
        self.question.put(headers);
    }

    /// The answer to the client once the upstream has switched, with the tunnel between them, which ends when its
    /// terms do.
    ///
    /// # Errors
    /// An upstream fault where its 101 is none for this question.
    pub(in crate::backend) fn accept(
        self,
        head: response::Parts,
        upstream: Rewound<Stream>,
        options: WebSocket,
        terms: Terms,
        tally: Arc<Tally>,
        held: impl Send + 'static,
    ) -> Result<Response<Body>, Fault> {
        let offered: Vec<&str> = self.offered.iter().map(String::as_str).collect();
        let mut headers = head.headers;
        if !self.question.is_answered(&headers, &offered) {
            return Err(Fault::upstream(
                Kind::UpstreamProtocol,
                "the upstream answered the WebSocket handshake with another one's answer",
            ));
        }
        metadata::end_to_end(&mut headers);
        own(&mut headers);
        headers.remove(CONTENT_LENGTH);
        let mut response = handshake::accept(self.opening, Body::empty());
        for (name, value) in &headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        let deflate = self.deflate;
        if let Some(agreed) = deflate
            && let Ok(value) = HeaderValue::try_from(agreed.answer())
        {
            response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        let limits = options.limits();
        let reader = move |role, deflate| Reader::new(role, Unit::Frame, limits, deflate);
        Tunnel::new(move |io, leave| {
            let client = Socket::new(
                io,
                reader(Role::Server, deflate.is_some()),
                Writer::new(Role::Server, deflate),
            );
            let upstream = Socket::new(
                upstream,
                reader(Role::Client, false),
                Writer::new(Role::Client, None),
            );
            Bridge::new(client, upstream, &options, leave, tally)
                .on(terms)
                .run()
        })
        .holding(held)
        .put(&mut response);
        Ok(response)
    }
}

/// Takes out of a handshake what is of one connection alone; the subprotocols are what both sides agree on.
fn own(headers: &mut HeaderMap) {
    for name in handshake::HEADERS {
        if name != SEC_WEBSOCKET_PROTOCOL {
            headers.remove(name);
        }
    }
}

//! The `ReadingRoom` service: what one says, everybody in the room hears, in one order.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tonic::{Request, Response, Status, Streaming};

use super::generated::library::v1::reading_room_server::ReadingRoom;
use super::generated::library::v1::{ListenRequest, Remark};
use super::library::Answers;
use super::refusal::Refusal;

/// Rooms at once; empty ones make place.
const MAX_ROOMS: usize = 64;
/// Bytes of one remark, its author's name and the room's name together: 4 KiB.
const MAX_REMARK_BYTES: usize = 4 << 10;
/// Remarks that a listener may be behind.
const REMARKS_KEPT: usize = 64;

/// The rooms that somebody is in.
#[derive(Clone, Default)]
pub(super) struct Rooms {
    open: Arc<Mutex<BTreeMap<String, Room>>>,
}

struct Room {
    /// Remarks said so far.
    said: u64,
    everybody: broadcast::Sender<Remark>,
}

impl Rooms {
    /// Takes a seat in a room, which opens if it is not there.
    fn enter(&self, name: &str) -> Result<broadcast::Receiver<Remark>, Refusal> {
        if name.is_empty() || name.len() > MAX_REMARK_BYTES {
            return Err(Refusal::invalid("room", "the name of a room is wanted"));
        }
        let mut open = self.open.lock();
        if open.len() >= MAX_ROOMS {
            open.retain(|_, room| room.everybody.receiver_count() > 0);
        }
        if open.len() >= MAX_ROOMS && !open.contains_key(name) {
            return Err(Refusal::Full {
                what: "rooms",
                limit: MAX_ROOMS,
            });
        }
        let room = open.entry(name.to_owned()).or_insert_with(|| Room {
            said: 0,
            everybody: broadcast::channel(REMARKS_KEPT).0,
        });
        Ok(room.everybody.subscribe())
    }

    /// Says something to everybody in the room, the speaker included.
    fn say(&self, room: &str, mut remark: Remark) -> Result<(), Refusal> {
        if remark.text.len().saturating_add(remark.author.len()) > MAX_REMARK_BYTES {
            return Err(Refusal::invalid("text", "at most 4 KiB"));
        }
        if let Some(open) = self.open.lock().get_mut(room) {
            open.said += 1;
            remark.number = open.said;
            remark.room = room.to_owned();
            // The speaker has a seat, so there is always somebody.
            let _ = open.everybody.send(remark);
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl ReadingRoom for Rooms {
    type ChatStream = Answers<Remark>;

    async fn chat(&self, request: Request<Streaming<Remark>>) -> Result<Response<Self::ChatStream>, Status> {
        let guest = Guest {
            rooms: self.clone(),
            voice: Some(request.into_inner()),
            seat: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(guest, Guest::next))))
    }

    type ListenStream = Answers<Remark>;

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let ListenRequest { room, limit } = request.into_inner();
        let seat = self.enter(&room)?;
        let left = if limit == 0 { u32::MAX } else { limit };
        let remarks = stream::unfold((seat, left), |(mut seat, left)| async move {
            if left == 0 {
                return None;
            }
            let heard = hear(seat.recv().await)?;
            let left = if heard.is_ok() { left - 1 } else { 0 };
            Some((heard, (seat, left)))
        });
        Ok(Response::new(Box::pin(remarks)))
    }
}

/// Somebody in a room who may speak.
struct Guest {
    rooms: Rooms,
    /// What the guest says; absent once the guest has said everything.
    voice: Option<Streaming<Remark>>,
    /// The room and the seat in it; absent until the first remark names the room.
    seat: Option<(String, broadcast::Receiver<Remark>)>,
}

/// What happens next to a guest.
enum Turn {
    Heard(Result<Remark, RecvError>),
    Said(Result<Option<Remark>, Status>),
}

impl Guest {
    /// The next thing that the guest hears, the guest's own remarks included.
    async fn next(mut self) -> Option<(Result<Remark, Status>, Self)> {
        loop {
            let turn = match (&mut self.seat, &mut self.voice) {
                (None, None) => return None,
                (None, Some(voice)) => Turn::Said(voice.message().await),
                // Who has said everything still hears what was said until then.
                (Some((_, seat)), None) => match seat.try_recv() {
                    Ok(remark) => Turn::Heard(Ok(remark)),
                    Err(TryRecvError::Lagged(missed)) => Turn::Heard(Err(RecvError::Lagged(missed))),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
                },
                (Some((_, seat)), Some(voice)) => tokio::select! {
                    // What was said is heard before more is said, so a talker never falls behind itself.
                    biased;
                    heard = seat.recv() => Turn::Heard(heard),
                    said = voice.message() => Turn::Said(said),
                },
            };
            match turn {
                Turn::Heard(heard) => return Some((hear(heard)?, self)),
                Turn::Said(Ok(Some(remark))) => {
                    if let Err(refusal) = self.speak(remark) {
                        return Some(self.leave(refusal.into()));
                    }
                }
                Turn::Said(Ok(None)) => self.voice = None,
                Turn::Said(Err(status)) => return Some(self.leave(status)),
            }
        }
    }

    /// Says something; the first remark also opens the door.
    fn speak(&mut self, remark: Remark) -> Result<(), Refusal> {
        let room = match &self.seat {
            Some((room, _)) => room,
            None => {
                let seat = self.rooms.enter(&remark.room)?;
                &self.seat.insert((remark.room.clone(), seat)).0
            }
        };
        self.rooms.say(room, remark)
    }

    /// Ends the call with a status.
    fn leave(mut self, status: Status) -> (Result<Remark, Status>, Self) {
        self.voice = None;
        self.seat = None;
        (Err(status), self)
    }
}

/// What a listener hears, or that remarks were missed; nothing once the room is gone.
fn hear(heard: Result<Remark, RecvError>) -> Option<Result<Remark, Status>> {
    match heard {
        Ok(remark) => Some(Ok(remark)),
        Err(RecvError::Lagged(missed)) => {
            Some(Err(Status::data_loss(format!("{missed} remarks were missed"))))
        }
        Err(RecvError::Closed) => None,
    }
}

//! What clients are not told of a backend's errors: where in its code they happened, and on some routes in which words.

use bytes::Bytes;
use prost::Message as _;

use crate::status::{Code, Status};

/// The type of details that say where in the code of a service something happened.
const DEBUG_INFO: &str = "google.rpc.DebugInfo";

/// What is taken out of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hygiene {
    /// What becomes of `google.rpc.DebugInfo`.
    pub debug_info: DebugInfo,
    /// What becomes of the messages of errors that are the server's.
    pub server_messages: ServerMessages,
}

/// What becomes of details that say where in the code of a service something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DebugInfo {
    /// They are taken out.
    #[default]
    Stripped,
    /// Clients get them.
    Told,
}

/// What becomes of the messages of errors that are the server's: those whose HTTP status is 500 or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServerMessages {
    /// Clients get them.
    #[default]
    Told,
    /// Clients get a word for the code instead.
    Replaced,
}

/// `google.rpc.Status` as `grpc-status-details-bin` has it.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

impl Hygiene {
    /// Takes out of an error what clients are not told.
    pub fn clean(self, status: &mut Status) {
        if status.code == Code::Ok {
            return;
        }
        let replaces =
            self.server_messages == ServerMessages::Replaced && status.code.http_status().is_server_error();
        if replaces {
            status.message = format!("the service failed: {}", status.code.name());
        }
        let strips = self.debug_info == DebugInfo::Stripped
            && memchr::memmem::find(&status.details, DEBUG_INFO.as_bytes()).is_some();
        if status.details.is_empty() || !(strips || replaces) {
            return;
        }
        // Details that can't be read can't be told without what they hide.
        status.details = Details::decode(&*status.details).map_or_else(
            |_| Bytes::new(),
            |mut told| {
                if strips {
                    told.details
                        .retain(|detail| detail.type_url.rsplit('/').next() != Some(DEBUG_INFO));
                }
                if replaces {
                    told.message.clone_from(&status.message);
                }
                told.encode_to_vec().into()
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, types: &[&str]) -> Status {
        let details = types.iter().map(|name| prost_types::Any {
            type_url: format!("type.googleapis.com/{name}"),
            value: b"x".to_vec(),
        });
        Status {
            code,
            message: "row 7 of table books".to_owned(),
            details: Details {
                code: i32::from(code.number()),
                message: "row 7 of table books".to_owned(),
                details: details.collect(),
            }
            .encode_to_vec()
            .into(),
        }
    }

    fn told(hygiene: Hygiene, code: Code, types: &[&str]) -> (String, String, Vec<String>) {
        let mut status = status(code, types);
        hygiene.clean(&mut status);
        let details = Details::decode(&*status.details).unwrap();
        let names = details.details.iter().map(|detail| {
            detail
                .type_url
                .trim_start_matches("type.googleapis.com/")
                .to_owned()
        });
        (status.message, details.message, names.collect())
    }

    #[test]
    fn debug_info_is_taken_out_and_nothing_else() {
        const BOTH: [&str; 3] = ["google.rpc.RetryInfo", DEBUG_INFO, "google.rpc.ErrorInfo"];
        let (message, _, names) = told(Hygiene::default(), Code::Internal, &BOTH);
        assert_eq!(message, "row 7 of table books");
        assert_eq!(names, ["google.rpc.RetryInfo", "google.rpc.ErrorInfo"]);
        let open = Hygiene {
            debug_info: DebugInfo::Told,
            ..Hygiene::default()
        };
        assert_eq!(told(open, Code::Internal, &BOTH).2, BOTH);
        // What says nothing of the kind is passed on byte for byte, whatever it is.
        let mut odd = Status {
            details: Bytes::from_static(b"\xff not protobuf"),
            ..status(Code::NotFound, &[])
        };
        Hygiene::default().clean(&mut odd);
        assert_eq!(&*odd.details, b"\xff not protobuf");
        odd.details = Bytes::from_static(b"\xff google.rpc.DebugInfo");
        Hygiene::default().clean(&mut odd);
        assert!(odd.details.is_empty());
    }

    #[test]
    fn messages_of_the_server_s_errors_are_replaced_where_that_is_wanted() {
        let hygiene = Hygiene {
            server_messages: ServerMessages::Replaced,
            ..Hygiene::default()
        };
        for code in Code::ALL.into_iter().filter(|code| *code != Code::Ok) {
            let (message, inner, names) = told(hygiene, code, &["google.rpc.RetryInfo"]);
            let own = message == "row 7 of table books";
            assert_eq!(own, !code.http_status().is_server_error(), "{code:?}: {message}");
            assert_eq!(inner, message);
            assert_eq!(names, ["google.rpc.RetryInfo"]);
        }
    }
}

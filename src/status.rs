//! The outcome of a call as every dialect knows it: one of seventeen codes, a message, details.
//!
//! Source: gRPC status codes, `google.rpc.Code`, `google.rpc.Status`.

#![deny(clippy::wildcard_enum_match_arm)]

use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use prost::Message as _;

/// A canonical status code: 0 to 16 and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// The call completed.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// An error that carries no known code.
    Unknown = 2,
    /// The caller sent something that can never be right.
    InvalidArgument = 3,
    /// The deadline passed before the call completed.
    DeadlineExceeded = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// What was to be created exists.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A quota, a limit or memory ran out.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// The call lost a race and may be tried again at a higher level.
    Aborted = 10,
    /// A position past the valid range.
    OutOfRange = 11,
    /// The method is not there.
    Unimplemented = 12,
    /// An invariant is broken.
    Internal = 13,
    /// The service can't be reached now; trying again may help.
    Unavailable = 14,
    /// Data was lost or is corrupt.
    DataLoss = 15,
    /// The caller did not say who it is, or not convincingly.
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code with this number on the wire; any other number is [`Code::Unknown`].
    pub fn from_wire(number: i64) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|at| Self::ALL.get(at).copied())
            .unwrap_or(Self::Unknown)
    }

    /// The number on the wire, 0 to 16.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The name in `google.rpc.Code`, such as `NOT_FOUND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The HTTP status that a REST client sees.
    ///
    /// Source: the mapping noted beside each value of `google.rpc.Code`.
    pub fn http_status(self) -> StatusCode {
        match self {
            Self::Ok => StatusCode::OK,
            // 499 has no constant: nginx's "client closed request", which google.rpc.Code names.
            Self::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Aborted => StatusCode::CONFLICT,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unknown | Self::Internal | Self::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }

    /// What a gRPC client makes of an answer that has no `grpc-status`.
    ///
    /// Source: gRPC, "HTTP to gRPC Status Code Mapping".
    pub fn from_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 | 431 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

impl Code {
    /// What the answer of an HTTP origin server means for the call that became its request: the table of
    /// [`Code::http_status`] read backwards, and the nearest code for what is not in it.
    pub fn from_origin(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => Self::Ok,
            400 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            405 | 501 => Self::Unimplemented,
            408 | 504 => Self::DeadlineExceeded,
            409 => Self::Aborted,
            412 => Self::FailedPrecondition,
            413 | 429 => Self::ResourceExhausted,
            499 => Self::Cancelled,
            500 => Self::Internal,
            502 | 503 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// For developers, in English; may be empty.
    pub message: String,
    /// An encoded `google.rpc.Status`, as `grpc-status-details-bin` carries it; empty without details.
    pub details: Bytes,
}

impl Status {
    /// The end of a call that succeeded.
    pub const OK: Self = Self {
        code: Code::Ok,
        message: String::new(),
        details: Bytes::new(),
    };

    /// A status without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Bytes::new(),
        }
    }

    /// A status with details.
    pub fn with_details(code: Code, message: impl Into<String>, details: Vec<prost_types::Any>) -> Self {
        let status = RpcStatus {
            code: i32::from(code.number()),
            message: message.into(),
            details,
        };
        Self {
            code,
            details: status.encode_to_vec().into(),
            message: status.message,
        }
    }

    /// The status that a peer gave as an integer; a number outside 0 to 16 is kept in the message.
    pub fn from_wire(number: i64, message: String) -> Self {
        let code = Code::from_wire(number);
        if code == Code::Unknown && number != 2 {
            let said = if message.is_empty() {
                String::new()
            } else {
                format!(": {message}")
            };
            return Self::new(code, format!("status code {number}, which is not defined{said}"));
        }
        Self::new(code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_outside_the_table_is_unknown_and_kept_in_the_message() {
        assert_eq!(Code::from_wire(17), Code::Unknown);
        assert_eq!(Code::from_wire(-1), Code::Unknown);
        let status = Status::from_wire(17, "odd".into());
        assert_eq!(status.code, Code::Unknown);
        assert!(status.message.contains("17") && status.message.contains("odd"));
    }

    #[test]
    fn the_http_table_is_rule_40() {
        let table = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
        ];
        for (code, status) in Code::ALL.into_iter().zip(table) {
            assert_eq!(code.http_status().as_u16(), status, "{code}");
        }
    }

    #[test]
    fn the_answers_of_an_origin_are_read_as_what_they_mean() {
        for (status, code) in [
            (200, Code::Ok),
            (204, Code::Ok),
            (301, Code::Unknown),
            (400, Code::InvalidArgument),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::NotFound),
            (405, Code::Unimplemented),
            (408, Code::DeadlineExceeded),
            (409, Code::Aborted),
            (412, Code::FailedPrecondition),
            (413, Code::ResourceExhausted),
            (418, Code::Unknown),
            (429, Code::ResourceExhausted),
            (499, Code::Cancelled),
            (500, Code::Internal),
            (501, Code::Unimplemented),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::DeadlineExceeded),
        ] {
            assert_eq!(
                Code::from_origin(StatusCode::from_u16(status).unwrap()),
                code,
                "{status}"
            );
        }
    }

    #[test]
    fn numbers_round_trip() {
        for code in Code::ALL {
            assert_eq!(Code::from_wire(i64::from(code.number())), code);
        }
    }
}

//! The part of the Twirp protocol that the toolkit uses: JSON requests and responses, errors with a code.

use serde::{Deserialize, Deserializer, Serialize};

/// An error response.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) code: Code,
    pub(super) msg: String,
}

/// The codes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    AlreadyExists,
    BadRoute,
    Internal,
    InvalidArgument,
    Malformed,
    NotFound,
    Unauthenticated,
}

impl Code {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::AlreadyExists => "already_exists",
            Self::BadRoute => "bad_route",
            Self::Internal => "internal",
            Self::InvalidArgument => "invalid_argument",
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    pub(super) const fn status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::BadRoute | Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::Internal => 500,
        }
    }
}

impl Error {
    pub(super) fn new(code: Code, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

/// Parses a request.
pub(super) fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::new(Code::Malformed, error.to_string()))
}

/// Serialises a response.
pub(super) fn write(answer: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(answer).map_err(|error| Error::new(Code::Internal, error.to_string()))
}

/// Deserialises a 64-bit number: protobuf's JSON uses strings, and allows numbers.
pub(super) fn number<'d, D: Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Number(u64),
    }
    Ok(match Option::<Form>::deserialize(from)? {
        Some(Form::Text(text)) => text.parse().ok(),
        Some(Form::Number(number)) => Some(number),
        None => None,
    })
}

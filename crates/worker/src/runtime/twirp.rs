//! The part of the Twirp protocol that the toolkit uses: JSON requests and responses, errors with a code.

use serde::{Deserialize, Deserializer, Serialize};

/// An error response.
#[derive(Debug)]
pub(super) struct TwirpError {
    pub(super) code: TwirpCode,
    pub(super) msg: String,
}

/// The codes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TwirpCode {
    AlreadyExists,
    BadRoute,
    Internal,
    InvalidArgument,
    Malformed,
    NotFound,
    Unauthenticated,
}

impl TwirpCode {
    pub(super) const fn as_str(self) -> &'static str {
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

    pub(super) const fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::BadRoute | Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::Internal => 500,
        }
    }
}

impl TwirpError {
    pub(super) fn new(code: TwirpCode, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
        }
    }
}

impl From<std::io::Error> for TwirpError {
    fn from(error: std::io::Error) -> Self {
        Self::new(TwirpCode::Internal, error.to_string())
    }
}

/// Parses a request.
pub(super) fn parse_request<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, TwirpError> {
    serde_json::from_slice(body)
        .map_err(|error| TwirpError::new(TwirpCode::Malformed, error.to_string()))
}

/// Serialises a response.
pub(super) fn serialize_response(answer: &impl Serialize) -> Result<Vec<u8>, TwirpError> {
    serde_json::to_vec(answer)
        .map_err(|error| TwirpError::new(TwirpCode::Internal, error.to_string()))
}

/// Deserialises a 64-bit number: protobuf's JSON uses strings, and allows numbers.
pub(super) fn deserialize_number<'d, D: Deserializer<'d>>(
    from: D,
) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumberForm {
        Text(String),
        Number(u64),
    }
    Ok(match Option::<NumberForm>::deserialize(from)? {
        Some(NumberForm::Text(text)) => text.parse().ok(),
        Some(NumberForm::Number(number)) => Some(number),
        None => None,
    })
}

/// Runs blocking work on another thread.
pub(super) async fn run_blocking_call<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TwirpError> + Send + 'static,
) -> Result<T, TwirpError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(TwirpError::new(TwirpCode::Internal, error.to_string())))
}

//! Names and numbers with a meaning. Parsed at the edge, trusted inside.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name, number or digest could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

fn refuse<T>(text: &str, expected: &'static str) -> Result<T, ParseIdError> {
    Err(ParseIdError {
        text: text.chars().take(80).collect(),
        expected,
    })
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                let edges = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && !text.ends_with('-');
                if edges && text.len() <= 63 && text.chars().all(fine) {
                    Ok(Self(text.to_owned()))
                } else {
                    refuse(text, concat!($what, ": 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit"))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a service; unique on a server.
    ServiceName,
    "a service name"
);
name!(
    /// The name of an environment; unique within its service.
    EnvironmentName,
    "an environment name"
);

name!(
    /// The name of a user; unique on a server.
    UserName,
    "a user name"
);
name!(
    /// The name of a group of users; unique on a server.
    GroupName,
    "a group name"
);
name!(
    /// Identifies an access token: `t7`. It is not the secret.
    AccessTokenId,
    "the id of a token"
);
name!(
    /// Identifies a client key of flags within its service: `k7`. It is not the secret.
    ClientKeyId,
    "the id of a client key"
);

/// Tells runs of one number apart: a log that lost its last events gives their numbers again. Random, made when the run is opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunUid(String);

impl RunUid {
    /// The id as text; a valid file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunUid {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let is_valid = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        if (8..=64).contains(&text.len()) && text.bytes().all(is_valid) {
            Ok(Self(text.to_owned()))
        } else {
            refuse(text, "a run's uid: 8 to 64 hexadecimal digits and hyphens")
        }
    }
}

impl TryFrom<String> for RunUid {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<RunUid> for String {
    fn from(uid: RunUid) -> Self {
        uid.0
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal, $shown:path) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{}{}", $prefix, $shown(self.0)))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                match text.strip_prefix($prefix).unwrap_or(text).parse() {
                    Ok(number) if number > 0 => Ok(Self(number)),
                    _ => refuse(text, $what),
                }
            }
        }
    };
}

number!(
    /// The number of a release within its service, from 1: `#3`. Instances, routes and counters are keyed by it, so it also
    /// identifies the baseline of a release ([`ReleaseNumber::baseline`]).
    ReleaseNumber,
    "#",
    "a release number, such as 3",
    with_mark
);
number!(
    /// The number of a run within its service, from 1: `r12`.
    RunNumber,
    "r",
    "a run number, such as r12",
    u32::from
);
number!(
    /// The number of a rollout within its service, from 1: `ro7`.
    RolloutNumber,
    "ro",
    "a rollout number, such as ro7",
    u32::from
);

/// Flag bits for baselines and mirrored traffic; no service makes a thousand million releases.
const BASELINE: u32 = 1 << 31;
const MIRRORED: u32 = 1 << 30;

fn with_mark(number: u32) -> String {
    let number = ReleaseNumber(number);
    let mark = match (number.is_baseline(), number.is_mirrored()) {
        (true, _) => " baseline",
        (false, true) => " mirrored",
        (false, false) => "",
    };
    format!("{}{mark}", number.released().0)
}

impl ReleaseNumber {
    /// The baseline of this release: fresh instances of it, started together with a canary so that both are equally young, with
    /// their own replica set, traffic and counters (docs/adr/0010).
    #[must_use]
    pub const fn baseline(self) -> Self {
        Self(self.0 | BASELINE)
    }

    /// What copies of requests showed of this release; counted apart from what users saw.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self(self.0 | MIRRORED)
    }

    /// Whether it names a baseline.
    #[must_use]
    pub const fn is_baseline(self) -> bool {
        self.0 & BASELINE != 0
    }

    /// Whether it names what copies of requests showed.
    #[must_use]
    pub const fn is_mirrored(self) -> bool {
        self.0 & MIRRORED != 0
    }

    #[must_use]
    pub const fn released(self) -> Self {
        Self(self.0 & !(BASELINE | MIRRORED))
    }

    /// For names of folders, instances and labels: `3`, `3b` for the baseline, `3m` for mirrored traffic.
    #[must_use]
    pub fn plain(self) -> String {
        let mark = match (self.is_baseline(), self.is_mirrored()) {
            (true, _) => "b",
            (false, true) => "m",
            (false, false) => "",
        };
        format!("{}{mark}", self.released().0)
    }

    /// Reads the name of a folder or an instance.
    #[must_use]
    pub fn from_plain(text: &str) -> Option<Self> {
        let (digits, is_baseline) = match text.strip_suffix('b') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let number = Self(digits.parse().ok()?);
        Some(if is_baseline {
            number.baseline()
        } else {
            number
        })
    }
}

macro_rules! scoped {
    ($(#[$doc:meta])* $name:ident, $number:ident, $kind:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            /// The service it belongs to.
            pub service: ServiceName,
            pub number: $number,
        }

        impl $name {
            /// The name of its stream in the log: `run/shop/12`.
            #[must_use]
            pub fn stream(&self) -> String {
                format!(concat!($kind, "/{}/{}"), self.service, self.number.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let Some((service, number)) = text.split_once('/') else { return refuse(text, $what) };
                Ok(Self { service: service.parse()?, number: number.parse()? })
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{}/{}", self.service, self.number))
            }
        }
    };
}

scoped!(
    /// A run anywhere on the server: `shop/r12`.
    RunId,
    RunNumber,
    "run",
    "a run, such as shop/r12"
);
scoped!(
    /// A rollout anywhere on the server: `shop/ro7`.
    RolloutId,
    RolloutNumber,
    "rollout",
    "a rollout, such as shop/ro7"
);

/// The SHA-256 of immutable bytes: `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn compute(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_hash(
            sha2::Sha256::digest(bytes)
                .as_slice()
                .try_into()
                .expect("SHA-256 has 32 bytes"),
        )
    }

    /// The digest whose hash is already known.
    #[must_use]
    pub fn from_hash(hash: [u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash {
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble"));
        }
        Self(text)
    }

    /// The 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text.strip_prefix("sha256:") {
            Some(hex)
                if hex.len() == 64
                    && hex
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => refuse(text, "a digest: sha256: and 64 lower-case hex digits"),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A git commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 7 digits, as git shows them.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..7]
    }

    /// Whether this stands for "no commit" in git's hooks: all zeros.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

impl FromStr for CommitId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if matches!(text.len(), 40 | 64)
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            Ok(Self(text.to_owned()))
        } else {
            refuse(text, "a full commit id: 40 or 64 lower-case hex digits")
        }
    }
}

impl TryFrom<String> for CommitId {
    type Error = ParseIdError;
    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<CommitId> for String {
    fn from(commit: CommitId) -> Self {
        commit.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_print() {
        let rollout: RolloutId = "shop/ro7".parse().unwrap();
        assert_eq!(
            (rollout.to_string().as_str(), rollout.stream().as_str()),
            ("shop/ro7", "rollout/shop/7")
        );
        assert_eq!(
            Digest::compute(b"").hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!("12".parse::<RunNumber>().unwrap().to_string(), "r12");
        let baseline = ReleaseNumber(3).baseline();
        assert_eq!(
            (baseline.to_string().as_str(), baseline.plain().as_str()),
            ("#3 baseline", "3b")
        );
        assert_eq!(ReleaseNumber::from_plain("3b"), Some(baseline));
        assert_eq!(ReleaseNumber::from_plain("3"), Some(baseline.released()));
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for bad in ["", "..", "a/b", "-a", "a-", "Shop", "a\0", &"a".repeat(64)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }
}

//! The sides of a split: releases today, variants of a flag later.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::ReleaseNumber;

/// One side of a split: what a user can get. The log has `{"release": 4}`; in a split it has the number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutVariant {
    /// Instances of a release, or of its baseline.
    Release(ReleaseNumber),
}

impl RolloutVariant {
    /// The release, for code that a flag has no part in.
    #[must_use]
    pub const fn release(self) -> ReleaseNumber {
        let Self::Release(release) = self;
        release
    }
}

impl From<ReleaseNumber> for RolloutVariant {
    fn from(release: ReleaseNumber) -> Self {
        Self::Release(release)
    }
}

impl fmt::Display for RolloutVariant {
    /// `#4`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release(release) => release.fmt(f),
        }
    }
}

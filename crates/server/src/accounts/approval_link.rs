//! Links with which one user decides about one rollout without signing in.
//!
//! # Invariants
//!
//! - A link is sealed with a key of the server: nothing of it can be read, changed or made by others.
//! - It is for one user, one decision and one subject of a rollout. When the user has decided, or the subject has changed, it is void.
//! - It gives no permission: the user needs the role and a place in the rules when the link is used, as with any request.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_api::LinkedDecision;
use shipway_core::{
    gate::ApprovalBinding,
    ids::{RolloutId, UserName},
    sealed_value::SealedValue,
};

use super::user_accounts::UserAccounts;

const PURPOSE: &str = "approval link";
/// Longer than any link.
const LINK_BYTES_MAX: usize = 8_192;

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalLink {
    pub(crate) rollout: RolloutId,
    /// The subject of the decision.
    pub(crate) binding: ApprovalBinding,
    pub(crate) decision: LinkedDecision,
    pub(crate) user: UserName,
    pub(crate) expires_at: Timestamp,
}

impl UserAccounts {
    /// The text of a link.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn seal_approval_link(&self, link: &ApprovalLink) -> std::io::Result<String> {
        let text = serde_json::to_vec(link)?;
        let sealed = self.sealing.seal(PURPOSE, &text)?;
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&sealed)?))
    }

    /// The link of a text; none if this server did not make it.
    pub(crate) fn open_approval_link(&self, text: &str) -> Option<ApprovalLink> {
        if text.len() > LINK_BYTES_MAX {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let sealed: SealedValue = serde_json::from_slice(&sealed).ok()?;
        let link = self.sealing.unseal(PURPOSE, &sealed).ok()?;
        serde_json::from_slice(&link).ok()
    }
}

//! Connections to forges, and their webhooks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which repository of which forge a repository of this server follows.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectForgeRequest {
    /// `github`, `gitlab`, or `gitea`, which is also for Forgejo.
    pub forge: String,
    /// Its path at the forge: `acme/shop`.
    pub project: String,
    /// The address of the forge; by default that of github.com or gitlab.com.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The address of its API, where it is not the usual one below `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The name of the secret that webhooks are signed with.
    pub webhook_secret: String,
    /// The name of the secret with the token for git and the API; without it nothing is written back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Whether nothing runs for pull requests of forks. Otherwise their workflows run without secrets.
    #[serde(default)]
    pub ignore_forks: bool,
}

/// What became of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookAnswer {
    /// The recorded change, which is handled next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    /// Why nothing follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
}

//! The repository of a forge that a repository of this server follows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{access::PushPrincipal, principal_id::PrincipalId, secret::SecretName};

/// The groups above a GitLab project, and the project itself, at most; GitLab's own limit.
const PROJECT_SEGMENTS_MAX: usize = 21;
/// Bytes of an address or of a project's path at most.
const TEXT_BYTES_MAX: usize = 500;

/// The software of a forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForgeKind {
    Github,
    Gitlab,
    /// Gitea and Forgejo.
    Gitea,
}

impl ForgeKind {
    pub const ALL: [Self; 3] = [Self::Github, Self::Gitlab, Self::Gitea];

    /// The word in addresses: `/hooks/github`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
        }
    }

    /// The name for readers.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Github => "GitHub",
            Self::Gitlab => "GitLab",
            Self::Gitea => "Gitea",
        }
    }

    /// The address of the public forge; Gitea has none.
    #[must_use]
    pub const fn public_url(self) -> Option<&'static str> {
        match self {
            Self::Github => Some("https://github.com"),
            Self::Gitlab => Some("https://gitlab.com"),
            Self::Gitea => None,
        }
    }

    /// The reference of the forge's repository that has the head of a pull request.
    #[must_use]
    pub fn pull_request_head(self, number: u64) -> String {
        match self {
            Self::Github | Self::Gitea => format!("refs/pull/{number}/head"),
            Self::Gitlab => format!("refs/merge-requests/{number}/head"),
        }
    }
}

impl fmt::Display for ForgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no supported forge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a supported forge: use github, gitlab or gitea (also for Forgejo)")]
pub struct ParseForgeKindError(String);

impl FromStr for ForgeKind {
    type Err = ParseForgeKindError;

    fn from_str(text: &str) -> Result<Self, ParseForgeKindError> {
        let text = text.to_ascii_lowercase();
        if text == "forgejo" {
            return Ok(Self::Gitea);
        }
        let mut kinds = Self::ALL.into_iter();
        let parsed = kinds.find(|kind| kind.as_str() == text);
        parsed.ok_or_else(|| ParseForgeKindError(text.chars().take(40).collect()))
    }
}

/// Which repository of which forge, and the names of the secrets for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeConnection {
    pub forge: ForgeKind,
    /// Its path at the forge: `acme/shop`.
    pub project: String,
    /// The address of the forge, without a slash at the end: `https://github.com`.
    pub url: String,
    /// The address of its API, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// The secret that webhooks are signed with.
    pub webhook_secret: SecretName,
    /// The secret with the token for git and the API; without it nothing is written back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretName>,
    #[serde(default)]
    pub forks: ForkPolicy,
}

/// Whether workflows run for pull requests of forks, which anyone can open on a public forge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkPolicy {
    /// Without secrets.
    #[default]
    Run,
    Ignore,
}

/// A connection as a person asks for it.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRequest<'a> {
    pub forge: ForgeKind,
    pub project: &'a str,
    pub url: Option<&'a str>,
    pub api: Option<&'a str>,
    pub webhook_secret: &'a SecretName,
    pub token: Option<&'a SecretName>,
    pub forks: ForkPolicy,
}

/// Why a connection can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    #[error("{0:?} is not a project: write its path at the forge, such as acme/shop")]
    Project(String),
    #[error("a project of {} is written {}, not {project:?}", forge.title(), project_form(*forge))]
    ProjectForm { forge: ForgeKind, project: String },
    #[error(
        "{0:?} is not the address of a forge: write it with http:// or https://, without a user, a query or a fragment, such as https://git.example.com"
    )]
    Address(String),
    #[error("{} is on a server of your own: give its address with --forge-url", .0.title())]
    NoAddress(ForgeKind),
    #[error("the webhook secret and the API token must be two different secrets")]
    SameSecret,
}

impl ForgeConnection {
    /// Checks what a person gave: addresses, the project's path, the names of the secrets.
    pub fn new(request: ConnectionRequest<'_>) -> Result<Self, ConnectionError> {
        let forge = request.forge;
        let url = request.url.or_else(|| forge.public_url());
        let url = url.ok_or(ConnectionError::NoAddress(forge))?;
        if request.token == Some(request.webhook_secret) {
            return Err(ConnectionError::SameSecret);
        }
        Ok(Self {
            forge,
            project: parse_project(forge, request.project)?,
            url: parse_address(url)?,
            api: request.api.map(parse_address).transpose()?,
            webhook_secret: request.webhook_secret.clone(),
            token: request.token.cloned(),
            forks: request.forks,
        })
    }

    /// Who pushed, or changed a pull request, by their account at the forge.
    #[must_use]
    pub fn pusher(&self, sender: Option<&str>) -> PushPrincipal {
        let name = sender.unwrap_or("unknown");
        PushPrincipal {
            principal: PrincipalId::from_trusted(format!("forge:{}:{name}", self.forge)),
            name: sender.map(str::to_owned),
        }
    }

    /// The address of the API, without a slash at the end.
    #[must_use]
    pub fn api_url(&self) -> String {
        if let Some(api) = &self.api {
            return api.clone();
        }
        let url = &self.url;
        match self.forge {
            ForgeKind::Github if url == "https://github.com" => "https://api.github.com".to_owned(),
            ForgeKind::Github => format!("{url}/api/v3"),
            ForgeKind::Gitlab => format!("{url}/api/v4"),
            ForgeKind::Gitea => format!("{url}/api/v1"),
        }
    }

    /// The address that git fetches from.
    #[must_use]
    pub fn git_url(&self) -> String {
        format!("{}/{}.git", self.url, self.project)
    }

    /// Whether a payload is about this project. Forges ignore the case of its path.
    #[must_use]
    pub fn is_of_project(&self, path: &str) -> bool {
        self.project.eq_ignore_ascii_case(path)
    }

    /// Whether a secret of this name is for the forge: jobs must not have it.
    #[must_use]
    pub fn uses_secret(&self, name: &str) -> bool {
        let names = [Some(&self.webhook_secret), self.token.as_ref()];
        let mut names = names.into_iter().flatten();
        names.any(|own| own.as_str().eq_ignore_ascii_case(name))
    }
}

fn parse_project(forge: ForgeKind, text: &str) -> Result<String, ConnectionError> {
    let path = text.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let is_segment = |segment: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !matches!(segment, "" | "." | "..") && segment.chars().all(is_allowed)
    };
    let count = path.split('/').count();
    if path.len() > TEXT_BYTES_MAX || !path.split('/').all(is_segment) {
        return Err(ConnectionError::Project(text.chars().take(80).collect()));
    }
    let is_complete = match forge {
        ForgeKind::Github | ForgeKind::Gitea => count == 2,
        ForgeKind::Gitlab => (2..=PROJECT_SEGMENTS_MAX).contains(&count),
    };
    if !is_complete {
        return Err(ConnectionError::ProjectForm {
            forge,
            project: path.to_owned(),
        });
    }
    Ok(path.to_owned())
}

const fn project_form(forge: ForgeKind) -> &'static str {
    match forge {
        ForgeKind::Github | ForgeKind::Gitea => "OWNER/NAME",
        ForgeKind::Gitlab => "GROUP/NAME",
    }
}

fn parse_address(text: &str) -> Result<String, ConnectionError> {
    let url = text.trim().trim_end_matches('/');
    let rest = url.strip_prefix("https://");
    let rest = rest.or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let is_host = host.is_some_and(|host| !host.is_empty() && !host.starts_with(':'));
    let is_plain = url
        .chars()
        .all(|c| c.is_ascii_graphic() && !"@?#\\\"'<>`{}|^%".contains(c));
    if is_host && is_plain && url.len() <= TEXT_BYTES_MAX {
        Ok(url.to_owned())
    } else {
        // The part before an @ may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        Err(ConnectionError::Address(shown.chars().take(80).collect()))
    }
}

//! The repository on a forge that commits come from, as expressions of jobs see it: `github.repository` and its addresses.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The forge of a repository that is named without one.
const GITHUB: &str = "https://github.com";

/// A repository on a forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRepository {
    /// The address of the forge: `https://github.com`.
    pub server_url: String,
    /// `owner/name`
    pub name: String,
}

/// Text that names no repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a repository: write OWNER/NAME, or its address")]
pub struct ParseRepositoryError {
    text: String,
}

impl SourceRepository {
    /// A repository of GitHub.
    #[must_use]
    pub fn on_github(name: impl Into<String>) -> Self {
        Self {
            server_url: GITHUB.to_owned(),
            name: name.into(),
        }
    }

    /// The part of its name before the slash.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The address of the forge's REST API. All forges but GitHub are taken for GitHub Enterprise.
    #[must_use]
    pub fn api_url(&self) -> String {
        match self.server_url.as_str() {
            GITHUB => "https://api.github.com".to_owned(),
            server => format!("{server}/api/v3"),
        }
    }

    /// The address of the forge's GraphQL API.
    #[must_use]
    pub fn graphql_url(&self) -> String {
        match self.server_url.as_str() {
            GITHUB => "https://api.github.com/graphql".to_owned(),
            server => format!("{server}/api/graphql"),
        }
    }
}

impl FromStr for SourceRepository {
    type Err = ParseRepositoryError;

    /// Parses `owner/name`, and the addresses that git takes: `https://host/owner/name.git`, `git@host:owner/name.git`.
    fn from_str(text: &str) -> Result<Self, ParseRepositoryError> {
        let invalid = || ParseRepositoryError {
            text: text.chars().take(80).collect(),
        };
        let (server_url, path) = match text.split_once("://") {
            Some((scheme @ ("http" | "https" | "ssh" | "git"), rest)) => {
                let (host, path) = rest.split_once('/').ok_or_else(invalid)?;
                let host = host.rsplit('@').next().unwrap_or(host);
                match scheme {
                    "http" | "https" => (format!("{scheme}://{host}"), path),
                    // The port of ssh is not the port of HTTPS.
                    _ => (
                        format!("https://{}", host.split(':').next().unwrap_or(host)),
                        path,
                    ),
                }
            }
            Some(_) => return Err(invalid()),
            None => match text.split_once(':') {
                Some((host, path)) if !host.contains('/') => {
                    let host = host.rsplit('@').next().unwrap_or(host);
                    (format!("https://{host}"), path)
                }
                Some(_) => return Err(invalid()),
                None if text.starts_with('/') => return Err(invalid()),
                None => (GITHUB.to_owned(), text),
            },
        };
        let path = path.trim_matches('/');
        let name = path.strip_suffix(".git").unwrap_or(path);
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_part = |part: &str| {
            !part.is_empty() && !matches!(part, "." | "..") && part.chars().all(is_allowed)
        };
        let parts = name.split('/').count();
        let has_host = server_url.len() > "https://".len();
        if !(2..=8).contains(&parts) || !name.split('/').all(is_part) || !has_host {
            return Err(invalid());
        }
        Ok(Self {
            server_url,
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read() {
        let read = |text: &str| {
            let repository: SourceRepository = text.parse().unwrap();
            format!("{} {}", repository.server_url, repository.name)
        };
        for (text, expected) in [
            ("acme/app", "https://github.com acme/app"),
            (
                "https://github.com/acme/app.git",
                "https://github.com acme/app",
            ),
            (
                "https://me:token@github.com/acme/app/",
                "https://github.com acme/app",
            ),
            (
                "git@github.com:acme/my.app.git",
                "https://github.com acme/my.app",
            ),
            (
                "ssh://git@forge.example:2222/acme/app",
                "https://forge.example acme/app",
            ),
            (
                "http://127.0.0.1:3000/acme/app",
                "http://127.0.0.1:3000 acme/app",
            ),
            (
                "https://gitlab.com/group/sub/app.git",
                "https://gitlab.com group/sub/app",
            ),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "app",
            "/srv/git/app.git",
            "../app",
            "file:///srv/app",
            "a/..",
            "https:///a/b",
            "a b/c",
        ] {
            assert!(text.parse::<SourceRepository>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn other_forges_have_the_addresses_of_github_enterprise() {
        let own: SourceRepository = "https://git.acme.example/a/b".parse().unwrap();
        assert_eq!(own.api_url(), "https://git.acme.example/api/v3");
        assert_eq!(own.graphql_url(), "https://git.acme.example/api/graphql");
        let public = SourceRepository::on_github("a/b");
        assert_eq!(
            (public.owner(), &*public.api_url()),
            ("a", "https://api.github.com")
        );
    }

    #[test]
    fn a_configuration_names_the_repository() {
        let config = |line: &str| {
            let text = format!(
                "service: shop\n{line}\nrun: {{ command: ./run }}\nenvironments: {{ production: {{}} }}\n"
            );
            let source = shipway_syntax::SourceFile::new("shipway.yaml", text);
            crate::config::parse(&source).map_err(|problems| problems[0].one_line(&source))
        };
        let (named, _) = config("repository: acme/app").unwrap();
        assert_eq!(
            named.repository,
            Some(SourceRepository::on_github("acme/app"))
        );
        let (unnamed, _) = config("").unwrap();
        assert_ne!(named.digest(), unnamed.digest());
        assert!(
            !serde_json::to_string(&unnamed)
                .unwrap()
                .contains("repository")
        );
        assert_eq!(
            config("repository: app").unwrap_err(),
            "shipway.yaml:2:13: error: \"app\" is not a repository: write OWNER/NAME, or its address"
        );
    }
}

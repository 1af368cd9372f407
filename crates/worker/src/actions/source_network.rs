//! Calls of git that fetch from addresses in a commit: submodules and large files.

use std::{path::Path, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::process::Command;

use super::{fetch_error::NetworkGitError, step_context::StepContext};

/// The protocols that git may use, also for addresses that a fetched commit names. Not `file`, which reads what lies on this machine, and not
/// `ext`, which runs programs.
const PROTOCOLS: &str = "http:https:ssh:git";
/// Variables of a step that reach git: where programs and the user's configuration are, proxies, and the agent of ssh.
const PASSED: [&str; 13] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
];

/// Git with access to the network.
pub(super) struct NetworkGit {
    /// The forge: `https://github.com`.
    server_url: Option<String>,
    /// `owner/name` there.
    repository: String,
    /// The input `token`.
    token: Option<String>,
}

impl NetworkGit {
    pub(super) fn new(context: &StepContext<'_>) -> Self {
        let server_url = context.github.get("server_url").to_text().to_string();
        Self {
            // Absent unless the repository on its forge is known.
            server_url: Some(server_url).filter(|url| !url.is_empty()),
            repository: context.github.get("repository").to_text().to_string(),
            token: context.input("token").map(str::to_owned),
        }
    }

    /// The address of the run's repository on its forge, if that is known.
    pub(super) fn repository_url(&self) -> Option<String> {
        let server_url = self.server_url.as_deref()?.trim_end_matches('/');
        let is_known = self.repository.contains('/');
        is_known.then(|| format!("{server_url}/{}", self.repository))
    }

    /// Runs git.
    pub(super) async fn run(
        &self,
        env: &[(String, String)],
        at: &Path,
        arguments: &[&str],
    ) -> Result<(), NetworkGitError> {
        let mut command = Command::new("git");
        command
            .args(["-c", "safe.directory=*", "-c", "init.defaultBranch=main"])
            // A transfer that makes no progress for a minute has failed.
            .args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60"])
            .args(arguments)
            .current_dir(at)
            .env_clear()
            .envs(
                env.iter()
                    .filter(|(name, _)| PASSED.contains(&name.as_str()))
                    .cloned(),
            )
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .envs(self.login());
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = output.await.map_err(NetworkGitError::Start)?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let reason = first_error(&String::from_utf8_lossy(&output.stderr));
                Err(NetworkGitError::Failed(reason))
            }
        }
    }

    /// The token as a header for the forge only. It is never on a command line.
    fn login(&self) -> Vec<(String, String)> {
        let (Some(token), Some(server_url)) = (&self.token, &self.server_url) else {
            return Vec::new();
        };
        let login = STANDARD.encode(format!("x-access-token:{token}"));
        let server_url = server_url.trim_end_matches('/');
        let pair = |name: &str, value: String| (name.to_owned(), value);
        vec![
            pair("GIT_CONFIG_COUNT", "1".to_owned()),
            pair(
                "GIT_CONFIG_KEY_0",
                format!("http.{server_url}/.extraheader"),
            ),
            pair(
                "GIT_CONFIG_VALUE_0",
                format!("Authorization: Basic {login}"),
            ),
        ]
    }
}

/// Whether an address is one of [`PROTOCOLS`], or of ssh without a scheme: `git@host:owner/name`.
pub(super) fn is_network_address(address: &str) -> bool {
    if address.starts_with('-') || address.chars().any(char::is_control) {
        return false;
    }
    if let Some((scheme, rest)) = address.split_once("://") {
        let is_allowed = PROTOCOLS.split(':').any(|allowed| allowed == scheme);
        return is_allowed && !rest.starts_with(['-', '/']) && !rest.is_empty();
    }
    // `ext::program` names a remote helper.
    match address.split_once(':') {
        Some((host, path)) => !host.contains('/') && !host.is_empty() && !path.starts_with(':'),
        None => false,
    }
}

/// The first error of git, and the address that it is about; the last lines say only that everything failed.
fn first_error(stderr: &str) -> String {
    let mut lines = stderr.lines().map(str::trim);
    let fatal = |line: &&str| line.starts_with("fatal:") || line.starts_with("error:");
    let errors: Vec<&str> = lines.clone().filter(fatal).collect();
    let about = errors.iter().find(|line| line.contains("clone of '"));
    match (errors.first(), about) {
        (Some(first), Some(about)) if first != about => format!("{first} ({about})"),
        (Some(first), _) => (*first).to_owned(),
        // Git LFS has no prefix, and its last line says only that something failed.
        (None, _) => lines
            .find(|line| !line.is_empty())
            .unwrap_or("git failed")
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_other_machines_are_fetched() {
        for address in [
            "https://github.com/acme/lib",
            "http://host:8080/lib.git",
            "ssh://git@host/lib",
            "git@github.com:acme/lib.git",
            "git://host/lib",
        ] {
            assert!(is_network_address(address), "{address}");
        }
        for address in [
            "file:///etc",
            "/srv/git/lib.git",
            "C/../lib",
            "ext::sh -c touch% /tmp/x",
            "fd::17",
            "-uupload-pack=touch",
            "--upload-pack=touch x:y",
            "ssh://-oProxyCommand=touch/x",
            "https://",
            "lib",
            "",
            "a/b:c",
            "https://host/\nfile:///x",
            "HTTPS://host/x",
        ] {
            assert!(!is_network_address(address), "{address}");
        }
    }

    #[test]
    fn the_first_error_is_the_reason() {
        let stderr = "Cloning into '/w/lib'...\nfatal: transport 'file' not allowed\nfatal: clone of 'file:///x' into submodule path '/w/lib' failed\nFailed to clone 'lib' a second time, aborting\n";
        assert_eq!(
            first_error(stderr),
            "fatal: transport 'file' not allowed (fatal: clone of 'file:///x' into submodule path '/w/lib' failed)"
        );
        let stderr =
            "batch response: connection refused\nFailed to fetch some objects from 'http://h'\n";
        assert_eq!(first_error(stderr), "batch response: connection refused");
    }
}

//! Fetches from the repository of a forge.
//!
//! # Invariants
//!
//! - The authorization is passed in the environment of git, and only for the address it is for; git follows no redirect.
//! - References of pull requests are below `refs/pull/`, so that no branch is changed by them.

use std::time::Duration;

use jiff::Timestamp;
use shipway_core::ids::CommitId;

use super::{
    GitError, GitRepository,
    command::{GitCall, to_arguments},
    repository::{FETCH_DEADLINE, parse_id},
};

/// Deadline for the list of references.
const LIST_DEADLINE: Duration = Duration::from_secs(60);

/// A repository of a forge.
#[derive(Clone)]
pub struct ForgeRemote {
    /// The address that git fetches from.
    pub url: String,
    /// The value of the header `Authorization`; none for public repositories.
    pub authorization: Option<String>,
}

/// What a pull request is about, in a repository of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPullRequest {
    /// The proposed commit.
    pub head: CommitId,
    /// The commit of the base branch.
    pub base: CommitId,
    /// The merge of both; none where they conflict.
    pub merge: Option<CommitId>,
}

/// The names of a pull request's references at the forge.
#[derive(Clone, Copy, Debug)]
pub struct PullRequestReferences<'a> {
    /// The number of the pull request.
    pub number: u64,
    /// Where the forge has the head.
    pub head: &'a str,
    /// The branch that it would be merged into.
    pub base_branch: &'a str,
}

impl GitRepository {
    /// Brings a branch or tag to where it is at the forge, and returns its object; `None` where the forge doesn't have it: it is deleted
    /// here, too.
    ///
    /// # Errors
    /// When git fails, or the forge doesn't answer.
    pub async fn fetch_reference(
        &self,
        remote: &ForgeRemote,
        reference: &str,
    ) -> Result<Option<CommitId>, GitError> {
        const WHAT: &str = "list the references of the forge";
        let call = self
            .call(WHAT)
            .args(["ls-remote", "--quiet", "--", &remote.url, reference]);
        let answer = with_remote(call, remote).deadline(LIST_DEADLINE);
        let answer = answer.run().await?.into_success()?;
        let text = String::from_utf8_lossy(&answer);
        let is_wanted = |line: &&str| line.split_once('\t').is_some_and(|it| it.1 == reference);
        let Some(line) = text.lines().find(is_wanted) else {
            self.delete_branches(&[reference]).await?;
            return Ok(None);
        };
        let id = line.split('\t').next().unwrap_or_default();
        let id = id
            .parse()
            .map_err(|_| GitError::answer(WHAT, line.as_bytes()))?;
        self.fetch_from_forge(remote, &[format!("+{reference}:{reference}")])
            .await?;
        Ok(Some(id))
    }

    /// Fetches the head and the base branch of a pull request, and merges them as the forge would.
    ///
    /// # Errors
    /// When git fails, or the forge doesn't answer.
    pub async fn fetch_pull_request(
        &self,
        remote: &ForgeRemote,
        references: PullRequestReferences<'_>,
    ) -> Result<FetchedPullRequest, GitError> {
        let PullRequestReferences {
            number,
            head,
            base_branch,
        } = references;
        let own = |name: &str| format!("refs/pull/{number}/{name}");
        let refspecs = [
            format!("+{head}:{}", own("head")),
            format!("+refs/heads/{base_branch}:{}", own("base")),
        ];
        self.fetch_from_forge(remote, &refspecs).await?;
        let missing = || GitError::Failed {
            what: "read a pull request",
            reason: "the forge has no commits of it".to_owned(),
        };
        let head = self.resolve(&own("head")).await?.ok_or_else(missing)?;
        let base = self.resolve(&own("base")).await?.ok_or_else(missing)?;
        let merge = self.merge_commits(&base, &head).await?;
        if let Some(merge) = &merge {
            let call = self.call("record a merge");
            let call = call.args(["update-ref", &own("merge"), merge.as_str()]);
            call.run().await?.into_success()?;
        }
        Ok(FetchedPullRequest { head, base, merge })
    }

    async fn fetch_from_forge(
        &self,
        remote: &ForgeRemote,
        refspecs: &[String],
    ) -> Result<(), GitError> {
        let options = to_arguments([
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--stdin",
            "--",
            &remote.url,
        ]);
        let call = self.call("fetch from the forge").args(options);
        let call = call.stdin(format!("{}\n", refspecs.join("\n")).into_bytes());
        let call = with_remote(call, remote).deadline(FETCH_DEADLINE);
        call.run().await?.into_success().map(drop)
    }

    /// The merge of two commits without a working tree; `None` where they conflict. Merged again, it is the same commit.
    async fn merge_commits(
        &self,
        base: &CommitId,
        head: &CommitId,
    ) -> Result<Option<CommitId>, GitError> {
        let call = self.call("merge a pull request");
        let call = call.args([
            "merge-tree",
            "--write-tree",
            "--no-messages",
            base.as_str(),
            head.as_str(),
        ]);
        let answer = call.run().await?;
        if answer.code == 1 {
            return Ok(None);
        }
        let tree = parse_id("merge a pull request", &answer.into_success()?)?;
        let at = self.commit_info(head).await?.at;
        let message = format!("Merge {head} into {base}");
        let call = self.call("record a merge").args([
            "commit-tree",
            tree.as_str(),
            "-p",
            base.as_str(),
            "-p",
            head.as_str(),
            "-m",
            &message,
        ]);
        let answer = with_author(call, at).run().await?.into_success()?;
        parse_id("record a merge", &answer).map(Some)
    }
}

fn with_author(call: GitCall, at: Timestamp) -> GitCall {
    let date = format!("@{} +0000", at.as_second().max(0));
    let call = call.env("GIT_AUTHOR_NAME", "Shipway");
    let call = call.env("GIT_AUTHOR_EMAIL", "shipway@example.com");
    let call = call.env("GIT_COMMITTER_NAME", "Shipway");
    let call = call.env("GIT_COMMITTER_EMAIL", "shipway@example.com");
    let call = call.env("GIT_AUTHOR_DATE", &date);
    call.env("GIT_COMMITTER_DATE", &date)
}

fn with_remote(call: GitCall, remote: &ForgeRemote) -> GitCall {
    let header = format!("http.{}.extraHeader", remote.url);
    let mut settings = vec![("http.followRedirects".to_owned(), "false".to_owned())];
    if let Some(authorization) = &remote.authorization {
        settings.push((header, format!("Authorization: {authorization}")));
    }
    let mut call = call.env("GIT_ALLOW_PROTOCOL", "http:https");
    call = call.env("GIT_CONFIG_COUNT", &settings.len().to_string());
    for (index, (key, value)) in settings.iter().enumerate() {
        call = call.env(&format!("GIT_CONFIG_KEY_{index}"), key);
        call = call.env(&format!("GIT_CONFIG_VALUE_{index}"), value);
    }
    call
}

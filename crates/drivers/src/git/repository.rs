//! Reads one repository: files of a commit, changes, authors.
//!
//! Writes only in [`GitRepository::fetch_branches`], [`GitRepository::delete_branches`], [`GitRepository::maintain`] and
//! `git/retention.rs`; never touches a working tree.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::{ids::CommitId, service::PushedCommit};

use super::{
    BRANCHES, GitError, RefUpdate,
    command::{GitCall, GitRunner, normalize_path, to_arguments},
};

/// The commit of each reference, by full name.
pub type GitRefs = BTreeMap<String, CommitId>;

/// Deadline for copying a large repository within one machine: 10 GB at 30 MB/s.
pub(super) const FETCH_DEADLINE: Duration = Duration::from_secs(330);
/// Deadline for repacking a large repository on a small machine.
pub(super) const MAINTAIN_DEADLINE: Duration = Duration::from_secs(1800);
/// Fields per commit in [`LOG_FORMAT`].
const LOG_FIELDS: usize = 8;
/// Commits beyond a limit are counted up to this number: the history of a large repository takes seconds.
const OMITTED_MAX: &str = "--max-count=100000";
const LOG_FORMAT: &str =
    "--format=tformat:%H%x00%P%x00%an%x00%ae%x00%at%x00%cn <%ce>%x00%ct%x00%B%x00";

/// A repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GitRepository {
    git: GitRunner,
    dir: PathBuf,
}

/// The author of a commit, as claimed in the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAuthor {
    /// Name.
    pub name: String,
    /// E-mail address.
    pub email: String,
}

/// The metadata of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitInfo {
    /// Commit id.
    pub id: CommitId,
    /// Parents; more than one for a merge.
    pub parents: Vec<CommitId>,
    /// The author.
    pub author: CommitAuthor,
    /// `Ada <ada@example.com>`.
    pub committer: String,
    /// When it was committed.
    pub at: Timestamp,
    /// When it was authored; lead time starts here.
    pub authored_at: Timestamp,
    /// The first line of the message.
    pub subject: String,
    /// The whole message.
    pub message: String,
}

/// Some commits of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRange {
    /// Newest first.
    pub commits: Vec<PushedCommit>,
    /// The number of older commits that are not in `commits`.
    pub omitted: u32,
}

impl GitRepository {
    pub(super) const fn new(git: GitRunner, dir: PathBuf) -> Self {
        Self { git, dir }
    }

    /// Opens the repository that contains `path`: a working tree, a linked one, a bare repository, or any folder inside.
    ///
    /// # Errors
    /// When there is none, with git's reason.
    pub async fn open_existing(path: impl AsRef<Path>) -> Result<Self, GitError> {
        Self::open(GitRunner::for_reading(), path.as_ref()).await
    }

    pub(super) async fn open(git: GitRunner, path: &Path) -> Result<Self, GitError> {
        let args = to_arguments(["rev-parse", "--path-format=absolute", "--git-common-dir"]);
        let call = git
            .call("find a repository")
            .args([OsString::from("-C"), path.into()])
            .args(args);
        let answer = call.run().await?.into_success()?;
        let line = answer.strip_suffix(b"\n").unwrap_or(&answer);
        let dir = PathBuf::from(std::ffi::OsStr::from_bytes(line));
        Ok(Self { git, dir })
    }

    /// The bare repository, or the `.git` folder that all working trees share.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.dir
    }

    /// The commit of a revision; `None` if there is none. Annotated tags are peeled.
    ///
    /// # Errors
    /// When git fails.
    pub async fn resolve(&self, revision: &str) -> Result<Option<CommitId>, GitError> {
        if revision.is_empty() || revision.contains(['\0', '\n']) {
            return Ok(None);
        }
        let revision = format!("{revision}^{{commit}}");
        let args = to_arguments([
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &revision,
        ]);
        let answer = self.call("look up a revision").args(args).run().await?;
        if answer.code != 0 && answer.stdout.is_empty() {
            return Ok(None);
        }
        parse_id("look up a revision", &answer.into_success()?).map(Some)
    }

    /// The commits of all branches and tags. Annotated tags are peeled if they point at a commit.
    ///
    /// # Errors
    /// When git fails.
    pub async fn refs(&self) -> Result<GitRefs, GitError> {
        self.list_refs(&[BRANCHES, "refs/tags/"]).await
    }

    /// The commits of all branches.
    pub(super) async fn branches(&self) -> Result<GitRefs, GitError> {
        self.list_refs(&[BRANCHES]).await
    }

    pub(super) async fn list_refs(&self, prefixes: &[&str]) -> Result<GitRefs, GitError> {
        const WHAT: &str = "list references";
        let format = "--format=%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname)";
        let args = to_arguments(["for-each-ref", format]);
        let answer = self
            .call(WHAT)
            .args(args)
            .args(prefixes)
            .run()
            .await?
            .into_success()?;
        let text = String::from_utf8_lossy(&answer);
        let line = |line: &str| {
            let (id, name) = line.split_once(' ')?;
            Some((name.to_owned(), id.parse().ok()?))
        };
        text.lines()
            .map(|text| line(text).ok_or_else(|| GitError::answer(WHAT, text.as_bytes())))
            .collect()
    }

    /// The content of a file in a commit; `None` if the commit has no such file.
    ///
    /// # Errors
    /// When the file is larger than `max_bytes`, the path is invalid, or git fails.
    pub async fn read_file(
        &self,
        commit: &CommitId,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, GitError> {
        const WHAT: &str = "read a file";
        let path = normalize_path(path)?;
        if path.is_empty() {
            return Ok(None);
        }
        // Check the size first: a huge file is rejected without being read.
        let name = format!("{commit}:{path}\n").into_bytes();
        let check = self
            .call(WHAT)
            .args(["cat-file", "--batch-check"])
            .stdin(name.clone());
        let header = check.run().await?.into_success()?;
        let line = header.strip_suffix(b"\n").unwrap_or(&header);
        let Some(size) = blob_size(line) else {
            return Ok(None);
        };
        if size > max_bytes {
            return Err(GitError::TooLarge {
                what: path.to_owned(),
                max_bytes,
            });
        }
        let answer = self
            .call(WHAT)
            .args(["cat-file", "--batch"])
            .stdin(name)
            .run()
            .await?
            .into_success()?;
        let start = line.len() + 1;
        let body = answer
            .get(start..)
            .and_then(|rest| rest.strip_suffix(b"\n"));
        body.map(|body| Some(body.to_vec()))
            .ok_or_else(|| GitError::answer(WHAT, &answer))
    }

    /// The paths that a push changed, renames as both names. A new branch is compared with its merge base with `default_branch`
    /// (a short name); without one, or for the first push of the default branch, every path is new. A deletion changes nothing.
    ///
    /// # Errors
    /// When git fails.
    pub async fn changed_paths(
        &self,
        update: &RefUpdate,
        default_branch: &str,
    ) -> Result<Vec<String>, GitError> {
        const WHAT: &str = "compare commits";
        let Some(new) = &update.new else {
            return Ok(Vec::new());
        };
        // After a forced push the old commit may have been removed.
        let old = match &update.old {
            Some(old) => self.resolve(old.as_str()).await?,
            None => None,
        };
        let base = match old {
            Some(old) => Some(old),
            None if update.branch() == Some(default_branch) => None,
            None => {
                self.merge_base(&format!("{BRANCHES}{default_branch}"), new)
                    .await?
            }
        };
        let Some(base) = base else {
            return self.list_paths(new).await;
        };
        let args = to_arguments([
            "diff-tree",
            "-r",
            "-z",
            "--name-only",
            "--no-renames",
            base.as_str(),
            new.as_str(),
            "--",
        ]);
        let answer = self.call(WHAT).args(args).run().await?.into_success()?;
        Ok(split_records(&answer)
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect())
    }

    async fn list_paths(&self, commit: &CommitId) -> Result<Vec<String>, GitError> {
        let entries = self.tree_entries(commit, "").await?;
        Ok(entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
            .collect())
    }

    async fn merge_base(
        &self,
        branch: &str,
        commit: &CommitId,
    ) -> Result<Option<CommitId>, GitError> {
        const WHAT: &str = "find where a branch began";
        let Some(tip) = self.resolve(branch).await? else {
            return Ok(None);
        };
        let answer = self
            .call(WHAT)
            .args(["merge-base", tip.as_str(), commit.as_str()])
            .run()
            .await?;
        if answer.code == 1 && answer.stdout.is_empty() {
            return Ok(None);
        }
        parse_id(WHAT, &answer.into_success()?).map(Some)
    }

    /// Whether `ancestor` is `commit` or one of its ancestors.
    ///
    /// # Errors
    /// When one of them is not in the repository, or git fails.
    pub async fn is_ancestor(
        &self,
        ancestor: &CommitId,
        commit: &CommitId,
    ) -> Result<bool, GitError> {
        let args = [
            "merge-base",
            "--is-ancestor",
            ancestor.as_str(),
            commit.as_str(),
        ];
        let answer = self.call("compare commits").args(args).run().await?;
        match answer.code {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(answer.failure()),
        }
    }

    /// What a commit says about itself.
    ///
    /// # Errors
    /// When it is not in the repository, or git fails.
    pub async fn commit_info(&self, commit: &CommitId) -> Result<CommitInfo, GitError> {
        let mut found = self.read_log(&[commit.as_str()], 1).await?;
        found
            .pop()
            .ok_or_else(|| GitError::answer("read a commit", b""))
    }

    /// The commits in `new` and not in `old` (or the history of `new`), newest first, at most `limit`, and how many more there are.
    ///
    /// # Errors
    /// When one of them is not in the repository, or git fails.
    pub async fn commits_between(
        &self,
        old: Option<&CommitId>,
        new: &CommitId,
        limit: usize,
    ) -> Result<CommitRange, GitError> {
        const WHAT: &str = "read commits";
        let without = old.map(|old| format!("^{old}"));
        let mut revisions = vec![new.as_str()];
        revisions.extend(without.as_deref());
        let max = format!("--max-count={limit}");
        let log = [
            "log",
            "--no-show-signature",
            "--no-color",
            "--format=tformat:%H %at",
            &max,
        ];
        let call = self.call(WHAT).args(log).args(&revisions).args(["--"]);
        let commits = parse_authored_commits(&call.run().await?.into_success()?)?;
        if commits.len() < limit {
            return Ok(CommitRange {
                commits,
                omitted: 0,
            });
        }
        let skip = format!("--skip={limit}");
        let count = ["rev-list", "--count", OMITTED_MAX, &skip];
        let call = self.call(WHAT).args(count).args(&revisions).args(["--"]);
        let answer = call.run().await?.into_success()?;
        let omitted = String::from_utf8_lossy(&answer).trim().parse();
        Ok(CommitRange {
            commits,
            omitted: omitted.map_err(|_| GitError::answer(WHAT, &answer))?,
        })
    }

    /// What the commits in `new` and not in `old` say about themselves, newest first, at most `limit`.
    ///
    /// # Errors
    /// When one of them is not in the repository, or git fails.
    pub async fn log_between(
        &self,
        old: &CommitId,
        new: &CommitId,
        limit: usize,
    ) -> Result<Vec<CommitInfo>, GitError> {
        let without = format!("^{old}");
        self.read_log(&[new.as_str(), &without], limit).await
    }

    async fn read_log(
        &self,
        revisions: &[&str],
        limit: usize,
    ) -> Result<Vec<CommitInfo>, GitError> {
        const WHAT: &str = "read commits";
        let max = format!("--max-count={limit}");
        let args = [
            "log",
            "--no-show-signature",
            "--no-color",
            "--no-mailmap",
            "--encoding=UTF-8",
            &max,
            LOG_FORMAT,
        ];
        let answer = self
            .call(WHAT)
            .args(args)
            .args(revisions)
            .args(["--"])
            .run()
            .await?
            .into_success()?;
        let text = String::from_utf8_lossy(&answer);
        let fields: Vec<&str> = text.split('\0').collect();
        fields
            .chunks_exact(LOG_FIELDS)
            .map(|fields| {
                parse_commit(fields).ok_or_else(|| GitError::answer(WHAT, fields[0].as_bytes()))
            })
            .collect()
    }

    /// Sets `branches` (full names) to their commits in the repository at `source`. Other branches are unchanged.
    pub(super) async fn fetch_branches(
        &self,
        source: &Path,
        branches: &[&str],
    ) -> Result<(), GitError> {
        let options = [
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
        ];
        let more = [
            "--update-shallow",
            "--no-recurse-submodules",
            "--stdin",
            "--",
        ];
        let refspecs: String = branches
            .iter()
            .map(|name| format!("+{name}:{name}\n"))
            .collect();
        let call = self
            .call("copy commits")
            .args(options)
            .args(more)
            .args([source]);
        call.stdin(refspecs.into_bytes())
            .deadline(FETCH_DEADLINE)
            .run()
            .await?
            .into_success()
            .map(drop)
    }

    /// Deletes those of `branches` (full names) that exist.
    pub(super) async fn delete_branches(&self, branches: &[&str]) -> Result<(), GitError> {
        let commands: String = branches
            .iter()
            .map(|name| format!("delete {name}\n"))
            .collect();
        let call = self
            .call("delete branches")
            .args(["update-ref", "--stdin"])
            .stdin(commands.into_bytes());
        call.run().await?.into_success().map(drop)
    }

    /// Packs loose objects if there are many. Call it periodically: pushes don't do it, to stay fast.
    ///
    /// # Errors
    /// When git fails.
    pub async fn maintain(&self) -> Result<(), GitError> {
        let call = self.call("tidy up").args(["gc", "--auto", "--quiet"]);
        call.deadline(MAINTAIN_DEADLINE)
            .run()
            .await?
            .into_success()
            .map(drop)
    }

    pub(super) fn call(&self, what: &'static str) -> GitCall {
        self.git.call(what).in_repository(&self.dir)
    }

    pub(super) const fn git(&self) -> &GitRunner {
        &self.git
    }
}

/// Splits `-z` output into records.
pub(super) fn split_records(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    answer
        .split(|byte| *byte == 0)
        .filter(|record| !record.is_empty())
}

pub(super) fn parse_id(what: &'static str, answer: &[u8]) -> Result<CommitId, GitError> {
    let text = String::from_utf8_lossy(answer);
    text.trim()
        .parse()
        .map_err(|_| GitError::answer(what, answer))
}

/// The size in `<object> blob <size>`; `None` for anything that isn't a file.
fn blob_size(line: &[u8]) -> Option<u64> {
    let mut words = std::str::from_utf8(line).ok()?.rsplitn(3, ' ');
    let size = words.next()?.parse().ok()?;
    (words.next()? == "blob" && words.next()?.parse::<CommitId>().is_ok()).then_some(size)
}

fn parse_commit(fields: &[&str]) -> Option<CommitInfo> {
    let [
        id,
        parents,
        name,
        email,
        authored_at,
        committer,
        at,
        message,
    ] = fields
    else {
        return None;
    };
    let message = message.trim_end().to_owned();
    Some(CommitInfo {
        id: id.trim_start().parse().ok()?,
        parents: parents
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?,
        author: CommitAuthor {
            name: (*name).to_owned(),
            email: (*email).to_owned(),
        },
        committer: (*committer).to_owned(),
        at: parse_commit_time(at),
        authored_at: parse_commit_time(authored_at),
        subject: message.lines().next().unwrap_or_default().to_owned(),
        message,
    })
}

/// Reads lines of a commit and the second it was authored.
fn parse_authored_commits(answer: &[u8]) -> Result<Vec<PushedCommit>, GitError> {
    let text = String::from_utf8_lossy(answer);
    let line = |line: &str| {
        let (id, seconds) = line.split_once(' ')?;
        Some(PushedCommit {
            id: id.parse().ok()?,
            authored_at: parse_commit_time(seconds),
        })
    };
    text.lines()
        .map(|text| line(text).ok_or_else(|| GitError::answer("read commits", text.as_bytes())))
        .collect()
}

/// A commit may contain any number; an invalid time counts as the epoch.
fn parse_commit_time(seconds: &str) -> Timestamp {
    seconds
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_read_with_the_second_they_were_authored() {
        let (new, old) = ("a".repeat(40), "b".repeat(64));
        // A commit may claim any time, or none.
        let text = format!("{new} 1767323045\n{old} 99999999999999999999\n{old} \n");
        let commits = parse_authored_commits(text.as_bytes()).unwrap();
        let read: Vec<_> = commits
            .iter()
            .map(|commit| (commit.id.as_str(), commit.authored_at.to_string()))
            .collect();
        let epoch = "1970-01-01T00:00:00Z".to_owned();
        assert_eq!(
            read,
            [
                (new.as_str(), "2026-01-02T03:04:05Z".to_owned()),
                (&old, epoch.clone()),
                (&old, epoch)
            ]
        );
        assert_eq!(parse_authored_commits(b"").unwrap(), []);
        for text in ["HEAD 1", "warning: what is this", &new] {
            assert!(parse_authored_commits(text.as_bytes()).is_err(), "{text}");
        }
    }
}

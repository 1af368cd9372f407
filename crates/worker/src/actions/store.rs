//! Actions of repositories, fetched once for all workers of a machine and kept by commit: `CACHE/FORGE/owner/repo/COMMIT`.
//!
//! Several workers may want the same at once: a lock for each repository, a temporary folder, a rename. A job gets a copy of
//! its own, as actions write into their folders. What git is told comes from the workflow, so it gets a clean environment
//! and nothing that begins with a dash.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use shipway_workflow::job::{ActionSource, NETWORK};
use tokio::process::Command;

use super::{blocking, known::Remote};
use crate::hash::hex;

/// How long git may take for one action.
const PATIENCE: Duration = Duration::from_secs(300);

/// A fetched repository.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// The job's own copy.
    pub(crate) folder: PathBuf,
    pub(crate) commit: String,
    /// Why it is the one that was fetched before.
    pub(crate) stale: Option<String>,
}

/// Fetches repositories of actions.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    forge: String,
    cache: PathBuf,
    /// Where the job's copies are.
    own: PathBuf,
}

/// What git said.
enum Said {
    Fine(String),
    Badly(String),
}

impl Store {
    pub(crate) fn new(source: &ActionSource, job: &Path) -> Self {
        let own = job.join("actions");
        let cache = source.cache.clone().unwrap_or_else(|| own.join("cache"));
        Self {
            cache: cache.join(folder_name(&source.forge)),
            forge: source.forge.clone(),
            own,
        }
    }

    /// The forge as people may see it: without a password.
    pub(crate) fn forge(&self) -> String {
        shown(&self.forge)
    }

    /// The repository of an action at its ref.
    pub(crate) async fn fetch(&self, remote: &Remote) -> Result<Fetched, String> {
        let name = remote.repository.to_ascii_lowercase();
        let repository = Repository {
            url: self.url(&remote.repository),
            folder: self.cache.join(&name),
            store: self,
            remote,
        };
        let fetching = tokio::time::timeout(PATIENCE, repository.fetch()).await;
        let (commit, stale) = fetching
            .unwrap_or_else(|_| Err(format!("git took longer than {PATIENCE:?}")))
            .map_err(|why| {
                let forge = self.forge();
                format!(
                    "the action {remote} can't be fetched from {forge}: {why}; check its name and ref, name a forge or a folder of bare repositories that has it with --forge (SHIPWAY_FORGE), or copy it into the repository and use it as ./path"
                )
            })?;
        let from = repository.folder.join(&commit);
        let to = self.own.join(name.replace('/', "_") + "_" + &commit);
        let copy = to.clone();
        blocking(move || {
            copied(&from, &copy).map_err(|error| format!("{}: {error}", copy.display()))
        })
        .await?;
        Ok(Fetched {
            folder: to,
            commit,
            stale,
        })
    }

    /// Where git finds `owner/repo`.
    fn url(&self, repository: &str) -> String {
        if !self.is_folder() {
            let joint = if self.forge.ends_with(':') { "" } else { "/" };
            return format!("{}{joint}{repository}", self.forge);
        }
        let folder = Path::new(&self.forge);
        // A forge doesn't mind upper case.
        let names = [repository.to_owned(), repository.to_ascii_lowercase()];
        let mut paths = names
            .iter()
            .flat_map(|name| [folder.join(format!("{name}.git")), folder.join(name)]);
        let found = paths.find(|path| path.is_dir());
        let found = found.unwrap_or_else(|| folder.join(format!("{repository}.git")));
        found.display().to_string()
    }

    fn is_folder(&self) -> bool {
        self.forge.starts_with('/')
    }
}

/// A repository of the forge, and its part of the cache.
struct Repository<'r> {
    url: String,
    folder: PathBuf,
    store: &'r Store,
    remote: &'r Remote,
}

impl Repository<'_> {
    /// The commit, which is in the cache then; and why it is an older one.
    async fn fetch(&self) -> Result<(String, Option<String>), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.folder.display());
        fs::create_dir_all(self.folder.join("refs")).map_err(failed)?;
        let (commit, stale) = self.resolve().await?;
        if self.folder.join(&commit).is_dir() {
            return Ok((commit, stale));
        }
        let lock = self.folder.join("lock");
        // Held until the end of this function; whoever waited finds it done.
        let _lock = blocking(move || {
            let file = fs::File::create(&lock).map_err(|error| error.to_string())?;
            flock(&file, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
            Ok(file)
        })
        .await?;
        if !self.folder.join(&commit).is_dir() {
            let temp = self.folder.join(temporary());
            let result = self.get(&temp, &commit).await;
            let kept =
                result.and_then(|()| fs::rename(&temp, self.folder.join(&commit)).map_err(failed));
            if kept.is_err() {
                let _ = fs::remove_dir_all(&temp);
            }
            kept?;
        }
        Ok((commit, stale))
    }

    /// The commit that the ref means now, or meant when the forge last answered.
    async fn resolve(&self) -> Result<(String, Option<String>), String> {
        let reference = &self.remote.reference;
        if reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok((reference.to_ascii_lowercase(), None));
        }
        let note = self.folder.join("refs").join(digest(reference));
        let names = [
            format!("refs/tags/{reference}^{{}}"),
            format!("refs/tags/{reference}"),
            format!("refs/heads/{reference}"),
        ];
        let mut arguments = vec!["ls-remote", "--quiet", self.url.as_str()];
        arguments.extend(names.iter().map(String::as_str));
        match self.git(&self.store.cache, &arguments).await? {
            Said::Fine(lines) => {
                let find = |name: &String| {
                    let mut lines = lines.lines().filter_map(|line| line.split_once('\t'));
                    let found = lines.find(|(_, known)| known == name);
                    found.map(|(commit, _)| commit.to_owned())
                };
                let commit = names.iter().find_map(find).ok_or_else(|| {
                    format!("the repository has no branch or tag {reference}; a commit is written with all its 40 digits")
                })?;
                // Only of use when the network is gone.
                let _ = fs::write(&note, &commit);
                Ok((commit, None))
            }
            Said::Badly(why) => {
                let why = if self.store.is_folder() && !Path::new(&self.url).is_dir() {
                    format!("there is no repository at {}", self.url)
                } else {
                    why
                };
                let known = fs::read_to_string(&note).unwrap_or_default();
                if known.is_empty() || !self.folder.join(&known).is_dir() {
                    return Err(why);
                }
                Ok((known, Some(why)))
            }
        }
    }

    /// The files of a commit.
    async fn get(&self, to: &Path, commit: &str) -> Result<(), String> {
        let folder = to.display().to_string();
        self.must(&self.folder, &["init", "--quiet", "--template=", &folder])
            .await?;
        let url = self.url.as_str();
        let one = ["fetch", "--quiet", "--no-tags", "--depth=1", url, commit];
        if let Said::Badly(_) = self.git(to, &one).await? {
            // Not every forge gives a commit by its number alone.
            let heads = "+refs/heads/*:refs/heads/*";
            let tags = "+refs/tags/*:refs/tags/*";
            let all = ["fetch", "--quiet", "--update-head-ok", url, heads, tags];
            self.must(to, &all).await?;
        }
        let checkout = ["checkout", "--quiet", "--force", "--detach", commit];
        let checked_out = self.must(to, &checkout).await;
        checked_out.map_err(|_| format!("the repository has no commit {commit}"))?;
        fs::remove_dir_all(to.join(".git")).map_err(|error| format!("{folder}: {error}"))
    }

    async fn must(&self, at: &Path, arguments: &[&str]) -> Result<String, String> {
        match self.git(at, arguments).await? {
            Said::Fine(text) => Ok(text),
            Said::Badly(why) => Err(why),
        }
    }

    async fn git(&self, at: &Path, arguments: &[&str]) -> Result<Said, String> {
        let own = &self.store.own;
        let config = own.join("gitconfig");
        // What is fetched may belong to somebody else: only files are taken from it.
        let text = "[safe]\n\tdirectory = *\n[advice]\n\tdetachedHead = false\n";
        fs::create_dir_all(own)
            .and_then(|()| fs::write(&config, text))
            .map_err(|error| format!("{}: {error}", config.display()))?;
        let network = NETWORK
            .iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        let output = Command::new("git")
            .args(arguments)
            .current_dir(at)
            .env_clear()
            .envs(network)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", own)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &config)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_HTTP_LOW_SPEED_LIMIT", "1000")
            .env("GIT_HTTP_LOW_SPEED_TIME", "30")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| format!("git can't be run: {error}"))?;
        if output.status.success() {
            return Ok(Said::Fine(
                String::from_utf8_lossy(&output.stdout).into_owned(),
            ));
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.replace(&self.store.forge, &self.store.forge());
        let lines: Vec<&str> = text.lines().map(str::trim).take(3).collect();
        Ok(Said::Badly(lines.join(" ")))
    }
}

/// Makes a copy of a folder, unless there is one.
fn copied(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        return Ok(());
    }
    let temp = to.with_extension("new");
    if temp.exists() {
        fs::remove_dir_all(&temp)?;
    }
    copy(from, &temp)?;
    fs::rename(&temp, to)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn temporary() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("temp-{}-{count}", std::process::id())
}

/// A name for a folder that no other forge gets.
fn folder_name(forge: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '_'
        }
    };
    let name: String = shown(forge).chars().map(plain).take(60).collect();
    format!("{name}-{}", &digest(forge)[..8])
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// An address without the name and password in it.
fn shown(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let from = host.rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[from..])
        }
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        assert_eq!(shown("https://u:p@host/x@y"), "https://host/x@y");
        assert_eq!(shown("https://host"), "https://host");
        assert_ne!(folder_name("https://a/b"), folder_name("https://a_b"));
        assert!(!folder_name("https://u:hunter2@host").contains("hunter2"));
    }
}

//! Inputs that are fetched from the server, once each.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use shipway_workflow::job::{ServerAccess, SourceTree};
use tokio::sync::Mutex;

use super::{JobInputError, JobInputProvider};
use crate::{
    file_hash::to_hex,
    path_error::PathError,
    server_request::{RequestError, get_from_server},
};

/// How long a server that can't be reached is waited for: long enough for a new version of it.
pub(crate) const SERVER_WAIT_MAX: Duration = Duration::from_secs(300);
/// The first pause before a request is sent again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Bytes per read.
const CHUNK_BYTES: usize = 64 * 1024;

/// The inputs of a job whose worker shares no disk with the server.
pub(crate) struct FetchedInputs {
    fetcher: Arc<InputFetcher>,
    /// Held while something is fetched: two steps that need the same input fetch it once.
    fetching: Mutex<()>,
}

struct InputFetcher {
    server: ServerAccess,
    source: SourceTree,
    /// Where inputs are kept, in the job's folder.
    folder: PathBuf,
}

impl FetchedInputs {
    pub(crate) fn new(server: &ServerAccess, source: &SourceTree, job: &Path) -> Self {
        Self {
            fetcher: Arc::new(InputFetcher {
                server: server.clone(),
                source: source.clone(),
                folder: job.join("inputs"),
            }),
            fetching: Mutex::default(),
        }
    }

    async fn fetch(
        &self,
        work: impl FnOnce(&InputFetcher) -> Result<PathBuf, JobInputError> + Send + 'static,
    ) -> Result<PathBuf, JobInputError> {
        let _only_one = self.fetching.lock().await;
        let fetcher = Arc::clone(&self.fetcher);
        tokio::task::spawn_blocking(move || work(&fetcher)).await?
    }
}

#[async_trait]
impl JobInputProvider for FetchedInputs {
    async fn source(&self) -> Result<PathBuf, JobInputError> {
        self.fetch(InputFetcher::fetch_source).await
    }

    async fn artifact(&self, digest: &str) -> Result<PathBuf, JobInputError> {
        let digest = digest.to_owned();
        self.fetch(move |fetcher| fetcher.fetch_artifact(&digest))
            .await
    }
}

impl InputFetcher {
    /// A bare repository with the job's commit and its history.
    fn fetch_source(&self) -> Result<PathBuf, JobInputError> {
        let path = self.folder.join("source.git");
        let SourceTree::Git {
            commit, reference, ..
        } = &self.source
        else {
            // Only a run without a server has a folder.
            return Ok(self.folder.clone());
        };
        if path.exists() {
            return Ok(path);
        }
        retry_unreachable("the source", || {
            let temp = path.with_extension("new");
            let _ = fs::remove_dir_all(&temp);
            fs::create_dir_all(&temp).map_err(PathError::at(&temp))?;
            run_git(&temp, &["init", "--quiet", "--bare"], None)?;
            let pack = get_from_server(&self.server, "/internal/job/source")
                .map_err(request_error("the source"))?;
            let mut pack = pack.into_body().into_reader();
            run_git(
                &temp,
                &["index-pack", "--stdin", "--strict"],
                Some(&mut pack),
            )?;
            let reference = match reference.starts_with("refs/") {
                true => reference.clone(),
                false => format!("refs/heads/{reference}"),
            };
            // Fails if the pack doesn't have the commit.
            run_git(&temp, &["update-ref", &reference, commit], None)?;
            fs::rename(&temp, &path).map_err(PathError::at(&path))?;
            Ok(())
        })?;
        Ok(path)
    }

    /// The tar file of an artifact, verified.
    fn fetch_artifact(&self, digest: &str) -> Result<PathBuf, JobInputError> {
        let folder = self.folder.join("artifacts");
        let path = folder.join(digest.replace([':', '/'], "-"));
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&folder).map_err(PathError::at(&folder))?;
        let input = format!("the artifact {digest}");
        retry_unreachable(&input, || {
            let address = format!("/internal/job/artifacts/{digest}");
            let response =
                get_from_server(&self.server, &address).map_err(request_error(&input))?;
            let temp = path.with_extension("new");
            let actual = save_and_hash(response.into_body().into_reader(), &temp, &input)?;
            if actual != digest {
                let expected = digest.to_owned();
                return Err(JobInputError::WrongDigest { expected, actual });
            }
            fs::rename(&temp, &path).map_err(PathError::at(&path))?;
            Ok(())
        })?;
        Ok(path)
    }
}

fn request_error(input: &str) -> impl Fn(RequestError) -> JobInputError {
    let input = input.to_owned();
    move |source| JobInputError::Request {
        input: input.clone(),
        source,
    }
}

/// Repeats a fetch while the server can't be reached.
fn retry_unreachable(
    input: &str,
    fetch: impl Fn() -> Result<(), JobInputError>,
) -> Result<(), JobInputError> {
    let deadline = Instant::now() + SERVER_WAIT_MAX;
    let mut pause = PAUSE_MIN;
    loop {
        match fetch() {
            Err(JobInputError::Request {
                source: RequestError::Unreachable(why),
                ..
            }) if Instant::now() < deadline => {
                eprintln!("shipway worker: {input}: {why}; trying again in {pause:?}");
            }
            ended => return ended,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Saves a download; returns its digest. A connection that breaks counts as a server that can't be reached.
fn save_and_hash(mut from: impl Read, to: &Path, input: &str) -> Result<String, JobInputError> {
    let mut file = File::create(to).map_err(PathError::at(to))?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let count = from
            .read(&mut chunk)
            .map_err(|error| request_error(input)(RequestError::Unreachable(error.to_string())))?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
        file.write_all(&chunk[..count]).map_err(PathError::at(to))?;
    }
    Ok(format!("sha256:{}", to_hex(&hash.finalize())))
}

/// Runs git in a bare repository with a clean environment, and `input` as its stdin.
fn run_git(
    at: &Path,
    arguments: &[&str],
    input: Option<&mut dyn Read>,
) -> Result<(), JobInputError> {
    let mut child = Command::new("git")
        .args(["-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(at)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("LC_ALL", "C")
        .stdin(match input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        })
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(JobInputError::GitMissing)?;
    let copied = match (input, child.stdin.take()) {
        (Some(input), Some(mut stdin)) => copy_download(input, &mut stdin),
        _ => Ok(()),
    };
    let output = child
        .wait_with_output()
        .map_err(JobInputError::GitMissing)?;
    copied?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(JobInputError::Git {
        command: arguments.first().unwrap_or(&"").to_string(),
        reason: why.trim().lines().last().unwrap_or("it failed").to_owned(),
    })
}

/// Copies a download to git. Git that stops reading reports why by its exit code.
fn copy_download(from: &mut dyn Read, to: &mut impl Write) -> Result<(), JobInputError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let source = RequestError::Unreachable(error.to_string());
                return Err(request_error("the source")(source));
            }
        };
        if to.write_all(&chunk[..count]).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers one connection after the other with these bytes; returns its address and the requests.
    fn serve(answers: Vec<Vec<u8>>) -> (ServerAccess, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let head = BufReader::new(&stream).lines().map(Result::unwrap);
                let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
                requests.push(head.join("\n"));
                stream.write_all(&answer).unwrap();
            }
            requests
        });
        let token = "t0".to_owned();
        (ServerAccess { url, token }, thread)
    }

    /// An answer that announces `length` bytes.
    fn answer(body: &[u8], length: usize) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    fn git_source(commit: &str) -> SourceTree {
        SourceTree::Git {
            repository: "shop".to_owned(),
            commit: commit.to_owned(),
            reference: "refs/heads/main".to_owned(),
        }
    }

    #[tokio::test]
    async fn an_artifact_is_fetched_once_after_a_broken_connection() {
        let folder = tempfile::tempdir().unwrap();
        let body = b"a tar file";
        let answers = vec![answer(&body[..3], body.len()), answer(body, body.len())];
        let (server, requests) = serve(answers);
        let inputs = FetchedInputs::new(&server, &git_source(""), folder.path());
        let digest = format!("sha256:{}", to_hex(&Sha256::digest(body)));
        let path = inputs.artifact(&digest).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), body);
        assert_eq!(inputs.artifact(&digest).await.unwrap(), path);
        let requests = requests.join().unwrap();
        let first = format!("GET /internal/job/artifacts/{digest} HTTP/1.1");
        assert!(requests[1].starts_with(&first), "{requests:?}");
        assert!(requests[1].contains("authorization: Bearer t0"));
    }

    #[tokio::test]
    async fn an_artifact_with_other_bytes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (server, _requests) = serve(vec![answer(b"other", 5)]);
        let inputs = FetchedInputs::new(&server, &git_source(""), folder.path());
        let digest = format!("sha256:{}", to_hex(&Sha256::digest(b"right")));
        let refused = inputs.artifact(&digest).await.unwrap_err();
        assert!(
            matches!(refused, JobInputError::WrongDigest { .. }),
            "{refused}"
        );
        let kept = folder
            .path()
            .join("inputs/artifacts")
            .join(digest.replace(':', "-"));
        assert!(!kept.exists());
    }

    #[tokio::test]
    async fn a_source_that_is_no_pack_or_lacks_the_commit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        // The pack without objects.
        let empty = [&b"PACK\0\0\0\x02\0\0\0\0"[..], &EMPTY_PACK_HASH].concat();
        let answers = vec![answer(b"no pack", 7), answer(&empty, empty.len())];
        let (server, _requests) = serve(answers);
        let commit = "1".repeat(40);
        let inputs = FetchedInputs::new(&server, &git_source(&commit), folder.path());
        for command in ["index-pack", "update-ref"] {
            match inputs.source().await.unwrap_err() {
                JobInputError::Git {
                    command: failed, ..
                } => assert_eq!(failed, command),
                error => panic!("{error}"),
            }
        }
    }

    /// SHA-1 of the header of a pack without objects.
    const EMPTY_PACK_HASH: [u8; 20] = [
        0x02, 0x9d, 0x08, 0x82, 0x3b, 0xd8, 0xa8, 0xea, 0xb5, 0x10, 0xad, 0x6a, 0xc7, 0x5c, 0x82,
        0x3c, 0xfd, 0x3e, 0xd3, 0x1e,
    ];
}

//! The server as a git remote, used by real git over real HTTP.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod git_support;

use std::{path::Path, process::Stdio, time::Duration};

use git_support::{PATIENCE, Person, Server, hook_exe, text};
use shipway_core::ids::CommitId;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr},
};

/// Not a test: what git runs as the hook, see [`hook_exe`].
#[test]
#[ignore = "run by the other tests as git's hook"]
fn as_the_hook() {
    assert_eq!(
        shipway_drivers::git::hook::post_receive(),
        std::process::ExitCode::SUCCESS
    );
}

/// A push under way, and what the pusher sees of it.
struct Push {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Push {
    fn start(person: &Person, tree: &Path, server: &Server) -> Self {
        let mut push = person.command(tree);
        push.args(["push", &server.url(), "main"]).process_group(0);
        push.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = push.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Whether a line of the hook holds this; waits for it.
    async fn remote(&mut self, wanted: &str) -> bool {
        let found = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.starts_with("remote: ") && line.contains(wanted) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .expect("a line comes")
    }

    fn is_under_way(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    async fn ends_well(&mut self) -> bool {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("the push ends")
            .unwrap()
            .success()
    }

    async fn kill(mut self) {
        let group = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        self.child.wait().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_pushed_can_be_cloned() {
    let (ada, server) = (Person::new(), Server::start(None).await);
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "shipway.yaml", "service: shop\n").await;
    ada.git(&tree, &["push", "-q", &server.url(), "main"]).await;
    ada.git(ada.home.path(), &["clone", "-q", &server.url(), "copy"])
        .await;
    assert_eq!(ada.head(&ada.path("copy")).await, first);

    let second = ada.commit(&tree, "more", "more\n").await;
    ada.git(&tree, &["push", "-q", &server.url(), "main"]).await;
    ada.git(&ada.path("copy"), &["pull", "-q", "--ff-only"])
        .await;
    assert_eq!(ada.head(&ada.path("copy")).await, second);
    let repo = server.repos.get(&"shop".parse().unwrap()).unwrap();
    assert_eq!(repo.resolve("refs/heads/main").await.unwrap(), Some(second));
}

#[tokio::test]
async fn the_hooks_answer_appears_while_the_push_is_under_way() {
    let ada = Person::new();
    let server = Server::start(Some(hook_exe(&ada))).await;
    let tree = ada.init("tree").await;
    let commit = ada.commit(&tree, "a", "a").await;
    let mut push = Push::start(&ada, &tree, &server);
    let reported = server.report().await;
    assert_eq!(reported.authorization, "Bearer hook-secret");
    assert_eq!(
        (
            reported.report.service.as_str(),
            reported.report.pusher.name.as_deref()
        ),
        ("shop", Some("ada"))
    );
    let updates = reported.report.ref_updates();
    assert_eq!(
        (
            updates[0].branch(),
            &updates[0].old,
            updates[0].new.as_ref()
        ),
        (Some("main"), &None, Some(&commit))
    );

    // Each line is seen before the next is said: nothing waits for the end.
    for line in [
        "run r12: http://127.0.0.1:7878/runs/shop/r12",
        "build: running",
        "build: green",
    ] {
        reported.say(line).await;
        assert!(push.remote(line).await, "{line}");
        assert!(push.is_under_way());
    }
    drop(reported);
    assert!(push.ends_well().await);
}

#[tokio::test]
async fn a_pusher_who_leaves_after_the_push_arrived_does_not_stop_it() {
    let ada = Person::new();
    let server = Server::start(Some(hook_exe(&ada))).await;
    let tree = ada.init("tree").await;
    let commit = ada.commit(&tree, "a", "a").await;
    let push = Push::start(&ada, &tree, &server);
    let reported = server.report().await;
    push.kill().await;
    // The hook goes on reading: it was not killed with its client.
    for n in 0..50 {
        reported
            .say(&format!("line {n} {}", "x".repeat(2000)))
            .await;
    }
    let repo = server.repos.get(&"shop".parse().unwrap()).unwrap();
    assert_eq!(repo.resolve("main").await.unwrap(), Some(commit));
}

#[tokio::test]
async fn a_push_succeeds_when_the_report_cannot_be_delivered() {
    let ada = Person::new();
    let server = Server::start(Some(hook_exe(&ada))).await;
    let tree = ada.init("tree").await;
    ada.commit(&tree, "a", "a").await;
    let mut push = Push::start(&ada, &tree, &server);
    let reported = server.report().await;
    reported.say("run r1").await;
    assert!(push.remote("run r1").await);
    let broken = std::io::Error::other("the server was killed");
    reported.answer.send(Err(broken)).await.unwrap();
    assert!(
        push.remote("shipway: your push is stored, but the connection to the server was lost (")
            .await
    );
    assert!(push.ends_well().await);
}

#[tokio::test]
async fn compressed_requests_are_understood() {
    // Git compresses what it asks for when that is long: hundreds of "have" lines.
    let (ada, server) = (Person::new(), Server::start(None).await);
    let tree = ada.init("tree").await;
    ada.commit(&tree, "a", "a").await;
    ada.git(&tree, &["push", "-q", &server.url(), "main"]).await;
    let other = ada.init("other").await;
    let commits: String = (0..400)
        .map(|n| format!("commit refs/heads/b{n}\ncommitter A <a@b> {n} +0000\ndata 1\nx\n\n"))
        .collect();
    let mut import = ada.command(&other);
    let mut import = import
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    import
        .stdin
        .take()
        .unwrap()
        .write_all(commits.as_bytes())
        .await
        .unwrap();
    assert!(import.wait().await.unwrap().success());
    let mut fetch = ada.command(&other);
    fetch
        .args(["fetch", &server.url(), "main"])
        .env("GIT_TRACE_CURL", "1");
    let output = tokio::time::timeout(PATIENCE, fetch.output())
        .await
        .unwrap()
        .unwrap();
    let trace = text(&output.stderr);
    assert!(output.status.success(), "{trace}");
    assert!(
        trace
            .to_ascii_lowercase()
            .contains("content-encoding: gzip"),
        "the request was compressed"
    );
}

#[tokio::test]
async fn large_pushes_stream_through() {
    let ada = Person::new();
    let server = Server::start(None).await;
    let tree = ada.init("tree").await;
    let noise = noise(48 << 20);
    let commit = ada.commit(&tree, "blob", &noise).await;
    let before = peak_memory();
    ada.git(&tree, &["push", "-q", &server.url(), "main"]).await;
    ada.git(ada.home.path(), &["clone", "-q", &server.url(), "copy"])
        .await;
    let grown = peak_memory() - before;
    assert!(std::fs::read(ada.path("copy/blob")).unwrap() == noise);
    assert_eq!(ada.head(&ada.path("copy")).await, commit);
    // The clone was read here for comparison, after `grown` was taken.
    assert!(
        grown < 24 << 20,
        "{grown} bytes more: a pack was collected in memory"
    );
}

/// Bytes that don't compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn two_pushes_at_once_leave_one_winner_and_a_whole_repository() {
    let (ada, server) = (Person::new(), Server::start(None).await);
    let (one, two) = (ada.init("one").await, ada.init("two").await);
    let a = ada.commit(&one, "a", "a").await;
    let b = ada.commit(&two, "b", "b").await;
    let url = server.url();
    let push = ["push", url.as_str(), "main"];
    let (first, second) = tokio::join!(ada.try_git(&one, &push), ada.try_git(&two, &push));
    assert!(
        first.status.success() != second.status.success(),
        "{}{}",
        text(&first.stderr),
        text(&second.stderr)
    );
    let repo = server.repos.get(&"shop".parse().unwrap()).unwrap();
    let winner = if first.status.success() { a } else { b };
    assert_eq!(repo.resolve("main").await.unwrap(), Some(winner));
    ada.git(
        repo.git_dir(),
        &["-c", "safe.directory=*", "fsck", "--strict"],
    )
    .await;
}

#[tokio::test]
async fn deleting_and_forcing_are_reported_as_what_they_are() {
    let ada = Person::new();
    let server = Server::start(Some(hook_exe(&ada))).await;
    let tree = ada.init("tree").await;
    let push = async |refspecs: &[&str]| {
        let url = server.url();
        let args: Vec<&str> = ["push", "-q", &url]
            .into_iter()
            .chain(refspecs.iter().copied())
            .collect();
        let work = async {
            ada.git(&tree, &args).await;
        };
        let ((), reported) = tokio::join!(work, async { server.report().await.report });
        reported.ref_updates()
    };
    let first = ada.commit(&tree, "a", "1").await;
    push(&["main", "main:feature/x"]).await;
    ada.git(&tree, &["commit", "-q", "--amend", "-m", "again"])
        .await;
    let second = ada.head(&tree).await;
    let updates = push(&["+main", ":feature/x"]).await;
    let found = |branch: &str| {
        let update = updates
            .iter()
            .find(|update| update.branch() == Some(branch))
            .unwrap();
        (update.old.clone(), update.new.clone())
    };
    assert_eq!(found("main"), (Some(first.clone()), Some(second)));
    assert_eq!(found("feature/x"), (Some(first), None));
}

#[tokio::test]
async fn pushing_a_branch_that_does_not_exist_is_gits_own_error() {
    let (ada, server) = (Person::new(), Server::start(None).await);
    let tree = ada.init("tree").await;
    ada.commit(&tree, "a", "a").await;
    let output = ada.try_git(&tree, &["push", &server.url(), "nope"]).await;
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("src refspec nope does not match any"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn nothing_outside_smart_http_is_served() {
    let server = Server::start(None).await;
    for path in [
        "HEAD",
        "config",
        "info/refs",
        "objects/info/packs",
        "../.shipway/.gitconfig",
        "%2e%2e/.shipway/.gitconfig",
    ] {
        let answer = raw(
            &server,
            &format!("GET /git/shop/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let missing = raw(&server, "GET /git/nope/info/refs?service=git-upload-pack HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(
        missing.contains("there is no repository for this service"),
        "{missing}"
    );
}

async fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    text(&answer)
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_push_ends_git() {
    let server = Server::start(None).await;
    let repo = server.repos.get(&"shop".parse().unwrap()).unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let zero = "0".repeat(40);
    let command = format!("{zero} {} refs/heads/main\0report-status", "1".repeat(40));
    // A pack of five objects that never come.
    let pack = b"PACK\0\0\0\x02\0\0\0\x05";
    let body = format!("{:04x}{command}0000", command.len() + 4);
    let head = "POST /git/shop/git-receive-pack HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-git-receive-pack-request\r\ncontent-length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream.write_all(pack).await.unwrap();
    until("git works", || backends(repo.git_dir()) > 0).await;
    drop(stream);
    until("git ended", || backends(repo.git_dir()) == 0).await;
    assert_eq!(repo.refs().await.unwrap().len(), 0);
    until("nothing half-received is left", || {
        !leftovers(repo.git_dir())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_clone_ends_git() {
    let (ada, server) = (Person::new(), Server::start(None).await);
    let tree = ada.init("tree").await;
    let commit = ada.commit(&tree, "blob", noise(32 << 20)).await;
    ada.git(&tree, &["push", "-q", &server.url(), "main"]).await;
    let repo = server.repos.get(&"shop".parse().unwrap()).unwrap();
    let want = format!("want {commit} ofs-delta\n");
    let body = format!("{:04x}{want}00000009done\n", want.len() + 4);
    let head = format!(
        "POST /git/shop/git-upload-pack HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\
         content-type: application/x-git-upload-pack-request\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut some = vec![0; 1 << 20];
    stream.read_exact(&mut some).await.unwrap();
    assert!(
        some.windows(4).any(|window| window == b"PACK"),
        "{}",
        text(&some[..200])
    );
    assert!(backends(repo.git_dir()) > 0);
    drop(stream);
    until("git ended", || backends(repo.git_dir()) == 0).await;
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// How many processes work in this repository.
fn backends(git_dir: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == git_dir)
        })
        .count()
}

fn leftovers(git_dir: &Path) -> bool {
    let entries = std::fs::read_dir(git_dir.join("objects"))
        .unwrap()
        .flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().contains("incoming"))
}

#[tokio::test]
async fn malformed_objects_are_refused() {
    let (ada, server) = (Person::new(), Server::start(None).await);
    let tree = ada.init("tree").await;
    ada.commit(&tree, "a", "a").await;
    let blob = ada.git(&tree, &["rev-parse", "HEAD:a"]).await;
    // A tree whose only entry is `.git/config`'s folder.
    let mut mktree = ada.command(&tree);
    let mut mktree = mktree.args(["hash-object", "-w", "-t", "tree", "--literally", "--stdin"]);
    mktree = mktree.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = mktree.spawn().unwrap();
    let mut bytes = b"100644 .git\0".to_vec();
    bytes.extend((0..20).map(|n| u8::from_str_radix(&blob[2 * n..2 * n + 2], 16).unwrap()));
    child.stdin.take().unwrap().write_all(&bytes).await.unwrap();
    let made = text(&child.wait_with_output().await.unwrap().stdout);
    let commit = ada
        .git(&tree, &["commit-tree", "-m", "evil", made.trim()])
        .await;
    let _: CommitId = commit.parse().unwrap();
    let output = ada
        .try_git(
            &tree,
            &["push", &server.url(), &format!("{commit}:refs/heads/main")],
        )
        .await;
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("hasDotgit"),
        "{said}"
    );
}

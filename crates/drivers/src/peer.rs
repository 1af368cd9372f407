//! Finds the process that sent a request over loopback, and whether it belongs to a job or an instance.
//!
//! # Why
//!
//! A server without a token treats every local request as its user's. A step of a job is a local process too, and must not
//! approve or deploy on behalf of the user.
//!
//! # How
//!
//! The client's end of the connection is found in the kernel's socket table, its process by the socket's inode, and the worker
//! or shim above it by its command. A process of a job whose worker has exited is recognized by its mount namespace, in which
//! the data directory is hidden.
//!
//! # Failure modes
//!
//! - `/proc` can't be read: the process is unknown and the request is accepted.
//! - The client has closed its connection: the request is rejected, because its sender can't be determined.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Limit of ancestors to inspect.
const ANCESTORS_MAX: usize = 256;

/// The process that sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerProcess {
    /// A process of a job, with its worker's folder if known.
    Job(Option<PathBuf>),
    /// A process of an instance, with its folder.
    Instance(PathBuf),
    /// The connection was closed.
    Gone,
    /// Another process of this machine, or one that can't be inspected.
    Other,
}

/// Finds the sender of a request that came to `local` from `remote`. `data` is the server's data directory.
#[must_use]
pub fn find_peer(local: SocketAddr, remote: SocketAddr, data: &Path) -> PeerProcess {
    let table = match remote.ip() {
        IpAddr::V4(_) => "/proc/net/tcp",
        IpAddr::V6(_) => "/proc/net/tcp6",
    };
    let inode = || {
        let table = fs::read_to_string(table).ok()?;
        Some(find_socket_inode(&table, remote, local))
    };
    // The client may have passed its descriptor to another process meanwhile.
    for _ in 0..2 {
        match inode() {
            None => return PeerProcess::Other,
            Some(None | Some(0)) => return PeerProcess::Gone,
            Some(Some(inode)) => {
                if let Some(pid) = find_socket_owner(inode) {
                    return classify_process(pid, data);
                }
            }
        }
    }
    PeerProcess::Other
}

/// The inode of the socket from `local` to `remote`; 0 if no process holds it any more.
fn find_socket_inode(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (table_address(local), table_address(remote));
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_wanted = *fields.get(1)? == local && *fields.get(2)? == remote;
        is_wanted.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// `0100007F:1EC6`: words in the machine's byte order, then the port.
fn table_address(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks(4).map(|word| {
        let word = [word[0], word[1], word[2], word[3]];
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

/// A process that holds the socket.
fn find_socket_owner(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // The newest first: most clients are short-lived.
    pids.sort_unstable_by(|one, other| other.cmp(one));
    pids.into_iter().find(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.into_iter().flatten().flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
        })
    })
}

fn classify_process(pid: u32, data: &Path) -> PeerProcess {
    let mut ancestor = pid;
    for _ in 0..ANCESTORS_MAX {
        if let Some(peer) = classify_command(ancestor, data) {
            return peer;
        }
        match parent_pid(ancestor) {
            Some(parent) if parent > 1 => ancestor = parent,
            _ => break,
        }
    }
    if sees_hidden_data(pid, data) {
        return PeerProcess::Job(None);
    }
    PeerProcess::Other
}

/// `shipway worker --dir DATA/runs/…` and `shipway instance --dir DATA/instances/…`
fn classify_command(pid: u32, data: &Path) -> Option<PeerProcess> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let (command, option, folder) = (words.next()?, words.next()?, words.next()?);
    let folder = PathBuf::from(std::str::from_utf8(folder).ok()?);
    match (command, option) {
        (b"worker", b"--dir") if folder.starts_with(data.join("runs")) => {
            Some(PeerProcess::Job(Some(folder)))
        }
        (b"instance", b"--dir") if folder.starts_with(data.join("instances")) => {
            Some(PeerProcess::Instance(folder))
        }
        _ => None,
    }
}

fn parent_pid(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any character: search for the last parenthesis.
    stat[stat.rfind(')')? + 1..]
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Whether the process is in a mount namespace that hides the data directory, as jobs are.
fn sees_hidden_data(pid: u32, data: &Path) -> bool {
    let namespace = |process: &str| {
        let path = format!("/proc/{process}/ns/mnt");
        fs::metadata(path).map(|it| it.ino())
    };
    let (Ok(own), Ok(theirs)) = (namespace("self"), namespace(&pid.to_string())) else {
        return false;
    };
    let seen = Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(data.strip_prefix("/").unwrap_or(data));
    // In a container or a confined browser the folder is missing; in a job it is empty.
    own != theirs && seen.is_dir() && matches!(seen.join("shipway.lock").try_exists(), Ok(false))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        process::Command,
    };

    use super::*;

    #[test]
    fn the_table_of_sockets_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:A0F0 0100007F:1EC6 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n\
            1: 0100007F:A0F1 0100007F:1EC6 06 00000000:00000000 00:00000000 00000000     0        0 0 1\n";
        let to = "127.0.0.1:7878".parse().unwrap();
        let found = |port: u16| find_socket_inode(table, ([127, 0, 0, 1], port).into(), to);
        assert_eq!(found(0xA0F0), Some(4242));
        assert_eq!(found(0xA0F1), Some(0));
        assert_eq!(found(1), None);
        let six = table_address("[::1]:7878".parse().unwrap());
        assert_eq!(six, "00000000000000000000000001000000:1EC6");
    }

    #[test]
    fn a_process_of_a_job_is_told_from_others_and_from_one_that_is_gone() {
        let data = tempfile::tempdir().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let local = listener.local_addr().unwrap();
            let own = TcpStream::connect(local).unwrap();
            let peer = |remote| find_peer(local, remote, data.path());
            assert_eq!(peer(own.local_addr().unwrap()), PeerProcess::Other);
            let remote = own.local_addr().unwrap();
            drop(own);
            assert_eq!(peer(remote), PeerProcess::Gone);
            // A worker by its command, and a step of it in a session of its own.
            let job = data.path().join("runs/shop/1/build");
            let step = format!("exec 3<>/dev/tcp/{}/{}; cat <&3", local.ip(), local.port());
            let script = format!("setsid bash -c '{step}' &\nwait\n");
            fs::write(data.path().join("worker"), script).unwrap();
            let mut worker = Command::new("bash")
                .args(["worker", "--dir"])
                .arg(&job)
                .current_dir(data.path())
                .spawn()
                .unwrap();
            listener.accept().unwrap();
            let (stream, remote) = listener.accept().unwrap();
            assert_eq!(peer(remote), PeerProcess::Job(Some(job)));
            drop(stream);
            worker.wait().unwrap();
        }
    }
}

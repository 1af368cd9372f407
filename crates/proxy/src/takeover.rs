//! Replaces a running proxy without losing a connection.
//!
//! ```text
//! successor                                   predecessor, at the control socket
//! POST /handover {socket}            →        stops accepting new routes
//! ←        listening sockets and the lock, as descriptors over `socket`
//! listens and serves
//! binds the control path; the predecessor's socket keeps a path of its own
//! POST /stop                         →        stops accepting, finishes its open requests, however long that takes
//! GET /counters                      ⇄        keeps counting
//! ←        POST /inherit {final counters}; exits
//! ```
//!
//! # Invariants
//!
//! - Both processes accept from the same sockets: no connection is refused or reset between them.
//! - The lock is held by at least one of them at any time.
//!
//! # Failure modes
//!
//! - The successor dies before `/stop`: the predecessor serves on and accepts routes again.
//! - The predecessor dies: the successor keeps the counters that it reported last.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::{
    control_client::{ControlClient, ControlError},
    listener_set::ListenerSet,
    protocol::{HandoverInventory, HandoverRequest},
};

/// Linux's limit of descriptors in one message.
const DESCRIPTORS_MAX: usize = 253;
/// Upper bound for the inventory: one line per socket.
const INVENTORY_MAX: usize = 64 << 10;
/// Timeout for sending or receiving the sockets; only a few bytes are copied.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a successor receives.
#[derive(Debug)]
pub(crate) struct TakenSockets {
    pub(crate) inventory: HandoverInventory,
    pub(crate) listeners: ListenerSet,
    /// The lock on the control socket; held while either process has the descriptor.
    pub(crate) lock: OwnedFd,
}

/// Why a proxy could not be taken over. It keeps serving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    #[error(transparent)]
    ControlClient(#[from] ControlError),
    #[error("its sockets could not be received: {0}")]
    Receive(#[from] io::Error),
}

/// Asks the proxy at `control` for its sockets; `None` if no proxy answers there.
pub(crate) async fn take_sockets(control: &Path) -> Result<Option<TakenSockets>, TakeoverError> {
    let predecessor = ControlClient::new(control);
    if let Err(ControlError::Unreachable { .. }) = predecessor.health().await {
        return Ok(None);
    }
    let socket = path_with_suffix(control, &format!("handover-{}", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    let received = tokio::task::spawn_blocking(move || receive_sockets(&listener));
    let asked = predecessor
        .hand_over(&HandoverRequest {
            socket: socket.clone(),
        })
        .await;
    if asked.is_err() {
        // The predecessor won't connect: connect once, so that the receiving thread ends.
        drop(UnixStream::connect(&socket));
    }
    let received = received.await.map_err(io::Error::other)?;
    let _ = std::fs::remove_file(&socket);
    asked?;
    Ok(Some(received?))
}

/// Sends the sockets and the lock to the process that listens at `socket`.
pub(crate) fn send_sockets(
    socket: &Path,
    inventory: &HandoverInventory,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::other(
            "more listening sockets than can be handed over",
        ));
    }
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(HANDOVER_TIMEOUT))?;
    let text = serde_json::to_vec(inventory)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    let sent = sendmsg(
        &stream,
        &[IoSlice::new(&text)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    if sent < text.len() {
        return Err(io::Error::other("the inventory is too large"));
    }
    Ok(())
}

fn receive_sockets(listener: &UnixListener) -> io::Result<TakenSockets> {
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(HANDOVER_TIMEOUT))?;
    let mut text = vec![0; INVENTORY_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut text)];
    let message = recvmsg(
        stream.as_fd(),
        into,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    let inventory: HandoverInventory = serde_json::from_slice(&text[..message.bytes])?;
    let lock = descriptors.pop();
    let (Some(lock), true) = (lock, descriptors.len() == inventory.listeners.len()) else {
        return Err(io::Error::other("descriptors are missing"));
    };
    let mut listeners = ListenerSet::default();
    for (listening, descriptor) in inventory.listeners.iter().zip(descriptors) {
        listeners.adopt_socket(listening.clone(), descriptor.into())?;
    }
    Ok(TakenSockets {
        inventory,
        listeners,
        lock,
    })
}

/// A path next to the control socket, in a folder that only its owner can enter.
pub(crate) fn path_with_suffix(control: &Path, suffix: &str) -> PathBuf {
    let mut name = control.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener};

    use super::*;
    use crate::protocol::ListeningSocket;

    #[test]
    fn a_socket_that_was_sent_is_the_same_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let lock = File::create(folder.path().join("lock")).unwrap();
        let wanted = "127.0.0.1:0".parse().unwrap();
        let inventory = HandoverInventory {
            boot: "b".into(),
            pid: 1,
            generation: 2,
            predecessors: Vec::new(),
            listeners: vec![ListeningSocket {
                wanted,
                of_route: false,
            }],
        };
        let sending = std::thread::spawn({
            let tcp = tcp.try_clone().unwrap();
            move || send_sockets(&path, &inventory, &[tcp.as_fd(), lock.as_fd()])
        });
        let mut taken = receive_sockets(&listener).unwrap();
        sending.join().unwrap().unwrap();
        assert_eq!(
            taken
                .listeners
                .open(ListeningSocket::for_proxy(wanted))
                .unwrap(),
            tcp.local_addr().unwrap()
        );
    }
}

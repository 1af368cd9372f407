//! A proxy that is replaced while it serves, without losing a connection.
//!
//! ```text
//! successor                                   predecessor, at the control socket
//! POST /handover {socket}            →        stops accepting new routes
//!                                    ←        listening sockets and the lock, as descriptors over `socket`
//! listens and serves
//! puts its control socket in the place of the other, which keeps a name of its own
//! POST /stop                         →        accepts no more, finishes what is open, however long that takes
//! asks for its counts when asked     ⇄        counts on
//!                                    ←        POST /inherit {the last counts}; ends
//! ```
//!
//! The sockets are the same for both, so no connection is ever refused or reset between them. If the successor dies before the
//! stop, the predecessor goes on as before.

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
    client::{Control, ControlError},
    listen::Listeners,
    protocol::{Handover, Inventory},
};

/// Descriptors in one message; Linux takes 253.
const DESCRIPTORS_MAX: usize = 253;
/// The inventory is a line for each socket.
const INVENTORY_MAX: usize = 64 << 10;
/// Both sides only copy a few bytes.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a successor gets.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) inventory: Inventory,
    pub(crate) listeners: Listeners,
    /// The lock on the control socket: it holds as long as either process has it.
    pub(crate) lock: OwnedFd,
}

/// Why a proxy could not be taken over. It goes on serving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("its sockets could not be received: {0}")]
    Receive(#[from] io::Error),
}

/// Asks the proxy at `control` for its sockets; `None` when nobody answers there.
pub(crate) async fn take(control: &Path) -> Result<Option<Taken>, TakeoverError> {
    let predecessor = Control::new(control);
    if let Err(ControlError::Unreachable { .. }) = predecessor.healthz().await {
        return Ok(None);
    }
    let socket = beside(control, &format!("handover-{}", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    let received = tokio::task::spawn_blocking(move || receive(&listener));
    let asked = predecessor
        .hand_over(&Handover {
            socket: socket.clone(),
        })
        .await;
    if asked.is_err() {
        // Nobody will send: whoever waits must not wait for ever.
        drop(UnixStream::connect(&socket));
    }
    let received = received.await.map_err(io::Error::other)?;
    let _ = std::fs::remove_file(&socket);
    asked?;
    Ok(Some(received?))
}

/// Sends sockets and lock to whoever listens at `socket`.
pub(crate) fn give(
    socket: &Path,
    inventory: &Inventory,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::other(
            "more listening sockets than can be handed over",
        ));
    }
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
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

fn receive(listener: &UnixListener) -> io::Result<Taken> {
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
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
    let inventory: Inventory = serde_json::from_slice(&text[..message.bytes])?;
    let lock = descriptors.pop();
    let (Some(lock), true) = (lock, descriptors.len() == inventory.listeners.len()) else {
        return Err(io::Error::other("descriptors are missing"));
    };
    let mut listeners = Listeners::default();
    for (listening, descriptor) in inventory.listeners.iter().zip(descriptors) {
        listeners.adopt(listening.clone(), descriptor.into())?;
    }
    Ok(Taken {
        inventory,
        listeners,
        lock,
    })
}

/// A name beside the control socket, which is in a folder that only its owner can enter.
pub(crate) fn beside(control: &Path, suffix: &str) -> PathBuf {
    let mut name = control.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener};

    use super::*;
    use crate::protocol::Listening;

    #[test]
    fn a_socket_that_was_sent_is_the_same_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let lock = File::create(folder.path().join("lock")).unwrap();
        let wanted = "127.0.0.1:0".parse().unwrap();
        let inventory = Inventory {
            boot: "b".into(),
            pid: 1,
            generation: 2,
            predecessors: Vec::new(),
            listeners: vec![Listening {
                wanted,
                of_route: false,
            }],
        };
        let sending = std::thread::spawn({
            let tcp = tcp.try_clone().unwrap();
            move || give(&path, &inventory, &[tcp.as_fd(), lock.as_fd()])
        });
        let mut taken = receive(&listener).unwrap();
        sending.join().unwrap().unwrap();
        assert_eq!(
            taken.listeners.open(wanted, false).unwrap(),
            tcp.local_addr().unwrap()
        );
    }
}

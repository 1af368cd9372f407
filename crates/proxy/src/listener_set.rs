//! Listening sockets: one per address, shared by all workers and, during a takeover, by two processes, so that the accept queue
//! is never lost.

use std::{collections::BTreeSet, io, net::SocketAddr, net::TcpListener};

use crate::{protocol::ListeningSocket, worker::WorkerMessage};

/// Length of the accept queue.
const BACKLOG: i32 = 4_096;

/// All listening sockets of this process.
#[derive(Debug, Default)]
pub(crate) struct ListenerSet(Vec<BoundListener>);

#[derive(Debug)]
struct BoundListener {
    listening: ListeningSocket,
    /// The bound address; `wanted` may have port 0.
    address: SocketAddr,
    socket: TcpListener,
}

impl ListenerSet {
    /// Adds a socket.
    pub(crate) fn adopt_socket(
        &mut self,
        listening: ListeningSocket,
        socket: TcpListener,
    ) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        self.0.push(BoundListener {
            listening,
            address,
            socket,
        });
        Ok(())
    }

    /// The address of the socket, which is bound unless it exists.
    pub(crate) fn open(&mut self, listening: ListeningSocket) -> io::Result<SocketAddr> {
        let wanted = listening.wanted;
        let same = |it: &&BoundListener| it.listening.wanted == wanted || it.address == wanted;
        if let Some(bound) = self.0.iter().find(same) {
            return Ok(bound.address);
        }
        self.adopt_socket(listening, bind_listener(wanted)?)?;
        self.0
            .last()
            .map(|bound| bound.address)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Closes unused sockets: those of routes whose port is not among `ports`, the others if not among `listen`. Returns their
    /// addresses.
    pub(crate) fn close_unused(
        &mut self,
        listen: &[SocketAddr],
        ports: &BTreeSet<u16>,
    ) -> Vec<SocketAddr> {
        let mut closed = Vec::new();
        self.0.retain(|bound| {
            let keep = listen.contains(&bound.address)
                || (bound.listening.of_route && ports.contains(&bound.address.port()));
            if !keep {
                closed.push(bound.address);
            }
            keep
        });
        closed
    }

    /// The messages that make a worker listen on every socket.
    pub(crate) fn listen_messages(&self) -> io::Result<Vec<WorkerMessage>> {
        let message = |bound: &BoundListener| {
            Ok(WorkerMessage::Listen(
                bound.address,
                bound.socket.try_clone()?,
            ))
        };
        self.0.iter().map(message).collect()
    }

    /// The message for one address.
    pub(crate) fn listen_message(&self, address: SocketAddr) -> io::Result<WorkerMessage> {
        let bound = self.0.iter().find(|bound| bound.address == address);
        let bound = bound.ok_or(io::ErrorKind::NotFound)?;
        Ok(WorkerMessage::Listen(address, bound.socket.try_clone()?))
    }

    /// All sockets, for a successor.
    pub(crate) fn iter_sockets(&self) -> impl Iterator<Item = (&ListeningSocket, &TcpListener)> {
        self.0.iter().map(|bound| (&bound.listening, &bound.socket))
    }

    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|bound| bound.address == address)
    }
}

fn bind_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // SO_REUSEADDR: allows ports with connections in TIME_WAIT, but not ports that are in use.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_bound_again_and_what_nobody_wants_is_closed() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut listeners = ListenerSet::default();
        let address = listeners.open(ListeningSocket::for_proxy(any)).unwrap();
        assert_eq!(
            listeners.open(ListeningSocket::for_proxy(any)).unwrap(),
            address
        );
        assert_eq!(
            listeners.open(ListeningSocket::for_proxy(address)).unwrap(),
            address
        );
        assert_eq!(
            bind_listener(address).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let free = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let of_route = listeners.open(ListeningSocket::for_route(free)).unwrap();
        let wanted = BTreeSet::from([of_route.port()]);
        assert_eq!(listeners.close_unused(&[address], &wanted), []);
        assert_eq!(
            listeners.close_unused(&[address], &BTreeSet::new()),
            [of_route]
        );
        bind_listener(of_route).unwrap();
    }
}

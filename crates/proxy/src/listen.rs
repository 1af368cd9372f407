//! Listening sockets. There is one for each address, shared by all workers and, while a proxy is replaced, by two processes: the
//! queue of connections that wait to be accepted is never lost.

use std::{collections::BTreeSet, io, net::SocketAddr, net::TcpListener};

use crate::{protocol::Listening, worker::Message};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;

/// All sockets of this process.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Vec<Bound>);

#[derive(Debug)]
struct Bound {
    listening: Listening,
    /// Where it is; `wanted` may have left the port open.
    address: SocketAddr,
    socket: TcpListener,
}

impl Listeners {
    /// Takes a socket over.
    pub(crate) fn adopt(&mut self, listening: Listening, socket: TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        self.0.push(Bound {
            listening,
            address,
            socket,
        });
        Ok(())
    }

    /// The address of a socket for what is wanted; bound now, unless there is one.
    pub(crate) fn open(&mut self, wanted: SocketAddr, of_route: bool) -> io::Result<SocketAddr> {
        let same = |it: &&Bound| it.listening.wanted == wanted || it.address == wanted;
        if let Some(bound) = self.0.iter().find(same) {
            return Ok(bound.address);
        }
        self.adopt(Listening { wanted, of_route }, bind(wanted)?)?;
        self.0
            .last()
            .map(|bound| bound.address)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Closes sockets that nobody wants: those of routes whose port is not among `ports`, the others when not among `listen`.
    /// What was closed.
    pub(crate) fn retain(
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

    /// What a worker is told to listen on everywhere.
    pub(crate) fn messages(&self) -> io::Result<Vec<Message>> {
        let message = |bound: &Bound| Ok(Message::Listen(bound.address, bound.socket.try_clone()?));
        self.0.iter().map(message).collect()
    }

    /// The message for one address.
    pub(crate) fn message(&self, address: SocketAddr) -> io::Result<Message> {
        let bound = self.0.iter().find(|bound| bound.address == address);
        let bound = bound.ok_or(io::ErrorKind::NotFound)?;
        Ok(Message::Listen(address, bound.socket.try_clone()?))
    }

    /// Everything, for a successor.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Listening, &TcpListener)> {
        self.0.iter().map(|bound| (&bound.listening, &bound.socket))
    }

    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|bound| bound.address == address)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A port whose last connections are not forgotten yet can be used; one that somebody listens on can't.
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
        let mut listeners = Listeners::default();
        let address = listeners.open(any, false).unwrap();
        assert_eq!(listeners.open(any, false).unwrap(), address);
        assert_eq!(listeners.open(address, false).unwrap(), address);
        assert_eq!(bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let free = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let of_route = listeners.open(free, true).unwrap();
        let wanted = BTreeSet::from([of_route.port()]);
        assert_eq!(listeners.retain(&[address], &wanted), []);
        assert_eq!(listeners.retain(&[address], &BTreeSet::new()), [of_route]);
        bind(of_route).unwrap();
    }
}

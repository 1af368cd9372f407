//! Connections to instances: a pool for each worker, used by its thread alone.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An instance on this machine or in this network answers sooner, or is not there.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Idle connections kept to each instance.
const IDLE_MAX: usize = 128;
/// Idle connections older than this are not used: servers close theirs, usually after 5 s or more.
const IDLE_AGE_MAX: Duration = Duration::from_secs(4);

/// Connections that wait for their next request.
#[derive(Clone, Default)]
pub(crate) struct Pool(Rc<RefCell<HashMap<SocketAddr, Vec<Idle>>>>);

struct Idle {
    sender: SendRequest<Incoming>,
    since: Instant,
}

impl Pool {
    /// A connection that was used before and is still open.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<SendRequest<Incoming>> {
        let mut pools = self.0.borrow_mut();
        let idle = pools.get_mut(&address)?;
        while let Some(found) = idle.pop() {
            if found.sender.is_ready() && found.since.elapsed() < IDLE_AGE_MAX {
                return Some(found.sender);
            }
        }
        None
    }

    /// Keeps a connection for the next request, once it has taken its answer to the end.
    pub(crate) fn put(&self, address: SocketAddr, mut sender: SendRequest<Incoming>) {
        if sender.is_ready() {
            self.keep(address, sender);
            return;
        }
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() {
                pool.keep(address, sender);
            }
        });
    }

    fn keep(&self, address: SocketAddr, sender: SendRequest<Incoming>) {
        let mut pools = self.0.borrow_mut();
        let idle = pools.entry(address).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Forgets connections to instances that are in no route any more.
    pub(crate) fn retain(&self, known: impl Fn(&SocketAddr) -> bool) {
        self.0.borrow_mut().retain(|address, _| known(address));
    }
}

/// A new connection.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<SendRequest<Incoming>> {
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        // Its end is seen by whoever uses the sender.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

//! A client's connection as its requests and its worker see it: identity, activity, and when it has to close.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Waker,
};

use crate::headers::ClientIdentity;

/// State of one client connection, shared by its requests and its worker.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub(crate) client: ClientIdentity,
    /// The local port that accepted it.
    pub(crate) port: u16,
    /// Number of requests in progress.
    busy: Cell<u32>,
    /// Tick at which the last request ended.
    idle_since: Cell<u32>,
    /// The worker's tick counter.
    ticks: Rc<Cell<u32>>,
    order: Cell<ConnectionOrder>,
    waker: RefCell<Option<Waker>>,
    /// Set once the connection no longer carries HTTP.
    pub(crate) upgraded: Arc<AtomicBool>,
}

/// What the worker wants the connection to do, in increasing urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConnectionOrder {
    /// Keep serving.
    Serve,
    /// Finish the requests in progress, then close.
    Finish,
    /// Close immediately.
    Close,
}

impl ClientConnection {
    pub(crate) fn new(client: ClientIdentity, port: u16, ticks: Rc<Cell<u32>>) -> Self {
        Self {
            client,
            port,
            busy: Cell::new(0),
            idle_since: Cell::new(ticks.get()),
            ticks,
            order: Cell::new(ConnectionOrder::Serve),
            waker: RefCell::new(None),
            upgraded: Arc::default(),
        }
    }

    /// Sets the waker of the connection's task.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }

    pub(crate) fn current_order(&self) -> ConnectionOrder {
        self.order.get()
    }

    /// Raises the order and wakes the connection's task; lower orders are ignored.
    pub(crate) fn raise_order(&self, order: ConnectionOrder) {
        if order > self.order.get() {
            self.order.set(order);
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// Ticks since the last request ended; 0 while one is in progress.
    pub(crate) fn idle_ticks(&self) -> u32 {
        match self.busy.get() {
            0 => self.ticks.get().saturating_sub(self.idle_since.get()),
            _ => 0,
        }
    }
}

/// Marks a request as in progress while it lives.
#[derive(Debug)]
pub(crate) struct BusyGuard(Rc<ClientConnection>);

impl BusyGuard {
    pub(crate) fn new(connection: Rc<ClientConnection>) -> Self {
        connection.busy.set(connection.busy.get() + 1);
        Self(connection)
    }

    /// Marks the connection as no longer HTTP.
    pub(crate) fn mark_upgraded(&self) {
        self.0.upgraded.store(true, Relaxed);
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
        self.0.idle_since.set(self.0.ticks.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_while_nothing_is_answered() {
        let ticks = Rc::new(Cell::new(5));
        let client = ClientIdentity::new("127.0.0.1".parse().unwrap(), &[].into());
        let connection = Rc::new(ClientConnection::new(client, 80, ticks.clone()));
        ticks.set(7);
        assert_eq!(connection.idle_ticks(), 2);
        let busy = BusyGuard::new(connection.clone());
        ticks.set(100);
        assert_eq!(connection.idle_ticks(), 0);
        drop(busy);
        ticks.set(101);
        assert_eq!(connection.idle_ticks(), 1);
        connection.raise_order(ConnectionOrder::Close);
        connection.raise_order(ConnectionOrder::Finish);
        assert_eq!(connection.current_order(), ConnectionOrder::Close);
    }
}

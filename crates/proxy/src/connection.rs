//! A client's connection: who it is, what it is doing, and when it has to go.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Waker,
};

use crate::headers::Client;

/// One client's connection, as its requests and its worker see it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) client: Client,
    /// The port it came in on.
    pub(crate) port: u16,
    /// Requests that are being answered.
    busy: Cell<u32>,
    /// Since which tick nothing is being answered.
    idle_since: Cell<u32>,
    /// The worker's ticks.
    ticks: Rc<Cell<u32>>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
    /// The protocol was changed.
    pub(crate) switched: Arc<AtomicBool>,
}

/// What a connection is told by its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Go on.
    Serve,
    /// Finish what is being answered, and close.
    Finish,
    /// Close.
    Close,
}

impl Arrival {
    pub(crate) fn new(client: Client, port: u16, ticks: Rc<Cell<u32>>) -> Self {
        Self {
            client,
            port,
            busy: Cell::new(0),
            idle_since: Cell::new(ticks.get()),
            ticks,
            order: Cell::new(Order::Serve),
            waker: RefCell::new(None),
            switched: Arc::default(),
        }
    }

    /// Remembers who is to be woken for an order.
    pub(crate) fn listen(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }

    pub(crate) fn order(&self) -> Order {
        self.order.get()
    }

    /// Tells the connection; it obeys when it is polled next, which is soon.
    pub(crate) fn tell(&self, order: Order) {
        if order > self.order.get() {
            self.order.set(order);
            if let Some(waker) = &*self.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// For how many ticks nothing has been answered.
    pub(crate) fn idle_ticks(&self) -> u32 {
        match self.busy.get() {
            0 => self.ticks.get().saturating_sub(self.idle_since.get()),
            _ => 0,
        }
    }
}

/// While it lives, a request is being answered.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Arrival>);

impl Busy {
    pub(crate) fn new(arrival: Rc<Arrival>) -> Self {
        arrival.busy.set(arrival.busy.get() + 1);
        Self(arrival)
    }

    /// From now on the client doesn't speak HTTP.
    pub(crate) fn switches(&self) {
        self.0.switched.store(true, Relaxed);
    }
}

impl Drop for Busy {
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
        let client = Client::new("127.0.0.1".parse().unwrap(), &[].into());
        let arrival = Rc::new(Arrival::new(client, 80, ticks.clone()));
        ticks.set(7);
        assert_eq!(arrival.idle_ticks(), 2);
        let busy = Busy::new(arrival.clone());
        ticks.set(100);
        assert_eq!(arrival.idle_ticks(), 0);
        drop(busy);
        ticks.set(101);
        assert_eq!(arrival.idle_ticks(), 1);
        arrival.tell(Order::Close);
        arrival.tell(Order::Finish);
        assert_eq!(arrival.order(), Order::Close);
    }
}

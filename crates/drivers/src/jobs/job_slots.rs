//! Limits the number of concurrent jobs: a semaphore with FIFO waiters and reservations. Jobs that already run when a server
//! starts get their slots first; there may be more of them than slots, and then no new job starts until enough have ended.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shipway_core::access::JobIdentity;
use tokio::sync::oneshot;

/// The slots of concurrent jobs.
#[derive(Clone, Debug)]
pub struct JobSlots(Arc<Mutex<SlotCounts>>);

#[derive(Debug)]
struct SlotCounts {
    slots: usize,
    taken: usize,
    /// Running jobs that were reserved a slot and are not followed yet.
    reserved: BTreeSet<JobIdentity>,
    waiting: VecDeque<oneshot::Sender<JobSlot>>,
}

/// A slot that is held until dropped.
#[derive(Debug)]
pub struct JobSlot(Option<Arc<Mutex<SlotCounts>>>);

impl JobSlots {
    /// A room with so many slots, at least one.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self(Arc::new(Mutex::new(SlotCounts {
            slots: slots.max(1),
            taken: 0,
            reserved: BTreeSet::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Reserves a slot for a running job, until [`JobSlots::resume`] takes it.
    pub fn reserve(&self, job: &JobIdentity) {
        let mut inner = lock(&self.0);
        if inner.reserved.insert(job.clone()) {
            inner.taken += 1;
        }
    }

    /// A slot for a job that already runs, even above the limit.
    #[must_use]
    pub fn resume(&self, job: &JobIdentity) -> JobSlot {
        let mut inner = lock(&self.0);
        if !inner.reserved.remove(job) {
            inner.taken += 1;
        }
        JobSlot(Some(self.0.clone()))
    }

    /// Waits for a slot for a new job. Cancel safe: dropping the future only gives up its place in the queue.
    pub async fn acquire(&self, job: &JobIdentity) -> JobSlot {
        let turn = {
            let mut inner = lock(&self.0);
            let reserved = inner.reserved.remove(job);
            if reserved || inner.taken < inner.slots && inner.waiting.is_empty() {
                inner.taken += usize::from(!reserved);
                return JobSlot(Some(self.0.clone()));
            }
            let (tell, turn) = oneshot::channel();
            inner.waiting.push_back(tell);
            turn
        };
        match turn.await {
            Ok(place) => place,
            // The sender lives as long as the semaphore, which `self` keeps alive.
            Err(_) => self.resume(job),
        }
    }
}

impl Drop for JobSlot {
    fn drop(&mut self) {
        let Some(room) = self.0.take() else {
            return;
        };
        lock(&room).taken -= 1;
        loop {
            let next = {
                let mut inner = lock(&room);
                if inner.taken >= inner.slots {
                    return;
                }
                let Some(next) = inner.waiting.pop_front() else {
                    return;
                };
                inner.taken += 1;
                next
            };
            if let Err(mut nobody) = next.send(Self(Some(room.clone()))) {
                // The waiter was dropped: take the next one, in this loop instead of recursively in the drop.
                nobody.0 = None;
                lock(&room).taken -= 1;
            }
        }
    }
}

fn lock(inner: &Mutex<SlotCounts>) -> MutexGuard<'_, SlotCounts> {
    // No panic is possible while the lock is held.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(key: &str) -> JobIdentity {
        JobIdentity {
            run: "shop/r1".parse().unwrap(),
            key: key.parse().unwrap(),
            attempt: 1,
        }
    }

    async fn waits<F: Future>(turn: &mut std::pin::Pin<Box<F>>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), turn)
            .await
            .is_err()
    }

    #[tokio::test]
    async fn whoever_finds_no_place_waits_in_turn_and_may_leave() {
        let new_job = job("new");
        let room = JobSlots::new(2);
        let (one, two) = (room.acquire(&new_job).await, room.acquire(&new_job).await);
        let mut third = Box::pin(room.acquire(&new_job));
        let mut fourth = Box::pin(room.acquire(&new_job));
        let mut fifth = Box::pin(room.acquire(&new_job));
        assert!(waits(&mut third).await && waits(&mut fourth).await && waits(&mut fifth).await);
        // The third leaves before its turn; the first place is the fourth's.
        drop(third);
        drop(one);
        let fourth = fourth.await;
        assert!(waits(&mut fifth).await);
        drop((two, fourth));
        drop(fifth.await);
        assert_eq!(lock(&room.0).taken, 0);
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_is_not_lost() {
        let new_job = job("new");
        let room = JobSlots::new(1);
        let one = room.acquire(&new_job).await;
        let mut second = Box::pin(room.acquire(&new_job));
        assert!(waits(&mut second).await);
        // Told, and gone before it looked.
        drop(one);
        drop(second);
        drop(room.acquire(&new_job).await);
        assert_eq!(lock(&room.0).taken, 0);
    }

    #[tokio::test]
    async fn jobs_that_run_already_come_before_all_others() {
        let new_job = job("new");
        let room = JobSlots::new(1);
        room.reserve(&job("a"));
        room.reserve(&job("a"));
        let mut new = Box::pin(room.acquire(&new_job));
        assert!(waits(&mut new).await);
        let (a, b) = (room.resume(&job("a")), room.resume(&job("b")));
        drop(a);
        assert!(waits(&mut new).await, "b is still there");
        drop(b);
        drop(new.await);
        assert_eq!(lock(&room.0).taken, 0);
    }
}

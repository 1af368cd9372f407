//! How many jobs run at once: those that find no place wait for one, in the order they came. Jobs that run already when a server
//! starts have their places before anybody else; there may be more of them than places, and then nobody new comes in for a while.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Places for jobs.
#[derive(Clone, Debug)]
pub struct Room(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    places: usize,
    taken: usize,
    /// Jobs that run and whose followers have not come yet; each has a place.
    reserved: BTreeSet<PathBuf>,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A place in the room, until it is dropped.
#[derive(Debug)]
pub struct Place(Option<Arc<Mutex<Inner>>>);

impl Room {
    /// A room with so many places, at least one.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            places: places.max(1),
            taken: 0,
            reserved: BTreeSet::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Keeps a place for a job that runs, until [`Room::go_on`] comes for it.
    pub fn reserve(&self, folder: &Path) {
        let mut inner = lock(&self.0);
        if inner.reserved.insert(folder.to_owned()) {
            inner.taken += 1;
        }
    }

    /// A place for a job that runs already, whether there is room or not.
    #[must_use]
    pub fn go_on(&self, folder: &Path) -> Place {
        let mut inner = lock(&self.0);
        if !inner.reserved.remove(folder) {
            inner.taken += 1;
        }
        Place(Some(self.0.clone()))
    }

    /// A place for a job that hasn't begun, as soon as there is one. Dropped before, it loses its turn and nothing else.
    pub async fn enter(&self, folder: &Path) -> Place {
        let turn = {
            let mut inner = lock(&self.0);
            let reserved = inner.reserved.remove(folder);
            if reserved || inner.taken < inner.places && inner.waiting.is_empty() {
                inner.taken += usize::from(!reserved);
                return Place(Some(self.0.clone()));
            }
            let (tell, turn) = oneshot::channel();
            inner.waiting.push_back(tell);
            turn
        };
        match turn.await {
            Ok(place) => place,
            // Whoever would tell lives as long as the room, and that is here.
            Err(_) => self.go_on(folder),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(room) = self.0.take() else {
            return;
        };
        lock(&room).taken -= 1;
        loop {
            let next = {
                let mut inner = lock(&room);
                if inner.taken >= inner.places {
                    return;
                }
                let Some(next) = inner.waiting.pop_front() else {
                    return;
                };
                inner.taken += 1;
                next
            };
            if let Err(mut nobody) = next.send(Self(Some(room.clone()))) {
                // It waits no more: the next one has its turn, here and not in the depths of this drop.
                nobody.0 = None;
                lock(&room).taken -= 1;
            }
        }
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Nothing panics while it is held.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn waits<F: Future>(turn: &mut std::pin::Pin<Box<F>>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), turn)
            .await
            .is_err()
    }

    #[tokio::test]
    async fn whoever_finds_no_place_waits_in_turn_and_may_leave() {
        let room = Room::new(2);
        let (one, two) = (
            room.enter(Path::new("new")).await,
            room.enter(Path::new("new")).await,
        );
        let mut third = Box::pin(room.enter(Path::new("new")));
        let mut fourth = Box::pin(room.enter(Path::new("new")));
        let mut fifth = Box::pin(room.enter(Path::new("new")));
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
        let room = Room::new(1);
        let one = room.enter(Path::new("new")).await;
        let mut second = Box::pin(room.enter(Path::new("new")));
        assert!(waits(&mut second).await);
        // Told, and gone before it looked.
        drop(one);
        drop(second);
        drop(room.enter(Path::new("new")).await);
        assert_eq!(lock(&room.0).taken, 0);
    }

    #[tokio::test]
    async fn jobs_that_run_already_come_before_all_others() {
        let room = Room::new(1);
        room.reserve(Path::new("a"));
        room.reserve(Path::new("a"));
        let mut new = Box::pin(room.enter(Path::new("new")));
        assert!(waits(&mut new).await);
        let (a, b) = (room.go_on(Path::new("a")), room.go_on(Path::new("b")));
        drop(a);
        assert!(waits(&mut new).await, "b is still there");
        drop(b);
        drop(new.await);
        assert_eq!(lock(&room.0).taken, 0);
    }
}

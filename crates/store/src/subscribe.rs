//! The log as a stream of events: read from the table in the order of positions, woken by the writer. Nobody holds the writer:
//! a reader that is slow reads later.

use std::{collections::VecDeque, path::PathBuf};

use futures_util::{StreamExt, stream};
use shipway_engine::{Recorded, StoreError, Subscription};
use tokio::sync::watch;

use crate::sqlite::{Readers, events_after};

/// Events read at once.
const CHUNK: u32 = 500;

struct Reading {
    readers: Readers,
    path: PathBuf,
    position: watch::Receiver<u64>,
    after: u64,
    buffer: VecDeque<Recorded>,
}

pub(crate) fn stream(
    readers: Readers,
    path: PathBuf,
    position: watch::Receiver<u64>,
    after: u64,
) -> Subscription {
    let reading = Reading {
        readers,
        path,
        position,
        after,
        buffer: VecDeque::new(),
    };
    stream::try_unfold(reading, |mut reading| async move {
        reading
            .next()
            .await
            .map(|found| found.map(|event| (event, reading)))
    })
    .boxed()
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Recorded>, StoreError> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                self.after = event.position;
                return Ok(Some(event));
            }
            let after = self.after;
            // Ends when the writer is gone.
            if self
                .position
                .wait_for(|position| *position > after)
                .await
                .is_err()
            {
                return Ok(None);
            }
            self.buffer = self
                .readers
                .query(self.path.clone(), move |connection| {
                    events_after(connection, after, CHUNK)
                })
                .await?
                .into();
        }
    }
}

//! The log as a stream of events, read from the table in the order of positions and woken by the writer. A slow reader doesn't
//! block the writer.

use std::{collections::VecDeque, path::PathBuf};

use futures_util::{StreamExt, stream};
use shipway_engine::{Recorded, StoreError, Subscription};
use tokio::sync::watch;

use crate::reader_pool::{ReaderPool, events_after};

/// Events per query.
const CHUNK: u32 = 500;

struct SubscriptionReader {
    readers: ReaderPool,
    path: PathBuf,
    position: watch::Receiver<u64>,
    after: u64,
    buffer: VecDeque<Recorded>,
}

pub(crate) fn stream_events(
    readers: ReaderPool,
    path: PathBuf,
    position: watch::Receiver<u64>,
    after: u64,
) -> Subscription {
    let reading = SubscriptionReader {
        readers,
        path,
        position,
        after,
        buffer: VecDeque::new(),
    };
    stream::try_unfold(reading, |mut reading| async move {
        reading
            .next_event()
            .await
            .map(|found| found.map(|event| (event, reading)))
    })
    .boxed()
}

impl SubscriptionReader {
    async fn next_event(&mut self) -> Result<Option<Recorded>, StoreError> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                self.after = event.position;
                return Ok(Some(event));
            }
            let after = self.after;
            // Ends when the writer has stopped.
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

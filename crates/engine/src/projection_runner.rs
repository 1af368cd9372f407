//! Folds the log into a projection, and saves its rows with the position that they belong to.
//!
//! # Invariants
//!
//! - Every event counts exactly once, whenever the process is killed: a save is one transaction, and later events are folded
//!   again from the saved value.
//! - An event that changes no row costs no write of its own.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use shipway_core::{aggregate::ViewRow, projection::LogProjection};

use crate::store::{
    EarlierRows, ProjectionCheckpoint, ProjectionSave, Recorded, Store, StoreError,
};

/// Events that are folded before their rows are saved.
const BATCH_MAX: usize = 500;
/// Events that change no row before the position is saved: what a start folds again at most.
const UNSAVED_MAX: u64 = 1_000;

/// Why a projection is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The log can't be read, or the rows can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event that this build can't read: the projection stops before it.
    #[error("event {position} of the log ({stream}) can't be read: {source}")]
    Unreadable {
        /// Its position in the log.
        position: u64,
        /// Its stream.
        stream: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// A projection and how far it has folded the log.
#[derive(Debug)]
pub struct ProjectionRunner<P> {
    state: P,
    position: u64,
    /// The position of the last save.
    saved: u64,
    /// Changed rows that are not saved, by key.
    unsaved: BTreeMap<String, ViewRow>,
    earlier: EarlierRows,
}

impl<P: LogProjection> ProjectionRunner<P> {
    /// Begins with an empty value, before the first event. The first save deletes the rows there are.
    #[must_use]
    pub fn from_start() -> Self {
        Self {
            state: P::default(),
            position: 0,
            saved: 0,
            unsaved: BTreeMap::new(),
            earlier: EarlierRows::Delete,
        }
    }

    /// Continues after the saved checkpoint. Begins anew where there is none, where another version of the projection saved it, or
    /// where the log ends before it because its end was lost.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let last = store.last_position().await?;
        let checkpoint = store.projection_checkpoint(P::NAME).await?;
        let usable = checkpoint.filter(|it| it.version == P::VERSION && it.position <= last);
        let loaded = usable.and_then(|checkpoint| {
            let state = serde_json::from_value(checkpoint.state).ok()?;
            Some(Self {
                state,
                position: checkpoint.position,
                saved: checkpoint.position,
                unsaved: BTreeMap::new(),
                earlier: EarlierRows::Keep,
            })
        });
        Ok(loaded.unwrap_or_else(Self::from_start))
    }

    /// The value after the events folded so far.
    pub const fn state(&self) -> &P {
        &self.state
    }

    /// Folds the events that the log has now, and saves.
    ///
    /// # Errors
    /// When the store fails or an event can't be read; a later call continues there.
    pub async fn catch_up(&mut self, store: &dyn Store) -> Result<(), ProjectionError> {
        let last = store.last_position().await?;
        if self.position < last {
            let mut log = store
                .subscribe(self.position)
                .await?
                .ready_chunks(BATCH_MAX);
            while self.position < last
                && let Some(batch) = log.next().await
            {
                self.fold_batch(batch)?;
                self.save_if_due(store).await?;
            }
        }
        match self.position > self.saved || self.earlier == EarlierRows::Delete {
            true => Ok(self.save(store).await?),
            false => Ok(()),
        }
    }

    /// Folds the events of the log as they come. Returns when the store has ended.
    ///
    /// # Errors
    /// When the store fails or an event can't be read; a later call continues there.
    pub async fn follow(&mut self, store: &dyn Store) -> Result<(), ProjectionError> {
        self.catch_up(store).await?;
        let mut log = store
            .subscribe(self.position)
            .await?
            .ready_chunks(BATCH_MAX);
        while let Some(batch) = log.next().await {
            self.fold_batch(batch)?;
            self.save_if_due(store).await?;
        }
        Ok(())
    }

    fn fold_batch(
        &mut self,
        batch: Vec<Result<Recorded, StoreError>>,
    ) -> Result<(), ProjectionError> {
        for recorded in batch {
            let recorded = recorded?;
            let rows = self.state.fold(&recorded.stream, &recorded.event);
            let rows = rows.map_err(|source| ProjectionError::Unreadable {
                position: recorded.position,
                stream: recorded.stream,
                source,
            })?;
            self.position = recorded.position;
            let keyed = rows.into_iter().map(|row| (row.key.clone(), row));
            self.unsaved.extend(keyed);
        }
        Ok(())
    }

    async fn save_if_due(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        if self.unsaved.is_empty() && self.position - self.saved < UNSAVED_MAX {
            return Ok(());
        }
        self.save(store).await
    }

    /// Rows of a failed save are kept for the next one.
    async fn save(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let state = serde_json::to_value(&self.state)
            .map_err(|error| StoreError(format!("{}: {error}", P::NAME)))?;
        let save = ProjectionSave {
            name: P::NAME.to_owned(),
            checkpoint: ProjectionCheckpoint {
                version: P::VERSION,
                position: self.position,
                state,
            },
            earlier: self.earlier,
            rows: self.unsaved.values().cloned().collect(),
        };
        store.save_projection(save).await?;
        self.unsaved.clear();
        self.saved = self.position;
        self.earlier = EarlierRows::Keep;
        Ok(())
    }
}

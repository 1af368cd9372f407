//! Read models across streams.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use crate::aggregate::ViewRow;

/// A read model of many streams, folded from the whole log in its order. Its value is the memory between two events; the API
/// reads its rows.
///
/// The engine stores the value and the rows together with the position of the last event folded, so that every event counts exactly
/// once. Keep the value small: it is written whole whenever a row changes.
pub trait LogProjection:
    Clone + Debug + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its name, which is the kind of its rows.
    const NAME: &'static str;
    /// Incremented when the fold or the format of its value or rows changes: the log is then folded again from its start.
    const VERSION: u32;

    /// Folds one event, and returns the rows that it changed. Reads every version ever written.
    ///
    /// # Errors
    /// When the event can't be read.
    fn fold(&mut self, stream: &str, event: &str) -> Result<Vec<ViewRow>, serde_json::Error>;
}

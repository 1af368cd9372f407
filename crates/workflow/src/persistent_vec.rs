//! A list whose copies share what they don't change: a copy costs a hundredth of its length, a change the copy of one entry and of
//! its neighbours' addresses. Deciding about a run of ten thousand jobs copies its state for each event; this is what makes that
//! cheap. Nothing in it is ever removed.
//!
//! ```
//! use shipway_workflow::persistent_vec::PersistentVec;
//! let mut jobs: PersistentVec<String> = ["a", "b"].map(str::to_owned).into_iter().collect();
//! let before = jobs.clone();
//! jobs[1] = "c".to_owned();
//! assert_eq!((before[1].as_str(), jobs[1].as_str()), ("b", "c"));
//! ```

use std::{
    ops::{Index, IndexMut},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Entries of a part: so many addresses are copied by a change, and a part for each so many by a copy. Their sum is least where
/// both are the root of the length; for ten thousand that is a hundred.
const PART: usize = 128;

type VecChunk<T> = Arc<Vec<Arc<T>>>;

/// See the module.
#[derive(Debug)]
pub struct PersistentVec<T> {
    /// All full but the last.
    parts: Vec<VecChunk<T>>,
    len: usize,
}

impl<T> Clone for PersistentVec<T> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            len: self.len,
        }
    }
}

impl<T> Default for PersistentVec<T> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            len: 0,
        }
    }
}

impl<T> PersistentVec<T> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry at a place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&T> {
        self.parts.get(at / PART)?.get(at % PART).map(|it| &**it)
    }

    /// All, in order.
    #[must_use]
    pub const fn iter(&self) -> PersistentVecIter<'_, T> {
        PersistentVecIter {
            all: self,
            places: 0..self.len,
        }
    }
}

/// All entries of a list, in order.
#[derive(Debug)]
pub struct PersistentVecIter<'a, T> {
    all: &'a PersistentVec<T>,
    places: std::ops::Range<usize>,
}

impl<'a, T> Iterator for PersistentVecIter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        self.all.get(self.places.next()?)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl<T> ExactSizeIterator for PersistentVecIter<'_, T> {}

impl<'a, T> IntoIterator for &'a PersistentVec<T> {
    type Item = &'a T;
    type IntoIter = PersistentVecIter<'a, T>;

    fn into_iter(self) -> PersistentVecIter<'a, T> {
        self.iter()
    }
}

impl<T: Clone> PersistentVec<T> {
    /// The entry at a place, to be changed.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let part = Arc::make_mut(self.parts.get_mut(at / PART)?);
        part.get_mut(at % PART).map(Arc::make_mut)
    }

    /// One more.
    pub fn push(&mut self, entry: T) {
        if self.len.is_multiple_of(PART) {
            self.parts.push(Arc::new(Vec::with_capacity(PART)));
        }
        if let Some(last) = self.parts.last_mut() {
            Arc::make_mut(last).push(Arc::new(entry));
            self.len += 1;
        }
    }
}

impl<T: Clone> FromIterator<T> for PersistentVec<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|entry| all.push(entry));
        all
    }
}

impl<T> Index<usize> for PersistentVec<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.parts[at / PART][at % PART]
    }
}

impl<T: Clone> IndexMut<usize> for PersistentVec<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        Arc::make_mut(&mut Arc::make_mut(&mut self.parts[at / PART])[at % PART])
    }
}

impl<T: PartialEq> PartialEq for PersistentVec<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<T: Serialize> Serialize for PersistentVec<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: Clone + Deserialize<'de>> Deserialize<'de> for PersistentVec<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<T>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_list_and_copies_keep_what_they_had(
            entries in prop::collection::vec(any::<u8>(), 0..600),
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..40),
        ) {
            let mut plain = entries.clone();
            let mut shared: PersistentVec<u8> = entries.iter().copied().collect();
            let before = shared.clone();
            for (at, value) in changes {
                match plain.len() {
                    0 => {
                        plain.push(value);
                        shared.push(value);
                    }
                    len if at % 5 == 0 => {
                        prop_assert_eq!(shared.get(len), None);
                        plain.push(value);
                        shared.push(value);
                    }
                    len => {
                        plain[at % len] = value;
                        if at % 2 == 0 {
                            shared[at % len] = value;
                        } else {
                            *shared.get_mut(at % len).unwrap() = value;
                        }
                    }
                }
            }
            prop_assert!(before.iter().eq(&entries));
            prop_assert!(shared.iter().eq(&plain));
            prop_assert_eq!(shared.len(), plain.len());
            let text = serde_json::to_string(&shared).unwrap();
            prop_assert_eq!(&text, &serde_json::to_string(&plain).unwrap());
            prop_assert!(serde_json::from_str::<PersistentVec<u8>>(&text).unwrap() == shared);
        }
    }
}

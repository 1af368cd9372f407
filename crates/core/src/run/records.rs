//! The records of all jobs, by key. Clones share unchanged parts: each decision clones the run, and a run has up to twenty
//! thousand jobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shipway_workflow::{job::JobKey, persistent_vec::PersistentVec};

use super::job_record::JobRecord;

/// Parts that keys are spread over: for twenty thousand jobs five to ten in each.
const PARTS: usize = 2_048;

#[derive(Clone, Debug, Default)]
pub struct JobRecords {
    /// Empty until the first job is seen.
    parts: PersistentVec<Vec<(JobKey, JobRecord)>>,
}

impl JobRecords {
    #[must_use]
    pub fn get(&self, key: &JobKey) -> Option<&JobRecord> {
        let part = self.parts.get(part_of(key))?;
        part.iter().find(|(it, _)| it == key).map(|(_, it)| it)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &JobKey) -> Option<&mut JobRecord> {
        let part = part_of(key);
        let at = self.parts.get(part)?.iter().position(|(it, _)| it == key)?;
        self.parts.get_mut(part).map(|part| &mut part[at].1)
    }

    /// The same; an empty one where nothing was seen.
    pub fn entry(&mut self, key: &JobKey) -> &mut JobRecord {
        if self.parts.is_empty() {
            self.parts = (0..PARTS).map(|_| Vec::new()).collect();
        }
        let part = &mut self.parts[part_of(key)];
        let at = part.iter().position(|(it, _)| it == key);
        let at = at.unwrap_or_else(|| {
            part.push((key.clone(), JobRecord::default()));
            part.len() - 1
        });
        &mut part[at].1
    }

    /// All, by their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&JobKey, &JobRecord)> {
        self.sorted().into_iter()
    }

    /// All, in no order that means anything.
    pub(super) fn unsorted(&self) -> impl Iterator<Item = (&JobKey, &JobRecord)> {
        let all = self.parts.iter().flatten();
        all.map(|(key, record)| (key, record))
    }

    fn sorted(&self) -> BTreeMap<&JobKey, &JobRecord> {
        self.unsorted().collect()
    }
}

/// Fowler, Noll and Vo's hash: the same on all machines and in all versions.
fn part_of(key: &JobKey) -> usize {
    let hash = key
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    (hash % PARTS as u64) as usize
}

impl PartialEq for JobRecords {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl Serialize for JobRecords {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.sorted().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JobRecords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = BTreeMap::<JobKey, JobRecord>::deserialize(deserializer)?;
        let mut records = Self::default();
        for (key, record) in all {
            *records.entry(&key) = record;
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_their_keys_and_copies_keep_theirs() {
        let mut records = JobRecords::default();
        let keys: Vec<JobKey> = (0..5_000).map(|n| JobKey::new("job", Some(n))).collect();
        for key in &keys {
            records.entry(key).retried = 1;
        }
        let before = records.clone();
        records.get_mut(&keys[7]).unwrap().retried = 2;
        let retried = |records: &JobRecords| records.get(&keys[7]).unwrap().retried;
        assert_eq!((retried(&before), retried(&records)), (1, 2));
        assert_eq!(records.get(&JobKey::new("other", None)), None);
        assert_eq!(records.iter().count(), keys.len());
        assert!(records.iter().is_sorted_by_key(|(key, _)| key));
        let text = serde_json::to_string(&records).unwrap();
        assert_eq!(serde_json::from_str::<JobRecords>(&text).unwrap(), records);
    }
}

//! Which lines of which files were run, so that several reports about the same files are put together and not added up: a line that
//! one job ran and another didn't is covered once.
//!
//! On record it is text, as short as lines that follow one another allow: `{"a.rs": {"lines": "1-4 6! 9-12"}}`, where `!` is behind
//! lines that were not run.
//!
//! ```
//! use shipway_workflow::report::LineCoverage;
//! let mut one = LineCoverage::default();
//! one.add("a.rs", [(1, true), (2, false)], Default::default());
//! let mut other = LineCoverage::default();
//! other.add("a.rs", [(2, true), (3, false)], Default::default());
//! one.merge(&other);
//! assert_eq!((one.coverage().lines.covered, one.coverage().lines.total), (2, 3));
//! ```

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
};

use serde::{Deserialize, Serialize};

use super::{Coverage, CoverageCount};

/// The largest number of a line. Files have no more, whatever a report says.
const LINE_MAX: u32 = 10_000_000;

/// Lines of files, by the files' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LineCoverage(BTreeMap<String, OfFile>);

/// Lines of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfFile {
    /// Ranges, in order; empty where only counts are known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    lines: String,
    /// What its report counted: the branches, and the lines where they aren't told apart.
    #[serde(default, skip_serializing_if = "is_nothing")]
    counted: Coverage,
}

fn is_nothing(coverage: &Coverage) -> bool {
    *coverage == Coverage::default()
}

impl LineCoverage {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many files.
    #[must_use]
    pub fn files(&self) -> usize {
        self.0.len()
    }

    /// About how many bytes it takes on record.
    #[must_use]
    pub fn weight(&self) -> usize {
        let each = self.0.iter();
        each.map(|(name, file)| name.len() + file.lines.len() + 80)
            .sum()
    }

    /// Lines of a file, each with whether it was run, and what else was counted of it.
    pub fn add(
        &mut self,
        name: &str,
        lines: impl IntoIterator<Item = (u32, bool)>,
        counted: Coverage,
    ) {
        let lines: BTreeMap<u32, bool> = lines.into_iter().collect();
        let more = OfFile {
            lines: written(&lines),
            counted,
        };
        match self.0.entry(name.to_owned()) {
            Entry::Vacant(place) => drop(place.insert(more)),
            Entry::Occupied(known) => known.into_mut().merge(&more),
        }
    }

    /// Adds the lines of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (name, more) in &other.0 {
            match self.0.entry(name.clone()) {
                Entry::Vacant(place) => drop(place.insert(more.clone())),
                Entry::Occupied(known) => known.into_mut().merge(more),
            }
        }
    }

    /// How much of all files was run.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let each = self.0.values().map(OfFile::coverage);
        each.fold(Coverage::default(), Coverage::merge)
    }
}

impl OfFile {
    fn merge(&mut self, other: &Self) {
        let mut lines = read(&self.lines);
        for (line, run) in read(&other.lines) {
            *lines.entry(line).or_default() |= run;
        }
        self.lines = written(&lines);
        // Counts without line numbers can't be merged: the larger ones are kept.
        let larger = |a: CoverageCount, b: CoverageCount| CoverageCount {
            covered: a.covered.max(b.covered),
            total: a.total.max(b.total),
        };
        self.counted.branches = larger(self.counted.branches, other.counted.branches);
        self.counted.lines = larger(self.counted.lines, other.counted.lines);
    }

    fn coverage(&self) -> Coverage {
        let lines = read(&self.lines);
        let text_match = CoverageCount {
            covered: lines.values().filter(|run| **run).count() as u64,
            total: lines.len() as u64,
        };
        Coverage {
            lines: if lines.is_empty() {
                self.counted.lines
            } else {
                text_match
            },
            branches: self.counted.branches,
        }
    }
}

/// `1-4 6! 9-12`
fn written(lines: &BTreeMap<u32, bool>) -> String {
    let mut text = String::new();
    let mut lines = lines
        .iter()
        .filter(|(line, _)| **line <= LINE_MAX)
        .peekable();
    while let Some((&first, &run)) = lines.next() {
        let mut last = first;
        while let Some((&next, _)) = lines.next_if(|(next, its)| **next == last + 1 && **its == run)
        {
            last = next;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        let _ = if first == last {
            write!(text, "{first}")
        } else {
            write!(text, "{first}-{last}")
        };
        if !run {
            text.push('!');
        }
    }
    text
}

/// Unreadable parts are left out: the text is not ours.
fn read(text: &str) -> BTreeMap<u32, bool> {
    let mut lines = BTreeMap::new();
    for range in text.split(' ').filter(|range| !range.is_empty()) {
        let (range, run) = range
            .strip_suffix('!')
            .map_or((range, true), |range| (range, false));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
            continue;
        };
        lines.extend((first..=last.min(LINE_MAX)).map(|line| (line, run)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(lines: &BTreeMap<u32, bool>) -> LineCoverage {
        let mut all = LineCoverage::default();
        all.add("a", lines.clone(), Coverage::default());
        all
    }

    #[test]
    fn ranges_are_short_and_counts_stand_where_lines_are_missing() {
        let lines = [
            (1, true),
            (2, true),
            (3, false),
            (9, true),
            (10, false),
            (11, false),
        ];
        assert_eq!(written(&lines.into()), "1-2 3! 9 10-11!");
        let said = |covered, total| Coverage {
            lines: CoverageCount { covered, total },
            ..Coverage::default()
        };
        let mut counted = LineCoverage::default();
        counted.add("b", [], said(3, 10));
        let mut more = LineCoverage::default();
        more.add("b", [], said(5, 9));
        counted.merge(&more);
        assert_eq!(counted.coverage(), said(5, 10));
        counted.add("b", [(1, true)], Coverage::default());
        assert_eq!(counted.coverage(), said(1, 1));
    }

    proptest! {
        #[test]
        fn what_is_put_together_is_what_either_ran(
            one in prop::collection::btree_map(1_u32..60, any::<bool>(), 0..40),
            other in prop::collection::btree_map(1_u32..60, any::<bool>(), 0..40),
        ) {
            prop_assert_eq!(&read(&written(&one)), &one);
            let (mut here, mut there) = (of(&one), of(&other));
            here.merge(&of(&other));
            there.merge(&of(&one));
            prop_assert_eq!(&here, &there);
            let mut all = one.clone();
            for (line, run) in &other {
                *all.entry(*line).or_default() |= *run;
            }
            let lines = here.coverage().lines;
            prop_assert_eq!(lines.total, all.len() as u64);
            prop_assert_eq!(lines.covered, all.values().filter(|run| **run).count() as u64);
        }
    }
}

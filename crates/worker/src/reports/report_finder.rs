//! Finds reports in an untrusted workspace: bounded in entries and depth, without following symlinks, without tool
//! folders such as `node_modules`.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::report_error::ReportError;

/// Limit for directory entries: a large monorepo has about 100,000 files.
const ENTRIES_MAX: usize = 500_000;
const DEPTH_MAX: usize = 64;
/// Limit for reports: Surefire writes one per class.
const FILES_MAX: usize = 10_000;

pub(super) struct FoundReport {
    /// Path relative to the workspace.
    pub(super) name: String,
    pub(super) kind: ReportKind,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportKind {
    /// JUnit XML.
    Tests,
    /// Cobertura or LCOV.
    Coverage,
}

/// The patterns to look for.
pub(super) struct ReportPatterns {
    tests: GlobSet,
    coverage: GlobSet,
    /// Path components of the patterns: folders that they name are never excluded.
    named: Vec<String>,
}

impl ReportPatterns {
    /// Patterns with `*`, `**`, `?`, relative to the workspace.
    pub(super) fn new(tests: &[String], coverage: &[String]) -> Result<Self, ReportError> {
        let set = |patterns: &[String]| {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns {
                let pattern = pattern.trim_start_matches("./");
                let glob = GlobBuilder::new(pattern).literal_separator(true).build();
                set.add(glob.map_err(|source| ReportError::InvalidPattern {
                    pattern: pattern.to_owned(),
                    source,
                })?);
            }
            set.build().map_err(ReportError::from)
        };
        let steps = tests.iter().chain(coverage);
        let steps = steps
            .flat_map(|pattern| pattern.split('/'))
            .map(str::to_owned);
        Ok(Self {
            tests: set(tests)?,
            coverage: set(coverage)?,
            named: steps.collect(),
        })
    }

    fn report_kind(&self, name: &str) -> Option<ReportKind> {
        if self.tests.is_match(name) {
            Some(ReportKind::Tests)
        } else {
            self.coverage.is_match(name).then_some(ReportKind::Coverage)
        }
    }

    /// Whether a folder is excluded: git and npm folders, and caches with a `CACHEDIR.TAG`. Cargo's `target` has that
    /// tag; Maven's, which contains reports, doesn't.
    fn is_excluded(&self, path: &Path, name: &str) -> bool {
        let kept = matches!(name, ".git" | "node_modules") || path.join("CACHEDIR.TAG").exists();
        kept && !self.named.iter().any(|named| named == name)
    }
}

/// Finds the reports below `root`, sorted by name; the second value says why some may be missing.
pub(super) fn find_reports(
    root: &Path,
    wanted: &ReportPatterns,
) -> (Vec<FoundReport>, Option<String>) {
    let (mut found, mut entries) = (Vec::new(), 0);
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    let mut trouble = None;
    'folders: while let Some((folder, prefix, depth)) = folders.pop() {
        let Ok(listed) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in listed.flatten() {
            entries += 1;
            if entries > ENTRIES_MAX || found.len() > FILES_MAX {
                trouble = Some(format!(
                    "the workspace is too large to find all reports in it: more than {ENTRIES_MAX} files, or {FILES_MAX} reports; name their paths as `reports` in shipway.yaml"
                ));
                break 'folders;
            }
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                if depth < DEPTH_MAX && !wanted.is_excluded(&path, &name) {
                    folders.push((path, format!("{prefix}{name}/"), depth + 1));
                }
            } else if kind.is_file() {
                let name = format!("{prefix}{name}");
                if let Some(kind) = wanted.report_kind(&name) {
                    found.push(FoundReport { name, kind, path });
                }
            }
        }
    }
    found.truncate(FILES_MAX);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    (found, trouble)
}

pub(super) struct ReportText {
    pub(super) text: String,
    pub(super) written: SystemTime,
    pub(super) bytes: u64,
}

/// Reads a report of at most `bytes_max` bytes. The path may have been replaced meanwhile, so symlinks, FIFOs and
/// devices are refused.
pub(super) fn read_report(found: &FoundReport, bytes_max: u64) -> Result<ReportText, ReportError> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(&found.path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(ReportError::NotAFile);
    }
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if read as u64 > bytes_max {
        return Err(ReportError::TooLarge {
            mebibytes: bytes_max >> 20,
        });
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        // Tests may print binary data: don't lose the other tests.
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Ok(ReportText {
        text,
        written: about.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        bytes: read as u64,
    })
}

//! What steps wrote into `$GITHUB_STEP_SUMMARY`: the worker masks it and keeps it in the folder of the job.

use std::{io::Read as _, path::Path};

/// Bytes of the summary of one job that are shown.
const SHOWN_MAX: u64 = 256 << 10;

/// The summaries of a job's steps, one after the other; `None` if no step wrote one.
pub(super) fn read_job_summary(folder: &Path) -> Option<String> {
    let mut files: Vec<(u32, std::path::PathBuf)> = (std::fs::read_dir(folder.join("summaries"))
        .ok()?)
    .filter_map(|entry| {
        let path = entry.ok()?.path();
        Some((path.file_stem()?.to_str()?.parse().ok()?, path))
    })
    .collect();
    files.sort();
    let mut all = Vec::new();
    for (_, path) in files {
        let left = SHOWN_MAX.saturating_sub(all.len() as u64);
        // A step may have put a link there: only regular files are read.
        let is_file = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        if let Some(file) = is_file.then(|| std::fs::File::open(&path).ok()).flatten() {
            let _ = file.take(left).read_to_end(&mut all);
            all.push(b'\n');
        }
    }
    let text = String::from_utf8_lossy(&all).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn summaries_come_in_the_order_of_steps_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_job_summary(folder.path()), None);
        let summaries = folder.path().join("summaries");
        fs::create_dir(&summaries).unwrap();
        fs::write(folder.path().join("secret"), "hunter2").unwrap();
        for (name, text) in [("10.md", "last"), ("2.md", "# first\n"), ("x.md", "no")] {
            fs::write(summaries.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(folder.path().join("secret"), summaries.join("3.md")).unwrap();
        assert_eq!(
            read_job_summary(folder.path()).as_deref(),
            Some("# first\n\nlast")
        );
    }
}

//! `shipway admin prune`: removes files of a server that its retention rule no longer covers.

use shipway_api::{ApiClient, PruneReport, PrunedFiles};

use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{Output, line},
};

/// Ids on a line.
const LINE_IDS: usize = 8;

#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Show what would be removed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command against the server.
pub fn run(args: &PruneArgs, server: &ServerConnection, output: Output) -> Result<(), Failure> {
    let report = match args.dry_run {
        true => server.prunable_files()?,
        false => server.prune()?,
    };
    if output.json {
        return output.document(&report);
    }
    for text in describe_report(&report) {
        line(&text);
    }
    Ok(())
}

fn describe_report(report: &PruneReport) -> Vec<String> {
    // Only a removal knows how much of the repositories is gone.
    let verb = match report.repositories {
        None => "would remove",
        Some(_) => "removed",
    };
    let blobs = describe_files(report.blobs, "artifact or report", "artifacts and reports");
    let runs = describe_files(report.runs, "run with its logs", "runs with their logs");
    let mut lines = vec![format!("{verb} {blobs}"), format!("{verb} {runs}")];
    lines.extend(id_lines(&report.run_ids));
    lines.push(match report.repositories {
        None => "would remove git objects that nothing has referred to for 14 d".to_owned(),
        Some(repositories) => {
            let noun = match repositories.count {
                1 => "repository",
                _ => "repositories",
            };
            let size = format_size(repositories.bytes);
            format!("git gc freed {size} in {} {noun}", repositories.count)
        }
    });
    if !report.releases.is_empty() {
        lines.push("without their artifacts these releases can't be deployed:".to_owned());
        let releases = report.releases.iter();
        let names = releases.map(|release| format!("{} {}", release.service, release.number));
        lines.extend(id_lines(&names.collect::<Vec<_>>()));
    }
    lines
}

fn describe_files(files: PrunedFiles, one: &str, several: &str) -> String {
    let noun = if files.count == 1 { one } else { several };
    format!("{} {noun} ({})", files.count, format_size(files.bytes))
}

fn id_lines(ids: &[String]) -> impl Iterator<Item = String> {
    ids.chunks(LINE_IDS)
        .map(|ids| format!("  {}", ids.join(", ")))
}

/// `812 bytes`, `3.4 MiB`
fn format_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            let decimals = usize::from(unit != "bytes");
            return format!("{size:.decimals$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use shipway_api::PrunedRelease;
    use shipway_core::ids::ReleaseNumber;

    use super::*;

    #[test]
    fn a_removal_says_what_is_gone_and_which_releases_need_it() {
        let mut report = PruneReport {
            blobs: PrunedFiles {
                count: 2,
                bytes: 3_565_158,
            },
            runs: PrunedFiles {
                count: 1,
                bytes: 812,
            },
            run_ids: vec!["shop/r1".to_owned()],
            releases: vec![PrunedRelease {
                service: "shop".parse().unwrap(),
                number: ReleaseNumber(1),
            }],
            repositories: None,
        };
        let expected = "would remove 2 artifacts and reports (3.4 MiB)
would remove 1 run with its logs (812 bytes)
  shop/r1
would remove git objects that nothing has referred to for 14 d
without their artifacts these releases can't be deployed:
  shop #1";
        assert_eq!(describe_report(&report).join("\n"), expected);
        report.repositories = Some(PrunedFiles {
            count: 2,
            bytes: 4 << 40,
        });
        let lines = describe_report(&report);
        assert_eq!(lines[3], "git gc freed 4.0 TiB in 2 repositories");
    }
}

//! A job followed to its end: what its worker journals becomes inputs of the run, what it logs is shown.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use shipway_core::{
    aggregate::EffectKey,
    ids::Digest,
    run::{Artifact, Input, StepLine},
};
use shipway_drivers::{jobs::JobRunner, tail::Tail};
use shipway_workflow::job::{Conclusion, JobKey, JournalBody};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::local::Report;

/// Follows a job: its log line by line, its journal entry by entry.
pub(super) async fn follow(
    runner: JobRunner,
    folder: PathBuf,
    key: JobKey,
    effect: EffectKey,
    reports: mpsc::Sender<Report>,
) {
    let never = CancellationToken::new();
    let mut lines = LogLines::open(&folder);
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    let ended = |conclusion, outputs, why| Input::JobEnded {
        key: key.clone(),
        conclusion,
        outputs,
        why,
    };
    let mut journal = match runner.journal(&folder) {
        Ok(journal) => journal,
        Err(error) => {
            return drop(
                reports
                    .send(Report::Said(ended(
                        Conclusion::Failure,
                        Vec::new(),
                        Some(error.to_string()),
                    )))
                    .await,
            );
        }
    };
    let last = loop {
        let entry = tokio::select! {
            entry = journal.next(&never) => entry,
            () = lines.grow(&key, &reports) => continue,
        };
        let body = match entry {
            Ok(Some(entry)) => entry.body,
            Ok(None) => {
                break ended(
                    Conclusion::Failure,
                    Vec::new(),
                    Some("the journal has no end".to_owned()),
                );
            }
            Err(error) => break ended(Conclusion::Failure, Vec::new(), Some(error.to_string())),
        };
        match body {
            JournalBody::Started { .. } => drop(
                reports
                    .send(Report::Said(Input::JobStarted { key: key.clone() }))
                    .await,
            ),
            JournalBody::StepStarted { index, name, .. } => drop(names.insert(index, name)),
            JournalBody::StepFinished {
                index,
                outcome,
                conclusion,
                took_ms,
                why,
                ..
            } => {
                lines.drain(&key, &reports).await;
                let name = names.get(&index).cloned().unwrap_or_default();
                let _ = reports
                    .send(Report::Step {
                        key: key.clone(),
                        name: name.clone(),
                        conclusion,
                        took_ms,
                        why,
                    })
                    .await;
                let step = StepLine {
                    index,
                    name,
                    conclusion,
                    outcome: (outcome != conclusion).then_some(outcome),
                    took_ms,
                };
                let _ = reports
                    .send(Report::Said(Input::StepFinished {
                        key: key.clone(),
                        step,
                    }))
                    .await;
            }
            JournalBody::ArtifactSaved {
                name,
                path,
                digest,
                size,
            } => {
                if let Ok(digest) = digest.parse::<Digest>() {
                    let _ = reports
                        .send(Report::Stored {
                            name: name.clone(),
                            path,
                        })
                        .await;
                    let _ = reports
                        .send(Report::Said(Input::ArtifactStored {
                            artifact: Artifact { name, digest, size },
                        }))
                        .await;
                }
            }
            JournalBody::Finished {
                conclusion,
                outputs,
                why,
            } => break ended(conclusion, outputs, why),
            JournalBody::Annotation { .. } | JournalBody::DeployAsked { .. } => {}
        }
    };
    lines.drain(&key, &reports).await;
    let _ = reports.send(Report::Said(last)).await;
    let _ = reports.send(Report::Over(effect)).await;
}

/// A job's log, without the times.
struct LogLines {
    tail: Option<Tail>,
    text: Vec<u8>,
}

impl LogLines {
    fn open(folder: &Path) -> Self {
        Self {
            tail: Tail::open(&folder.join("log"), 0).ok(),
            text: Vec::new(),
        }
    }

    /// Waits until there is more, and hands it on.
    async fn grow(&mut self, key: &JobKey, reports: &mpsc::Sender<Report>) {
        match &mut self.tail {
            Some(tail) => {
                if tail.changed().await.is_err() {
                    self.tail = None;
                }
            }
            None => std::future::pending().await,
        }
        self.drain(key, reports).await;
    }

    async fn drain(&mut self, key: &JobKey, reports: &mpsc::Sender<Report>) {
        let Some(tail) = &mut self.tail else { return };
        while let Ok(bytes) = tail.read().await
            && !bytes.is_empty()
        {
            self.text.extend_from_slice(&bytes);
        }
        while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.text.drain(..=end).collect();
            let text = String::from_utf8_lossy(&whole[..end]).into_owned();
            // `2026-11-21T04:18:58.123Z ` stands before each line.
            let text = text
                .split_once(' ')
                .map_or(text.clone(), |(_, rest)| rest.to_owned());
            let _ = reports
                .send(Report::Line {
                    key: key.clone(),
                    text,
                })
                .await;
        }
    }
}

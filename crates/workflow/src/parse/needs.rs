//! Whether the jobs that jobs need exist, and can all come to an end.

use std::collections::BTreeMap;

use shipway_syntax::{Span, YamlNode, nearest};

use super::reader::WorkflowReader;
use crate::{expr::join_with_and, model::WorkflowJob};

/// Reports unknown jobs and cycles, each cycle once and in full.
pub(super) fn check(
    reader: &mut WorkflowReader<'_>,
    jobs: &[WorkflowJob],
    node: Option<&YamlNode>,
) {
    let index: BTreeMap<String, usize> = jobs
        .iter()
        .enumerate()
        .map(|(at, job)| (job.id.to_ascii_lowercase(), at))
        .collect();
    let spans: BTreeMap<&str, &YamlNode> = node
        .and_then(YamlNode::as_mapping)
        .unwrap_or_default()
        .iter()
        .filter_map(|(key, job)| Some((key.text.as_str(), job.get("needs")?)))
        .collect();
    let mut edges: Vec<Vec<usize>> = Vec::with_capacity(jobs.len());
    for job in jobs {
        let places = job
            .needs
            .iter()
            .map(|name| index.get(&name.to_ascii_lowercase()).copied());
        edges.push(places.clone().flatten().collect());
        for (at, name) in places
            .zip(&job.needs)
            .enumerate()
            .filter_map(|(at, (place, name))| place.is_none().then_some((at, name)))
        {
            unknown(reader, jobs, &job.id, name, span(&spans, &job.id, at));
        }
    }
    for cycle in cycles(&edges) {
        let names: Vec<&str> = cycle
            .iter()
            .chain(cycle.first())
            .map(|&at| jobs[at].id.as_str())
            .collect();
        let (first, next) = (cycle[0], *cycle.get(1).unwrap_or(&cycle[0]));
        let is_next = |name: &String| index.get(&name.to_ascii_lowercase()) == Some(&next);
        let at = jobs[first]
            .needs
            .iter()
            .position(is_next)
            .unwrap_or_default();
        let message = format!(
            "these jobs wait for each other and can never start: {}",
            names.join(" needs ")
        );
        reader.error_with_help(
            "cycle",
            span(&spans, &jobs[first].id, at),
            message,
            "remove one of these `needs`",
        );
    }
}

fn unknown(
    reader: &mut WorkflowReader<'_>,
    jobs: &[WorkflowJob],
    id: &str,
    name: &str,
    span: Span,
) {
    let near = match reader.has_many_problems() {
        true => None,
        false => nearest(name, jobs.iter().map(|job| job.id.as_str())),
    };
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "the known ones are {}",
            join_with_and(jobs.iter().take(10).map(|job| job.id.as_str()))
        ),
    };
    reader.error_with_help(
        "unknown-job",
        span,
        format!("the job `{id}` needs `{name}`, which doesn't exist"),
        help,
    );
}

fn span(spans: &BTreeMap<&str, &YamlNode>, id: &str, place: usize) -> Span {
    let Some(node) = spans.get(id) else {
        return Span::default();
    };
    node.as_sequence()
        .and_then(|items| items.get(place))
        .map_or(node.span, |item| item.span)
}

/// Cycles that are reported. A graph may have as many as it has edges, each as long as it has jobs.
const CYCLES_MAX: usize = 10;

/// The cycles that a walk in the order of the file meets; every graph with a cycle has one of them.
fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum VisitState {
        Never,
        OnPath,
        Done,
    }
    let mut seen = vec![VisitState::Never; edges.len()];
    let mut cycles = Vec::new();
    for start in 0..edges.len() {
        if seen[start] != VisitState::Never {
            continue;
        }
        // (job, how many of its needs have been followed)
        let mut path = vec![(start, 0)];
        seen[start] = VisitState::OnPath;
        while let Some((job, followed)) = path.last_mut() {
            let Some(&next) = edges[*job].get(*followed) else {
                seen[*job] = VisitState::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            match seen[next] {
                VisitState::Done => {}
                VisitState::Never => {
                    seen[next] = VisitState::OnPath;
                    path.push((next, 0));
                }
                VisitState::OnPath => {
                    let from = path
                        .iter()
                        .position(|(job, _)| *job == next)
                        .unwrap_or_default();
                    cycles.push(path[from..].iter().map(|(job, _)| *job).collect());
                    if cycles.len() >= CYCLES_MAX {
                        return cycles;
                    }
                }
            }
        }
    }
    cycles
}

//! The jobs of a run as a graph: stages from left to right, needs as lines, the jobs of a matrix in one box. Drawn as SVG whose marks
//! have a shape and a word for each state, so that colour is never needed to read it.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use shipway_core::run::{JobView, RunStatus, RunView};

use crate::{
    foreign_text::cut_text,
    format::{duration_text, enum_text},
};

use super::duration_between;

const NODE_WIDTH: usize = 220;
const COLUMN_GAP: usize = 56;
const ROW_GAP: usize = 14;
const HEAD_HEIGHT: usize = 46;
const CELL_HEIGHT: usize = 20;
const MARGIN: usize = 8;
/// Jobs of a matrix that are drawn one by one; the others are counted.
const CELLS_MAX: usize = 8;
/// Letters of a name that fit into a box.
const NAME_CHARS: usize = 24;

/// A job of the workflow with its cells.
struct GraphNode<'r> {
    id: String,
    jobs: Vec<&'r JobView>,
    needs: BTreeSet<String>,
    stage: usize,
    top: usize,
}

impl GraphNode<'_> {
    fn height(&self) -> usize {
        match self.jobs.len() {
            1 => HEAD_HEIGHT,
            cells => {
                let rows = cells.min(CELLS_MAX) + usize::from(cells > CELLS_MAX);
                HEAD_HEIGHT + rows * CELL_HEIGHT + 4
            }
        }
    }

    const fn column_start(&self) -> usize {
        MARGIN + self.stage * (NODE_WIDTH + COLUMN_GAP)
    }

    /// The state of the whole box: the worst of its cells.
    fn status(&self) -> RunStatus {
        let worst = self.jobs.iter().map(|job| job.status);
        worst
            .max_by_key(|status| severity(*status))
            .unwrap_or(RunStatus::Waiting)
    }
}

const fn severity(status: RunStatus) -> u8 {
    match status {
        RunStatus::Skipped => 0,
        RunStatus::Success => 1,
        RunStatus::Waiting => 2,
        RunStatus::Queued => 3,
        RunStatus::Running => 4,
        RunStatus::Cancelled => 5,
        RunStatus::Incomplete => 6,
        RunStatus::Failure => 7,
    }
}

/// The graph of a run; nothing for a run of one job, which is a graph of one box.
pub(super) fn graph_section(run: &RunView) -> Markup {
    let nodes = layout(&run.jobs);
    html! { @if nodes.len() > 1 {
        section.card.job-graph id="graph" {
            h2 { "Job graph" }
            div.scroll tabindex="0" role="region" aria-label="Job graph, scrollable" { (drawing(run, &nodes)) }
        }
    } }
}

/// The id of the job that a key belongs to: `test` of `test.2`, `deploy~build` of `deploy.1~build.2`.
fn node_id(key: &str) -> String {
    let without_cell = |part: &str| match part.rsplit_once('.') {
        Some((id, cell)) if !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit()) => {
            id.to_owned()
        }
        _ => part.to_owned(),
    };
    key.split('~')
        .map(without_cell)
        .collect::<Vec<_>>()
        .join("~")
}

/// The boxes with their places.
fn layout(jobs: &[JobView]) -> Vec<GraphNode<'_>> {
    let mut nodes: Vec<GraphNode<'_>> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for job in jobs {
        let id = node_id(&job.key);
        let at = *places.entry(id.clone()).or_insert_with(|| {
            nodes.push(GraphNode {
                id,
                jobs: Vec::new(),
                needs: BTreeSet::new(),
                stage: 0,
                top: 0,
            });
            nodes.len() - 1
        });
        nodes[at]
            .needs
            .extend(job.needs.iter().map(|key| node_id(key)));
        nodes[at].jobs.push(job);
    }
    add_calls(&mut nodes);
    assign_stages(&mut nodes, &places);
    let mut bottoms: BTreeMap<usize, usize> = BTreeMap::new();
    for node in &mut nodes {
        let bottom = bottoms.entry(node.stage).or_insert(MARGIN);
        node.top = *bottom;
        *bottom += node.height() + ROW_GAP;
    }
    nodes
}

/// Jobs of a called workflow that need none of its jobs follow the calling job. A job that needs the calling job needs all of them.
fn add_calls(nodes: &mut [GraphNode<'_>]) {
    let ids: Vec<String> = nodes.iter().map(|node| node.id.clone()).collect();
    for node in nodes {
        if node.needs.is_empty()
            && let Some((caller, _)) = node.id.rsplit_once('~')
        {
            node.needs.insert(caller.to_owned());
        }
        let mut inside = Vec::new();
        for need in &node.needs {
            let prefix = format!("{need}~");
            let called = ids.iter().filter(|id| id.starts_with(&prefix));
            inside.extend(called.filter(|_| !node.id.starts_with(&prefix)).cloned());
        }
        node.needs.extend(inside);
    }
}

/// Each job is one stage behind the last that it needs.
fn assign_stages(nodes: &mut [GraphNode<'_>], places: &BTreeMap<String, usize>) {
    // A workflow has no circles; the bound ends the loop if a row of another version had one.
    for _ in 0..nodes.len() {
        let mut has_moved = false;
        for at in 0..nodes.len() {
            let needed = nodes[at].needs.iter().filter_map(|need| places.get(need));
            let stage = needed.map(|need| nodes[*need].stage + 1).max().unwrap_or(0);
            if stage > nodes[at].stage && stage < nodes.len() {
                nodes[at].stage = stage;
                has_moved = true;
            }
        }
        if !has_moved {
            break;
        }
    }
}

fn drawing(run: &RunView, nodes: &[GraphNode<'_>]) -> Markup {
    let width = nodes
        .iter()
        .map(|node| node.column_start() + NODE_WIDTH + MARGIN)
        .max()
        .unwrap_or(0);
    let height = nodes
        .iter()
        .map(|node| node.top + node.height() + MARGIN)
        .max()
        .unwrap_or(0);
    let by_id: BTreeMap<&str, &GraphNode<'_>> =
        nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    html! {
        svg.graph xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) } role="group" aria-label={ "Graph of " (nodes.len()) " jobs; lines lead from a job to those that need it" } {
            @for node in nodes { @for need in &node.needs { @if let Some(from) = by_id.get(need.as_str()) { (edge(from, node)) } } }
            @for node in nodes { (node_box(run, node)) }
        }
    }
}

fn edge(from: &GraphNode<'_>, to: &GraphNode<'_>) -> Markup {
    let (x1, y1) = (from.column_start() + NODE_WIDTH, from.top + HEAD_HEIGHT / 2);
    let (x2, y2) = (to.column_start(), to.top + HEAD_HEIGHT / 2);
    let half = COLUMN_GAP / 2;
    html! { path.edge d={ "M" (x1) " " (y1) "C" (x1 + half) " " (y1) " " (x2.saturating_sub(half)) " " (y2) " " (x2) " " (y2) } {} }
}

fn node_box(run: &RunView, node: &GraphNode<'_>) -> Markup {
    let (left, top, status) = (node.column_start(), node.top, node.status());
    let first = node.jobs.first();
    let name = match (node.jobs.len(), first) {
        (1, Some(job)) => job.name.as_str(),
        _ => node.id.as_str(),
    };
    let about = match node.jobs.len() {
        1 => first.map_or_else(String::new, |job| job_about(job)),
        _ => counted(&node.jobs),
    };
    html! {
        g.node.(tone(status)) {
            rect.box x=(left) y=(top) width=(NODE_WIDTH) height=(node.height()) rx="8" {}
            (node_link(run, node.jobs.iter().max_by_key(|job| severity(job.status)).copied(), &html! {
                (mark(status, left + 18, top + 16))
                text.name x=(left + 34) y=(top + 20) { (short_name(name)) }
                text.about x=(left + 34) y=(top + 37) { (about) }
            }))
            @if node.jobs.len() > 1 { (cells(run, node)) }
        }
    }
}

/// The jobs of a matrix, the worst first.
fn cells(run: &RunView, node: &GraphNode<'_>) -> Markup {
    let mut jobs = node.jobs.clone();
    jobs.sort_by_key(|job| std::cmp::Reverse(severity(job.status)));
    let left = node.column_start();
    let top = |row: usize| node.top + HEAD_HEIGHT + row * CELL_HEIGHT;
    html! {
        @for (row, job) in jobs.iter().take(CELLS_MAX).enumerate() {
            g.cell.(tone(job.status)) { (node_link(run, Some(job), &html! {
                (mark(job.status, left + 26, top(row) + 8))
                text.about x=(left + 40) y=(top(row) + 12) { (short_name(&job.name)) ", " (enum_text(&job.status)) }
            })) }
        }
        @if jobs.len() > CELLS_MAX { text.about x=(left + 40) y=(top(CELLS_MAX) + 12) { (jobs.len() - CELLS_MAX) " more in the list of jobs" } }
    }
}

fn node_link(run: &RunView, job: Option<&JobView>, content: &Markup) -> Markup {
    let Some(job) = job.filter(|job| job.calls.is_none()) else {
        return content.clone();
    };
    let address = format!(
        "/runs/{}/{}?job={}&at=failure",
        run.id.service, run.id.number.0, job.key
    );
    html! { a href=(address) data-log-link { title { (cut_text(&job.name, 120)) ": " (job_about(job)) } (content) } }
}

/// A name that fits into a box; code points that stand for invisible characters count as they are written.
fn short_name(name: &str) -> String {
    cut_text(&cut_text(name, 2 * NAME_CHARS), NAME_CHARS)
}

/// `failure, 12.3 s`.
fn job_about(job: &JobView) -> String {
    let status = enum_text(&job.status);
    let took = job
        .started_at
        .zip(job.finished_at)
        .and_then(|(start, end)| duration_between(start, end));
    match took {
        Some(took) => format!("{status}, {}", duration_text(took)),
        None => status,
    }
}

/// `2 failure, 6 success`.
fn counted(jobs: &[&JobView]) -> String {
    let mut counts: BTreeMap<u8, (RunStatus, usize)> = BTreeMap::new();
    for job in jobs {
        counts
            .entry(severity(job.status))
            .or_insert((job.status, 0))
            .1 += 1;
    }
    let parts = counts.into_values().rev();
    let parts: Vec<String> = parts
        .map(|(status, count)| format!("{count} {}", enum_text(&status)))
        .collect();
    parts.join(", ")
}

const fn tone(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Success => "good",
        RunStatus::Failure => "bad",
        RunStatus::Cancelled | RunStatus::Incomplete => "ask",
        RunStatus::Running | RunStatus::Queued | RunStatus::Waiting => "calm",
        RunStatus::Skipped => "faded",
    }
}

/// The mark of a state: each has a shape of its own.
fn mark(status: RunStatus, x: usize, y: usize) -> Markup {
    let at = format!("translate({x} {y})");
    html! { g.mark transform=(at) aria-hidden="true" { @match status {
        RunStatus::Success => { circle r="8" {} path.sign d="M-4 0l3 3 5-6" {} },
        RunStatus::Failure => { rect x="-8" y="-8" width="16" height="16" rx="2" {} path.sign d="M-4-4l8 8M4-4l-8 8" {} },
        RunStatus::Cancelled => { circle r="8" {} path.sign d="M-5 5L5-5" {} },
        RunStatus::Incomplete => { path d="M0-9L9 8H-9z" {} path.sign d="M0-3v5M0 4.5v1" {} },
        RunStatus::Running => { circle.open r="7" {} path d="M0-7a7 7 0 0 1 0 14z" {} },
        RunStatus::Queued => { circle.open r="7" {} circle r="2.5" {} },
        RunStatus::Waiting => { circle.open r="7" {} },
        RunStatus::Skipped => { path.open d="M-7 0H7" {} },
    } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(key: &str, needs: &[&str], status: RunStatus) -> JobView {
        serde_json::from_value(serde_json::json!({
            "key": key, "name": format!("{key} <script>"), "status": status, "why": null, "needs": needs,
            "started_at": null, "finished_at": null, "steps": [],
        }))
        .unwrap()
    }

    #[test]
    fn stages_follow_needs_and_a_matrix_is_one_box() {
        let jobs = [
            job("build", &[], RunStatus::Success),
            job("test.1", &["build"], RunStatus::Success),
            job("test.2", &["build"], RunStatus::Failure),
            job("deploy", &["test"], RunStatus::Skipped),
            job("deploy~push", &[], RunStatus::Skipped),
            job("done", &["deploy"], RunStatus::Skipped),
        ];
        let nodes = layout(&jobs);
        let stages: Vec<(&str, usize)> = nodes
            .iter()
            .map(|node| (node.id.as_str(), node.stage))
            .collect();
        assert_eq!(
            stages,
            [
                ("build", 0),
                ("test", 1),
                ("deploy", 2),
                ("deploy~push", 3),
                ("done", 4)
            ]
        );
        assert_eq!(nodes[1].status(), RunStatus::Failure);
        assert_eq!(counted(&nodes[1].jobs), "1 failure, 1 success");
    }

    #[test]
    fn hundreds_of_jobs_and_circles_have_a_place() {
        let many: Vec<JobView> = (0..250)
            .map(|cell| job(&format!("test.{cell}"), &[], RunStatus::Success))
            .chain([
                job("a", &["b"], RunStatus::Waiting),
                job("b", &["a"], RunStatus::Waiting),
            ])
            .collect();
        let nodes = layout(&many);
        assert_eq!(nodes.len(), 3);
        assert!(nodes[0].height() < 300);
    }
}

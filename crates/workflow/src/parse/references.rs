//! Names that expressions mention and that aren't there: `needs.x` without `needs: x`, `steps.y` without a step `y` before.
//! GitHub gives an empty value for them, so they are warnings.

use std::collections::{BTreeMap, BTreeSet};

use shipway_syntax::{Node, nearest};

use super::reader::Reader;
use crate::{
    expr::{Condition, Template},
    model::{Action, Job, Step, Table, Workflow},
};

pub(super) fn check(reader: &mut Reader<'_>, workflow: &Workflow, jobs: Option<&Node>) {
    let nodes: BTreeMap<&str, &Node> = jobs
        .and_then(Node::as_mapping)
        .unwrap_or_default()
        .iter()
        .map(|(key, node)| (key.text.as_str(), node))
        .collect();
    for job in &workflow.jobs {
        let Some(node) = nodes.get(job.id.as_str()) else {
            continue;
        };
        // A step with an error is not in the model: then the two can't be walked side by side.
        let nodes = node
            .get("steps")
            .and_then(Node::as_sequence)
            .unwrap_or_default();
        if nodes.len() == job.steps.len() {
            steps(reader, job, nodes);
        }
        let known: BTreeSet<String> = job.needs.iter().map(|id| id.to_ascii_lowercase()).collect();
        let mut scope = Scope {
            reader,
            context: "needs",
            known: &known,
            missing: "isn't among the `needs` of this job",
        };
        scope.condition(&job.if_, node.get("if"));
        scope.table(&job.env, node.get("env"));
        scope.table(&job.outputs, node.get("outputs"));
        let known: BTreeSet<String> = job
            .steps
            .iter()
            .map(|step| step.id.to_ascii_lowercase())
            .collect();
        let mut scope = Scope {
            reader,
            context: "steps",
            known: &known,
            missing: "isn't a step of this job",
        };
        scope.table(&job.outputs, node.get("outputs"));
    }
}

fn steps(reader: &mut Reader<'_>, job: &Job, nodes: &[Node]) {
    let needed: BTreeSet<String> = job.needs.iter().map(|id| id.to_ascii_lowercase()).collect();
    let mut before = BTreeSet::new();
    for (step, node) in job.steps.iter().zip(nodes) {
        Scope {
            reader,
            context: "needs",
            known: &needed,
            missing: "isn't among the `needs` of this job",
        }
        .step(step, node);
        Scope {
            reader,
            context: "steps",
            known: &before,
            missing: "isn't a step before this one",
        }
        .step(step, node);
        before.insert(step.id.to_ascii_lowercase());
    }
}

struct Scope<'r, 's, 'k> {
    reader: &'r mut Reader<'s>,
    context: &'static str,
    known: &'k BTreeSet<String>,
    missing: &'static str,
}

impl Scope<'_, '_, '_> {
    fn step(&mut self, step: &Step, node: &Node) {
        self.condition(&step.if_, node.get("if"));
        self.table(&step.env, node.get("env"));
        match &step.action {
            Action::Run {
                script,
                working_directory,
                ..
            } => {
                self.template(Some(script), node.get("run"));
                self.template(working_directory.as_ref(), node.get("working-directory"));
            }
            Action::Uses { with, .. } => self.table(with, node.get("with")),
        }
    }

    fn condition(&mut self, condition: &Condition, node: Option<&Node>) {
        let Some(node) = node else { return };
        for expr in condition.exprs() {
            self.names(expr.properties_of(self.context), node);
        }
    }

    fn table(&mut self, table: &Table, node: Option<&Node>) {
        match table {
            Table::Computed(template) => self.template(Some(template), node),
            Table::Entries(entries) => {
                for (name, template) in entries {
                    self.template(Some(template), node.and_then(|node| node.get(name)));
                }
            }
        }
    }

    fn template(&mut self, template: Option<&Template>, node: Option<&Node>) {
        let (Some(template), Some(node)) = (template, node) else {
            return;
        };
        for expr in template.exprs() {
            self.names(expr.properties_of(self.context), node);
        }
    }

    fn names(&mut self, names: Vec<(String, std::ops::Range<usize>)>, node: &Node) {
        for (name, at) in names {
            if self.known.contains(&name.to_ascii_lowercase()) {
                continue;
            }
            let span = self.reader.within(node, at);
            let help = match nearest(&name, self.known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "its value is always empty".to_owned(),
            };
            self.reader.warn(
                "unknown-reference",
                span,
                format!("`{}.{name}` {}", self.context, self.missing),
                help,
            );
        }
    }
}

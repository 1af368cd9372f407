//! Names that expressions mention and that aren't there: `needs.x` without `needs: x`, `steps.y` without a step `y` before.
//! GitHub gives an empty value for them, so they are warnings.

use std::collections::{BTreeMap, BTreeSet};

use shipway_syntax::{YamlNode, nearest};

use super::reader::WorkflowReader;
use crate::{
    expr::{Expr, IfCondition, Template},
    model::{Workflow, WorkflowJob},
};

pub(super) fn check(reader: &mut WorkflowReader<'_>, workflow: &Workflow, jobs: Option<&YamlNode>) {
    let nodes: BTreeMap<&str, &YamlNode> = jobs
        .and_then(YamlNode::as_mapping)
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
            .and_then(YamlNode::as_sequence)
            .unwrap_or_default();
        if nodes.len() == job.steps.len() {
            steps(reader, job, nodes);
        }
        let known = job.needs.iter().map(|id| id.to_ascii_lowercase()).collect();
        let mut needs = ReferenceScope {
            reader,
            context: "needs",
            known: &known,
            missing: "isn't among the `needs` of this job",
        };
        for (key, node) in node.as_mapping().unwrap_or_default() {
            if key.text != "steps" {
                needs.check_node(Some(&key.text), node);
            }
        }
        let known = job
            .steps
            .iter()
            .map(|step| step.id.to_ascii_lowercase())
            .collect();
        let mut steps = ReferenceScope {
            reader,
            context: "steps",
            known: &known,
            missing: "isn't a step of this job",
        };
        for key in ["outputs", "environment"] {
            if let Some(node) = node.get(key) {
                steps.check_node(Some(key), node);
            }
        }
    }
}

fn steps(reader: &mut WorkflowReader<'_>, job: &WorkflowJob, nodes: &[YamlNode]) {
    let needed: BTreeSet<String> = job.needs.iter().map(|id| id.to_ascii_lowercase()).collect();
    let mut before = BTreeSet::new();
    for (step, node) in job.steps.iter().zip(nodes) {
        ReferenceScope {
            reader,
            context: "needs",
            known: &needed,
            missing: "isn't among the `needs` of this job",
        }
        .check_node(None, node);
        ReferenceScope {
            reader,
            context: "steps",
            known: &before,
            missing: "isn't a step before this one",
        }
        .check_node(None, node);
        before.insert(step.id.to_ascii_lowercase());
    }
}

struct ReferenceScope<'r, 's, 'k> {
    reader: &'r mut WorkflowReader<'s>,
    context: &'static str,
    known: &'k BTreeSet<String>,
    missing: &'static str,
}

impl ReferenceScope<'_, '_, '_> {
    /// Looks at every expression below a node, which stands behind `key`.
    fn check_node(&mut self, key: Option<&str>, node: &YamlNode) {
        if let Some(entries) = node.as_mapping() {
            for (key, node) in entries {
                self.check_node(Some(&key.text), node);
            }
        } else if let Some(items) = node.as_sequence() {
            items.iter().for_each(|item| self.check_node(key, item));
        } else if let Some(text) = node.as_str().filter(|text| text.contains(self.context)) {
            // Syntax errors are already reported.
            if key == Some("if") {
                let condition = IfCondition::parse(text, 0).unwrap_or_default();
                self.exprs(condition.exprs(), node);
            } else if let Ok(template) = Template::parse(text, 0) {
                self.exprs(template.exprs(), node);
            }
        }
    }

    fn exprs<'e>(&mut self, exprs: impl Iterator<Item = &'e Expr>, node: &YamlNode) {
        for expr in exprs {
            self.names(expr.properties_of(self.context), node);
        }
    }

    fn names(&mut self, names: Vec<(String, std::ops::Range<usize>)>, node: &YamlNode) {
        for (name, at) in names {
            if self.known.contains(&name.to_ascii_lowercase()) {
                continue;
            }
            if self.reader.has_many_problems() {
                return;
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

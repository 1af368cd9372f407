//! What `runs-on` asks of the machine that runs a job, and the labels that a machine has.
//!
//! As at GitHub a machine must have all labels that a job asks for, ignoring case. A runner group has no meaning on a single
//! machine: its name is looked up among the labels, so that a job never runs on a machine outside the group.

use serde::{Deserialize, Serialize};

use crate::{
    expr::{Contexts, EvalError, ExprValue, Template, join_with_and},
    model::RunsOn,
};

/// `runs-on:` of one job, its expressions resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunnerRequest {
    /// The labels that the machine must have.
    pub labels: Vec<String>,
    /// The group that the machine must be in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl RunnerRequest {
    /// Whether any machine will do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.group.is_none()
    }
}

/// A machine that does not fit a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunnerMismatch {
    /// The label is one of another operating system.
    #[error("no runner here has the label `{label}`: this machine runs Linux")]
    OtherSystem {
        /// The label.
        label: String,
    },
    /// The label is one of another processor architecture.
    #[error("no runner here has the label `{label}`: this machine is {arch}")]
    OtherArchitecture {
        /// The label.
        label: String,
        /// The architecture of this machine, as a label.
        arch: String,
    },
    /// Nothing is known about the label.
    #[error(
        "no runner here has the label `{label}`: this machine has {known}; if the job can run here, add --label {label}"
    )]
    UnknownLabel {
        /// The label.
        label: String,
        /// The labels that there are.
        known: String,
    },
    /// The machine was not put into the group.
    #[error(
        "this machine is not in the runner group `{group}`; if the job can run here, add --label {group}"
    )]
    UnknownGroup {
        /// The group.
        group: String,
    },
}

/// The labels that a machine has. One that ends with `*` stands for all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerLabels {
    /// The architecture, as a label.
    arch: &'static str,
    labels: Vec<String>,
}

/// Beginnings of labels that GitHub gives to its runners with other operating systems.
const OTHER_SYSTEMS: [&str; 2] = ["windows", "macos"];

/// Endings of labels that GitHub gives to its ARM runners.
const ARM: [&str; 2] = ["-arm", "-arm64"];

impl RunnerLabels {
    /// The labels of a Linux machine: those that GitHub's self-hosted runners have, those of its Ubuntu machines, and `more`.
    /// `arch` is the architecture as Rust names it: `x86_64`, `aarch64`.
    #[must_use]
    pub fn for_linux(arch: &str, more: &[String]) -> Self {
        let arch = match arch {
            "aarch64" => "arm64",
            "arm" => "arm",
            _ => "x64",
        };
        let defaults = ["self-hosted", "linux", arch, "ubuntu-latest", "ubuntu-*"];
        let labels = defaults.into_iter().map(str::to_owned);
        Self {
            arch,
            labels: labels.chain(more.iter().cloned()).collect(),
        }
    }

    /// Why the machine is not one that a job asks for; `Ok` when it is.
    pub fn check(&self, request: &RunnerRequest) -> Result<(), RunnerMismatch> {
        request
            .labels
            .iter()
            .try_for_each(|label| self.check_label(label))?;
        match &request.group {
            Some(group) if !self.has_group(group) => Err(RunnerMismatch::UnknownGroup {
                group: group.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn check_label(&self, label: &str) -> Result<(), RunnerMismatch> {
        let lower = label.to_ascii_lowercase();
        let is_arm = ARM.iter().any(|ending| lower.ends_with(ending));
        let other_arch = is_arm && self.arch == "x64";
        // A label that was given to the machine by name counts, whatever it says.
        let is_given = |own: &String| own.eq_ignore_ascii_case(label);
        let matches_prefix = |own: &String| {
            let prefix = own.strip_suffix('*').map(str::to_ascii_lowercase);
            prefix.is_some_and(|prefix| lower.starts_with(&prefix))
        };
        if self.labels.iter().any(is_given) {
            return Ok(());
        }
        if !other_arch && self.labels.iter().any(matches_prefix) {
            return Ok(());
        }
        let label = label.to_owned();
        Err(if OTHER_SYSTEMS.iter().any(|it| lower.starts_with(it)) {
            RunnerMismatch::OtherSystem { label }
        } else if other_arch || matches!(lower.as_str(), "x64" | "arm64" | "arm") {
            RunnerMismatch::OtherArchitecture {
                label,
                arch: self.arch.to_owned(),
            }
        } else {
            RunnerMismatch::UnknownLabel {
                label,
                known: join_with_and(self.labels.iter().map(String::as_str)),
            }
        })
    }

    fn has_group(&self, group: &str) -> bool {
        // `organization/name` is the group `name`.
        let name = group.rsplit('/').next().unwrap_or(group);
        let is_it =
            |own: &String| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(group);
        // Every runner that was put nowhere else is in this one.
        name.eq_ignore_ascii_case("default") || self.labels.iter().any(is_it)
    }
}

impl RunsOn {
    /// The labels and the group, with their expressions resolved. An expression may give a label, a list of them, or an object
    /// with `labels` and `group`.
    pub fn resolve(&self, contexts: &Contexts<'_>) -> Result<RunnerRequest, EvalError> {
        let mut request = RunnerRequest::default();
        for template in &self.labels {
            add(&mut request, template, &template.resolve(contexts)?)?;
        }
        if let Some(group) = &self.group {
            request.group = Some(group.resolve_text(contexts)?);
        }
        if let Some(template) = self.labels.first()
            && request.is_empty()
        {
            return Err(template.error("it names no runner".to_owned()));
        }
        Ok(request)
    }
}

/// Adds what an expression gave.
fn add(request: &mut RunnerRequest, from: &Template, value: &ExprValue) -> Result<(), EvalError> {
    match value {
        ExprValue::Array(items) => items.iter().try_for_each(|item| add(request, from, item)),
        ExprValue::Object(_) => {
            let group = value.get("group").to_text().to_string();
            request.group = Some(group).filter(|group| !group.is_empty());
            match value.get("labels") {
                ExprValue::Object(_) => Err(from.error("`labels` is an object".to_owned())),
                labels => add(request, from, &labels),
            }
        }
        value => {
            let label = value.to_text().trim().to_owned();
            request
                .labels
                .extend(Some(label).filter(|label| !label.is_empty()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(labels: &[&str]) -> RunnerRequest {
        RunnerRequest {
            labels: labels.iter().map(|&it| it.to_owned()).collect(),
            group: None,
        }
    }

    #[test]
    fn a_machine_must_have_all_labels() {
        let x64 = RunnerLabels::for_linux("x86_64", &["gpu".to_owned(), "buildjet-*".to_owned()]);
        for fine in [
            &["ubuntu-latest"][..],
            &["Ubuntu-22.04"],
            &["self-hosted", "Linux", "X64"],
            &["self-hosted", "GPU"],
            &["buildjet-4vcpu-ubuntu-2204"],
            &["ubuntu-latest-16-cores"],
            &[],
        ] {
            assert_eq!(x64.check(&request(fine)), Ok(()), "{fine:?}");
        }
        for other in [
            &["windows-latest"][..],
            &["macos-14"],
            &["ubuntu-24.04-arm"],
            &["self-hosted", "linux", "arm64"],
            &["self-hosted", "tpu"],
            &["ubuntu"],
        ] {
            assert!(x64.check(&request(other)).is_err(), "{other:?}");
        }
        let arm = RunnerLabels::for_linux("aarch64", &[]);
        assert_eq!(arm.check(&request(&["ubuntu-24.04-arm", "ARM64"])), Ok(()));
        assert!(arm.check(&request(&["x64"])).is_err());
    }

    #[test]
    fn a_label_that_was_given_by_name_counts_whatever_it_says() {
        let wine = RunnerLabels::for_linux("x86_64", &["windows-latest".to_owned()]);
        assert_eq!(wine.check(&request(&["windows-latest"])), Ok(()));
        assert!(wine.check(&request(&["windows-2022"])).is_err());
    }

    #[test]
    fn a_mismatch_says_what_to_do() {
        let machine = RunnerLabels::for_linux("x86_64", &[]);
        let why = |label: &str| machine.check(&request(&[label])).unwrap_err().to_string();
        assert_eq!(
            why("macos-14"),
            "no runner here has the label `macos-14`: this machine runs Linux"
        );
        assert_eq!(
            why("ubuntu-24.04-arm"),
            "no runner here has the label `ubuntu-24.04-arm`: this machine is x64"
        );
        let unknown = why("my-gpu-box");
        assert!(unknown.contains("ubuntu-*"), "{unknown}");
        assert!(unknown.ends_with("--label my-gpu-box"), "{unknown}");
    }

    #[test]
    fn a_group_is_one_of_the_labels() {
        let group = |name: &str| RunnerRequest {
            labels: Vec::new(),
            group: Some(name.to_owned()),
        };
        let machine = RunnerLabels::for_linux("x86_64", &["large".to_owned()]);
        for fine in ["large", "org/large", "Default"] {
            assert_eq!(machine.check(&group(fine)), Ok(()), "{fine}");
        }
        assert!(machine.check(&group("org/other")).is_err());
    }

    #[test]
    fn expressions_give_labels_lists_and_objects() {
        let template = |text: &str| Template::parse(text, 0).unwrap();
        let resolve = |texts: &[&str]| {
            let runs_on = RunsOn {
                labels: texts.iter().map(|text| template(text)).collect(),
                group: None,
            };
            let matrix = ExprValue::object([("os", ExprValue::from("macos-14"))]);
            runs_on.resolve(&Contexts::new().with("matrix", matrix))
        };
        assert_eq!(
            resolve(&["${{ matrix.os }}"]).unwrap(),
            request(&["macos-14"])
        );
        assert_eq!(
            resolve(&["${{ fromJSON('[\"self-hosted\", \"gpu\"]') }}", "x64"]).unwrap(),
            request(&["self-hosted", "gpu", "x64"])
        );
        let object = resolve(&["${{ fromJSON('{\"group\": \"g\", \"labels\": [\"a\"]}') }}"]);
        let object = object.unwrap();
        assert_eq!(
            (object.group.as_deref(), &*object.labels[0]),
            (Some("g"), "a")
        );
        assert!(resolve(&["${{ matrix.nothing }}"]).is_err());
    }
}

//! What this machine is to jobs, for the commands that run workflows: its labels, and whether other versions of tools will do.

use shipway_workflow::runner::RunnerLabels;

/// The options.
#[derive(Clone, Debug, clap::Args)]
pub struct RunnerOptions {
    #[command(flatten)]
    labels: LabelOptions,

    /// Let `actions/setup-*` use this machine's version of a tool if the workflow's version is missing; the job's log names both versions
    #[arg(long, env = "SHIPWAY_ALLOW_OTHER_VERSIONS")]
    allow_other_versions: bool,
}

/// The labels alone.
#[derive(Clone, Debug, clap::Args)]
pub struct LabelOptions {
    /// An additional label or runner group of this machine for `runs-on`; it always has self-hosted, linux, x64 or arm64, and ubuntu-*. A `*` at its end matches any suffix. Repeatable
    #[arg(
        long,
        env = "SHIPWAY_LABELS",
        value_name = "LABEL",
        value_delimiter = ','
    )]
    label: Vec<String>,
}

impl RunnerOptions {
    /// The labels that this machine has.
    pub fn labels(&self) -> RunnerLabels {
        self.labels.labels()
    }

    /// Whether another version of a tool than the one that a workflow asks for will do.
    pub const fn allow_other_versions(&self) -> bool {
        self.allow_other_versions
    }
}

impl LabelOptions {
    /// The labels that this machine has.
    pub fn labels(&self) -> RunnerLabels {
        let given = self.label.iter().map(|label| label.trim().to_owned());
        let given: Vec<String> = given.filter(|label| !label.is_empty()).collect();
        RunnerLabels::for_linux(std::env::consts::ARCH, &given)
    }
}

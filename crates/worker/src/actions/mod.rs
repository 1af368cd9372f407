//! Actions that are built in: what GitHub's own do, without a network. One that isn't is refused by name.

mod artifact;
mod checkout;
mod deploy;
mod setup;
mod tarball;

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use shipway_workflow::job::{JobSpec, JournalBody, Level};

use crate::{environment::Folders, output::Output};

/// What an action is given.
pub(crate) struct Call<'c> {
    spec: &'c JobSpec,
    folders: &'c Folders,
    /// `with:`, names in lower case.
    with: BTreeMap<String, String>,
    env: &'c [(String, String)],
    output: &'c mut Output,
}

/// What an action leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) outputs: Vec<(String, String)>,
    /// For the journal.
    pub(crate) entries: Vec<JournalBody>,
}

impl Left {
    fn outputs(outputs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let outputs = outputs.into_iter();
        Self {
            outputs: outputs
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            entries: Vec::new(),
        }
    }
}

impl<'c> Call<'c> {
    pub(crate) fn new(
        spec: &'c JobSpec,
        folders: &'c Folders,
        with: Vec<(String, String)>,
        env: &'c [(String, String)],
        output: &'c mut Output,
    ) -> Self {
        let with = with.into_iter();
        Self {
            spec,
            folders,
            with: with
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            env,
            output,
        }
    }

    /// An input that isn't empty.
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.with.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    }

    /// An input that is yes or no, as YAML's readers and actions write that.
    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.get(name) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(format!("`{name}` is true or false, not {value:?}")),
        }
    }

    fn say(&mut self, text: &str) {
        self.output.say(text);
        self.output.log.flush();
    }

    fn warn(&mut self, text: &str) {
        self.output.annotate(Level::Warning, text);
    }

    fn notice(&mut self, text: &str) {
        self.output.annotate(Level::Notice, text);
    }

    /// A path that stays in the workspace.
    fn inside(&self, path: &str) -> Result<PathBuf, String> {
        let root = &self.folders.workspace;
        let leaves = || format!("the path {path} leaves the workspace");
        let relative = Path::new(path)
            .strip_prefix(root)
            .unwrap_or(Path::new(path));
        let mut inside = root.clone();
        for step in relative.components() {
            match step {
                Component::Normal(step) => inside.push(step),
                Component::CurDir => {}
                Component::ParentDir if inside != *root => {
                    inside.pop();
                }
                _ => return Err(leaves()),
            }
        }
        // A link in the way may lead out.
        let mut there = inside.as_path();
        while !there.exists() && there != root.as_path() {
            there = there.parent().unwrap_or(root);
        }
        let real = (there.canonicalize().ok()).zip(root.canonicalize().ok());
        match real {
            Some((there, root)) if there.starts_with(&root) => Ok(inside),
            _ => Err(leaves()),
        }
    }
}

/// Work that keeps a thread busy: done beside, so that the job can be cancelled meanwhile.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?
}

/// Runs the action of the step at `line`; the error is a sentence.
pub(crate) async fn run(action: &str, line: u32, mut call: Call<'_>) -> Result<Left, String> {
    let name = action.split('@').next().unwrap_or(action);
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "actions/checkout" => checkout::run(&mut call).await,
        "actions/upload-artifact" => artifact::upload(&mut call).await,
        "actions/download-artifact" => artifact::download(&mut call).await,
        "actions/cache" | "actions/cache/restore" | "actions/cache/save" => {
            call.notice("caches come in a later version of Shipway; this step does nothing");
            Ok(Left::outputs([("cache-hit", "false".to_owned())]))
        }
        "shipway/deploy" => deploy::run(&mut call).await,
        _ => match name.strip_prefix("actions/setup-") {
            Some(tool) => setup::run(tool, &mut call).await,
            None => Err(format!(
                "the action {action} (line {line}) can't be run by this version of Shipway, other actions come in a later one; built in are actions/checkout, actions/upload-artifact, actions/download-artifact, actions/cache, actions/setup-* and shipway/deploy"
            )),
        },
    }
}

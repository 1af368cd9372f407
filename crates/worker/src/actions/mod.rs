//! Actions that are built in: what GitHub's own do, without a network.

pub(crate) mod artifact;
mod checkout;
mod deploy;
mod setup;

use std::collections::BTreeMap;

use shipway_workflow::job::{JobSpec, JournalBody};

use crate::environment::Folders;

/// What an action is given.
pub(crate) struct Call<'c> {
    pub(crate) spec: &'c JobSpec,
    pub(crate) folders: &'c Folders,
    /// `with:`, names in lower case.
    pub(crate) with: BTreeMap<String, String>,
    pub(crate) env: &'c [(String, String)],
    /// Where lines of output go.
    pub(crate) say: &'c mut dyn FnMut(String),
}

/// What an action leaves behind.
#[derive(Default)]
pub(crate) struct Left {
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) entries: Vec<JournalBody>,
}

impl Call<'_> {
    /// An input that isn't empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.with
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn say(&mut self, text: impl Into<String>) {
        (self.say)(text.into());
    }
}

/// Runs a built-in action; the error is a sentence.
pub(crate) async fn run(action: &str, mut call: Call<'_>) -> Result<Left, String> {
    let name = action
        .split('@')
        .next()
        .unwrap_or(action)
        .to_ascii_lowercase();
    match name.as_str() {
        "actions/checkout" => checkout::run(&mut call).await,
        "actions/upload-artifact" => artifact::upload(&mut call),
        "actions/download-artifact" => artifact::download(&mut call),
        "actions/cache" | "actions/cache/restore" | "actions/cache/save" => {
            call.say("There is no cache on this server yet: the step does nothing.");
            Ok(Left {
                outputs: vec![("cache-hit".to_owned(), "false".to_owned())],
                ..Left::default()
            })
        }
        "shipway/deploy" => deploy::run(&mut call).await,
        _ => match name.strip_prefix("actions/setup-") {
            Some(tool) => setup::run(tool, &mut call).await,
            None => Err(format!(
                "the action {action} can't be run: this version of Shipway has actions/checkout, actions/upload-artifact, actions/download-artifact, actions/cache, actions/setup-* and shipway/deploy built in"
            )),
        },
    }
}

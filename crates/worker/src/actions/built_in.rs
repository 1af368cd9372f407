//! Dispatches to built-in actions.

use super::{ActionError, StepContext, StepResult, artifact, cache, checkout, deploy, setup_tools};

/// The major version in `owner/name@v4`.
fn major_version(action: &str) -> Option<u32> {
    let version = action.split_once("@v")?.1;
    version.split('.').next()?.parse().ok()
}

/// Dispatches to a built-in action.
pub(crate) async fn run_built_in(
    action: &str,
    mut context: StepContext<'_>,
) -> Result<StepResult, ActionError> {
    let name = action.split('@').next().unwrap_or(action);
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "actions/checkout" => checkout::run_checkout(&mut context).await,
        "actions/upload-artifact" => artifact::upload_artifact(&mut context).await,
        "actions/download-artifact" => {
            artifact::download_artifact(&mut context, major_version(action)).await
        }
        "actions/cache" => cache::run_cache(&mut context).await,
        "actions/cache/restore" => cache::restore_cache(&mut context).await,
        "actions/cache/save" => cache::save_cache(&mut context).await,
        "shipway/deploy" => deploy::run_deploy(&mut context).await,
        _ => match name.strip_prefix("actions/setup-") {
            Some(tool) => setup_tools::set_up_tool(tool, &mut context).await,
            None => Err(ActionError::UnknownBuiltIn(action.to_owned())),
        },
    }
}

//! The secrets of a job that are known from its start.

use shipway_workflow::{expr::ExprValue, job::JobSpec};

use crate::{forge::forge_login::secrets_to_mask, mask::Masker};

fn is_debug_switch(name: &str) -> bool {
    ["ACTIONS_STEP_DEBUG", "ACTIONS_RUNNER_DEBUG"]
        .iter()
        .any(|switch| name.eq_ignore_ascii_case(switch))
}

/// The masker for everything that is secret from the start.
pub(crate) fn build_masker(spec: &JobSpec) -> Masker {
    let mut secrets: Vec<String> = Vec::new();
    if let ExprValue::Object(object) = &spec.contexts.secrets {
        // Not secrets but switches; masking their value `true` would garble every log.
        let secret = object.iter().filter(|(name, _)| !is_debug_switch(name));
        secrets.extend(secret.map(|(_, value)| value.to_text().to_string()));
    }
    secrets.push(spec.contexts.github.get("token").to_text().to_string());
    secrets.extend(spec.server.as_ref().map(|server| server.token.clone()));
    secrets.extend(secrets_to_mask(&spec.actions));
    Masker::new(secrets)
}

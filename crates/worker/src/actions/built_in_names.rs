//! The names of built-in actions.

use super::tool_table::is_supported;

/// GitHub's actions with a built-in equivalent, without `actions/setup-*`.
const BUILT_IN: [&str; 6] = [
    "actions/checkout",
    "actions/upload-artifact",
    "actions/download-artifact",
    "actions/cache",
    "actions/cache/restore",
    "actions/cache/save",
];

/// Whether the action (name without version) has a built-in equivalent.
pub(super) fn has_built_in(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    BUILT_IN.contains(&name.as_str())
        || (name.strip_prefix("actions/setup-")).is_some_and(is_supported)
}

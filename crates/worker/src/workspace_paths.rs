//! Paths that steps in containers print.

/// The relative path of a file in a container's workspace; `None` outside of the workspace.
pub(crate) fn workspace_relative(path: &str) -> Option<&str> {
    if let Some(rest) = path.strip_prefix("/github/workspace/") {
        return Some(rest);
    }
    let mut parts = path.strip_prefix("/__w/")?.splitn(3, '/');
    let (owner, repository, rest) = (parts.next()?, parts.next()?, parts.next()?);
    (owner == repository).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steps_in_containers_name_is_of_the_workspace() {
        assert_eq!(
            workspace_relative("/__w/shop/shop/src/a.rs"),
            Some("src/a.rs")
        );
        assert_eq!(workspace_relative("/github/workspace/a.rs"), Some("a.rs"));
        for other in [
            "/__w/_temp/x/y",
            "/__w/shop/shop",
            "src/a.rs",
            "/etc/passwd",
        ] {
            assert_eq!(workspace_relative(other), None, "{other}");
        }
    }
}

//! Validation of repository names and refs before they are passed to git.

/// Whether `text` is `owner/repo` and can't be mistaken for an option or a path.
#[must_use]
pub fn is_repository(text: &str) -> bool {
    let is_name = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !matches!(part, "" | "." | "..") && part.chars().all(plain) && !part.starts_with('-')
    };
    text.split_once('/')
        .is_some_and(|(owner, repo)| is_name(owner) && is_name(repo))
}

/// Whether `text` can be a branch, a tag or a commit.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
    !text.is_empty() && !text.starts_with(['-', '/']) && !text.contains("..") && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_that_git_could_misread() {
        for (good, name) in [
            (true, "acme/tools"),
            (true, "Acme/t_o.o-ls"),
            (false, "acme"),
            (false, "acme/"),
            (false, "acme/.."),
            (false, "-acme/x"),
            (false, "acme/x/y"),
            (false, "acme/x y"),
        ] {
            assert_eq!(is_repository(name), good, "{name}");
        }
        for (good, name) in [
            (true, "main"),
            (true, "release/v1"),
            (false, ""),
            (false, "--upload-pack=x"),
            (false, "a..b"),
            (false, "a b"),
            (false, "/a"),
        ] {
            assert_eq!(is_reference(name), good, "{name}");
        }
    }
}

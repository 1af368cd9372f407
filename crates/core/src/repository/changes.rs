//! Which changes concern a service, and since when they are counted.
//!
//! # Why a service is compared with its last release
//!
//! The promise is that a green commit is in production. If a push were compared with the commit before it, a service whose run failed
//! would be *unchanged* at the next push, and its change would not arrive until its files change again. So a service on its
//! released branch is compared with the newest commit that is released or still in progress, as `nx affected` compares with the last
//! successful commit.

use shipway_workflow::model::{FilterPattern, PathFilter, PatternFilter};

use super::ServiceLocation;
use crate::{config::ServiceConfig, ids::CommitId};

/// The paths of a repository whose changes concern a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePaths {
    /// None: all of them.
    filter: Option<PathFilter>,
}

impl ServicePaths {
    /// Its folder and the workflows that its configuration names, and what `paths` adds or, with `!`, takes away; the last pattern that
    /// matches decides. At the root `paths` is the whole list, and without it every push concerns the service.
    #[must_use]
    pub fn new(location: &ServiceLocation, config: &ServiceConfig) -> Self {
        let listed = config.paths.as_slice();
        if location.is_root() && listed.is_empty() {
            return Self { filter: None };
        }
        let mut patterns = Vec::new();
        if !location.is_root() {
            patterns.push(format!("{}/**", escape_pattern(&location.folder)));
        } else if listed.first().is_some_and(|first| first.negated) {
            patterns.push("**".to_owned());
        }
        let tests = config
            .environments
            .iter()
            .filter_map(|it| it.tests.as_ref());
        let workflows = config.workflows.iter().chain(tests);
        patterns.extend(workflows.map(|path| escape_pattern(path)));
        let own = patterns.iter().filter_map(|pattern| pattern.parse().ok());
        let all: Vec<FilterPattern> = own.chain(listed.iter().cloned()).collect();
        Self {
            filter: Some(PathFilter(PatternFilter::Only(all))),
        }
    }

    /// The folder alone, of a service whose configuration has mistakes.
    #[must_use]
    pub fn folder(location: &ServiceLocation) -> Self {
        let pattern = format!("{}/**", escape_pattern(&location.folder));
        let own = pattern.parse().ok().filter(|_| !location.is_root());
        Self {
            filter: own.map(|own| PathFilter(PatternFilter::Only(vec![own]))),
        }
    }

    /// Whether every push concerns the service, whatever it changed.
    #[must_use]
    pub const fn are_unlimited(&self) -> bool {
        self.filter.is_none()
    }

    /// Those of the changed paths that concern the service.
    #[must_use]
    pub fn select(&self, changed: &[String]) -> Vec<String> {
        match &self.filter {
            Some(filter) => filter.select(changed),
            None => changed.to_vec(),
        }
    }
}

/// A path as a pattern that matches this path only.
fn escape_pattern(path: &str) -> String {
    let mut escaped = String::new();
    for letter in path.chars() {
        if matches!(letter, '*' | '?' | '+' | '[' | ']' | '!' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The commit that a pushed one is compared with, to know what changed for a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComparisonBase {
    /// Where the reference was before; for a new branch where it left the released branch. As on GitHub.
    Push,
    /// The newest commit of the service that is released, or whose runs are in progress.
    Commit(CommitId),
    /// The service has no release: every path is new.
    Nothing,
}

impl ComparisonBase {
    /// The base for a push of `reference`; `delivered` is the newest commit that is released or in progress.
    #[must_use]
    pub fn new(
        paths: &ServicePaths,
        reference: &str,
        released_branch: &str,
        delivered: Option<&CommitId>,
    ) -> Self {
        let is_released = reference.strip_prefix("refs/heads/") == Some(released_branch);
        if paths.are_unlimited() || !is_released {
            return Self::Push;
        }
        delivered.map_or(Self::Nothing, |commit| Self::Commit(commit.clone()))
    }
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use super::*;

    fn paths(folder: &str, listed: &str) -> ServicePaths {
        let text = format!(
            "service: cart\nworkflow: .github/workflows/cart.yml\nrun: {{ command: ./cart }}\nenvironments: {{ production: {{ tests: .github/workflows/e2e.yml }} }}\n{listed}"
        );
        let (config, _) = crate::config::parse(&SourceFile::new("shipway.yaml", text)).unwrap();
        let location = ServiceLocation {
            repository: "mono".parse().unwrap(),
            folder: folder.to_owned(),
        };
        ServicePaths::new(&location, &config)
    }

    fn concerns(folder: &str, listed: &str, changed: &str) -> bool {
        !(paths(folder, listed).select(&[changed.to_owned()])).is_empty()
    }

    #[test]
    fn a_service_is_concerned_by_its_folder_and_by_what_paths_adds_and_takes_away() {
        let cart = "services/cart";
        assert!(concerns(cart, "", "services/cart/src/main.rs"));
        assert!(concerns(cart, "", "services/cart/shipway.yaml"));
        assert!(!concerns(cart, "", "services/cart2/main.rs"));
        assert!(!concerns(cart, "", "libs/money.rs"));
        let listed = "paths: [libs/**, '!**/*.md']\n";
        assert!(concerns(cart, listed, "libs/money.rs"));
        assert!(concerns(cart, listed, "services/cart/a.rs"));
        assert!(!concerns(cart, listed, "services/cart/docs/a.md"));
        assert!(!concerns(cart, listed, "shipway.yaml"));
    }

    #[test]
    fn the_workflows_that_a_service_names_are_its_own() {
        let cart = "services/cart";
        assert!(concerns(cart, "", ".github/workflows/cart.yml"));
        assert!(concerns(cart, "", ".github/workflows/e2e.yml"));
        assert!(!concerns(cart, "", ".github/workflows/till.yml"));
        assert!(!concerns(
            cart,
            "paths: ['!.github/**']\n",
            ".github/workflows/cart.yml"
        ));
    }

    #[test]
    fn the_root_has_all_paths_or_those_that_it_lists() {
        assert!(paths("", "").are_unlimited());
        assert!(concerns("", "", "anything"));
        let without = "paths: ['!services/**']\n";
        assert!(!concerns("", without, "services/cart/main.rs"));
        assert!(concerns("", without, "main.rs"));
        assert!(!concerns("", "paths: [src/**]\n", "main.rs"));
        assert!(concerns("", "paths: [src/**]\n", "src/main.rs"));
    }

    #[test]
    fn a_folder_with_the_letters_of_patterns_is_itself_alone() {
        assert!(concerns("services/[a]*", "", "services/[a]*/x"));
        assert!(!concerns("services/[a]*", "", "services/ab/x"));
        assert!(!concerns("services/a+", "", "services/aa/x"));
    }

    #[test]
    fn a_released_branch_is_compared_with_the_last_release_and_others_with_the_push() {
        let nested = paths("services/cart", "");
        let base = |paths: &ServicePaths, reference: &str| {
            ComparisonBase::new(paths, reference, "main", None)
        };
        assert_eq!(base(&nested, "refs/heads/main"), ComparisonBase::Nothing);
        assert_eq!(base(&nested, "refs/heads/topic"), ComparisonBase::Push);
        assert_eq!(base(&nested, "refs/tags/main"), ComparisonBase::Push);
        assert_eq!(
            base(&paths("", ""), "refs/heads/main"),
            ComparisonBase::Push
        );
    }
}

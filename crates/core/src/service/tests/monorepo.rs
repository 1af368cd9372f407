//! A service that is one of several in a repository.

use super::*;
use crate::repository::ServiceLocation;

const CART: &str = "service: shop\nartifact: { source: . }\nrun: { command: ./shop }\nenvironments: { production: {} }\n";

fn location(repository: &str) -> ServiceLocation {
    ServiceLocation {
        repository: repository.parse().unwrap(),
        folder: "services/shop".to_owned(),
    }
}

fn moved(repository: &str, number: u32) -> ServiceInput {
    ServiceInput::ReferenceMoved {
        service: "shop".parse().unwrap(),
        location: location(repository),
        reference: "refs/heads/main".to_owned(),
        commit: commit(number),
        standing: None,
    }
}

fn commit(number: u32) -> Commit {
    Commit {
        id: format!("{number:040}").parse().unwrap(),
        subject: "a change".into(),
        author: "ada".into(),
        committer: None,
        at: "2026-11-21T08:00:00Z".parse().unwrap(),
    }
}

fn delivered(stage: &Stage) -> Option<u32> {
    let commit = stage.state.delivered_commit()?;
    commit.as_str().parse().ok()
}

#[test]
fn a_reference_that_changes_nothing_is_recorded_once_and_starts_nothing() {
    let mut stage = Stage::new();
    stage.push(1, CART, 0);
    let before = stage.state.clone();
    stage.state.location = Some(location("mono"));
    assert_eq!(stage.say(moved("mono", 2)), ["ReferenceMoved"]);
    assert_eq!(stage.say(moved("mono", 2)), [""; 0]);
    assert_eq!(stage.state.pushes, before.pushes);
    assert_eq!(stage.state.open_pushes.len(), before.open_pushes.len());
    let same = |state: &ServiceState| serde_json::to_string(&state.environments).unwrap();
    assert_eq!(same(&stage.state), same(&before));
    assert_eq!(stage.state.references["refs/heads/main"], commit(2).id);
}

#[test]
fn another_repository_is_refused_until_the_service_is_deleted() {
    let mut stage = Stage::new();
    assert_eq!(stage.say(moved("mono", 1)), ["ReferenceMoved"]);
    let refused = stage.try_say(moved("other", 2)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the service shop is in services/shop of the repository mono: push to /git/mono, or give this service another name"
    );
    // Neither by a push to a repository of its name.
    let mut stage = Stage::new();
    stage.push(1, CART, 0);
    let refused = stage.try_say(moved("mono", 2)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the service shop is in the repository shop: push to /git/shop, or give this service another name"
    );
    // Within one repository it may move to another folder.
    assert_eq!(stage.say(moved("shop", 2)), ["ReferenceMoved"]);
}

#[test]
fn what_is_compared_with_is_the_newest_commit_that_is_released_or_in_progress() {
    let file = CART.replace("artifact: { source: . }\n", "");
    let mut stage = Stage::new();
    assert_eq!(delivered(&stage), None);
    stage.push(1, &file, 1);
    assert_eq!(delivered(&stage), Some(1), "in progress");
    stage.run_ends(1, true, &["app"]);
    assert_eq!(delivered(&stage), Some(1), "released");
    stage.push(2, &file, 2);
    stage.push(3, &file, 1);
    assert_eq!(delivered(&stage), Some(3));
    stage.run_ends(4, false, &[]);
    assert_eq!(delivered(&stage), Some(2));
    stage.run_ends(2, false, &[]);
    assert_eq!(
        delivered(&stage),
        Some(1),
        "a run of it is red, another in progress"
    );
    stage.run_ends(3, true, &["app"]);
    assert_eq!(delivered(&stage), Some(1));
    // Run again, and green.
    stage.run_ends(4, true, &["app"]);
    assert_eq!(delivered(&stage), Some(3));
    stage.run_ends(2, true, &["app"]);
    assert_eq!(
        delivered(&stage),
        Some(3),
        "an older push is no newer commit"
    );
}

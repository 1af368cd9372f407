//! Following a repository on this machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod git_support;

use std::{path::Path, time::Duration};

use git_support::{PATIENCE, Person};
use shipway_core::ids::CommitId;
use shipway_drivers::git::{
    GitRefs, GitRepositories, GitRepository, RefUpdate, RepositoryFollower,
};

struct Followed {
    ada: Person,
    _root: tempfile::TempDir,
    bare: GitRepository,
}

impl Followed {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bare = GitRepositories::open(root.path())
            .unwrap()
            .ensure(&"shop".parse().unwrap())
            .await
            .unwrap();
        Self {
            ada: Person::new(),
            _root: root,
            bare,
        }
    }

    async fn follow(&self, tree: &Path, seen: &GitRefs) -> RepositoryFollower {
        RepositoryFollower::start(tree, self.bare.clone(), seen.clone())
            .await
            .unwrap()
    }
}

/// Collects until each branch is where it is expected; the last known place of each counts.
async fn expect(
    follower: &mut RepositoryFollower,
    wanted: &[(&str, Option<&CommitId>)],
) -> Vec<RefUpdate> {
    let mut seen: Vec<RefUpdate> = Vec::new();
    let collect = async {
        loop {
            seen.extend(follower.next_updates().await.expect("it goes on"));
            let last = |branch| {
                seen.iter()
                    .rev()
                    .find(|update| update.branch() == Some(branch))
                    .map(|update| update.new.as_ref())
            };
            if wanted
                .iter()
                .all(|(branch, place)| last(*branch) == Some(*place))
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, collect)
        .await
        .unwrap_or_else(|_| panic!("waiting for {wanted:?}"));
    seen
}

#[tokio::test]
async fn a_commit_is_told_and_copied() {
    let followed = Followed::new().await;
    let ada = &followed.ada;
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a", "1").await;
    let mut follower = followed.follow(&tree, &GitRefs::new()).await;
    let told = expect(&mut follower, &[("main", Some(&first))]).await;
    assert_eq!(
        (told.len(), &told[0].old),
        (1, &None),
        "what is there at the start is new"
    );
    let second = ada.commit(&tree, "b", "2").await;
    let told = expect(&mut follower, &[("main", Some(&second))]).await;
    assert_eq!(told[0].old, Some(first));
    assert_eq!(
        followed
            .bare
            .read_file(&second, "b", 10)
            .await
            .unwrap()
            .as_deref(),
        Some(&b"2"[..])
    );
}

#[tokio::test]
async fn a_commit_is_told_at_once() {
    let followed = Followed::new().await;
    let ada = &followed.ada;
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a", "1").await;
    let mut follower = followed.follow(&tree, &GitRefs::new()).await;
    expect(&mut follower, &[("main", Some(&first))]).await;
    let second = ada.commit(&tree, "b", "2").await;
    let since = std::time::Instant::now();
    expect(&mut follower, &[("main", Some(&second))]).await;
    // Far below the recheck that would find it without events.
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test]
async fn new_branches_deleted_branches_and_nested_names_are_told() {
    let followed = Followed::new().await;
    let ada = &followed.ada;
    let tree = ada.init("tree").await;
    let commit = ada.commit(&tree, "a", "1").await;
    let mut follower = followed.follow(&tree, &GitRefs::new()).await;
    expect(&mut follower, &[("main", Some(&commit))]).await;
    ada.git(&tree, &["branch", "team/deep/feature"]).await;
    expect(&mut follower, &[("team/deep/feature", Some(&commit))]).await;
    // Into a folder that appeared after the start.
    ada.git(&tree, &["branch", "team/deep/other"]).await;
    expect(&mut follower, &[("team/deep/other", Some(&commit))]).await;
    ada.git(
        &tree,
        &["branch", "-D", "team/deep/feature", "team/deep/other"],
    )
    .await;
    expect(
        &mut follower,
        &[("team/deep/feature", None), ("team/deep/other", None)],
    )
    .await;
    // A name where there was a folder of that name, and packed references.
    ada.git(&tree, &["branch", "team"]).await;
    expect(&mut follower, &[("team", Some(&commit))]).await;
    ada.git(&tree, &["pack-refs", "--all"]).await;
    let next = ada.commit(&tree, "b", "2").await;
    expect(&mut follower, &[("main", Some(&next))]).await;
    let refs = followed.bare.refs().await.unwrap();
    assert_eq!(
        refs.keys().collect::<Vec<_>>(),
        ["refs/heads/main", "refs/heads/team"]
    );
}

#[tokio::test]
async fn what_moved_while_nobody_looked_is_told() {
    let followed = Followed::new().await;
    let ada = &followed.ada;
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a", "1").await;
    ada.git(&tree, &["branch", "old"]).await;
    ada.git(&tree, &["branch", "same"]).await;
    let mut follower = followed.follow(&tree, &GitRefs::new()).await;
    expect(
        &mut follower,
        &[
            ("main", Some(&first)),
            ("old", Some(&first)),
            ("same", Some(&first)),
        ],
    )
    .await;
    drop(follower);
    let mut seen = followed.bare.refs().await.unwrap();
    seen.insert("refs/tags/v1".to_owned(), first.clone());
    let second = ada.commit(&tree, "b", "2").await;
    ada.git(&tree, &["branch", "-D", "old"]).await;
    let mut follower = followed.follow(&tree, &seen).await;
    let told = expect(&mut follower, &[("main", Some(&second)), ("old", None)]).await;
    assert_eq!(told.len(), 2, "what did not move is not told: {told:?}");
    // Not recorded, told again: the commits are copied already.
    drop(follower);
    let mut follower = followed.follow(&tree, &seen).await;
    let again = expect(&mut follower, &[("main", Some(&second)), ("old", None)]).await;
    assert_eq!(again, told);
}

#[tokio::test]
async fn a_linked_working_tree_and_a_push_from_a_clone_are_seen() {
    let followed = Followed::new().await;
    let ada = &followed.ada;
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a", "1").await;
    ada.git(&tree, &["worktree", "add", "-q", "-b", "side", "../linked"])
        .await;
    let linked = ada.path("linked");
    let mut follower = followed.follow(&linked, &GitRefs::new()).await;
    expect(
        &mut follower,
        &[("main", Some(&first)), ("side", Some(&first))],
    )
    .await;
    let side = ada.commit(&linked, "b", "2").await;
    expect(&mut follower, &[("side", Some(&side))]).await;
    ada.git(ada.home.path(), &["clone", "-q", "tree", "clone"])
        .await;
    let clone = ada.path("clone");
    let pushed = ada.commit(&clone, "c", "3").await;
    ada.git(&clone, &["push", "-q", "origin", "HEAD:from-clone"])
        .await;
    expect(&mut follower, &[("from-clone", Some(&pushed))]).await;
}

#[tokio::test]
async fn many_commits_at_once_end_at_the_last() {
    let followed = Followed::new().await;
    let ada = &followed.ada;
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a", "1").await;
    let mut follower = followed.follow(&tree, &GitRefs::new()).await;
    expect(&mut follower, &[("main", Some(&first))]).await;
    let mut last = first.clone();
    for n in 0..20 {
        last = ada.commit(&tree, "a", format!("{n} again")).await;
    }
    let told = expect(&mut follower, &[("main", Some(&last))]).await;
    let chained = told.windows(2).all(|pair| pair[0].new == pair[1].old);
    assert!(
        chained && told[0].old == Some(first),
        "each report begins where the last ended: {told:?}"
    );
}

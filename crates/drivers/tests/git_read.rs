//! Reading what was pushed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod git_support;

use std::{collections::BTreeMap, io::Read as _, os::unix::fs::PermissionsExt as _};

use git_support::Person;
use shipway_core::ids::CommitId;
use shipway_drivers::git::{
    FolderEntry, ForeignContent, GitError, GitRepositories, GitRepository, RefUpdate,
};

fn update(branch: &str, old: Option<&CommitId>, new: Option<&CommitId>) -> RefUpdate {
    RefUpdate {
        name: format!("refs/heads/{branch}"),
        old: old.cloned(),
        new: new.cloned(),
    }
}

#[tokio::test]
async fn files_are_read_as_they_were_in_that_commit() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a/b.txt", "one\n").await;
    let second = ada.commit(&tree, "a/b.txt", "two\n").await;
    let repo = GitRepository::open_existing(tree.join("a")).await.unwrap();
    let read = async |commit, path| repo.read_file(commit, path, 100).await.unwrap();
    assert_eq!(
        read(&first, "a/b.txt").await.as_deref(),
        Some(&b"one\n"[..])
    );
    assert_eq!(
        read(&second, "./a/b.txt").await.as_deref(),
        Some(&b"two\n"[..])
    );
    for nothing in ["a", "a/c", "b.txt", "", "x blob 5"] {
        assert_eq!(read(&second, nothing).await, None, "{nothing:?}");
    }
    let large = repo.read_file(&second, "a/b.txt", 3).await.unwrap_err();
    assert_eq!(large.to_string(), "a/b.txt is larger than 3 bytes");
    assert!(matches!(
        repo.read_file(&second, "../x", 3).await,
        Err(GitError::Path(_))
    ));
}

#[tokio::test]
async fn content_that_is_stored_elsewhere_is_found() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let plain = ada.commit(&tree, "docs/lfs.txt", pointer).await;
    let repo = GitRepository::open_existing(&tree).await.unwrap();
    let found = async |commit| repo.find_foreign_content(commit).await.unwrap();
    assert!(found(&plain).await.is_empty(), "no attribute says so");
    let attributes = "*.txt filter=lfs\n";
    std::fs::write(tree.join("other"), "filter=lfs is a text").unwrap();
    let large = ada.commit(&tree, "docs/.gitattributes", attributes).await;
    let mut expected = ForeignContent {
        large_files: vec!["docs/lfs.txt".to_owned()],
        ..ForeignContent::default()
    };
    assert_eq!(found(&large).await, expected);
    let link = format!("160000,{plain},vendor/lib");
    ada.git(&tree, &["update-index", "--add", "--cacheinfo", &link])
        .await;
    ada.git(&tree, &["commit", "-q", "-m", "link"]).await;
    expected.submodules = vec!["vendor/lib".to_owned()];
    assert_eq!(found(&ada.head(&tree).await).await, expected);
}

#[tokio::test]
async fn only_regular_files_are_listed() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    std::os::unix::fs::symlink("x.yml", tree.join("link")).unwrap();
    ada.commit(&tree, ".github/workflows/x.yml", "x").await;
    ada.commit(&tree, ".github/workflows-old/y.yml", "y").await;
    let commit = ada.commit(&tree, "übung [1]*.txt", "z").await;
    let repo = GitRepository::open_existing(&tree).await.unwrap();
    let all = repo.list_files(&commit, "").await.unwrap();
    assert_eq!(
        all,
        [
            ".github/workflows-old/y.yml",
            ".github/workflows/x.yml",
            "übung [1]*.txt"
        ]
    );
    assert_eq!(
        repo.list_files(&commit, ".github/workflows").await.unwrap(),
        [".github/workflows/x.yml"]
    );
    assert_eq!(
        repo.list_files(&commit, "nothing/here").await.unwrap(),
        [""; 0]
    );
}

#[tokio::test]
async fn entries_of_a_folder_are_listed_without_following_links() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    ada.commit(&tree, "services/cart/shipway.yaml", "x").await;
    ada.commit(&tree, "services/a [1]*/shipway.yaml", "x").await;
    ada.commit(&tree, "services/README", "x").await;
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, tree.join("services").join(name)).unwrap();
    };
    link("/etc", "outside");
    link("cart", "twin");
    std::fs::create_dir(tree.join("services/linked")).unwrap();
    link("/etc/passwd", "linked/shipway.yaml");
    let commit = ada.commit(&tree, "libs/money", "1").await;
    let repo = GitRepository::open_existing(&tree).await.unwrap();
    let folder = |name: &str| FolderEntry::Folder(format!("services/{name}"));
    let link = |name: &str| FolderEntry::Link(format!("services/{name}"));
    assert_eq!(
        repo.list_folder(&commit, "services").await.unwrap(),
        [
            FolderEntry::File("services/README".to_owned()),
            folder("a [1]*"),
            folder("cart"),
            folder("linked"),
            link("outside"),
            link("twin"),
        ]
    );
    assert_eq!(repo.list_folder(&commit, "nothing").await.unwrap(), []);
    assert!(repo.list_folder(&commit, "../services").await.is_err());
    let names = [
        "a [1]*", "cart", "linked", "outside", "twin", "none", "../..", "a\nb",
    ];
    let paths = names.map(|name| format!("services/{name}/shipway.yaml"));
    assert_eq!(
        repo.find_entries(&commit, &paths).await.unwrap(),
        [
            FolderEntry::File("services/a [1]*/shipway.yaml".to_owned()),
            FolderEntry::File("services/cart/shipway.yaml".to_owned()),
            FolderEntry::Link("services/linked/shipway.yaml".to_owned()),
        ]
    );
    let many = (0..500).map(|number| format!("services/s{number}/shipway.yaml"));
    assert_eq!(
        repo.find_entries(&commit, &many.collect::<Vec<_>>())
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn changed_paths_are_those_of_the_push() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a", "1").await;
    ada.git(&tree, &["mv", "a", "z"]).await;
    let second = ada.commit(&tree, "b", "2").await;
    ada.git(&tree, &["checkout", "-q", "-b", "feature"]).await;
    let third = ada.commit(&tree, "c", "3").await;
    ada.git(&tree, &["checkout", "-q", "--orphan", "island"])
        .await;
    let island = ada.commit(&tree, "d", "4").await;
    let repo = GitRepository::open_existing(&tree).await.unwrap();
    let changed = async |update: RefUpdate| repo.changed_paths(&update, "main").await.unwrap();

    assert_eq!(
        changed(update("main", Some(&first), Some(&second))).await,
        ["a", "b", "z"],
        "a rename counts twice"
    );
    assert_eq!(
        changed(update("main", None, Some(&second))).await,
        ["b", "z"],
        "the first push of the default branch"
    );
    assert_eq!(
        changed(update("feature", None, Some(&third))).await,
        ["c"],
        "a new branch, from where it began"
    );
    assert_eq!(
        changed(update("same", None, Some(&second))).await,
        [""; 0],
        "a new branch without commits"
    );
    assert_eq!(
        changed(update("island", None, Some(&island))).await,
        ["b", "c", "d", "z"],
        "no common history"
    );
    assert_eq!(
        changed(update("feature", Some(&third), None)).await,
        [""; 0],
        "a deletion"
    );
    let lost: CommitId = "1".repeat(40).parse().unwrap();
    assert_eq!(
        changed(update("feature", Some(&lost), Some(&third))).await,
        ["c"],
        "the old commit is gone"
    );
}

#[tokio::test]
async fn commits_say_who_when_and_why() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    let first = ada.commit(&tree, "a", "1").await;
    ada.git(
        &tree,
        &[
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "Subject: ünïcode\n\nBody with\n\ntwo parts",
        ],
    )
    .await;
    let second = ada.head(&tree).await;
    let third = ada.commit(&tree, "b", "2").await;
    let repo = GitRepository::open_existing(&tree).await.unwrap();
    let info = repo.commit_info(&second).await.unwrap();
    assert_eq!(
        (info.subject.as_str(), info.author.name.as_str()),
        ("Subject: ünïcode", "Ada")
    );
    assert_eq!(
        (info.author.email.as_str(), info.committer.as_str()),
        ("ada@example.com", "Ada <ada@example.com>")
    );
    assert_eq!(info.message, "Subject: ünïcode\n\nBody with\n\ntwo parts");
    assert_eq!(info.at.to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(
        (info.id, info.parents),
        (second.clone(), vec![first.clone()])
    );

    let range = async |old, limit| {
        let range = repo.commits_between(old, &third, limit).await.unwrap();
        let ids = range.commits.into_iter().map(|commit| commit.id);
        (ids.collect::<Vec<CommitId>>(), range.omitted)
    };
    assert_eq!(
        range(Some(&first), 10).await,
        (vec![third.clone(), second.clone()], 0)
    );
    assert_eq!(
        range(None, 3).await,
        (vec![third.clone(), second.clone(), first.clone()], 0)
    );
    assert_eq!(range(Some(&first), 1).await, (vec![third.clone()], 1));
    assert_eq!(range(None, 1).await, (vec![third.clone()], 2));
    assert_eq!(range(Some(&third), 10).await, (Vec::new(), 0));
    assert!(repo.is_ancestor(&first, &third).await.unwrap());
    assert!(!repo.is_ancestor(&third, &first).await.unwrap());
    let lost: CommitId = "1".repeat(40).parse().unwrap();
    assert!(repo.commits_between(Some(&lost), &third, 1).await.is_err());
    let error = repo.commit_info(&lost).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("git could not read commits: "),
        "{error}"
    );
}

#[tokio::test]
async fn revisions_are_names_and_never_options() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    let commit = ada.commit(&tree, "a", "1").await;
    ada.git(&tree, &["tag", "-a", "v1", "-m", "one"]).await;
    let repo = GitRepository::open_existing(&tree).await.unwrap();
    for name in [
        "main",
        "refs/heads/main",
        "v1",
        "HEAD",
        commit.as_str(),
        commit.short(),
    ] {
        assert_eq!(
            repo.resolve(name).await.unwrap(),
            Some(commit.clone()),
            "{name}"
        );
    }
    for name in [
        "",
        "nope",
        "--all",
        "-h",
        "--git-dir",
        "main\nmain",
        "main:a",
    ] {
        assert_eq!(repo.resolve(name).await.unwrap(), None, "{name:?}");
    }
    let refs = repo.refs().await.unwrap();
    assert_eq!(
        refs.keys().collect::<Vec<_>>(),
        ["refs/heads/main", "refs/tags/v1"]
    );
}

#[tokio::test]
async fn an_exported_tar_depends_on_the_files_alone() {
    let ada = Person::new();
    let tree = ada.init("tree").await;
    std::os::unix::fs::symlink("b.sh", tree.join("link")).unwrap();
    std::fs::write(
        tree.join(".gitattributes"),
        "secret.txt export-ignore\n*.txt export-subst text eol=crlf\n",
    )
    .unwrap();
    std::fs::write(tree.join("secret.txt"), "$Format:%H$\n").unwrap();
    let long = format!("src/{}/{}.rs", "d".repeat(120), "f".repeat(120));
    ada.commit(&tree, &long, "long").await;
    std::fs::write(tree.join("b.sh"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tree.join("b.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let first = ada.commit(&tree, "src/empty", "").await;
    let second = ada.commit(&tree, "src/empty", "").await;
    assert_ne!(first, second);
    let repo = GitRepository::open_existing(&tree).await.unwrap();
    let export = async |commit, under, name| {
        let to = ada.path(name);
        repo.export_tar(commit, under, &to).await.unwrap();
        std::fs::read(to).unwrap()
    };
    let whole = export(&first, "", "1.tar").await;
    assert!(
        whole == export(&second, "", "2.tar").await,
        "the same files give the same bytes"
    );
    let entries = entries(&whole);
    let mode_and_content = |path: &str| entries[path].clone();
    assert_eq!(mode_and_content("b.sh"), (0o755, "#!/bin/sh\n".to_owned()));
    assert_eq!(
        mode_and_content("secret.txt"),
        (0o644, "$Format:%H$\n".to_owned()),
        "as committed"
    );
    assert_eq!(mode_and_content("link"), (0o777, "-> b.sh".to_owned()));
    assert_eq!(mode_and_content(&long), (0o644, "long".to_owned()));
    assert_eq!(entries.len(), 6);
    let below = self::entries(&export(&first, "src/", "3.tar").await);
    assert_eq!(
        below.keys().last().map(String::as_str),
        Some("empty"),
        "paths are relative to the folder"
    );
    assert_eq!(
        self::entries(&export(&first, "nope", "4.tar").await).len(),
        0
    );
    let again = repo
        .export_tar(&first, "", &ada.path("1.tar"))
        .await
        .unwrap_err();
    assert!(
        again.to_string().starts_with("could not create "),
        "{again}"
    );
}

fn entries(tar: &[u8]) -> BTreeMap<String, (u32, String)> {
    let mut archive = tar::Archive::new(tar);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        if let Some(link) = entry.link_name().unwrap() {
            content = format!("-> {}", link.display());
        }
        assert_eq!(entry.header().mtime().unwrap(), 946_684_800);
        (path, (entry.header().mode().unwrap(), content))
    };
    archive.entries().unwrap().map(read).collect()
}

#[tokio::test]
async fn repositories_are_made_once_and_found_again() {
    let root = tempfile::tempdir().unwrap();
    let service = "shop".parse().unwrap();
    let repos = GitRepositories::open(root.path()).unwrap();
    assert!(repos.get(&service).is_none());
    let (one, two) = tokio::join!(repos.ensure(&service), repos.ensure(&service));
    assert_eq!(one.unwrap().git_dir(), two.unwrap().git_dir());
    let again = GitRepositories::open(root.path()).unwrap();
    assert!(again.get(&service).is_some());
    let left: Vec<_> = std::fs::read_dir(root.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(
        left.len(),
        2,
        "nothing but the repository and the shared configuration: {left:?}"
    );
    again.get(&service).unwrap().maintain().await.unwrap();
}

/// Makes every object look as if it was stored in 2020.
fn age_objects(folder: &std::path::Path) {
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_577_836_800);
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            age_objects(&entry.path());
        } else {
            let file = std::fs::File::open(entry.path()).unwrap();
            file.set_modified(old).unwrap();
        }
    }
}

#[tokio::test]
async fn unreachable_objects_are_removed_when_they_are_old_except_retained_commits() {
    let (ada, root) = (Person::new(), tempfile::tempdir().unwrap());
    let repos = GitRepositories::open(root.path()).unwrap();
    let repo = repos.ensure(&"shop".parse().unwrap()).await.unwrap();
    let tree = ada.init("tree").await;
    let large = |seed: u64| -> Vec<u8> {
        let bytes = (1..200_000_u64).map(|it| it.wrapping_mul(seed).wrapping_mul(it) >> 7);
        bytes.flat_map(u64::to_le_bytes).collect()
    };
    let push = [
        "push",
        "-q",
        "--force",
        repo.git_dir().to_str().unwrap(),
        "HEAD:main",
    ];
    let mut commits = Vec::new();
    for (name, seed) in [
        ("released", 0x9e37_79b9),
        ("dropped", 0x85eb_ca6b),
        ("newest", 1),
    ] {
        ada.git(&tree, &["checkout", "-q", "--orphan", name]).await;
        commits.push(ada.commit(&tree, "large", large(seed)).await);
        ada.git(&tree, &push).await;
    }
    let [released, dropped, newest] = commits.try_into().unwrap();
    let unknown: CommitId = "1".repeat(40).parse().unwrap();
    let retained = [released.clone(), newest.clone(), unknown].into();
    repo.retain_commits(&retained).await.unwrap();
    let is_there = async |commit: &CommitId| repo.resolve(commit.as_str()).await.unwrap().is_some();

    age_objects(&repo.git_dir().join("objects"));
    let freed = repo.remove_unreachable().await.unwrap();
    assert!(freed > 1_000_000, "{freed}");
    assert!(!is_there(&dropped).await);
    assert!(is_there(&released).await && is_there(&newest).await);

    ada.git(&tree, &["checkout", "-q", "--orphan", "young"])
        .await;
    let young = ada.commit(&tree, "small", "young").await;
    ada.git(&tree, &push).await;
    ada.git(&tree, &["checkout", "-q", "newest"]).await;
    ada.git(&tree, &push).await;
    repo.remove_unreachable().await.unwrap();
    assert!(is_there(&young).await, "it is younger than two weeks");
    assert!(
        repo.collected_at().unwrap() > jiff::Timestamp::now() - jiff::SignedDuration::from_mins(5)
    );

    assert_eq!(repo.refs().await.unwrap().len(), 1);
    repo.retain_commits(&[newest.clone()].into()).await.unwrap();
    age_objects(&repo.git_dir().join("objects"));
    repo.remove_unreachable().await.unwrap();
    assert!(!is_there(&released).await, "it is not retained any more");
}

#[tokio::test]
async fn a_folder_without_a_repository_is_said_to_be_none() {
    let nothing = tempfile::tempdir().unwrap();
    let error = GitRepository::open_existing(nothing.path())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("git could not find a repository: not a git repository"),
        "{error}"
    );
}

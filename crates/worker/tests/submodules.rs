//! Submodules and files of Git LFS in a checkout: fetched from where they are stored, or the step says why not and what to do.

#[path = "support/host.rs"]
mod host;
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use host::{Door, Host};
use shipway_workflow::{
    expr::ExprValue,
    job::{Conclusion::*, SourceTree},
};
use support::{Bench, Forge, git};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Commits a submodule at a path with this address; the commit.
fn add_submodule(tree: &Path, path: &str, url: &str, commit: &str) -> String {
    let modules = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
    write(&tree.join(".gitmodules"), &modules);
    git(tree, &["add", ".gitmodules"]);
    let link = format!("160000,{commit},{path}");
    git(tree, &["update-index", "--add", "--cacheinfo", &link]);
    git(tree, &["commit", "--quiet", "-m", url]);
    git(tree, &["rev-parse", "HEAD"])
}

/// A bare repository of a forge with one file, and a submodule if there is an address for it; the commit.
fn forge_repository(root: &Path, name: &str, submodule: Option<(&str, &str)>) -> String {
    let tree = root.join("trees").join(name);
    write(&tree.join("file"), name);
    git(&tree, &["init", "--quiet"]);
    git(&tree, &["add", "."]);
    git(&tree, &["commit", "--quiet", "-m", name]);
    if let Some((url, commit)) = submodule {
        add_submodule(&tree, "inner", url, commit);
    }
    let bare = root.join(format!("{name}.git"));
    let (from, to) = (tree.to_str().unwrap(), bare.to_str().unwrap());
    git(root, &["clone", "--quiet", "--bare", from, to]);
    git(&tree, &["rev-parse", "HEAD"])
}

/// Makes the job's source a repository, whose own repository on the forge is `acme/shop`.
fn with_repository(bench: &mut Bench, server_url: Option<&str>) -> std::path::PathBuf {
    let source = bench.source();
    git(&source, &["init", "--quiet"]);
    git(
        &source,
        &["commit", "--quiet", "--allow-empty", "-m", "first"],
    );
    let mut github = vec![
        ("repository", ExprValue::from("acme/shop")),
        ("sha", ExprValue::from("0".repeat(40))),
        ("ref", ExprValue::from("refs/heads/main")),
    ];
    github.extend(server_url.map(|url| ("server_url", ExprValue::from(url))));
    bench.spec.contexts.github = ExprValue::object(github);
    bench.spec.mounts.source = source.join(".git");
    source
}

fn run_at(bench: &mut Bench, commit: String) -> support::Outcome {
    bench.spec.source = SourceTree::Git {
        repository: "shop".to_owned(),
        commit,
        reference: "refs/heads/main".to_owned(),
    };
    bench.run()
}

#[test]
fn submodules_are_fetched_by_absolute_and_relative_addresses() {
    let forge = Forge::new();
    let host = Host::of(forge.root.path(), Door::default());
    let leaf = forge_repository(forge.root.path(), "acme/leaf", None);
    let lib = forge_repository(forge.root.path(), "acme/lib", Some(("../leaf.git", &leaf)));
    let mut bench = Bench::steps(
        r#"- { uses: actions/checkout@v4, with: { submodules: recursive } }
- { id: all, run: 'cat vendor/lib/file vendor/lib/inner/file; git remote get-url origin; git submodule status --recursive | grep -c ^- || true' }
- { uses: actions/checkout@v4, with: { submodules: true, path: direct } }
- { id: direct, run: 'cat direct/vendor/lib/file; ls direct/vendor/lib/inner | wc -l' }
- { uses: actions/checkout@v4, with: { path: none } }
- { id: none, run: 'ls none/vendor/lib | wc -l' }
- { uses: actions/checkout@v4, with: { ref: absolute, submodules: 'true', path: absolute } }
- { id: absolute, run: 'cat absolute/vendor/lib/file' }"#,
    );
    let source = with_repository(&mut bench, Some(&host.address));
    let absolute = format!("{}/acme/lib", host.address);
    git(&source, &["checkout", "--quiet", "-b", "absolute"]);
    add_submodule(&source, "vendor/lib", &absolute, &lib);
    git(&source, &["checkout", "--quiet", "main"]);
    let commit = add_submodule(&source, "vendor/lib", "../lib.git", &lib);
    let outcome = run_at(&mut bench, commit);
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let printed = outcome.printed("all");
    assert!(printed.starts_with("acme/libacme/leaf/"), "{printed}");
    assert!(printed.ends_with("source/.git\n0"), "{printed:?}");
    assert_eq!(outcome.printed("direct"), "acme/lib0");
    assert_eq!(
        outcome.printed("none"),
        "0",
        "as on GitHub: only when asked"
    );
    assert_eq!(outcome.printed("absolute"), "acme/lib");
    assert!(
        outcome.log.contains("Fetched the submodules vendor/lib"),
        "{}",
        outcome.log
    );
}

#[test]
fn addresses_that_read_files_or_run_programs_are_refused() {
    let forge = Forge::new();
    let host = Host::of(forge.root.path(), Door::default());
    let leaf = forge_repository(forge.root.path(), "acme/leaf", None);
    let bare = forge
        .root
        .path()
        .join("acme/leaf.git")
        .display()
        .to_string();
    let inner = format!("file://{bare}");
    let lib = forge_repository(forge.root.path(), "acme/lib", Some((&inner, &leaf)));
    let touched = forge.root.path().join("touched");
    let program = format!("ext::touch {}", touched.display());
    let option = format!("--upload-pack=touch {}", touched.display());
    let through = format!("{}/acme/lib", host.address);
    let missing = format!("{}/acme/missing", host.address);
    let addresses = [
        &inner, &bare, &program, &option, &through, &missing, "../lib",
    ];
    let steps: String = (0..addresses.len())
        .map(|index| format!("- {{ id: s{index}, continue-on-error: true, uses: actions/checkout@v4, with: {{ ref: b{index}, submodules: recursive, path: p{index} }} }}\n"))
        .collect();
    let odd = "- { id: odd, continue-on-error: true, uses: actions/checkout@v4, with: { submodules: sometimes } }";
    let mut bench = Bench::steps(&format!("{steps}{odd}"));
    let source = with_repository(&mut bench, None);
    let commit = git(&source, &["rev-parse", "HEAD"]);
    for (index, address) in addresses.iter().enumerate() {
        git(
            &source,
            &["checkout", "--quiet", "-b", &format!("b{index}"), &commit],
        );
        let commit = if index == 4 { &lib } else { &leaf };
        add_submodule(&source, "lib", address, commit);
    }
    let outcome = run_at(&mut bench, commit);
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let reason = |step: &str| outcome.step(step).2.unwrap();
    for step in ["s0", "s1", "s2", "s3"] {
        let reason = reason(step);
        assert!(
            reason.contains("only addresses of http, https, ssh and git are fetched"),
            "{reason}"
        );
    }
    assert!(
        reason("s4").contains("transport 'file' not allowed"),
        "{}",
        reason("s4")
    );
    assert!(reason("s5").contains("acme/missing"), "{}", reason("s5"));
    assert!(
        reason("s6").contains("`repository:` in shipway.yaml"),
        "{}",
        reason("s6")
    );
    assert!(
        reason("odd").contains("true, false or recursive"),
        "{}",
        reason("odd")
    );
    assert!(!touched.exists());
    let workspace = bench.spec.mounts.folder.join("workspace");
    for path in ["p0/lib/file", "p1/lib/file", "p4/lib/inner/file"] {
        assert!(!workspace.join(path).exists(), "{path}");
    }
}

#[test]
fn the_token_of_a_private_submodule_is_sent_to_its_forge_and_never_shown() {
    let forge = Forge::new();
    let lib = forge_repository(forge.root.path(), "acme/lib", None);
    let token = "token-d1f0c52b";
    let login = STANDARD.encode(format!("x-access-token:{token}"));
    let host = Host::of(
        forge.root.path(),
        Door {
            wants: Some(format!("Basic {login}")),
            secret: Some(login.clone()),
            ..Door::default()
        },
    );
    let mut bench = Bench::steps(
        r#"- { id: a, continue-on-error: true, uses: actions/checkout@v4, with: { submodules: true, path: a } }
- { uses: actions/checkout@v4, with: { submodules: true, path: b, token: "${{ secrets.PAT }}" } }
- { id: b, run: 'cat b/lib/file; grep -r token-d1 b/.git/config || true' }"#,
    )
    .secrets(&[("PAT", token)]);
    let source = with_repository(&mut bench, Some(&host.address));
    let commit = add_submodule(&source, "lib", "../lib", &lib);
    let outcome = run_at(&mut bench, commit);
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert!(
        outcome
            .step("a")
            .2
            .unwrap()
            .contains("could not read Username"),
        "{:?}",
        outcome.step("a")
    );
    assert_eq!(outcome.printed("b"), "acme/lib");
    assert!(host.requests() > 0);
    assert_eq!(host.exposed(), Vec::<String>::new());
    assert!(!outcome.log.contains(&login));
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
/// Stands for git-lfs: replaces the pointer, and says where from.
const GIT_LFS: &str = "#!/bin/sh\ncase $1 in version | install) ;; pull) echo \"from $(git config lfs.url)\" > big.bin ;; *) exit 1 ;; esac\n";

/// A folder with a program `git-lfs`.
fn with_git_lfs(bench: &Bench, name: &str, text: &str) -> String {
    let folder = bench.root.path().join(name);
    write(&folder.join("git-lfs"), text);
    fs::set_permissions(folder.join("git-lfs"), fs::Permissions::from_mode(0o755)).unwrap();
    folder.display().to_string()
}

fn commit_pointer(source: &Path) -> String {
    write(&source.join(".gitattributes"), "*.bin filter=lfs\n");
    write(&source.join("big.bin"), POINTER);
    git(source, &["-c", "filter.lfs.required=false", "add", "."]);
    git(source, &["commit", "--quiet", "-m", "large"]);
    git(source, &["rev-parse", "HEAD"])
}

#[test]
fn large_files_are_fetched_or_the_step_says_why_not() {
    let mut bench = Bench::steps(
        r#"- run: echo "$MISSING" >> $GITHUB_PATH
- { id: missing, continue-on-error: true, uses: actions/checkout@v4, with: { lfs: true } }
- { uses: actions/checkout@v4 }
- { id: pointer, run: 'head -c 15 big.bin' }
- { uses: actions/upload-artifact@v4, with: { name: large, path: big.bin } }
- run: echo "$THERE" >> $GITHUB_PATH
- { uses: actions/checkout@v4, with: { lfs: true } }
- { id: fetched, run: 'cat big.bin' }
- { id: local, continue-on-error: true, uses: actions/checkout@v4, with: { lfs: true, ref: local } }
- { id: bad, continue-on-error: true, uses: actions/checkout@v4, with: { lfs: maybe } }"#,
    );
    let folders = [
        ("MISSING", "missing", "#!/bin/sh\nexit 1\n"),
        ("THERE", "there", GIT_LFS),
    ];
    let folders = folders.map(|(name, folder, text)| {
        let folder = with_git_lfs(&bench, folder, text);
        (
            name.to_owned(),
            shipway_workflow::expr::Template::literal(folder),
        )
    });
    bench.spec.env = vec![shipway_workflow::model::TemplateTable::Entries(
        folders.into(),
    )];
    let source = with_repository(&mut bench, Some("https://forge.example"));
    let commit = commit_pointer(&source);
    git(&source, &["checkout", "--quiet", "-b", "local"]);
    write(
        &source.join(".lfsconfig"),
        "[lfs]\n\turl = file:///srv/lfs\n",
    );
    git(&source, &["add", ".lfsconfig"]);
    git(&source, &["commit", "--quiet", "-m", "local"]);
    let outcome = run_at(&mut bench, commit);
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let reason = |step: &str| outcome.step(step).2.unwrap();
    let missing = reason("missing");
    assert!(
        missing.contains("big.bin") && missing.contains("git-lfs is not installed"),
        "{missing}"
    );
    assert_eq!(
        outcome.printed("pointer"),
        "version https:/",
        "as on GitHub: only when asked"
    );
    let warned = "1 of 1 files of the artifact are pointers of Git LFS";
    assert!(outcome.log.contains(warned), "{}", outcome.log);
    assert_eq!(
        outcome.printed("fetched"),
        "from https://forge.example/acme/shop.git/info/lfs"
    );
    assert!(
        reason("local").contains("only addresses of http, https and ssh"),
        "{}",
        reason("local")
    );
    assert!(reason("bad").contains("true or false"), "{}", reason("bad"));
}

#[test]
fn a_folder_is_copied_with_its_submodules_and_must_have_its_large_files() {
    let bench = Bench::steps(
        r#"- { uses: actions/checkout@v4, with: { submodules: true } }
- { id: a, run: 'cat lib/file' }
- { id: b, continue-on-error: true, uses: actions/checkout@v4, with: { lfs: true, path: other } }
- { id: c, run: 'mv "$SOURCE/lib/.git" "$SOURCE/lib/moved"' }
- { id: d, continue-on-error: true, uses: actions/checkout@v4, with: { submodules: true, path: third } }"#,
    );
    let mut bench = bench;
    let source = bench.source();
    let path = shipway_workflow::expr::Template::literal(source.display().to_string());
    bench.spec.env = vec![shipway_workflow::model::TemplateTable::Entries(vec![(
        "SOURCE".to_owned(),
        path,
    )])];
    git(&source, &["init", "--quiet"]);
    commit_pointer(&source);
    write(&source.join("lib/file"), "of the submodule");
    git(&source.join("lib"), &["init", "--quiet"]);
    git(&source.join("lib"), &["add", "."]);
    git(&source.join("lib"), &["commit", "--quiet", "-m", "lib"]);
    let lib = git(&source.join("lib"), &["rev-parse", "HEAD"]);
    add_submodule(&source, "lib", "../lib", &lib);
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(outcome.printed("a"), "of the submodule");
    let reason = |step: &str| outcome.step(step).2.unwrap();
    assert!(reason("b").contains("git lfs pull"), "{}", reason("b"));
    assert!(
        reason("d").contains("git submodule update --init"),
        "{}",
        reason("d")
    );
}

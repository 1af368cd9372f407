//! Versions that `actions/setup-*` provide, and the folders that jobs install to.

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use shipway_workflow::job::{AnnotationLevel, Conclusion::*, JournalBody};
use support::{Bench, Forge, Outcome};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

/// Fake programs of the machine: each prints its text.
fn with_programs(mut bench: Bench, programs: &[(&str, &str)]) -> Bench {
    let bin = bench.root.path().join("machine/bin");
    fs::create_dir_all(&bin).unwrap();
    for (name, script) in programs {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    bench.environment.push(("PATH".to_owned(), path));
    bench
}

const NODE_18: &str = "- { id: setup, uses: actions/setup-node@v4, with: { node-version: 18.x } }
- { id: use, run: 'echo \"> $(node --version)\"' }";

const MACHINE: [(&str, &str); 1] = [("node", "echo v20.1.0")];

/// An `actions/setup-node` that installs the requested version.
fn setup_node(forge: &Forge) {
    let action = "name: setup
description: x
inputs: { node-version: { required: true } }
outputs: { node-version: { value: downloaded } }
runs:
  using: composite
  steps:
    - shell: sh
      run: |
        mkdir -p \"$RUNNER_TOOL_CACHE/node/bin\"
        printf '#!/bin/sh\\necho v18.9.0\\n' > \"$RUNNER_TOOL_CACHE/node/bin/node\"
        chmod +x \"$RUNNER_TOOL_CACHE/node/bin/node\"
        echo \"$RUNNER_TOOL_CACHE/node/bin\" >> \"$GITHUB_PATH\"
        echo \"> downloads ${{ inputs.node-version }}\"
";
    forge.commit("actions/setup-node", "v4", &[("action.yml", action)]);
}

fn warnings(outcome: &Outcome) -> Vec<&str> {
    let entries = outcome.entries.iter();
    let warnings = entries.filter_map(|entry| match &entry.body {
        JournalBody::Annotation {
            level: AnnotationLevel::Warning,
            message,
            ..
        } => Some(message.as_str()),
        _ => None,
    });
    warnings.collect()
}

#[test]
fn a_version_that_the_machine_lacks_comes_from_the_real_action() {
    let forge = Forge::new();
    setup_node(&forge);
    let outcome = with_programs(Bench::steps(NODE_18), &MACHINE)
        .forge(&forge)
        .run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(outcome.told(), ["downloads 18.x", "v18.9.0"]);
    assert!(
        outcome
            .log
            .contains("asks for version 18.x, but this machine has node 20.1.0"),
        "{}",
        outcome.log
    );
    // An installed version that matches is used.
    let there = NODE_18.replace("18.x", "20.x");
    let outcome = with_programs(Bench::steps(&there), &MACHINE)
        .forge(&forge)
        .run();
    assert_eq!(outcome.told(), ["v20.1.0"], "{}", outcome.log);
}

#[test]
fn without_the_real_action_another_version_is_used_only_where_that_is_allowed() {
    let forge = Forge::new();
    let bench = || with_programs(Bench::steps(NODE_18), &MACHINE).forge(&forge);
    let refused = bench().run();
    assert_eq!(refused.conclusion, Failure, "{}", refused.log);
    let why = refused.step("setup").2.unwrap();
    for part in [
        "asks for version 18.x, but this machine has node 20.1.0",
        "actions/setup-node@v4 did not provide it",
        "--allow-other-versions to use node 20.1.0",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(refused.told().is_empty());
    let mut allowed = bench();
    allowed.spec.actions.allow_other_versions = true;
    let outcome = allowed.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(outcome.told(), ["v20.1.0"]);
    let told = warnings(&outcome);
    assert!(
        told.iter()
            .any(|it| it.contains("node 20.1.0") && it.contains("asked for 18.x")),
        "{told:?}"
    );
}

#[test]
fn python_is_an_environment_of_the_job() {
    let steps = "- { uses: actions/setup-python@v5, with: { python-version: '>=3.8' } }
- { id: a, run: 'python -c \"import sys; print(sys.prefix != sys.base_prefix, sys.prefix)\"; command -v pip; echo \"$pythonLocation\"' }
- { uses: actions/setup-python@v5 }";
    let bench = Bench::steps(steps);
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    let printed = outcome.printed("a");
    let tools = bench.folder().join("home/tools/Python");
    let tools = tools.display().to_string();
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with(&format!("True {tools}")), "{printed}");
    assert!(lines[1].starts_with(&tools), "{printed}");
    assert!(lines[2].starts_with(&tools), "{printed}");
}

#[test]
fn package_managers_install_into_the_folders_of_the_job() {
    let bench = Bench::steps(
        r#"- id: pip
  run: |
    for call in "pip install x" "pip3 -q install x" "python3 -m pip install x" "pip install --target t x" "pip list" "python3 -m venv e" "python3 x.py"; do
      echo "$call: $($call)"
    done
- id: npm
  run: cat "$NPM_CONFIG_GLOBALCONFIG"
- id: others
  run: echo "$CARGO_INSTALL_ROOT $GEM_HOME"; command -v corepack
- id: path
  run: |
    for place in tools/npm/bin tools/cargo/bin tools/gem/bin .local/bin go/bin; do
      mkdir -p "$HOME/$place"
      name="by-$(echo "$place" | tr / -)"
      printf '#!/bin/sh\necho found\n' > "$HOME/$place/$name"
      chmod +x "$HOME/$place/$name"
      "$name" || echo "no $name"
    done"#,
    );
    let machine = [
        ("pip", "echo \"user=$PIP_USER $*\""),
        ("pip3", "echo \"user=$PIP_USER $*\""),
        ("python3", "echo \"user=$PIP_USER $*\""),
        ("node", "echo v20.1.0"),
        ("corepack", "true"),
    ];
    let bench = with_programs(bench, &machine);
    let root = bench.root.path().to_owned();
    fs::create_dir_all(root.join("machine/etc")).unwrap();
    fs::write(root.join("machine/etc/npmrc"), "registry=http://ours").unwrap();
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(
        outcome.printed("pip"),
        "pip install x: user=1 install x
pip3 -q install x: user=1 -q install x
python3 -m pip install x: user=1 -m pip install x
pip install --target t x: user= install --target t x
pip list: user= list
python3 -m venv e: user= -m venv e
python3 x.py: user= x.py"
    );
    let tools = bench.folder().join("home/tools");
    let of = |path: &Path| path.display().to_string();
    assert_eq!(
        outcome.printed("npm"),
        format!("registry=http://ours\nprefix={}", of(&tools.join("npm")))
    );
    assert_eq!(
        outcome.printed("others"),
        format!(
            "{} {}\n{}",
            of(&tools.join("cargo")),
            of(&tools.join("gem")),
            of(&tools.join("shims/corepack"))
        )
    );
    assert_eq!(outcome.printed("path"), ["found"; 5].join("\n"));
}

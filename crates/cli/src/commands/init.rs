//! `shipway init`: writes a `shipway.yaml` that fits the repository, and a workflow if it has none.

use std::path::{Path, PathBuf};

use crate::{exit::Failure, print::line};

/// Write shipway.yaml for this repository, and a workflow where there is none
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
}

/// What kind of program it is, and so how it is built and started.
struct Kind {
    what: &'static str,
    command: String,
    build: &'static str,
    artifact: String,
}

/// Writes the files and prints the next steps.
pub fn run(args: &Args) -> Result<(), Failure> {
    let root = args
        .path
        .canonicalize()
        .map_err(|error| Failure::usage(format!("{}: {error}", args.path.display())))?;
    let config = root.join("shipway.yaml");
    if config.exists() && !args.force {
        return Err(Failure::usage_with(
            "there is a shipway.yaml already",
            "`shipway check` looks at it; --force writes it anew",
        ));
    }
    let service = service_name(&root);
    let kind = detect(&root, &service);
    line(&format!(
        "Found {}; the service is called {service:?}.",
        kind.what
    ));
    let workflows = root.join(".github/workflows");
    let has_workflow =
        std::fs::read_dir(&workflows).is_ok_and(|mut entries| entries.next().is_some());
    write(&config, &config_text(&service, &kind))?;
    line("Wrote shipway.yaml");
    if has_workflow {
        line(
            "The workflows in .github/workflows stay as they are; the one that builds uploads the artifact with actions/upload-artifact.",
        );
    } else {
        std::fs::create_dir_all(&workflows).map_err(|error| Failure::Failed(error.to_string()))?;
        write(&workflows.join("cd.yml"), &workflow_text(&service, &kind))?;
        line("Wrote .github/workflows/cd.yml");
    }
    line(&format!(
        "\nNext:\n  look at both files, then: shipway check\n  shipway run              the workflow, here\n  shipway server           in another terminal\n  git push http://localhost:7878/git/{service} HEAD:main"
    ));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// The folder's name, made a service's.
fn service_name(root: &Path) -> String {
    let folder = root
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name: String = folder
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "service".to_owned()
    } else {
        name.chars().take(63).collect()
    }
}

fn detect(root: &Path, service: &str) -> Kind {
    let has = |name: &str| root.join(name).exists();
    let kind = |what, command: &str, build, artifact: &str| Kind {
        what,
        command: command.to_owned(),
        build,
        artifact: artifact.to_owned(),
    };
    if has("Cargo.toml") {
        let name = cargo_name(root).unwrap_or_else(|| service.to_owned());
        return kind(
            "a Rust program",
            &format!("exec ./{name}"),
            "cargo test --locked\n          cargo build --release --locked",
            &format!("target/release/{name}"),
        );
    }
    if has("package.json") {
        return kind(
            "a Node program",
            "exec node .",
            "npm ci\n          npm test --if-present",
            ".",
        );
    }
    if has("pyproject.toml") || has("requirements.txt") {
        return kind(
            "a Python program",
            "exec python3 -m app",
            "python3 -m pip install --target vendor -r requirements.txt\n          python3 -m unittest",
            ".",
        );
    }
    if has("go.mod") {
        return kind(
            "a Go program",
            &format!("exec ./{service}"),
            "go test ./...\n          go build -o bin/ ./...",
            "bin",
        );
    }
    kind(
        "no build that Shipway knows",
        "exec ./start.sh",
        "true  # build and test here",
        ".",
    )
}

/// `name` of the `[package]`, as far as a line tells.
fn cargo_name(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).ok()?;
    let line = text
        .lines()
        .skip_while(|line| line.trim() != "[package]")
        .find(|line| line.trim_start().starts_with("name"))?;
    Some(line.split('"').nth(1)?.to_owned())
}

fn config_text(service: &str, kind: &Kind) -> String {
    format!(
        "# How {service} is run, checked and rolled out. `shipway check` explains mistakes; editors know the schema from
# http://localhost:7878/schema/shipway.json
service: {service}
branch: main                      # whose green commits are released
artifact: {service}               # the name given to actions/upload-artifact

run:
  command: {}      # $PORT is the port to listen on
  health: {{ tcp: true }}           # better: {{ http: /health/ready }}

environments:                     # in order of promotion
  staging:
    strategy: recreate
    smoke:
      - {{ name: home, get: / }}

  production:
    instances: 2
    strategy:
      canary:
        steps:
          - {{ weight: 1, hold: 2m }}
          - {{ weight: 10, hold: 5m }}
          - {{ weight: 50, hold: 5m }}
    smoke:
      - {{ name: home, get: / }}
    # analysis: left out, so the default rules hold: a release is rolled back as soon as
    #   - its errors (error-rate) or slow answers (slow-rate, over stable's own p99) are more than stable's beyond doubt,
    #   - an instance of it crashes or has to be restarted (restarts, max: 0), and stable's don't,
    #   - its instances are down for more than 3 s of a minute (availability, min: 95%), and stable's aren't.
    # A service with too little traffic to judge is promoted at the end of each hold, and the verdict says how little was seen;
    # a rule with `required: true` pauses it instead. Rules of your own replace these; `analysis: none` judges nothing.
    # approvals: {{ count: 1 }}      # leave out: continuous deployment
",
        kind.command
    )
}

fn workflow_text(service: &str, kind: &Kind) -> String {
    format!(
        "name: cd
on:
  push:
    branches: [main]
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Build and test
        run: |
          {}
      - uses: actions/upload-artifact@v4
        with:
          name: {service}
          path: {}
          if-no-files-found: error
",
        kind.build, kind.artifact
    )
}

#[cfg(test)]
mod tests {
    use shipway_syntax::SourceFile;

    use super::*;

    #[test]
    fn what_is_written_has_no_mistakes() {
        for marker in [
            "Cargo.toml",
            "package.json",
            "requirements.txt",
            "go.mod",
            "README",
        ] {
            let folder = tempfile::Builder::new()
                .prefix("my.shop_")
                .tempdir()
                .unwrap();
            std::fs::write(folder.path().join(marker), "[package]\nname = \"shop\"\n").unwrap();
            run(&Args {
                path: folder.path().to_owned(),
                force: false,
            })
            .unwrap();
            let read = |name: &str| {
                SourceFile::new(
                    name,
                    std::fs::read_to_string(folder.path().join(name)).unwrap(),
                )
            };
            let config = read("shipway.yaml");
            assert!(
                shipway_core::config::parse(&config).is_ok_and(|(_, warnings)| warnings.is_empty()),
                "{marker}"
            );
            let workflow = shipway_workflow::parse(&read(".github/workflows/cd.yml"));
            assert!(
                workflow.workflow.is_some(),
                "{marker}: {:?}",
                workflow.diagnostics
            );
            assert!(
                run(&Args {
                    path: folder.path().to_owned(),
                    force: false
                })
                .is_err(),
                "nothing is overwritten"
            );
        }
    }
}

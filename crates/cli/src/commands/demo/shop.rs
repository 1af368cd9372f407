//! The demo's repository: a copy of `examples/tiny`.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::exit::Failure;

const FILES: &[(&str, &str)] = &[
    (
        "shop.py",
        include_str!("../../../../../examples/tiny/shop.py"),
    ),
    (
        "items.json",
        include_str!("../../../../../examples/tiny/items.json"),
    ),
    (
        "app.conf",
        include_str!("../../../../../examples/tiny/app.conf"),
    ),
    (
        "VERSION",
        include_str!("../../../../../examples/tiny/VERSION"),
    ),
    (
        "test_shop.py",
        include_str!("../../../../../examples/tiny/test_shop.py"),
    ),
    (
        "shipway.yaml",
        include_str!("../../../../../examples/tiny/shipway.yaml"),
    ),
    (
        ".github/workflows/cd.yml",
        include_str!("../../../../../examples/tiny/.github/workflows/cd.yml"),
    ),
];

/// A git repository with the shop.
pub(super) struct Repository(PathBuf);

impl Repository {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        for (name, text) in FILES {
            let file = path.join(name);
            let folder = file.parent().unwrap_or(path);
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&file, text))
                .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
        }
        let repository = Self(path.to_owned());
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        Ok(repository)
    }

    /// Commits a version that answers this share of its requests with 500.
    pub(super) fn commit(
        &self,
        version: &str,
        error_share: &str,
        what: &str,
    ) -> Result<(), Failure> {
        let conf: String = FILES
            .iter()
            .find(|(name, _)| *name == "app.conf")
            .map(|(_, text)| {
                let line = |line: &str| {
                    if line.starts_with("ERROR_SHARE") {
                        format!("ERROR_SHARE={error_share}\n")
                    } else {
                        format!("{line}\n")
                    }
                };
                text.lines().map(line).collect()
            })
            .unwrap_or_default();
        for (name, text) in [("VERSION", format!("{version}\n")), ("app.conf", conf)] {
            std::fs::write(self.0.join(name), text)
                .map_err(|error| Failure::Failed(format!("{name}: {error}")))?;
        }
        self.git(&["add", "--all"])?;
        self.git(&[
            "-c",
            "user.name=Demo",
            "-c",
            "user.email=demo@example.com",
            "commit",
            "--quiet",
            "--message",
            &format!("{version}: {what}"),
        ])
    }

    /// Starts a push; its standard error tells the story.
    pub(super) fn push(&self, url: &str) -> Result<Child, Failure> {
        let mut command = self.command();
        command
            .args(["push", "--progress", url, "main"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.spawn().map_err(|error| {
            Failure::Failed(format!(
                "git could not be started ({error}); is it installed?"
            ))
        })
    }

    fn git(&self, arguments: &[&str]) -> Result<(), Failure> {
        let output = self
            .command()
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| {
                Failure::Failed(format!(
                    "git could not be started ({error}); is it installed?"
                ))
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "git {}: {}",
            arguments.first().unwrap_or(&""),
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }

    /// Whatever the user has configured must not change the demo.
    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.0)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0");
        command
    }
}

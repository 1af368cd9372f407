//! `shipway admin install-files`: the files are in their places and usable by the programs that read them.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::site::SHIPWAY;

fn install(prefix: &Path) -> Vec<PathBuf> {
    let output = Command::new(SHIPWAY)
        .args(["admin", "install-files"])
        .arg(prefix)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().map(PathBuf::from).collect()
}

/// The output of a program, or `None` if this machine doesn't have it.
fn output_if_present(program: &str, args: &[&OsStr]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[test]
fn all_files_are_where_their_readers_search_them() {
    let folder = TempDir::new().unwrap();
    let written = install(folder.path());
    for path in [
        "share/bash-completion/completions/shipway",
        "share/zsh/site-functions/_shipway",
        "share/fish/vendor_completions.d/shipway.fish",
        "share/man/man1/shipway.1",
        "share/man/man1/shipway-rollback.1",
        "share/man/man1/shipway-admin-install-files.1",
        "lib/systemd/system/shipway.service",
    ] {
        let path = folder.path().join(path);
        assert!(written.contains(&path), "{} is not listed", path.display());
        assert!(
            fs::metadata(&path).unwrap().len() > 200,
            "{}",
            path.display()
        );
    }
    // Internal commands have no page.
    assert!(
        !folder
            .path()
            .join("share/man/man1/shipway-worker.1")
            .exists()
    );
    let zsh = fs::read_to_string(folder.path().join("share/zsh/site-functions/_shipway")).unwrap();
    assert!(zsh.starts_with("#compdef shipway"));
    let fish = folder
        .path()
        .join("share/fish/vendor_completions.d/shipway.fish");
    assert!(fs::read_to_string(fish).unwrap().contains("rollback"));
    // A second installation replaces the first.
    assert_eq!(install(folder.path()), written);
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = TempDir::new().unwrap();
    install(folder.path());
    let file = folder
        .path()
        .join("share/bash-completion/completions/shipway");
    let complete = |words: &str, current: &str, previous: &str| {
        let script = format!(
            "source '{}' || exit 9; COMP_WORDS=({words} {current}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _shipway shipway '{current}' '{previous}'; echo \"${{COMPREPLY[*]}}\"",
            file.display()
        );
        let output = Command::new("bash")
            .args(["--noprofile", "--norc", "-c", &script])
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("shipway", "rollb", "shipway"), "rollback");
    assert_eq!(complete("shipway admin", "inst", "admin"), "install-files");
    assert_eq!(
        complete("shipway rollback", "--rel", "rollback"),
        "--release"
    );
}

#[test]
fn man_pages_are_rendered_without_warnings() {
    let folder = TempDir::new().unwrap();
    let written = install(folder.path());
    let pages = written
        .iter()
        .filter(|it| it.extension().is_some_and(|it| it == "1"));
    for page in pages {
        let args = ["-ww", "-man", "-Kutf8", "-Tutf8"].map(OsStr::new);
        let args = [&args[..], &[page.as_os_str()]].concat();
        let Some(output) = output_if_present("groff", &args) else {
            return;
        };
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && warnings.is_empty(),
            "{}: {warnings}",
            page.display()
        );
        assert!(output.stdout.len() > 500, "{}", page.display());
    }
}

#[test]
fn systemd_accepts_the_unit() {
    let folder = TempDir::new().unwrap();
    install(folder.path());
    let unit = folder.path().join("lib/systemd/system/shipway.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(
        text.contains(&format!("ExecStart={SHIPWAY} server ")),
        "{text}"
    );
    let args = [
        OsStr::new("verify"),
        OsStr::new("--man=no"),
        unit.as_os_str(),
    ];
    if let Some(output) = output_if_present("systemd-analyze", &args) {
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaints.is_empty(),
            "{complaints}"
        );
    }
}

#[test]
fn a_package_names_the_path_that_its_program_will_have() {
    let folder = TempDir::new().unwrap();
    let run = |binary: &str| {
        Command::new(SHIPWAY)
            .args(["admin", "install-files", "--binary", binary])
            .arg(folder.path())
            .output()
            .unwrap()
    };
    assert!(run("/usr/bin/shipway").status.success());
    let unit =
        fs::read_to_string(folder.path().join("lib/systemd/system/shipway.service")).unwrap();
    assert!(
        unit.contains("ExecStart=/usr/bin/shipway server "),
        "{unit}"
    );
    let refused = run("bin/shipway");
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("--binary bin/shipway is not an absolute path"),
        "{message}"
    );
}

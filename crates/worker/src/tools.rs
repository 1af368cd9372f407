//! Tools that a job installs go into the job's own folders, never into the machine's: the next job, and whoever works on the
//! machine, find it as it was.
//!
//! Package managers have settings for this, or install beside the program that `PATH` leads to; both are used here, for all jobs:
//!
//! - npm has its global prefix in a configuration file, and not in a variable, which nvm refuses;
//! - corepack puts its links beside the `corepack` that is found first, so a link to it is put first;
//! - cargo and gem have variables; go, dotnet and `pip --user` install below `HOME`, which is the job's;
//! - pip installs for the user when it is called outside of a virtual environment. The setting for this breaks pip inside of
//!   virtual environments, so small scripts before the machine's `pip` and `python` set it for one call.
//!
//! Not covered: package managers of the system (`apt-get` as root), and toolchains of rustup, which are shared.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::{
    environment::{Env, Folders, PATH},
    shell::which,
};

/// Programs that may call pip.
const PIP_CALLERS: [&str; 4] = ["pip", "pip3", "python", "python3"];

/// Makes what the environment of steps leads to.
pub(crate) fn prepare_install_folders(folders: &Folders) -> io::Result<()> {
    let shims = shims(folders);
    fs::create_dir_all(&shims)?;
    let machine = machine_path();
    for name in PIP_CALLERS {
        if let Some(program) = which(name, &machine).filter(|it| !is_in_venv(it)) {
            write_program(&shims.join(name), &pip_shim(name, &program))?;
        }
    }
    if let Some(corepack) = which("corepack", &machine) {
        let link = shims.join("corepack");
        if fs::symlink_metadata(&link).is_err() {
            symlink(corepack.canonicalize()?, link)?;
        }
    }
    let prefix = folders.tools().join("npm");
    let mut npmrc = machine_npmrc(&machine);
    npmrc.push_str(&format!("prefix={}\n", prefix.display()));
    fs::write(npm_config(folders), npmrc)
}

/// Variables by which package managers install into the job's folders, and `PATH` with what they install there first.
pub(crate) fn add_install_folders(folders: &Folders, env: &mut Env) {
    let (tools, home) = (folders.tools(), &folders.home);
    let own = [
        shims(folders),
        tools.join("npm/bin"),
        tools.join("cargo/bin"),
        tools.join("gem/bin"),
        home.join(".local/bin"),
        home.join("go/bin"),
        home.join(".dotnet/tools"),
    ];
    let own = own.iter().map(|folder| folder.display().to_string());
    let path: Vec<String> = own.chain([machine_path()]).collect();
    env.set("PATH", path.join(":"));
    for (name, value) in [
        ("NPM_CONFIG_GLOBALCONFIG", npm_config(folders)),
        ("CARGO_INSTALL_ROOT", tools.join("cargo")),
        ("GEM_HOME", tools.join("gem")),
    ] {
        env.set(name, value.display().to_string());
    }
}

/// Where programs are looked for on this machine.
fn machine_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned())
}

fn shims(folders: &Folders) -> PathBuf {
    folders.tools().join("shims")
}

fn npm_config(folders: &Folders) -> PathBuf {
    folders.tools().join("npmrc")
}

/// npm's global settings of this machine, such as a company's registry. They are looked for beside node.
fn machine_npmrc(path: &str) -> String {
    let node = which("node", path).and_then(|node| node.canonicalize().ok());
    let prefix = node.as_deref().and_then(|node| node.parent()?.parent());
    let text = prefix.and_then(|prefix| fs::read_to_string(prefix.join("etc/npmrc")).ok());
    let mut text = text.unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Whether a program is part of a virtual environment: installing there changes nothing else, and `--user` is refused there.
fn is_in_venv(program: &Path) -> bool {
    let root = program.parent().and_then(Path::parent);
    root.is_some_and(|root| root.join("pyvenv.cfg").is_file())
}

/// A script that calls `program` and has `pip install` install for the user, unless the call names another place.
fn pip_shim(name: &str, program: &Path) -> String {
    let calls_pip = if name.starts_with("pip") {
        "true"
    } else {
        r#"[ "$1" = -m ] && [ "$2" = pip ]"#
    };
    let program = program.display().to_string().replace('\'', r"'\''");
    format!(
        r#"#!/bin/sh
# Made by Shipway: outside of virtual environments, pip installs into the job's home.
if {calls_pip}; then
  case " $* " in
    *" --target"* | *" -t "* | *" --prefix"* | *" --root"* | *" --no-user "*) ;;
    *" install "*) export PIP_USER=1 ;;
  esac
fi
exec '{program}' "$@"
"#
    )
}

fn write_program(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

//! Where the tools go that a job installs: into the job's folders, never into those of the machine, which the next
//! job uses.
//!
//! Package managers have settings for this, or install next to the program found in `PATH`. For all jobs:
//!
//! - npm: the global prefix is set in a configuration file, because nvm rejects the environment variable;
//! - corepack: creates its links next to the first `corepack` in `PATH`, so a link to it is put first;
//! - cargo, gem: environment variables; go, dotnet, `pip --user`: install below `HOME`, which is the job's;
//! - pip: must install for the user outside of virtual environments. The setting breaks pip inside of them, so shims
//!   for `pip` and `python` set it for one call.
//!
//! Not covered: system package managers (`apt-get` as root) and rustup toolchains, which are shared.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::{
    environment::{EnvVars, JobFolders, PATH},
    shell::find_program,
};

/// Programs that may run pip.
const PIP_CALLERS: [&str; 4] = ["pip", "pip3", "python", "python3"];

/// Creates the shims and configuration files that [`add_install_folders`] refers to.
pub(crate) fn prepare_install_folders(folders: &JobFolders) -> io::Result<()> {
    let shims = shim_folder(folders);
    fs::create_dir_all(&shims)?;
    let machine = machine_path();
    for name in PIP_CALLERS {
        if let Some(program) = find_program(name, &machine).filter(|it| !is_in_venv(it)) {
            write_program(&shims.join(name), &pip_shim(name, &program))?;
        }
    }
    if let Some(corepack) = find_program("corepack", &machine) {
        let link = shims.join("corepack");
        if fs::symlink_metadata(&link).is_err() {
            symlink(corepack.canonicalize()?, link)?;
        }
    }
    let prefix = folders.tools_folder().join("npm");
    let mut npmrc = machine_npmrc(&machine);
    npmrc.push_str(&format!("prefix={}\n", prefix.display()));
    fs::write(npm_config(folders), npmrc)
}

/// Sets the variables that make package managers install into the job's folders, and puts these folders into `PATH`.
pub(crate) fn add_install_folders(folders: &JobFolders, env: &mut EnvVars) {
    let (tools, home) = (folders.tools_folder(), &folders.home);
    let own = [
        shim_folder(folders),
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

fn machine_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned())
}

fn shim_folder(folders: &JobFolders) -> PathBuf {
    folders.tools_folder().join("shims")
}

fn npm_config(folders: &JobFolders) -> PathBuf {
    folders.tools_folder().join("npmrc")
}

/// The machine's global npm settings, e.g. a company's registry. npm reads them from the prefix of node.
fn machine_npmrc(path: &str) -> String {
    let node = find_program("node", path).and_then(|node| node.canonicalize().ok());
    let prefix = node.as_deref().and_then(|node| node.parent()?.parent());
    let text = prefix.and_then(|prefix| fs::read_to_string(prefix.join("etc/npmrc")).ok());
    let mut text = text.unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Whether the program belongs to a virtual environment: installing there affects nothing else, and `--user` is
/// rejected.
fn is_in_venv(program: &Path) -> bool {
    let root = program.parent().and_then(Path::parent);
    root.is_some_and(|root| root.join("pyvenv.cfg").is_file())
}

/// A shim for `program` that makes `pip install` install for the user, unless another destination is given.
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

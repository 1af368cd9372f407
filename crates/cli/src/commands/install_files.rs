//! `shipway admin install-files`: shell completions, man pages and a systemd unit, written below a prefix such as /usr/local.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap_complete::{Shell, generate};

use crate::{exit::Failure, print::line};

/// The systemd unit; `@BINARY@` is the absolute path of the program.
const SYSTEMD_UNIT: &str = include_str!("install_files/shipway.service");

#[derive(Debug, clap::Args)]
pub struct InstallFilesArgs {
    /// Prefix of the installation, such as /usr/local
    #[arg(value_name = "DIR")]
    prefix: PathBuf,

    /// Absolute path of the installed program, for the systemd unit (default: this program)
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Writes all files and prints their paths.
pub fn run(args: &InstallFilesArgs, command: &mut clap::Command) -> Result<(), Failure> {
    let binary = match &args.binary {
        Some(binary) if binary.is_absolute() => binary.clone(),
        Some(binary) => {
            let what = format!("--binary {} is not an absolute path", binary.display());
            return Err(Failure::usage(what));
        }
        None => std::env::current_exe()
            .map_err(|error| Failure::Failed(format!("can't locate this program: {error}")))?,
    };
    let written = write_files(&args.prefix, &binary, command).map_err(|error| {
        Failure::Failed(format!(
            "can't write the files to {}: {error}",
            args.prefix.display()
        ))
    })?;
    for path in written {
        line(&path.display().to_string());
    }
    Ok(())
}

/// The path of a shell's completions below the prefix: where the shell searches them.
const fn completion_path(shell: Shell) -> Option<&'static str> {
    match shell {
        Shell::Bash => Some("share/bash-completion/completions/shipway"),
        Shell::Zsh => Some("share/zsh/site-functions/_shipway"),
        Shell::Fish => Some("share/fish/vendor_completions.d/shipway.fish"),
        _ => None,
    }
}

fn write_files(
    prefix: &Path,
    binary: &Path,
    command: &mut clap::Command,
) -> io::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let mut write = |path: PathBuf, bytes: &[u8]| {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, bytes)?;
        written.push(path);
        io::Result::Ok(())
    };
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        if let Some(path) = completion_path(shell) {
            let mut script = Vec::new();
            generate(shell, command, "shipway", &mut script);
            write(prefix.join(path), &script)?;
        }
    }
    let unit = SYSTEMD_UNIT.replace("@BINARY@", &binary.display().to_string());
    write(
        prefix.join("lib/systemd/system/shipway.service"),
        unit.as_bytes(),
    )?;
    let manual = prefix.join("share/man/man1");
    for (name, page) in manual_pages(command)? {
        write(manual.join(name), &page)?;
    }
    Ok(written)
}

/// The man pages of the program and its commands, by file name.
fn manual_pages(command: &clap::Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        let page = clap_mangen::Man::new(command.clone());
        let mut bytes = Vec::new();
        page.render(&mut bytes)?;
        pages.push((page.get_filename(), bytes));
        let visible = command.get_subcommands();
        let visible = visible.filter(|it| !it.is_hide_set() && it.get_name() != "help");
        open.extend(visible.cloned());
    }
    pages.sort();
    Ok(pages)
}

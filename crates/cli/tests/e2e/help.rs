//! The help of every command, as people read it. What depends on the machine is taken out.

use std::process::Command;

use crate::site::SHIPWAY;

/// The help of a command, eighty columns wide, without the version.
fn help(words: &[&str]) -> String {
    let output = Command::new(SHIPWAY)
        .args(words)
        .arg("--help")
        .env("COLUMNS", "100")
        .env_remove("SHIPWAY_URL")
        .env_remove("SHIPWAY_USER")
        .env_remove("SHIPWAY_TOKEN")
        .env_remove("SHIPWAY_DATA")
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let whole = help(&[]);
    insta::assert_snapshot!("help", whole);
    for command in listed(&whole) {
        let text = help(&[&command]);
        insta::assert_snapshot!(format!("help_{command}"), text);
        for inner in listed(&text) {
            let text = help(&[&command, &inner]);
            insta::assert_snapshot!(format!("help_{command}_{inner}"), text);
        }
    }
}

#[test]
fn what_every_command_can_do_is_said_in_a_sentence() {
    for command in listed(&help(&[])) {
        let text = help(&[&command]);
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.len() > 10 && !first.starts_with("Usage"),
            "{command}: {first:?}"
        );
    }
}

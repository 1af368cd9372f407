//! Commands that Shipway prints can be pasted as they are: right server, right names, nothing to fill in.

use std::path::Path;

use crate::{
    first_use::paste,
    shop::{CONFIG, Shop},
    site::{Site, said, until},
};

const RED: &str =
    "on: push\njobs: { build: { runs-on: ubuntu-latest, steps: [{ run: 'false' }] } }\n";
const GREEN: &str =
    "on: push\njobs: { build: { runs-on: ubuntu-latest, steps: [{ run: 'true' }] } }\n";

/// The commands of a printed text: from `shipway` or `export` to the end of the line, of the quote, or to the next punctuation.
fn commands_in(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        for (start, _) in line.match_indices("shipway ") {
            let is_start = line[..start].is_empty() || line[..start].ends_with([' ', '`']);
            let rest = &line[start..];
            let end = rest
                .find([';', '`', ',', ')', '(', '…'])
                .unwrap_or(rest.len());
            let command = rest[..end].trim().trim_end_matches('.').to_owned();
            if is_start && !commands.contains(&command) {
                commands.push(command);
            }
        }
        if let Some(start) = line.find("export SHIPWAY_URL=") {
            commands.insert(0, line[start..].trim().to_owned());
        }
    }
    commands
}

/// Pastes a command after the `export` of the push; ended after a while where it waits for the end of something.
fn paste_after(folder: &Path, export: &str, command: &str) -> (bool, String) {
    // A shell without a terminal takes its command from the command line.
    let is_shell = command.starts_with("shipway shell");
    let command = format!("{command}{}", if is_shell { " -- pwd" } else { "" });
    let done = paste(folder, &format!("{export}; timeout 20 {command}"));
    // 1: `logs` and `watch` tell a failure by it, 124: it was still watching.
    let is_right = matches!(done.status.code(), Some(0 | 1 | 124));
    (is_right, said(&done))
}

#[test]
fn every_command_of_a_push_can_be_pasted() {
    let site = Site::started();
    let shop = site.shop();
    let source = CONFIG
        .replace("service: shop", "service: shop\nartifact: { source: . }")
        .replace(
            "    instances: 2",
            "    instances: 1\n    approvals: { count: 1 }",
        )
        .replace("hold: 1s", "hold: 5m");
    shop.write("shipway.yaml", &source);
    let push = |shop: &Shop, workflow: &str, version: &str| {
        shop.write(".github/workflows/cd.yml", workflow);
        commands_in(&said(&shop.ship(version)))
    };
    let expect = |commands: &[String], expected: &[&str]| {
        let export = format!("export SHIPWAY_URL={}", site.url(""));
        assert_eq!(commands[0], export);
        assert_eq!(&commands[1..], expected);
        for command in &commands[1..] {
            let (is_right, text) = paste_after(&shop.path, &export, command);
            let refusal = ["no server answers", "there is no", "usage", "error:"];
            let is_refused = refusal
                .iter()
                .find(|word| text.to_lowercase().contains(*word));
            assert!(is_right && is_refused.is_none(), "{command}: {text}");
        }
    };
    let commands = push(&shop, RED, "1.0");
    expect(
        &commands,
        &[
            "shipway retry shop/r1 --from-failed-step",
            "shipway shell shop/r1 build",
            "shipway logs shop/r1 --job build",
        ],
    );
    let commands = push(&shop, GREEN, "1.1");
    expect(&commands, &["shipway approve shop/ro2"]);
    site.ended_rollout("production", 1);
    let commands = push(&shop, GREEN, "1.2");
    assert_eq!(commands[1..], ["shipway approve shop/ro4"]);
    let approved = paste(&shop.path, &format!("{}; {}", commands[0], commands[1]));
    assert!(approved.status.success(), "{}", said(&approved));
    until("the canary to hold", || {
        site.rollout("production", 2).is_some_and(|rollout| {
            rollout["status"] == "holding" || !rollout["hold_until"].is_null()
        })
    });
    let url = &commands[0];
    let promoted = paste(&shop.path, &format!("{url}; shipway promote shop/ro4"));
    assert!(promoted.status.success(), "{}", said(&promoted));
    site.ended_rollout("production", 2);
    let command = format!("{url}; shipway rollback shop --env production");
    let printed = commands_in(&said(&paste(&shop.path, &command)));
    assert_eq!(
        printed,
        [
            "shipway watch shop/ro5",
            "shipway resume shop --env production"
        ]
    );
    for command in printed {
        let (is_right, text) = paste_after(&shop.path, url, &command);
        assert!(is_right, "{command}: {text}");
    }
    let status = format!("shipway status --server {}", site.url(""));
    let printed = commands_in(&said(&paste(&shop.path, &status)));
    assert_eq!(printed.first(), Some(url), "{printed:?}");
}

//! `shipway simulate` as a person uses it: the result, the drawing, and what it says of questions that make no sense.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    site::{SHIPWAY, said},
    words::{assert_ends, assert_says},
};

/// The binary in a folder of its own.
fn simulate(folder: &Path, words: &[&str]) -> std::process::Output {
    Command::new(SHIPWAY)
        .current_dir(folder)
        .arg("simulate")
        .args(words)
        .output()
        .unwrap()
}

fn example() -> String {
    let file = "../../examples/shop-python/shipway.yaml";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    path.to_string_lossy().into_owned()
}

#[test]
fn the_result_is_printed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--regress", "error-rate=0.5%@canary", "--runs", "10"];
    let output = simulate(folder.path(), &[&[&*example()], &words[..]].concat());
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    let parts = [
        "error-rate 0.5% on the canary, 100 requests/s, baseline error rate 0.1%",
        "10% for 5 s, 50% for 5 s",
        "production compares nothing with stable",
        "false alarms",
        "detected",
        "Wald's bound: with both rates known, 1,030 requests",
        "Drawn in simulation.svg",
    ];
    assert_says(&told, &parts);
    let drawn = std::fs::read_to_string(folder.path().join("simulation.svg")).unwrap();
    assert!(
        drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"),
        "{drawn}"
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let folder = tempfile::tempdir().unwrap();
    let json = |seed: &str| {
        let words = [
            "--json",
            "--runs",
            "10",
            "--regress",
            "error-rate=30%@canary",
            "--svg",
            "-",
            "--seed",
            seed,
        ];
        let output = simulate(folder.path(), &words);
        assert!(output.status.success(), "{}", said(&output));
        output.stdout
    };
    let once = json("3");
    assert_eq!(once, json("3"));
    assert_ne!(once, json("4"));
    let document: Value = serde_json::from_slice(&once).unwrap();
    let own = &document["judges"][0];
    assert_eq!(
        (&own["judge"], &own["caught"]),
        (&"shipway".into(), &10.into()),
        "{document}"
    );
    let notes = document["notes"].to_string();
    assert!(notes.contains("no shipway.yaml here"), "{notes}");
    assert!(
        std::fs::read_dir(folder.path()).unwrap().next().is_none(),
        "`-` draws nothing"
    );
}

#[test]
fn questions_that_make_no_sense_are_refused_with_one_that_would() {
    let folder = tempfile::tempdir().unwrap();
    let refused =
        |words: &[&str], parts: &[&str]| assert_ends(&simulate(folder.path(), words), 2, parts);
    refused(
        &["--regress", "luck=3@canary"],
        &["is not a regression", "error-rate=0.5%@canary"],
    );
    refused(
        &["--regress", "error-rate=150%@canary"],
        &["is not a regression"],
    );
    refused(
        &["--traffic", "fast"],
        &["is not a traffic shape", "100rps"],
    );
    refused(&["--base", "error-rate=100%"], &["nothing to detect"]);
    refused(&["--runs", "3"], &["3 is not in 10..=100000"]);
    refused(&["--weight", "0", "--hold", "1h"], &["0 is not a weight"]);
    refused(&["--weight", "10"], &["--hold"]);
    refused(&["missing.yaml"], &["missing.yaml"]);
    refused(
        &[&example(), "--env", "moon"],
        &["no environment `moon`", "staging, production"],
    );
    std::fs::write(
        folder.path().join("shipway.yaml"),
        "service: shop\nenvironments: {}\n",
    )
    .unwrap();
    refused(
        &[],
        &["shipway.yaml:", "shipway.yaml has errors", "shipway check"],
    );
}

//! The pages in `docs/`: their commands are run as written, and their generated parts are up to date.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, said, until},
};

fn page_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name)
}

/// The blocks of a page that are marked `sh`.
fn shell_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("```sh\n") {
        let (block, after) = after.split_once("```").expect("a block is closed");
        blocks.push(block.to_owned());
        rest = after;
    }
    blocks
}

/// Runs commands with the addresses and folders of this site in place of the documented ones.
fn run_block(site: &Site, block: &str) {
    let block = block.replace("http://127.0.0.1:7878", &site.url(""));
    let programs = PathBuf::from(SHIPWAY).parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &block])
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("SHIPWAY_URL", site.url(""))
        .env("SHIPWAY_TOKEN", "")
        .env("DATA", site.data())
        .env("BACKUP", site.folder.path().join("backup.tar.gz"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{block}\n{}", said(&output));
}

/// A site with one promoted release.
fn site_with_release() -> (Site, Shop) {
    let site = Site::started();
    let shop = site.shop();
    let pushed = shop.ship("1.0");
    assert!(pushed.status.success(), "{}", said(&pushed));
    site.ended_rollout("production", 1);
    (site, shop)
}

/// A Markdown table of all operations, by tag-free path order.
fn endpoint_table(description: &Value) -> String {
    let mut table = String::from("| request | meaning |\n|---|---|\n");
    let paths: BTreeMap<_, _> = description["paths"].as_object().unwrap().iter().collect();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty(), "{method} {path} has no summary");
            let summary = summary.replace('\n', " ");
            let sentence = summary.split(". ").next().unwrap_or_default();
            let summary = sentence.trim_end_matches('.').replace('|', "\\|");
            table += &format!("| `{} {path}` | {summary} |\n", method.to_uppercase());
        }
    }
    table
}

#[test]
fn the_examples_of_the_api_run_and_its_endpoints_are_complete() {
    let (site, _shop) = site_with_release();
    let page = fs::read_to_string(page_path("api.md")).unwrap();
    for block in shell_blocks(&page) {
        run_block(&site, &block);
    }
    let (before, rest) = page.split_once("<!-- endpoints -->\n").unwrap();
    let (table, after) = rest.split_once("<!-- /endpoints -->").unwrap();
    let expected = endpoint_table(&site.get("/api/openapi.json").unwrap());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let page = format!("{before}<!-- endpoints -->\n{expected}<!-- /endpoints -->{after}");
        fs::write(page_path("api.md"), page).unwrap();
    } else {
        assert_eq!(
            table, expected,
            "docs/api.md is stale: run this test with UPDATE_DOCS=1"
        );
    }
}

#[test]
fn the_commands_of_operations_back_up_restore_and_rebuild() {
    let (mut site, _shop) = site_with_release();
    let page = fs::read_to_string(page_path("operations.md")).unwrap();
    let blocks = shell_blocks(&page);
    let [health, backup, restore, rebuild, prune] = &blocks[..] else {
        panic!("the page has other blocks: {blocks:#?}");
    };
    run_block(&site, health);
    site.stop();
    run_block(&site, backup);
    site.stop_all();
    fs::remove_dir_all(site.data()).unwrap();
    run_block(&site, restore);
    run_block(&site, rebuild);
    site.start();
    until("the restored release serves", || {
        site.place("production")["stable"]["number"] == 1
            && !site.instances("production").is_empty()
    });
    run_block(&site, prune);
    // The restored log continues: the next push is the second release.
    let shop = Shop::clone_of(&site.folder.path().join("again"), &site.url("/git/shop"));
    let pushed = shop.ship("1.1");
    assert!(pushed.status.success(), "{}", said(&pushed));
    site.ended_rollout("production", 2);
}

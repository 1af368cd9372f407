//! `docs/getting-started.md` as it is written: its commands are run in its order, and print what it says.

use std::fs;

use crate::{
    examples::root,
    first_use::paste,
    site::{Site, said},
};

/// A fenced block of the page.
struct PageBlock {
    language: String,
    text: String,
}

fn read_blocks(page: &str) -> Vec<PageBlock> {
    let mut parts = page.split("\n```");
    let mut blocks = Vec::new();
    parts.next();
    while let Some(part) = parts.next() {
        let (language, text) = part.split_once('\n').unwrap();
        blocks.push(PageBlock {
            language: language.to_owned(),
            text: text.to_owned(),
        });
        // The prose up to the next block.
        parts.next();
    }
    blocks
}

/// Whether a line of the output has the parts of an expected line in their order; `…` stands for anything.
fn has_line(output: &str, expected: &str) -> bool {
    output.lines().any(|line| {
        let mut rest = line;
        expected
            .split('…')
            .all(|part| match rest.split_once(part.trim()) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
    })
}

#[test]
fn the_page_for_newcomers_works_as_it_is_written() {
    let site = Site::started();
    let port = site.proxy.rsplit(':').next().unwrap();
    let page = fs::read_to_string(root().join("docs/getting-started.md")).unwrap();
    let page = page
        .replace("localhost:7878", &site.listen)
        .replace("127.0.0.1:7878", &site.listen)
        .replace("127.0.0.1:8080", &site.proxy)
        .replace("localhost:8080", &format!("localhost:{port}"));
    let mut output = String::new();
    let mut commands = 0;
    for block in read_blocks(&page) {
        match block.language.as_str() {
            "sh" if block.text.trim() == "shipway server" => {}
            "sh" => {
                let folder = site.folder.path().join("hello");
                let folder = if folder.exists() {
                    folder
                } else {
                    site.folder.path().to_owned()
                };
                let line = format!(
                    "export SHIPWAY_URL={}; set -e\n{}",
                    site.url(""),
                    block.text
                );
                let done = paste(&folder, &line);
                output = said(&done);
                assert!(done.status.success(), "{}\n{output}", block.text);
                commands += 1;
            }
            "text" => {
                for line in block.text.lines() {
                    assert!(has_line(&output, line), "{line:?} is not in\n{output}");
                }
            }
            other => panic!("a block of {other:?}"),
        }
    }
    assert!(commands > 8, "{commands} blocks of commands were read");
}

//! A static site: an `index.html` and nothing that serves it.

use super::super::{
    project::{DetectedProject, quote_for_shell},
    repository::RepositoryFacts,
};

/// Where sites have their first page.
const FOLDERS: [&str; 9] = [
    ".", "public", "site", "_site", "www", "dist", "html", "static", "docs",
];

pub(super) fn detect(facts: &RepositoryFacts) -> Option<DetectedProject> {
    let has_index = |folder: &&str| match *folder {
        "." => facts.has("index.html"),
        folder => facts.has(&format!("{folder}/index.html")),
    };
    let folder = FOLDERS.into_iter().find(has_index)?;
    let directory = match folder {
        "." => String::new(),
        folder => format!(" --directory {}", quote_for_shell(folder)),
    };
    Some(DetectedProject {
        description: match folder {
            "." => "a static site".to_owned(),
            folder => format!("a static site in {folder}/"),
        },
        command: format!("python3 -m http.server $PORT --bind 127.0.0.1{directory}"),
        command_comments: vec![
            "Any server of files will do; this one is part of Python.".to_owned(),
        ],
        // Uploads leave hidden files out, which the tree of the commit has.
        is_source_runnable: folder != ".",
        artifact_paths: match folder {
            "." => vec![".".to_owned(), "!shipway.yaml".to_owned()],
            _ => vec![".".to_owned()],
        },
        health_path: Some("/".to_owned()),
        smoke_path: Some("/".to_owned()),
        ..DetectedProject::default()
    })
}

//! The first minutes of a stranger: `shipway init`, a commit and a push, in folders of many kinds. Everything serves without an edit.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use crate::site::{SHIPWAY, Site, said};

/// A folder before `shipway init`.
pub struct NewProject {
    /// The name of the folder, and so of the service.
    pub name: &'static str,
    /// Paths and texts; scripts can be executed.
    pub files: &'static [(&'static str, &'static str)],
    /// What its first page says.
    pub page: &'static str,
    /// The program that builds or starts it.
    pub needs: &'static str,
    /// What `init` prints.
    pub recognised_as: &'static str,
}

/// A server in Python's library.
const PYTHON_SERVER: &str = r#"import http.server, os
from greeting import TEXT
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/" else 404)
        self.end_headers()
        self.wfile.write(TEXT.encode())
if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A server in Node's library.
const NODE_SERVER: &str = r#"const text = require("./text");
require("http").createServer((request, response) => response.end(text)).listen(process.env.PORT, "127.0.0.1");
"#;

/// A server in Rust's library.
const RUST_SERVER: &str = r#"use std::{env, io::{Read, Write}, net::TcpListener};
fn page() -> &'static str { "from rust" }
fn main() {
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    for connection in TcpListener::bind(("127.0.0.1", port)).unwrap().incoming() {
        let Ok(mut connection) = connection else { continue };
        let _ = connection.read(&mut [0; 4096]);
        let _ = write!(connection, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}", page().len(), page());
    }
}
#[test]
fn the_page_has_a_text() { assert!(!page().is_empty()); }
"#;

/// A server in Go's library.
const GO_SERVER: &str = r#"package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "from go") })
	panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
"#;

/// A package of the repository itself: npm needs no registry for it.
const NODE_DEPENDENCY: (&str, &str) = (
    "packages/text/package.json",
    r#"{"name": "text", "version": "1.0.0", "main": "text.js"}"#,
);
const NODE_LOCK: &str = r#"{
  "name": "locked", "lockfileVersion": 3, "requires": true,
  "packages": {
    "": {"name": "locked", "dependencies": {"text": "file:packages/text"}},
    "node_modules/text": {"resolved": "packages/text", "link": true},
    "packages/text": {"version": "1.0.0"}
  }
}"#;

const PROJECTS: [NewProject; 13] = [
    NewProject {
        name: "python-alone",
        files: &[
            ("app.py", PYTHON_SERVER),
            ("greeting.py", "TEXT = 'from python'\n"),
        ],
        page: "from python",
        needs: "python3",
        recognised_as: "a Python program without dependencies",
    },
    NewProject {
        name: "python-with-a-wheel",
        files: &[
            (
                "requirements.txt",
                "--no-index\n--find-links wheels\ngreeting\n",
            ),
            ("main.py", PYTHON_SERVER),
            (
                "test_main.py",
                "import main, unittest\nclass Page(unittest.TestCase):\n    def test_text(self): self.assertTrue(main.TEXT)\n",
            ),
        ],
        page: "from a wheel",
        needs: "python3",
        recognised_as: "a Python program with dependencies",
    },
    NewProject {
        name: "python-dockerfile",
        files: &[
            (
                "Dockerfile",
                "FROM python:3\nCOPY . .\nEXPOSE 8000\nCMD [\"python\", \"-m\", \"till\"]\n",
            ),
            ("till/__init__.py", ""),
            ("till/server.py", PYTHON_SERVER),
            (
                "till/__main__.py",
                "import runpy\nrunpy.run_module('till.server', run_name='__main__')\n",
            ),
            ("greeting.py", "TEXT = 'from a package'\n"),
            (
                "tests/test_greeting.py",
                "import greeting, unittest\nclass Page(unittest.TestCase):\n    def test_text(self): self.assertTrue(greeting.TEXT)\n",
            ),
        ],
        page: "from a package",
        needs: "python3",
        recognised_as: "a Python program without dependencies",
    },
    NewProject {
        name: "python-procfile",
        files: &[
            ("Procfile", "web: python till.py --fast\n"),
            ("till.py", PYTHON_SERVER),
            (
                "greeting.py",
                "import sys\nTEXT = 'started ' + sys.argv[1]\n",
            ),
        ],
        page: "started --fast",
        needs: "python3",
        recognised_as: "a Python program without dependencies",
    },
    NewProject {
        name: "node-alone",
        files: &[
            (
                "package.json",
                r#"{"name": "a", "scripts": {"start": "node server.js", "test": "node check.js"}}"#,
            ),
            ("server.js", NODE_SERVER),
            ("text.js", "module.exports = 'from node';"),
            ("check.js", "require('assert')(require('./text'));"),
        ],
        page: "from node",
        needs: "node",
        recognised_as: "a Node program without dependencies",
    },
    NewProject {
        name: "node-locked",
        files: &[
            (
                "package.json",
                r#"{"name": "locked", "main": "index.js", "dependencies": {"text": "file:packages/text"}}"#,
            ),
            ("package-lock.json", NODE_LOCK),
            ("index.js", NODE_SERVER),
            ("text.js", "module.exports = require('text');"),
            NODE_DEPENDENCY,
            (
                "packages/text/text.js",
                "module.exports = 'from a lock file';",
            ),
        ],
        page: "from a lock file",
        needs: "npm",
        recognised_as: "a Node program with package-lock.json",
    },
    NewProject {
        name: "node-unlocked",
        files: &[
            (
                "package.json",
                r#"{"name": "unlocked", "scripts": {"start": "node ./web.js", "build": "node build.js"}, "dependencies": {"text": "file:packages/text"}}"#,
            ),
            ("web.js", NODE_SERVER),
            (
                "build.js",
                "require('fs').writeFileSync('text.js', `module.exports = '${require('text')}';`);",
            ),
            NODE_DEPENDENCY,
            (
                "packages/text/text.js",
                "module.exports = 'built without a lock file';",
            ),
        ],
        page: "built without a lock file",
        needs: "npm",
        recognised_as: "a Node program without a lock file",
    },
    NewProject {
        name: "site",
        files: &[("index.html", "a page\n"), ("style.css", "")],
        page: "a page",
        needs: "python3",
        recognised_as: "a static site.",
    },
    NewProject {
        name: "site-that-is-tested",
        files: &[
            ("public/index.html", "a tested page\n"),
            (
                ".github/workflows/test.yml",
                "on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps: [{ uses: actions/checkout@v4 }, { run: grep page public/index.html }]\n",
            ),
        ],
        page: "a tested page",
        needs: "python3",
        recognised_as: "a static site in public/",
    },
    NewProject {
        name: "node-that-is-built",
        files: &[
            ("package.json", r#"{"name": "built", "main": "server.js"}"#),
            ("server.js", NODE_SERVER),
            ("text.js", "module.exports = 'from an existing workflow';"),
            (
                ".github/workflows/cd.yml",
                "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - uses: actions/upload-artifact@v4\n        with: { name: till, path: . }\n",
            ),
            (
                ".github/workflows/publish.yml",
                "on: push\njobs:\n  publish:\n    runs-on: windows-latest\n    steps: [{ run: exit 1 }]\n",
            ),
        ],
        page: "from an existing workflow",
        needs: "node",
        recognised_as: "a Node program without dependencies",
    },
    NewProject {
        name: "shell",
        files: &[
            (
                "serve.sh",
                "#!/bin/sh\nexec python3 -m http.server \"$PORT\" --bind 127.0.0.1 --directory pages\n",
            ),
            ("pages/hello.txt", ""),
            ("Makefile", "build:\n\techo 'from make' > pages/index.htm\n"),
        ],
        page: "from make",
        needs: "make",
        recognised_as: "the script serve.sh",
    },
    NewProject {
        name: "rust",
        files: &[
            (
                "Cargo.toml",
                "[package]\nname = \"till\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
            ),
            ("src/main.rs", RUST_SERVER),
        ],
        page: "from rust",
        needs: "cargo",
        recognised_as: "a Rust program",
    },
    NewProject {
        name: "go",
        files: &[
            ("go.mod", "module example.com/till\n\ngo 1.18\n"),
            ("main.go", GO_SERVER),
        ],
        page: "from go",
        needs: "go",
        recognised_as: "a Go program",
    },
];

/// A wheel with the module `greeting`, as pip reads it from a folder.
const MAKE_WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/greeting-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greeting.py", "TEXT = 'from a wheel'\n")
    about = "greeting-1.0.dist-info/"
    wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(about + "RECORD", "")
"#;

fn write_project(folder: &Path, project: &NewProject) {
    for (path, text) in project.files {
        let file = folder.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        if text.starts_with("#!") {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    if project
        .files
        .iter()
        .any(|(_, text)| text.contains("--find-links wheels"))
    {
        let wheels = folder.join("wheels");
        fs::create_dir(&wheels).unwrap();
        let made = Command::new("python3")
            .args(["-c", MAKE_WHEEL])
            .arg(&wheels)
            .output();
        assert!(
            made.as_ref().unwrap().status.success(),
            "{}",
            said(&made.unwrap())
        );
    }
}

/// Runs a line in `sh`, in a folder, with the binary in PATH and a git author.
pub fn paste(folder: &Path, line: &str) -> Output {
    let programs = Path::new(SHIPWAY).parent().unwrap().display();
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .current_dir(folder)
        .env("PATH", format!("{programs}:{path}"))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("SHIPWAY_URL")
        .env_remove("SHIPWAY_TOKEN")
        .stdin(Stdio::null());
    for who in ["AUTHOR", "COMMITTER"] {
        shell
            .env(format!("GIT_{who}_NAME"), "Ann")
            .env(format!("GIT_{who}_EMAIL"), "ann@example.com");
    }
    shell.output().unwrap()
}

/// The commands below "Next:", without their comments.
pub fn next_commands(printed: &str) -> Vec<String> {
    let next = printed.split("\nNext:\n").nth(1).unwrap_or_default();
    let commands = next
        .lines()
        .map(|line| line.split("   #").next().unwrap().trim());
    commands.map(str::to_owned).collect()
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// `init`, then the commands that it prints, but for those that need no repetition here.
fn ship_as_printed(folder: &Path, project: &NewProject, server: &str) -> Result<(), String> {
    write_project(folder, project);
    let begun = paste(folder, &format!("shipway init --server {server}"));
    let printed = said(&begun);
    if !begun.status.success() || !printed.contains(project.recognised_as) {
        return Err(format!("init: {printed}"));
    }
    let commands = next_commands(&printed);
    if !commands
        .iter()
        .any(|command| command.starts_with("git push http"))
    {
        return Err(format!("init prints no push: {printed}"));
    }
    for command in commands {
        if ["shipway server", "shipway run"].contains(&command.as_str()) {
            continue;
        }
        let done = paste(folder, &command);
        let text = said(&done);
        if !done.status.success() {
            return Err(format!("{command}: {text}"));
        }
        let serves = text.contains("✓ #1 serves production");
        if command.starts_with("git push") && !serves {
            return Err(format!("{command}: {text}"));
        }
        if command == "shipway check" && !text.contains("0 errors") {
            return Err(format!("{command}: {text}"));
        }
    }
    Ok(())
}

#[test]
fn init_and_a_push_serve_in_folders_of_all_kinds_without_an_edit() {
    let site = Site::started();
    let server = site.url("");
    let folders: Vec<(PathBuf, &NewProject)> = PROJECTS
        .iter()
        .map(|project| (site.folder.path().join(project.name), project))
        .collect();
    let mut failures = Vec::new();
    let (shippable, missing): (Vec<_>, Vec<_>) = folders
        .iter()
        .partition(|(_, project)| has_program(project.needs));
    for (_, project) in missing {
        println!(
            "{}: skipped, because {} is not installed",
            project.name, project.needs
        );
    }
    thread::scope(|scope| {
        let shipped: Vec<_> = shippable
            .iter()
            .map(|(folder, project)| {
                let server = &server;
                fs::create_dir(folder).unwrap();
                (
                    project,
                    scope.spawn(move || ship_as_printed(folder, project, server)),
                )
            })
            .collect();
        for (project, shipped) in shipped {
            if let Err(why) = shipped.join().unwrap() {
                failures.push(format!("── {}\n{why}", project.name));
            }
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    for (_, project) in shippable {
        let (status, page) = site.ask(&format!("/{}/", project.name)).unwrap();
        assert_eq!(
            (status, page.trim()),
            (200, project.page),
            "{}",
            project.name
        );
    }
}

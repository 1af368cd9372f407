//! `shipway init` for each kind of project, as a function from files to files.

use std::collections::BTreeMap;

use shipway_core::config::{ArtifactSource, ServiceConfig};
use shipway_syntax::SourceFile;
use shipway_workflow::lint;

use super::*;

/// A repository of these files, in a folder called `shop`, on the branch `main`.
fn facts(files: &[(&str, &str)]) -> RepositoryFacts {
    let texts = files.iter();
    let texts: BTreeMap<String, String> = texts
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    RepositoryFacts {
        folder: "shop".to_owned(),
        branch: Some("main".to_owned()),
        is_git: true,
        files: texts.keys().cloned().collect(),
        texts,
        ..RepositoryFacts::default()
    }
}

/// The files that are written, and the configuration as the server reads it. Neither file has a mistake or a warning.
struct WrittenFiles {
    plan: InitPlan,
    config: ServiceConfig,
    workflow: String,
}

fn init(files: &[(&str, &str)]) -> WrittenFiles {
    init_facts(&facts(files))
}

fn init_facts(facts: &RepositoryFacts) -> WrittenFiles {
    let plan = InitPlan::new(facts);
    let mut config = None;
    let mut workflow = String::new();
    for (path, text) in plan.files() {
        let source = SourceFile::new(path.as_str(), text.clone());
        if path.ends_with(CONFIG) {
            let (parsed, warnings) = shipway_core::config::parse(&source)
                .unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
            assert!(warnings.is_empty(), "{warnings:?}\n{text}");
            config = Some(parsed);
        } else {
            assert!(!facts.has(&path), "{path} is overwritten");
            let problems = lint::check_workflow(&source);
            assert!(problems.is_empty(), "{problems:?}\n{text}");
            workflow = text;
        }
    }
    WrittenFiles {
        plan,
        config: config.unwrap(),
        workflow,
    }
}

/// Whether the workflow has this line.
fn assert_runs(written: &WrittenFiles, line: &str) {
    let mut lines = written.workflow.lines().map(str::trim);
    assert!(
        lines.any(|it| it == line),
        "{line:?} in\n{}",
        written.workflow
    );
}

#[test]
fn python_takes_its_dependencies_along_and_finds_them() {
    let written = init(&[
        ("requirements.txt", "flask\ngunicorn\n"),
        (
            "web.py",
            "from flask import Flask\nsite = Flask(__name__)\n@site.get('/')\ndef home(): return 'x'\n",
        ),
        ("test_web.py", "import unittest\n"),
    ]);
    assert_runs(
        &written,
        "python3 -m pip install --target vendor -r requirements.txt",
    );
    assert_runs(&written, "env: { PYTHONPATH: vendor }");
    assert_runs(&written, "python3 -m unittest");
    assert_eq!(written.config.run.env["PYTHONPATH"], "vendor");
    assert_eq!(
        written.config.run.command,
        "python3 -m gunicorn web:site --bind 127.0.0.1:$PORT"
    );
    assert!(!written.config.environments[0].smoke.is_empty());
}

#[test]
fn python_without_dependencies_installs_nothing() {
    let written = init(&[(
        "app.py",
        "import os\nif __name__ == '__main__': print(os.environ['PORT'])\n",
    )]);
    assert_eq!(written.config.run.command, "python3 app.py");
    assert!(written.config.run.env.is_empty());
    assert!(!written.workflow.contains("pip"), "{}", written.workflow);
    assert!(written.workflow.contains("No tests were found"));
    assert_eq!(written.plan.project.command_comments, Vec::<String>::new());
}

#[test]
fn python_commands_follow_the_framework() {
    const PROJECT: &str =
        "[project]\nname = 'x'\nversion = '1'\ndependencies = ['fastapi', 'uvicorn']\n";
    for (files, command) in [
        (
            &[
                ("pyproject.toml", PROJECT),
                ("shop/main.py", "api: FastAPI = FastAPI(title='x')\n"),
            ][..],
            "python3 -m uvicorn shop.main:api --host 127.0.0.1 --port $PORT",
        ),
        (
            &[
                ("requirements.txt", "Django\ngunicorn"),
                ("manage.py", "x"),
                ("shop/wsgi.py", "x"),
            ],
            "python3 -m gunicorn shop.wsgi --bind 127.0.0.1:$PORT",
        ),
        (
            &[("manage.py", "x"), ("shop/wsgi.py", "x")],
            "python3 manage.py runserver --noreload 127.0.0.1:$PORT",
        ),
        (&[("src/shop/__main__.py", "PORT")], "python3 -m shop"),
        (
            &[
                ("Procfile", "release: x\nweb: gunicorn shop:app\n"),
                ("shop.py", "x"),
            ],
            "python3 -m gunicorn shop:app",
        ),
        (
            &[
                (
                    "Dockerfile",
                    "FROM x\nCMD [\"uvicorn\", \"a:b\", \"--port\", \"80\"]",
                ),
                ("a.py", "x"),
                ("c.py", "x"),
            ],
            "python3 -m uvicorn a:b --port $PORT",
        ),
    ] {
        assert_eq!(init(files).config.run.command, command, "{files:?}");
    }
}

#[test]
fn a_source_folder_of_python_is_on_its_path() {
    let written = init(&[
        ("src/shop/__main__.py", "PORT"),
        ("requirements.txt", "attrs"),
    ]);
    assert_eq!(written.config.run.env["PYTHONPATH"], "vendor:src");
}

#[test]
fn python_tests_run_by_what_they_are_written_for() {
    for (files, line) in [
        (
            &[("tests/test_a.py", "import unittest\n")][..],
            "python3 -m unittest discover -s tests",
        ),
        (
            &[("test_a.py", "import os\ndef test_a(): pass\n")],
            "python3 -m pytest --ignore=vendor",
        ),
        (
            &[
                ("requirements-dev.txt", "pytest"),
                ("test_a.py", "import unittest\n"),
            ],
            "python3 -m pip install -r requirements-dev.txt",
        ),
    ] {
        let mut files = files.to_vec();
        files.push(("app.py", "PORT"));
        let written = init(&files);
        assert_runs(&written, line);
        // What tests install goes into an environment of the job.
        let installs = written.workflow.contains("pip install");
        assert_eq!(
            installs,
            written.workflow.contains("setup-python"),
            "{files:?}"
        );
    }
}

#[test]
fn node_installs_by_its_lock_file() {
    const PACKAGE: &str = r#"{"dependencies": {"ms": "2"}, "scripts": {"start": "node web.js", "build": "tsc", "test": "node --test"}}"#;
    for (lock, line, says) in [
        (
            Some("package-lock.json"),
            "npm ci",
            "with package-lock.json",
        ),
        (
            Some("pnpm-lock.yaml"),
            "npx --yes pnpm install --frozen-lockfile",
            "with pnpm-lock.yaml",
        ),
        (
            Some("yarn.lock"),
            "npx --yes yarn@1 install --frozen-lockfile",
            "with yarn.lock",
        ),
        (None, "npm install", "without a lock file"),
    ] {
        let mut files = vec![("package.json", PACKAGE), ("web.js", "process.env.PORT")];
        files.extend(lock.map(|lock| (lock, "{}")));
        let written = init(&files);
        for line in [line, "npm run build", "npm test"] {
            assert_runs(&written, line);
        }
        assert_eq!(written.config.run.command, "node web.js");
        assert!(written.plan.project.description.contains(says));
        assert_eq!(
            written.workflow.contains("There is no lock file"),
            lock.is_none()
        );
    }
}

#[test]
fn node_is_started_as_its_package_says() {
    for (package, command) in [
        (r#"{"main": "./web.js"}"#, "node web.js"),
        (
            r#"{"scripts": {"start": "vite preview"}}"#,
            "PATH=./node_modules/.bin:$PATH; vite preview",
        ),
        (
            r#"{"scripts": {"start": "node web.js", "prestart": "x"}}"#,
            "npm start",
        ),
    ] {
        let files = [("package.json", package), ("web.js", "PORT")];
        let written = init(&files);
        assert_eq!(written.config.run.command, command);
        assert!(!written.workflow.contains("npm ci"), "{}", written.workflow);
    }
    let placeholder =
        r#"{"main": "web.js", "scripts": {"test": "echo \"Error: no test specified\" && exit 1"}}"#;
    let written = init(&[("package.json", placeholder), ("web.js", "3000")]);
    assert!(!written.workflow.contains("npm test"));
    assert!(written.plan.project.command_comments[0].contains("does not mention PORT"));
}

#[test]
fn compiled_programs_are_built_and_uploaded_alone() {
    let rust = init(&[
        (
            "Cargo.toml",
            "[package]\nname = \"till\"\nversion = \"1.0.0\"\n",
        ),
        ("Cargo.lock", ""),
        ("src/main.rs", "PORT"),
    ]);
    assert_runs(&rust, "cargo test --release --locked");
    assert_runs(&rust, "path: target/release/till");
    assert_eq!(rust.config.run.command, "./till");
    let member = init(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n"),
        (
            "crates/till/Cargo.toml",
            "[package]\nname = \"till\"\nversion = \"1.0.0\"\n",
        ),
        ("crates/till/src/main.rs", "PORT"),
    ]);
    assert_runs(&member, "cargo build --release --bin till");
    let go = init(&[
        ("go.mod", "module example.com/x/till\n\ngo 1.22\n"),
        (
            "main.go",
            "package main\n\nfunc main() { listen(os.Getenv(\"PORT\")) }\n",
        ),
    ]);
    assert_runs(&go, "go build -o out/till .");
    assert_eq!(go.config.run.command, "./till");
    let nested = init(&[
        ("go.mod", "module x\n"),
        ("cmd/shopd/main.go", "package main\nfunc main() {}\n"),
    ]);
    assert_runs(&nested, "go build -o out/shopd ./cmd/shopd");
    assert!(nested.plan.project.command_comments[0].contains("PORT"));
}

#[test]
fn a_site_and_a_script_are_served_as_they_are() {
    let site = init(&[("public/index.html", ""), ("README.md", "")]);
    assert_eq!(
        site.config.run.command,
        "python3 -m http.server $PORT --bind 127.0.0.1 --directory public"
    );
    assert!(!site.config.environments[1].smoke.is_empty());
    let script = init(&[
        ("serve.sh", "#!/bin/bash\nexec nc -l $PORT\n"),
        ("test.sh", ""),
    ]);
    assert_eq!(script.config.run.command, "bash serve.sh");
    assert_runs(&script, "sh test.sh");
}

#[test]
fn an_existing_workflow_stays_and_is_fitted_to() {
    const TESTS: &str =
        "on: push\njobs: { test: { runs-on: ubuntu-latest, steps: [{ run: 'true' }] } }\n";
    const UPLOADS: &str = "on: push\njobs: { b: { runs-on: ubuntu-latest, steps: [{ uses: actions/upload-artifact@v4, with: { name: till, path: . } }] } }\n";
    const DEPLOYS: &str = "on: push\njobs: { d: { runs-on: ubuntu-latest, steps: [{ run: 'x ${{ secrets.CLOUD_KEY }}' }] } }\n";
    let app = ("app.py", "PORT");
    let uploads = init(&[app, (".github/workflows/ci.yml", UPLOADS)]);
    assert_eq!(uploads.workflow, "");
    assert_eq!(
        uploads.config.artifact,
        ArtifactSource::Run {
            name: Some("till".to_owned())
        }
    );
    let tests = init(&[app, (".github/workflows/ci.yml", TESTS)]);
    assert_eq!(tests.workflow, "");
    assert_eq!(tests.config.artifact, ArtifactSource::Source);
    let built = init(&[
        app,
        ("requirements.txt", "attrs"),
        ("test_app.py", ""),
        (".github/workflows/cd.yml", TESTS),
    ]);
    assert_eq!(
        built.plan.workflow_path(),
        Some(".github/workflows/shipway.yml")
    );
    assert!(
        !built.workflow.contains("unittest"),
        "cd.yml tests: {}",
        built.workflow
    );
    let deploys = init(&[
        app,
        (".github/workflows/ci.yml", TESTS),
        (".github/workflows/deploy.yml", DEPLOYS),
    ]);
    assert_eq!(deploys.config.workflows, [".github/workflows/ci.yml"]);
    assert_eq!(
        deploys.plan.existing.excluded[0].1,
        "it needs the secret CLOUD_KEY"
    );
}

#[test]
fn the_branch_and_the_name_are_those_of_the_repository() {
    let mut facts = facts(&[("app.py", "PORT")]);
    facts.branch = Some("trunk".to_owned());
    facts.folder = "My.Shop_".to_owned();
    let written = init_facts(&facts);
    assert_eq!(written.config.branch, "trunk");
    assert_eq!(written.config.service.as_str(), "my-shop");
    assert_runs(&written, "branches: [trunk]");
    let steps = written.plan.next_steps("http://127.0.0.1:9000/");
    let (push, _) = steps.last().unwrap();
    assert_eq!(push, "git push http://127.0.0.1:9000/git/my-shop trunk");
}

/// The folder `services/cart` of a repository called `Mono`; workflows are those of its root.
fn nested_facts(files: &[(&str, &str)]) -> RepositoryFacts {
    RepositoryFacts {
        folder: "cart".to_owned(),
        nested: Some(NestedFolder {
            repository: "Mono".to_owned(),
            path: "services/cart".to_owned(),
        }),
        ..facts(files)
    }
}

#[test]
fn one_of_several_services_gets_a_workflow_that_starts_in_its_folder() {
    let written = init_facts(&nested_facts(&[
        ("requirements.txt", "attrs"),
        ("app.py", "PORT"),
    ]));
    let paths: Vec<String> = written.plan.files().into_iter().map(|it| it.0).collect();
    assert_eq!(
        paths,
        ["services/cart/shipway.yaml", ".github/workflows/cart.yml"]
    );
    assert_runs(
        &written,
        "paths: [\"services/cart/**\", .github/workflows/cart.yml]",
    );
    assert_runs(&written, "working-directory: services/cart");
    assert_runs(&written, "path: services/cart");
    assert_eq!(written.config.workflows, [".github/workflows/cart.yml"]);
    let steps = written.plan.next_steps("http://127.0.0.1:9000");
    let commands: Vec<&str> = steps.iter().map(|(command, _)| command.as_str()).collect();
    assert_eq!(commands[0], "shipway check ../..");
    assert_eq!(
        commands.last(),
        Some(&"git push http://127.0.0.1:9000/git/mono main")
    );

    let site = init_facts(&nested_facts(&[("index.html", "")]));
    assert_runs(&site, "services/cart");
    assert_runs(&site, "!services/cart/shipway.yaml");
    let program = init_facts(&nested_facts(&[
        ("go.mod", "module x"),
        ("main.go", "package main\nfunc main() {}"),
    ]));
    assert_runs(&program, "path: services/cart/out");
}

#[test]
fn one_of_several_services_uses_only_the_workflows_that_its_changes_start() {
    const UPLOADS: &str = "on: { push: { paths: [PATHS] } }\njobs: { b: { runs-on: ubuntu-latest, steps: [{ uses: actions/upload-artifact@v4, with: { name: till, path: . } }] } }\n";
    let of_till = UPLOADS.replace("PATHS", "services/till/**");
    let app = ("app.py", "PORT");
    let till = (".github/workflows/till.yml", &*of_till);
    // A file of another workflow has the name that is usual.
    let taken = (".github/workflows/cart.yml", &*of_till);
    let other = init_facts(&nested_facts(&[app, till, taken]));
    assert_eq!(
        other.plan.workflow_path(),
        Some(".github/workflows/cart-cd.yml")
    );
    assert_eq!(other.plan.existing, ExistingWorkflows::default());
    let shared = UPLOADS.replace("PATHS", "services/*/app.py");
    let own = init_facts(&nested_facts(&[
        app,
        (".github/workflows/all.yml", &shared),
    ]));
    assert_eq!(own.workflow, "");
    assert_eq!(own.config.workflows, [".github/workflows/all.yml"]);
}

#[test]
fn a_folder_of_services_is_found_with_the_workflows_of_its_repository() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap().join("mono");
    for path in [
        ".git/HEAD",
        ".github/workflows/ci.yml",
        "services/cart/app.py",
        "services/cart/.github/workflows/unread.yml",
        "services/cart/src/main.py",
        "apps/till/app.py",
    ] {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), "").unwrap();
    }
    let cart = RepositoryFacts::read(&root.join("services/cart")).unwrap();
    let listed: Vec<&String> = cart.files.iter().collect();
    assert_eq!(
        listed,
        [".github/workflows/ci.yml", "app.py", "src/main.py"]
    );
    let nested = cart.nested.unwrap();
    assert_eq!(
        (&*nested.repository, &*nested.path),
        ("mono", "services/cart")
    );
    for other in ["", "apps/till", "services", "services/cart/src"] {
        let facts = RepositoryFacts::read(&root.join(other)).unwrap();
        assert_eq!(facts.nested, None, "{other}");
    }
    assert!(is_below_repository_root(&root.join("apps/till")));
    assert!(!is_below_repository_root(&root));
}

#[test]
fn an_unknown_project_says_where_its_command_goes() {
    let written = init(&[("README.md", "")]);
    assert!(!written.plan.is_recognised);
    assert!(written.plan.project.command_comments[0].starts_with("A guess"));
}

#[test]
fn files_that_git_ignores_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (path, text) in [
        (".gitignore", "dist\n"),
        ("dist/index.html", ""),
        ("serve.sh", ""),
        ("node_modules/a/index.html", ""),
    ] {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), text).unwrap();
    }
    let listed = |root: &Path| RepositoryFacts::read(root).unwrap().files;
    assert!(listed(root).contains("dist/index.html"));
    let status = std::process::Command::new("git")
        .args(["init", "--quiet", "--initial-branch=trunk"])
        .current_dir(root)
        .status();
    assert!(status.unwrap().success());
    let facts = RepositoryFacts::read(root).unwrap();
    assert_eq!(
        facts.files.iter().collect::<Vec<_>>(),
        [".gitignore", "serve.sh"]
    );
    assert_eq!(facts.branch.as_deref(), Some("trunk"));
}

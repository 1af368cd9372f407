//! Python: an application of a framework, a package or a script, with or without dependencies.

use super::super::{
    project::{BuildStep, DetectedProject, find_routes, port_comment, quote_for_shell},
    repository::RepositoryFacts,
    start_command::{dockerfile_command, procfile_command},
};

/// The folder of the artifact that dependencies are installed to.
const VENDOR: &str = "vendor";

/// Modules that are looked at first, without their folder.
const MAIN_FILES: [&str; 8] = [
    "app.py",
    "main.py",
    "server.py",
    "wsgi.py",
    "asgi.py",
    "run.py",
    "web.py",
    "__main__.py",
];

pub(super) fn detect(facts: &RepositoryFacts) -> Option<DetectedProject> {
    let dependencies = PythonDependencies::find(facts);
    let (command, mut comments) = start_command(facts, &dependencies)?;
    let test = test_step(facts, &dependencies);
    let mut steps = Vec::new();
    let mut paths = Vec::new();
    let has_dependencies = dependencies.source != DependencySource::None;
    if has_dependencies || test.as_ref().is_some_and(installs_packages) {
        let comment =
            "A virtual environment of the machine's python3, which starts the instances, too.";
        steps.push(BuildStep::Action {
            uses: "actions/setup-python@v5",
            comments: vec![comment.to_owned()],
        });
    }
    if has_dependencies {
        steps.push(dependencies.install_step());
        paths.push(VENDOR);
    } else if let Some(framework) = dependencies.unlisted_framework(facts) {
        comments.push(format!(
            "A guess: no requirements.txt names {framework}, so the python3 of the server's machine must have it."
        ));
    }
    let in_src = |(path, _): (&str, &str)| path.starts_with("src/");
    if dependencies.source != DependencySource::Installable
        && application_sources(facts).any(in_src)
    {
        paths.push("src");
    }
    steps.extend(test);
    let (health_path, smoke_path) = find_routes(application_sources(facts).map(|(_, text)| text));
    let python_path = (!paths.is_empty()).then(|| ("PYTHONPATH", paths.join(":")));
    Some(DetectedProject {
        description: if has_dependencies {
            "a Python program with dependencies".to_owned()
        } else {
            "a Python program without dependencies".to_owned()
        },
        command,
        command_comments: comments,
        env: python_path.into_iter().collect(),
        steps,
        artifact_paths: vec![".".to_owned()],
        is_source_runnable: !has_dependencies,
        health_path,
        smoke_path,
    })
}

/// Where dependencies are named.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DependencySource {
    None,
    Requirements(&'static str),
    UvLock,
    /// A `pyproject.toml` with a build system: the project itself is installed, too.
    Installable,
    /// A `pyproject.toml` that only lists them.
    ProjectList,
}

/// What a project depends on.
struct PythonDependencies {
    source: DependencySource,
    /// All files that name dependencies, for development too, in lower case.
    text: String,
    development_file: Option<&'static str>,
}

impl PythonDependencies {
    fn find(facts: &RepositoryFacts) -> Self {
        const REQUIREMENTS: [&str; 5] = [
            "requirements.txt",
            "requirements/production.txt",
            "requirements/prod.txt",
            "requirements/base.txt",
            "requirements.lock",
        ];
        const DEVELOPMENT: [&str; 5] = [
            "requirements-dev.txt",
            "requirements_dev.txt",
            "dev-requirements.txt",
            "requirements-test.txt",
            "requirements/dev.txt",
        ];
        let project = facts.toml("pyproject.toml");
        let field = |path: [&str; 2]| project.as_ref()?.get(path[0])?.get(path[1]);
        let listed = field(["project", "dependencies"]).and_then(toml::Value::as_array);
        let has_list = listed.is_some_and(|list| !list.is_empty());
        let has_build = field(["build-system", "requires"]).is_some();
        let source = match facts.first(&REQUIREMENTS) {
            Some(file) => DependencySource::Requirements(file),
            None if facts.has("uv.lock") => DependencySource::UvLock,
            None if has_build => DependencySource::Installable,
            None if has_list => DependencySource::ProjectList,
            None => DependencySource::None,
        };
        let development_file = facts.first(&DEVELOPMENT);
        let files = REQUIREMENTS
            .iter()
            .chain(&DEVELOPMENT)
            .chain(&["pyproject.toml"]);
        let text: Vec<&str> = files.filter_map(|file| facts.text(file)).collect();
        Self {
            source,
            text: text.join("\n").to_lowercase(),
            development_file,
        }
    }

    fn has(&self, name: &str) -> bool {
        let is_separator = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
        self.text.split(is_separator).any(|part| part == name)
    }

    /// A framework that is imported, but not listed.
    fn unlisted_framework(&self, facts: &RepositoryFacts) -> Option<&'static str> {
        const FRAMEWORKS: [&str; 8] = [
            "aiohttp",
            "bottle",
            "django",
            "fastapi",
            "falcon",
            "flask",
            "starlette",
            "tornado",
        ];
        let is_imported = |name: &&str| {
            application_sources(facts).any(|(_, text)| {
                let mut lines = text.lines().map(str::trim_start);
                lines.any(|line| {
                    let rest = line.strip_prefix("import ").or(line.strip_prefix("from "));
                    rest.is_some_and(|rest| rest.split([' ', '.', ',']).any(|part| part == *name))
                })
            })
        };
        FRAMEWORKS.into_iter().find(is_imported)
    }

    fn install_step(&self) -> BuildStep {
        let install = format!("python3 -m pip install --target {VENDOR}");
        let lines = match self.source {
            DependencySource::None => Vec::new(),
            DependencySource::Requirements(file) => vec![format!("{install} -r {file}")],
            DependencySource::UvLock => vec![
                "python3 -m pip install uv".to_owned(),
                "uv export --frozen --no-dev --no-emit-project -o requirements-locked.txt".to_owned(),
                format!("{install} -r requirements-locked.txt"),
            ],
            DependencySource::Installable => vec![format!("{install} .")],
            DependencySource::ProjectList => vec![
                r#"python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > requirements-listed.txt"#.to_owned(),
                format!("{install} -r requirements-listed.txt"),
            ],
        };
        BuildStep::build("Install dependencies", lines).with_comment(format!(
            "The artifact takes them along; PYTHONPATH in shipway.yaml names {VENDOR}."
        ))
    }
}

/// Python files that are no tests.
fn application_sources(facts: &RepositoryFacts) -> impl Iterator<Item = (&str, &str)> + Clone {
    let sources: Vec<(&str, &str)> = facts
        .sources("py")
        .filter(|(path, _)| !is_test(path) && !path.ends_with("setup.py"))
        .collect();
    sources.into_iter()
}

fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("test_")
        || name.ends_with("_test.py")
        || ["conftest.py", "tests.py"].contains(&name)
        || path
            .split('/')
            .any(|part| part == "tests" || part == "test")
}

/// How it is started, with comments.
fn start_command(
    facts: &RepositoryFacts,
    dependencies: &PythonDependencies,
) -> Option<(String, Vec<String>)> {
    application_sources(facts).next()?;
    if let Some(start) = procfile_command(facts) {
        return Some((start.command, vec![start.comment]));
    }
    if facts.has("manage.py") {
        return Some(django_command(facts, dependencies));
    }
    let mut sources: Vec<(&str, &str)> = application_sources(facts).collect();
    sources.sort_by_key(|(path, _)| rank_file(path));
    let framework = sources
        .iter()
        .find_map(|(path, text)| framework_command(path, text, dependencies));
    if let Some(command) = framework {
        return Some(command);
    }
    if let Some(start) = dockerfile_command(facts) {
        return Some((start.command, vec![start.comment]));
    }
    script_command(&sources)
}

/// The order in which files are taken for the one that starts the service.
fn rank_file(path: &str) -> (usize, usize) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let position = MAIN_FILES.iter().position(|main| *main == name);
    (
        position.unwrap_or(MAIN_FILES.len()),
        path.matches('/').count(),
    )
}

/// Starts a package with a `__main__.py`, or a script.
fn script_command(sources: &[(&str, &str)]) -> Option<(String, Vec<String>)> {
    let is_started = |(_, text): &&(&str, &str)| text.contains("__main__");
    let main = |(path, _): &&(&str, &str)| rank_file(path).0 < MAIN_FILES.len();
    let only = || sources.first().filter(|_| sources.len() == 1);
    let found = sources.iter().find(|it| main(it) && is_started(it));
    let found = found.or_else(|| sources.iter().find(main));
    let found = found
        .or_else(|| sources.iter().find(is_started))
        .or_else(only);
    let (path, text) = found?;
    let command = match path.strip_suffix("/__main__.py") {
        Some(package) => format!("python3 -m {}", module_name(package)),
        None => format!("python3 {}", quote_for_shell(path)),
    };
    Some((
        command,
        port_comment(path, Some(text)).into_iter().collect(),
    ))
}

/// `shop/main.py` → `shop.main`, `src/shop` → `shop`.
fn module_name(path: &str) -> String {
    let path = path.strip_suffix(".py").unwrap_or(path);
    path.strip_prefix("src/").unwrap_or(path).replace('/', ".")
}

fn django_command(
    facts: &RepositoryFacts,
    dependencies: &PythonDependencies,
) -> (String, Vec<String>) {
    let comment = "Its ALLOWED_HOSTS must have the host of the environment's address, and 127.0.0.1 for health checks.";
    let wsgi = facts
        .files
        .iter()
        .find_map(|path| path.strip_suffix("/wsgi.py"));
    let command = match wsgi {
        Some(folder) if dependencies.has("gunicorn") => {
            let module = module_name(folder);
            format!("python3 -m gunicorn {module}.wsgi --bind 127.0.0.1:$PORT")
        }
        _ => "python3 manage.py runserver --noreload 127.0.0.1:$PORT".to_owned(),
    };
    (command, vec![comment.to_owned()])
}

/// The command for the application object of a framework, if the file has one.
fn framework_command(
    path: &str,
    text: &str,
    dependencies: &PythonDependencies,
) -> Option<(String, Vec<String>)> {
    const ASGI: [&str; 5] = ["FastAPI(", "Starlette(", "Litestar(", "Quart(", "Sanic("];
    let object = |constructors: &[&str]| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let name = name.split(':').next()?.trim_end();
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
            let value = value.trim_start();
            let is_built = constructors.iter().any(|it| {
                value.strip_suffix(it).is_some()
                    || value.starts_with(it)
                    || value
                        .split('.')
                        .nth(1)
                        .is_some_and(|rest| rest.starts_with(it))
            });
            (is_name && is_built).then(|| name.to_owned())
        })
    };
    let module = module_name(path);
    if let Some(name) = object(&ASGI) {
        let has_server = dependencies.has("uvicorn") || dependencies.text.contains("fastapi[");
        let command = format!("python3 -m uvicorn {module}:{name} --host 127.0.0.1 --port $PORT");
        let comments = if has_server {
            Vec::new()
        } else if text.contains("__main__") {
            return None;
        } else {
            vec!["A guess: add uvicorn to the dependencies.".to_owned()]
        };
        return Some((command, comments));
    }
    let name = object(&["Flask("])?;
    if dependencies.has("gunicorn") {
        let command = format!("python3 -m gunicorn {module}:{name} --bind 127.0.0.1:$PORT");
        return Some((command, Vec::new()));
    }
    if text.contains("__main__") && text.contains("PORT") {
        return None;
    }
    let command =
        format!("python3 -m flask --app {module}:{name} run --host 127.0.0.1 --port $PORT");
    let comment = "This is Flask's development server; add gunicorn to the dependencies and start that in production.";
    Some((command, vec![comment.to_owned()]))
}

/// The step that runs the tests, if there are any.
fn test_step(facts: &RepositoryFacts, dependencies: &PythonDependencies) -> Option<BuildStep> {
    let mut tests: Vec<(&str, &str)> = facts
        .sources("py")
        .filter(|(path, _)| is_test(path))
        .collect();
    tests.retain(|(path, _)| !path.ends_with("__init__.py"));
    if tests.is_empty() {
        return None;
    }
    let has_pytest = dependencies.has("pytest");
    let uses_pytest = has_pytest
        || tests
            .iter()
            .any(|(_, text)| text.contains("import pytest") || text.contains("\ndef test_"));
    let mut lines = Vec::new();
    if let Some(file) = dependencies.development_file {
        lines.push(format!("python3 -m pip install -r {file}"));
    }
    if facts.has("manage.py") && !uses_pytest {
        lines.push("python3 manage.py test".to_owned());
    } else if uses_pytest {
        let is_installed = dependencies.development_file.is_some() && has_pytest;
        if !is_installed {
            lines.push("python3 -m pip install pytest".to_owned());
        }
        lines.push(format!("python3 -m pytest --ignore={VENDOR}"));
    } else {
        let is_in_folder = tests.iter().all(|(path, _)| path.starts_with("tests/"));
        let is_package = facts.has("tests/__init__.py");
        lines.push(if is_in_folder && !is_package {
            "python3 -m unittest discover -s tests".to_owned()
        } else {
            "python3 -m unittest".to_owned()
        });
    }
    Some(BuildStep::test(lines))
}

fn installs_packages(step: &BuildStep) -> bool {
    matches!(step, BuildStep::Script { lines, .. } if lines.len() > 1)
}

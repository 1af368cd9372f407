//! GitHub's toolkit, unmodified from npm, against the endpoints of a real worker: the version in
//! `actions/upload-artifact@v4` and `actions/cache@v4`, and the newest.

mod support;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use shipway_workflow::job::Conclusion::*;
use support::Bench;

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

/// The packages and their names in the tests.
const PACKAGES: [(&str, &str); 4] = [
    ("artifact-then", "npm:@actions/artifact@2.3.2"),
    ("artifact-now", "npm:@actions/artifact@6.2.1"),
    ("cache-then", "npm:@actions/cache@4.1.0"),
    ("cache-now", "npm:@actions/cache@6.3.0"),
];

const ACTION: &str = "
name: Toolkit
inputs: { toolkit: { required: true }, package: { required: true } }
runs: { using: node20, main: main.mjs }
";

/// The toolkit, installed once in the target folder; `None` if it can't be installed.
fn toolkit() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("toolkit");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let wanted = format!("{PACKAGES:?}");
    if fs::read_to_string(folder.join("done")).is_ok_and(|done| done == wanted) {
        return Some(folder);
    }
    let npm = |arguments: &[&str]| {
        let mut npm = Command::new("npm");
        npm.args(arguments).current_dir(&folder);
        npm.output()
            .map_err(|error| error.to_string())
            .and_then(|output| {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                output.status.success().then_some(()).ok_or(why)
            })
    };
    let dependencies: serde_json::Map<_, _> = PACKAGES
        .iter()
        .map(|(name, package)| ((*name).to_owned(), (*package).into()))
        .collect();
    let manifest = serde_json::json!({ "private": true, "dependencies": dependencies });
    fs::write(folder.join("package.json"), manifest.to_string()).unwrap();
    let options = ["install", "--no-audit", "--no-fund", "--ignore-scripts"];
    if let Err(why) = npm(&options) {
        println!("skipped, because npm can't install GitHub's toolkit: {why}");
        return None;
    }
    fs::write(folder.join("done"), wanted).unwrap();
    Some(folder)
}

/// A job whose steps run `script` as an action with these packages.
fn bench(toolkit: &Path, script: &str, steps: &str) -> Bench {
    let steps = steps.replace("TOOLKIT", &toolkit.display().to_string());
    let head = "import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';
const folder = path.join(process.env.INPUT_TOOLKIT, 'node_modules', process.env.INPUT_PACKAGE);
const entry = createRequire(import.meta.url).resolve(path.join(folder, JSON.parse(fs.readFileSync(path.join(folder, 'package.json'))).main));
const toolkit = await import(entry);
";
    Bench::steps(&steps)
        .file("js/action.yml", ACTION)
        .file("js/main.mjs", &format!("{head}{script}"))
}

const ARTIFACTS: &str = r"
const Client = toolkit.DefaultArtifactClient ?? toolkit.default.DefaultArtifactClient;
const client = new Client();
const name = `by-${process.env.INPUT_PACKAGE}`;
fs.mkdirSync('in/sub', { recursive: true });
fs.writeFileSync('in/a.txt', 'one');
// More than two blocks of 8 MiB.
const big = Buffer.alloc(17 << 20, 'shipway');
for (let at = 0; at < big.length; at += 4096) big.writeUInt32LE((at * 2654435761) >>> 0, at);
fs.writeFileSync('in/sub/big', big);
const up = await client.uploadArtifact(name, ['in/a.txt', 'in/sub/big'], 'in', { compressionLevel: 0, retentionDays: 3 });
const { artifact } = await client.getArtifact(name);
console.log(`> ${artifact.name} ${artifact.id === up.id} ${up.size > big.length}`);
const { artifacts } = await client.listArtifacts();
console.log(`> ${artifacts.map(it => it.name).join(' ')}`);
for (const it of artifacts) {
  const to = `out-${name}/${it.name}`;
  await client.downloadArtifact(it.id, { path: to });
  console.log(`> ${fs.readdirSync(to, { recursive: true }).sort().join(' ')}`);
}
console.log(`> ${big.equals(fs.readFileSync(`out-${name}/${name}/sub/big`))}`);
await client.uploadArtifact(name, ['in/a.txt'], 'in').catch(error => console.log(`> ${/already exists/.test(error.message)}`));
await client.uploadArtifact('gone', ['in/a.txt'], 'in');
await client.deleteArtifact('gone');
await client.getArtifact('gone').catch(error => console.log(`> ${error.name}`));
console.log(process.env.ACTIONS_RUNTIME_TOKEN);
";

#[test]
fn artifacts_of_the_toolkit_and_the_built_in_ones_are_the_same() {
    let Some(toolkit) = toolkit() else { return };
    let bench = bench(
        &toolkit,
        ARTIFACTS,
        r#"- run: 'mkdir built && echo two > built/b.txt && ln -s b.txt built/link'
- { uses: actions/upload-artifact@v4, with: { name: built, path: built } }
- { uses: ./js, with: { toolkit: TOOLKIT, package: artifact-then } }
- { uses: ./js, with: { toolkit: TOOLKIT, package: artifact-now } }
- { uses: actions/download-artifact@v4, with: { name: by-artifact-now, path: got } }
- { id: look, run: 'cd got; find . -type f; echo "[$ACTIONS_RUNTIME_TOKEN$ACTIONS_RESULTS_URL]"' }"#,
    );
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert_eq!(
        outcome.told(),
        [
            "by-artifact-then true true",
            "built by-artifact-then",
            "b.txt link",
            "a.txt sub sub/big",
            "true",
            "true",
            "ArtifactNotFoundError",
            "by-artifact-now true true",
            "built by-artifact-now by-artifact-then",
            "b.txt link",
            "a.txt sub sub/big",
            "a.txt sub sub/big",
            "true",
            "true",
            "ArtifactNotFoundError",
        ],
        "{}",
        outcome.log
    );
    assert!(outcome.printed("look").ends_with("[]"), "{}", outcome.log);
    assert!(!outcome.log.contains("eyJ"), "the token is in the log");
    let mut later = Bench::steps(
        "- { uses: actions/download-artifact@v4, with: { pattern: by-*, path: got } }\n- { id: look, run: 'cd got; find . -type f | sort; cat by-artifact-then/a.txt' }",
    );
    let names = later.with_saved_artifacts(&outcome.entries);
    assert_eq!(names, ["built", "by-artifact-then", "by-artifact-now"]);
    let outcome = later.run();
    assert_eq!(
        outcome.printed("look"),
        "./by-artifact-now/a.txt\n./by-artifact-now/sub/big\n./by-artifact-then/a.txt\n./by-artifact-then/sub/big\none",
        "{}",
        outcome.log
    );
}

const CACHES: &str = r"
const cache = toolkit.default?.restoreCache ? toolkit.default : toolkit;
const key = `deps-${process.env.INPUT_PACKAGE}`;
const paths = ['deps', '~/.tool'];
const home = process.env.HOME;
console.log(`> ${await cache.restoreCache(paths, key, ['nothing-'])}`);
fs.mkdirSync('deps', { recursive: true });
fs.mkdirSync(`${home}/.tool`, { recursive: true });
const big = Buffer.alloc(9 << 20);
for (let at = 0; at + 4 <= big.length; at += 4) big.writeUInt32LE((at * 2654435761) >>> 0, at);
fs.writeFileSync('deps/big', big);
fs.writeFileSync(`${home}/.tool/x`, 'x');
console.log(`> ${await cache.saveCache(paths, key) > 0}`);
console.log(`> ${await cache.saveCache(paths, key)}`);
for (const [primary, others] of [[key, []], ['deps-new', ['deps-']]]) {
  fs.rmSync('deps', { recursive: true });
  fs.rmSync(`${home}/.tool`, { recursive: true });
  console.log(`> ${await cache.restoreCache(paths, primary, others) === key}`);
  console.log(`> ${big.equals(fs.readFileSync('deps/big'))} ${fs.readFileSync(`${home}/.tool/x`)}`);
}
console.log(`> ${await cache.restoreCache(paths, key, [], { lookupOnly: true }) === key}`);
";

#[test]
fn caches_of_the_toolkit_are_kept_and_found() {
    let Some(toolkit) = toolkit() else { return };
    for package in ["cache-then", "cache-now"] {
        let step = format!("- {{ uses: ./js, with: {{ toolkit: TOOLKIT, package: {package} }} }}");
        let outcome = bench(&toolkit, CACHES, &step).run();
        assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
        let expected = [
            "undefined",
            "true",
            "-1",
            "true",
            "true x",
            "true",
            "true x",
            "true",
        ];
        assert_eq!(outcome.told(), expected, "{}", outcome.log);
    }
}

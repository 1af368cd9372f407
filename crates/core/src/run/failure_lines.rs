//! Summary of a failed run in three lines: the failed step and its error, the most relevant line of the log, and the next
//! command.
//!
//! Pure: the caller passes the run and the end of the failed job's log, both masked.

use std::sync::LazyLock;

use regex::Regex;

use super::view::{JobView, RunStatus, RunView};

/// Characters of the line from the log.
const LINE_MAX: usize = 240;
/// From this weight on, the first of several matching lines is the most relevant: later ones are consequences.
const FIRST_FROM: u32 = 80;

/// Where the run was executed, for the suggested command.
#[derive(Clone, Copy, Debug)]
pub enum RunSite<'p> {
    Server,
    Here {
        /// The failed job's log, when it stays.
        log: Option<&'p str>,
    },
}

/// The job that a failed run is blamed on: the first that failed. None, when the run hasn't failed, or not of a job.
#[must_use]
pub fn blamed(run: &RunView) -> Option<&JobView> {
    let failed = run
        .jobs
        .iter()
        .filter(|job| job.status == RunStatus::Failure);
    let at = |job: &&JobView| {
        // A call fails when the job inside it has, and has no log.
        let depth = job.key.matches('~').count();
        let at = job.finished_at.unwrap_or(jiff::Timestamp::MAX);
        (at, std::cmp::Reverse(depth))
    };
    failed.min_by_key(at)
}

/// The three lines of a failed run; none of another. `log` is the end of the log of the [`blamed`] job.
#[must_use]
pub fn three_lines(run: &RunView, log: &str, place: RunSite<'_>) -> Option<[String; 3]> {
    if run.status != RunStatus::Failure {
        return None;
    }
    let why = run.why.as_deref();
    let Some(job) = blamed(run) else {
        let first = why
            .and_then(|why| why.lines().next())
            .unwrap_or("it failed");
        let more = why
            .and_then(|why| why.lines().nth(1))
            .unwrap_or(&run.workflow);
        let next = match place {
            RunSite::Server => format!("more: shipway history {}", run.id.service),
            RunSite::Here { .. } => "more: shipway check".to_owned(),
        };
        return Some([format!("✗ {}: {first}", run.name), more.to_owned(), next].map(short));
    };
    let step = job
        .steps
        .iter()
        .find(|step| step.status == RunStatus::Failure);
    let job_why = job.why.as_deref().and_then(|why| why.lines().next());
    let first = match (job_why, step) {
        // A job's own words name the step.
        (Some(why), _) => format!("✗ {}: {why}", job.name),
        (None, Some(step)) => format!("✗ {}: step {:?} failed", job.name, step.name),
        (None, None) => format!("✗ {} failed", job.name),
    };
    let test = failing_test(run, &job.key);
    let line = test.or_else(|| telling_line(log));
    let line = line.unwrap_or_else(|| "its log has no error".to_owned());
    let job_id = job.key.split(['.', '~']).next().unwrap_or(&job.key);
    let next = match place {
        // Failed jobs can be resumed on the server.
        RunSite::Server if step.is_some() => format!(
            "re-run: shipway retry {id} --from-failed-step; open a shell: shipway shell {id} {key}; log: shipway logs {id} --job {key}",
            id = run.id,
            key = job.key
        ),
        RunSite::Server => format!(
            "log: shipway logs {} --job {}; run it here: shipway run --job {job_id}",
            run.id, job.key
        ),
        RunSite::Here { log: Some(log) } => {
            format!("log: {log}; re-run: shipway run --job {job_id}")
        }
        RunSite::Here { log: None } => {
            format!("re-run: shipway run --job {job_id} (add --keep to keep its workspace)")
        }
    };
    Some([first, line, next].map(short))
}

/// The first failing test of a job, with why, and how many more there are.
fn failing_test(run: &RunView, key: &str) -> Option<String> {
    let mut latest = run.tests.as_ref()?.latest();
    let tests = latest.find(|tests| tests.job.as_str() == key)?;
    let summary = &tests.tests.summary;
    let excused = &tests.tests.excuse.quarantined;
    let free = summary.failing.iter().find(|it| !excused.contains(&it.id));
    let first = free.or_else(|| summary.failing.first())?;
    let message = first.message.as_ref().map(|text| format!(": {text}"));
    let more = match summary.totals.bad() {
        0 | 1 => String::new(),
        bad => format!(" (and {} more)", bad - 1),
    };
    let message = message.unwrap_or_default();
    Some(format!("{}{}{more}", first.id, cut(&message, LINE_MAX / 2)))
}

/// How telling lines look, and how much they weigh. What a compiler, a test or a shell says of the cause weighs more than what
/// a tool says of having failed.
static LOOKS: LazyLock<Vec<(Regex, u32)>> = LazyLock::new(|| {
    let looks = [
        // What tools say last, of having failed at all; and what sounds worse than it is.
        (
            r"(?i)\b(0|no) (errors?|failed|failures?)\b|^error: (could not compile|test failed|aborting due|test run failed|process didn't exit)|^##\[error\](exit code|Process completed)",
            1,
        ),
        (
            r"^npm (ERR!|error) (code|errno|path|command|workspace|A complete log|Lifecycle|$)|^make(\[\d+\])?: \*\*\*",
            30,
        ),
        // GitHub's own mark.
        (r"^##\[error\].", 100),
        // Compilers: gcc, clang, rustc, tsc, go vet.
        (
            r"^[^\s:]+:\d+(:\d+)?: (fatal )?error: |: error TS\d+: |^error(\[E\d+\])?: |^error TS\d+|: undefined reference to ",
            90,
        ),
        (r"^(\./|vet: )?[^\s:]+\.go:\d+:\d+: ", 90),
        // Tests: pytest, go, jest, JUnit.
        (r"^(FAILED|ERROR) \S+::", 95),
        (r"^E   +\S", 90),
        (r"^\s+\S+_test\.go:\d+: ", 90),
        (r"^  ● .+ › ", 85),
        (r"^--- FAIL: |^not ok \d+", 70),
        // Shells.
        (
            r": command not found$|: not found$|[Ss]yntax error|: [Pp]ermission denied|^bash: |^sh: ",
            88,
        ),
        (r"No such file or directory", 82),
        // Exceptions, by the line that names them.
        (
            r"^([\w$]+[.:]+)*\w*(Error|Exception|Failure|Panic)(: |$)|^(Uncaught|Caused by:) ",
            86,
        ),
        (r"^Could not find |^Cannot find |^ERROR: |^FAIL ", 80),
        (
            r"(?i)\b(error|failed|failure|fatal|exception|panic(ked)?|cannot|denied|refused|timed out|not found|killed)\b",
            40,
        ),
    ];
    looks
        .into_iter()
        .map(|(look, weight)| (Regex::new(look).expect("a fixed pattern"), weight))
        .collect()
});

/// The most telling line of the end of a log.
#[must_use]
pub fn telling_line(log: &str) -> Option<String> {
    let lines: Vec<String> = log.lines().map(plain).collect();
    let best = lines.get(find_telling_line(&lines)?)?.trim();
    let best = best.strip_prefix("##[error]").unwrap_or(best);
    Some(best.strip_prefix("E   ").unwrap_or(best).trim().to_owned())
}

/// The place of the most telling line among the lines of the end of a log, from 0.
#[must_use]
pub fn telling_line_index(log: &str) -> Option<usize> {
    let lines: Vec<String> = log.lines().map(plain).collect();
    find_telling_line(&lines)
}

fn find_telling_line(lines: &[String]) -> Option<usize> {
    // What a step said, it said before its end; what later steps say isn't why.
    let end = lines
        .iter()
        .position(|line| line.starts_with("##[error]exit code"));
    let end = end.unwrap_or(lines.len());
    let begin = lines[..end].iter().rposition(|line| line == "##[endgroup]");
    let begin = begin.map_or(0, |begin| begin + 1);
    let said = &lines[begin..end];
    let (mut best, mut weight) = (None, 0);
    for (at, line) in said
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let (place, found) = match said.get(at + 1) {
            // Rust says where first, and what after it.
            Some(_) if line.starts_with("thread '") && line.contains("panicked at") => (at + 1, 90),
            _ => (at, weigh(line)),
        };
        if found > weight || found == weight && found < FIRST_FROM {
            (best, weight) = (Some(begin + place), found);
        }
    }
    best
}

/// The line of a log that names its error; `None` if no line looks like one.
#[must_use]
pub fn find_error_line(log: &str) -> Option<String> {
    telling_line(log).filter(|line| weigh(line) > 1)
}

fn weigh(line: &str) -> u32 {
    let mut fitting = LOOKS.iter().filter(|(look, _)| look.is_match(line));
    fitting.next().map_or(1, |(_, weight)| *weight)
}

/// A line without its time and colours.
fn plain(line: &str) -> String {
    let is_time = line.as_bytes().get(23..25) == Some(b"Z ") && line.starts_with("2");
    let text = if is_time { line.get(25..) } else { None };
    let mut plain = String::new();
    let mut rest = text.unwrap_or(line);
    while let Some(at) = rest.find('\x1b') {
        plain.push_str(&rest[..at]);
        let code = &rest[at + 1..];
        let end = code.find(|c: char| c.is_ascii_alphabetic());
        rest = end.map_or("", |end| &code[end + 1..]);
    }
    plain.push_str(rest);
    plain.trim_end().to_owned()
}

fn short(line: String) -> String {
    cut(&line, LINE_MAX).to_owned()
        + if line.chars().count() > LINE_MAX {
            "…"
        } else {
            ""
        }
}

fn cut(text: &str, max: usize) -> &str {
    let end = text
        .char_indices()
        .nth(max)
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_why_is_found_in_what_tools_print() {
        for (log, line) in [
            (
                "collected 7 items\n\ntests/test_shop.py .F\n\n    def test_discount(self):\n>       assert price(9) == 8\nE       AssertionError: nine cost eight\nE       assert 3 == 8\n\ntests/test_shop.py:8: AssertionError\n=== short test summary info ===\nFAILED tests/test_shop.py::TestCart::test_discount - AssertionError: nine cost eight\n1 failed, 6 passed in 0.19s",
                "FAILED tests/test_shop.py::TestCart::test_discount - AssertionError: nine cost eight",
            ),
            (
                "running 2 tests\ntest tests::adds ... ok\ntest tests::breaks ... FAILED\n\nfailures:\n\n---- tests::breaks stdout ----\nthread 'tests::breaks' (383) panicked at src/lib.rs:3:24:\nassertion `left == right` failed: sums are off\n  left: 2\n right: 3\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n\nerror: test failed, to rerun pass `--lib`",
                "assertion `left == right` failed: sums are off",
            ),
            (
                "   Compiling shop v0.1.0\nerror[E0308]: mismatched types\n --> src/lib.rs:3:5\n  |\nerror: could not compile `shop` (lib) due to 1 previous error",
                "error[E0308]: mismatched types",
            ),
            (
                "=== RUN   TestPrices\n    cart_test.go:14: price = 3, want 8\n--- FAIL: TestPrices (0.00s)\nFAIL\nexit status 1\nFAIL\texample.com/shop/cart\t0.003s",
                "cart_test.go:14: price = 3, want 8",
            ),
            (
                "# example.com/shop\n./cart.go:7:2: undefined: prices\nFAIL\texample.com/shop [build failed]",
                "./cart.go:7:2: undefined: prices",
            ),
            (
                "> shop@1.0.0 build\n> tsc\n\nsrc/a.ts(3,5): error TS2304: Cannot find name 'prise'.\nnpm error Lifecycle script `build` failed with error:\nnpm error code 2",
                "src/a.ts(3,5): error TS2304: Cannot find name 'prise'.",
            ),
            (
                "node:internal/modules/cjs/loader:1080\n  throw err;\n  ^\n\nError: Cannot find module 'left-pad'\nRequire stack:\n- /w/a.js\nnpm error code 1",
                "Error: Cannot find module 'left-pad'",
            ),
            (
                "npm error code E404\nnpm error 404 Not Found - GET https://registry/left-padd - Not found",
                "npm error 404 Not Found - GET https://registry/left-padd - Not found",
            ),
            (
                "cc -c shop.c\nshop.c:3:10: fatal error: till.h: No such file or directory\ncompilation terminated.\nmake: *** [Makefile:2: shop.o] Error 1",
                "shop.c:3:10: fatal error: till.h: No such file or directory",
            ),
            (
                "make: *** No rule to make target 'al'.  Stop.",
                "make: *** No rule to make target 'al'.  Stop.",
            ),
            (
                "/w/temp/1.sh: line 1: pytset: command not found",
                "/w/temp/1.sh: line 1: pytset: command not found",
            ),
            (
                "starting\nTraceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    raise KeyError('till')\nKeyError: 'till'",
                "KeyError: 'till'",
            ),
            (
                "0 errors, 0 warnings\nchecked\nthe till is shut",
                "the till is shut",
            ),
            (
                "##[error]src/a.py:3: no till\nlinting failed\n##[error]exit code 3",
                "src/a.py:3: no till",
            ),
            (
                "2026-11-21T10:20:38.123Z ##[group]Run make\n2026-11-21T10:20:38.123Z ##[endgroup]\n2026-11-21T10:20:38.123Z \x1b[31merror: no rule\x1b[0m\n2026-11-21T10:20:38.123Z ##[error]exit code 2\n2026-11-21T10:20:38.123Z ##[group]Run clean\n2026-11-21T10:20:38.123Z ##[endgroup]\n2026-11-21T10:20:38.123Z ##[error]worse, but later",
                "error: no rule",
            ),
        ] {
            assert_eq!(telling_line(log).as_deref(), Some(line), "{log}");
        }
        assert_eq!(telling_line(""), None);
        assert_eq!(telling_line("\n\n"), None);
    }
}

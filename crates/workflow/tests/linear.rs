//! Files made to be slow to read, a quarter as large as a file may be: each is read in a moment.

use std::fmt::Write as _;

use shipway_syntax::SourceFile;
use shipway_workflow::parse;

/// Processor time of one file, without optimisation. What grows with the square of a file takes minutes.
const CPU_SECONDS_MAX: f64 = 8.0;

const BYTES: usize = 1 << 18;

/// Processor time that this thread has had, in seconds: other tests run beside it.
#[allow(
    clippy::disallowed_methods,
    reason = "a test may look at its own processor time"
)]
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

/// As many lines as fit, each with its number.
fn lines(head: &str, mut line: impl FnMut(usize) -> String) -> String {
    let mut text = head.to_owned();
    let mut number = 0;
    while text.len() < BYTES {
        text.push_str(&line(number));
        number += 1;
    }
    text
}

const JOB: &str = "on: push\njobs:\n  a:\n    runs-on: x\n";
const STEP: &str = "    steps:\n      - run: x\n";

fn files() -> Vec<(&'static str, String)> {
    let jobs = |needs: &dyn Fn(usize) -> String| {
        lines("on: push\njobs:\n", |n| {
            format!(
                "  j{n}: {{ runs-on: x, needs: [{}], steps: [{{ run: x }}] }}\n",
                needs(n)
            )
        })
    };
    let step = |n: usize| format!("      - run: echo {n}\n");
    let mut thousands = "on: push\njobs:\n".to_owned();
    for job in 0..30 {
        let _ = write!(thousands, "  j{job}:\n    runs-on: x\n    steps:\n");
        (0..1_000).for_each(|n| thousands.push_str(&step(n)));
    }
    let block = format!("{JOB}    steps:\n      - run: |\n");
    vec![
        ("steps without ids", thousands),
        ("too many steps", lines(&format!("{JOB}    steps:\n"), step)),
        (
            "steps that are none",
            lines(&format!("{JOB}    steps:\n"), |_| "      - x\n".into()),
        ),
        (
            "unknown keys",
            lines("on: push\n", |n| format!("k{n}: x\n")),
        ),
        (
            "one long key",
            format!("on: push\n{}: x\n", "k".repeat(BYTES)),
        ),
        ("unknown needs", jobs(&|n| format!("x{n}, y{n}"))),
        ("cycles", jobs(&|n| format!("j{}, j0, j{}", n + 1, n / 2))),
        ("one long list of needs", {
            let names: Vec<String> = (0..100_000).map(|n| format!("n{n}")).collect();
            format!("{JOB}    needs: [{}]\n{STEP}", names.join(", "))
        }),
        (
            "the same need again and again",
            format!("{JOB}    needs: [{}b]\n{STEP}", "b, ".repeat(75_000)),
        ),
        (
            "unknown steps in a block",
            lines(&block, |n| {
                format!("          ${{{{ steps.s{n}.outputs.x }}}}\n")
            }),
        ),
        (
            "wrong expressions in a block",
            lines(&block, |_| "          ${{ gihub.sha }}\n".into()),
        ),
        (
            "expressions without an end",
            lines(&block, |_| "          ${{ a\n".into()),
        ),
        (
            "one long expression",
            format!(
                "{block}          ${{{{ {}true }}}}\n",
                "true && ".repeat(100_000)
            ),
        ),
        (
            "nested parentheses",
            format!("{block}          ${{{{ {} }}}}\n", "(".repeat(500_000)),
        ),
        (
            "many variables",
            lines(&format!("{JOB}{STEP}    env:\n"), |n| {
                format!("      V{n}: ${{{{ github.sha }}}}\n")
            }),
        ),
        (
            "patterns",
            lines("on:\n  push:\n    paths:\n", |n| {
                format!("      - '**/a{n}/**'\n")
            }),
        ),
        (
            "lines of a list at the margin",
            lines("on:\n  push:\n    paths: [\n", |n| format!("'a{n}',\n")),
        ),
        (
            "a quoted text at the margin",
            format!("on:\n  push:\n    paths: '{}'\n", "\na".repeat(BYTES / 2)),
        ),
        (
            "the same pattern",
            lines("on:\n  push:\n    branches:\n", |_| "      - a\n".into()),
        ),
        (
            "schedules",
            lines("on:\n  schedule:\n", |_| "    - cron: '1 1 1 1 1'\n".into()),
        ),
        (
            "a long matrix",
            lines(
                &format!("{JOB}{STEP}    strategy:\n      matrix:\n        include:\n"),
                |n| format!("          - a: {n}\n"),
            ),
        ),
        (
            "outputs",
            lines(&format!("{JOB}{STEP}    outputs:\n"), |n| {
                format!("      o{n}: ${{{{ steps.s{n}.outputs.x }}}}\n")
            }),
        ),
        (
            "a choice",
            lines(
                "on:\n  workflow_dispatch:\n    inputs:\n      a:\n        type: choice\n        options:\n",
                |n| format!("          - o{n}\n"),
            ),
        ),
        (
            "aliases",
            format!("{JOB}{STEP}    env: &e\n      A: b\n{}", "    x: *e\n"),
        ),
        ("one long word", format!("on: {}\n", "p".repeat(BYTES))),
        ("many events", lines("on:\n", |n| format!("  - e{n}\n"))),
        ("escapes", format!("on: \"{}\"\n", "\\n".repeat(BYTES / 2))),
        (
            "flow lists",
            format!("on: [{}push]\n", "push, ".repeat(BYTES / 6)),
        ),
        ("comments", lines("on: push\n", |_| "#\n".into())),
    ]
}

#[test]
fn a_file_that_is_made_to_be_slow_is_read_in_a_moment() {
    let mut slow = Vec::new();
    for (name, text) in files() {
        let source = SourceFile::new("w.yml", text);
        let before = cpu_seconds();
        let parsed = parse(&source);
        let shown: Vec<String> = parsed
            .diagnostics
            .iter()
            .map(|it| it.one_line(&source))
            .collect();
        let took = cpu_seconds() - before;
        assert!(shown.len() <= shipway_syntax::DIAGNOSTICS_MAX + 1, "{name}");
        if took > CPU_SECONDS_MAX {
            slow.push(format!("{name}: {took:.1} s"));
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}

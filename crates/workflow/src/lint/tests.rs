//! Each lint: what it sees, what it leaves in peace.

use super::*;

fn told(text: &str) -> Vec<String> {
    let source = SourceFile::new("w.yml", text);
    check_workflow(&source)
        .iter()
        .map(|problem| {
            format!(
                "[{}] {}",
                problem.code,
                problem.one_line(&source).trim_start_matches("w.yml:")
            )
        })
        .collect()
}

/// A workflow of one job with these steps.
fn steps(steps: &str) -> Vec<String> {
    told(&format!(
        "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n{steps}"
    ))
}

const NOTHING: Vec<String> = Vec::new();

#[test]
fn third_parties_are_pinned_to_a_commit() {
    assert_eq!(
        steps("      - uses: some/one/deep@v1\n      - uses: some/one@main\n"),
        [
            "[unpinned-action] 6:15: warning: `v1` of `some/one/deep` is a mutable tag or branch: some can change the code behind it; pin the commit, and keep the name as a comment: some/one/deep@<40 digits> # v1",
            "[unpinned-action] 7:15: warning: `main` of `some/one` is a mutable tag or branch: some can change the code behind it; pin the commit, and keep the name as a comment: some/one@<40 digits> # main",
        ]
    );
    assert_eq!(
        steps(
            "      - uses: actions/checkout@v4\n      - uses: ./x\n      - uses: docker://alpine:3\n      - uses: shipway/deploy\n      - uses: some/one@0123456789abcdef0123456789abcdef01234567 # v1\n"
        ),
        NOTHING
    );
    assert_eq!(
        told("on: push\njobs: { a: { uses: o/r/.github/workflows/x.yml@v1 } }\n").len(),
        1
    );
}

#[test]
fn what_strangers_write_does_not_become_code() {
    assert_eq!(
        steps(
            "      - run: |\n          echo one\n          echo \"${{ github.event.issue.title }}\"\n      - uses: actions/github-script@v7\n        with: { script: 'f(\"${{ format(''{0}'', github.event.commits[0].message) }}\")' }\n"
        ),
        [
            "[untrusted-input] 8:21: warning: `github.event.issue.title` is controlled by outsiders and is inserted into this script as code; pass it through the environment, `env: { TITLE: ${{ github.event.issue.title }} }`, and use \"$TITLE\" in the script",
            "[untrusted-input] 10:49: warning: `github.event.commits.*.message` is controlled by outsiders and is inserted into this script as code; pass it through the environment, `env: { MESSAGE: ${{ github.event.commits.*.message }} }`, and use \"$MESSAGE\" in the script",
        ]
    );
    assert_eq!(
        steps(
            "      - run: echo \"$T\" ${{ github.event.issue.number }} ${{ contains(github.event.issue.title, 'x') }}\n        env: { T: '${{ github.event.issue.title }}' }\n        if: github.head_ref == 'x'\n      - run: echo ${{ github.event.issue.title == 'a' && 'b' || 'c' }}\n"
        ),
        NOTHING
    );
}

#[test]
fn commands_that_were_taken_back_are_named_with_what_took_their_place() {
    assert_eq!(
        steps(
            "      - run: |\n          echo a\n          echo \"::set-output name=x::y\"\n      - run: echo '::add-path::/x'\n"
        ),
        [
            "[deprecated-command] 8:17: warning: `set-output` is deprecated; write echo \"name=value\" >> \"$GITHUB_OUTPUT\"",
            "[deprecated-command] 9:20: warning: `add-path` is deprecated; write echo \"folder\" >> \"$GITHUB_PATH\"",
        ]
    );
    assert_eq!(
        steps("      - run: echo '::warning::x' && echo set-output\n"),
        NOTHING
    );
}

#[test]
fn conditions_that_never_change_are_seen() {
    assert_eq!(
        steps(
            "      - { run: a, if: false }\n      - { run: a, if: \"${{ 1 == 1 }}\" }\n      - { run: a, if: \"'no'\" }\n"
        ),
        [
            "[constant-condition] 6:23: warning: this condition is always false, so this never runs; remove it, or mark it as intended: # shipway: allow(constant-condition)",
            "[constant-condition] 7:23: warning: this condition is always true; remove the `if`",
            "[constant-condition] 8:23: warning: this condition is always true; remove the `if`",
        ]
    );
    assert_eq!(
        steps(
            "      - { run: a, if: always() }\n      - { run: a, if: github.ref == 'x' }\n      - { run: a, if: '' }\n      - { run: a, if: hashFiles('x') }\n"
        ),
        NOTHING
    );
}

#[test]
fn unknown_shells_are_seen() {
    assert_eq!(
        told(
            "on: push\ndefaults: { run: { shell: fish } }\njobs:\n  a: { runs-on: x, steps: [{ run: a, shell: bsh }, { run: a, shell: Bash }, { run: a, shell: 'perl {0}' }] }\n"
        ),
        [
            "[unknown-shell] 2:27: warning: unknown shell `fish`: the step would fail; did you mean `bash`?",
            "[unknown-shell] 4:45: warning: unknown shell `bsh`: the step would fail; did you mean `bash`?",
        ]
    );
}

#[test]
fn outputs_inputs_and_matrix_values_that_nothing_gives_are_seen() {
    let text = "on: { workflow_call: { inputs: { level: { type: string } }, outputs: { x: { value: '${{ jobs.a.outputs.ver }}' }, y: { value: '${{ jobs.a.outputs.version }}' } } } }
jobs:
  a: { runs-on: x, outputs: { version: v }, steps: [{ run: 'echo ${{ inputs.lvl }} ${{ inputs.level }}' }] }
  b: { runs-on: x, needs: [a, c], strategy: { matrix: { os: [x], include: [{ v: 1 }] } }, steps: [{ run: 'echo ${{ matrix.OS }} ${{ matrix.v }} ${{ matrix.w }} ${{ needs.a.outputs.none }} ${{ needs.c.outputs.any }}' }] }
  c: { uses: ./.github/workflows/x.yml, strategy: { matrix: '${{ fromJSON(inputs.level) }}' }, with: { a: '${{ matrix.any }}' } }
  d: { runs-on: x, steps: [{ run: 'echo ${{ matrix.os }} ${{ toJSON(inputs) }}' }] }
";
    assert_eq!(
        told(text),
        [
            "[unknown-output] 1:89: warning: the job `a` has no output `ver`; its outputs are `version`",
            "[unknown-name] 3:70: warning: `inputs.lvl`: it is never used; did you mean `inputs.level`?",
            "[unknown-name] 4:149: warning: `matrix.w`: it isn't in the matrix of this job; did you mean `matrix.v`?",
            "[unknown-output] 4:165: warning: the job `a` has no output `none`; its outputs are `version`",
            "[unknown-name] 6:45: warning: `matrix.os`: it isn't in the matrix of this job; its value is always empty",
        ]
    );
}

#[test]
fn a_strangers_code_is_not_built_where_secrets_are() {
    let text = |on: &str| {
        format!(
            "on: {on}\njobs:\n  a: {{ runs-on: x, steps: [{{ uses: actions/checkout@v4, with: {{ ref: '${{{{ github.event.pull_request.head.sha }}}}' }} }}] }}\n"
        )
    };
    assert_eq!(
        told(&text("pull_request_target")),
        [
            "[untrusted-checkout] 3:70: warning: this checks out untrusted code, and `pull_request_target` runs it with this repository's secrets; build it in a workflow on `pull_request`, which has no secrets"
        ]
    );
    assert_eq!(told(&text("pull_request")), NOTHING);
}

#[test]
fn a_comment_on_the_line_or_the_one_above_allows_a_warning() {
    for allowed in [
        "      - uses: some/one@v1 # shipway: allow(unpinned-action)\n",
        "      # shipway: allow(unpinned-action)\n      - uses: some/one@v1\n",
        "      # shipway: allow(other, unpinned-action) because\n      - uses: some/one@v1\n",
        "      - run: |\n          # shipway: allow(deprecated-command)\n          echo ::set-output name=a::b\n",
        "      # shipway: allow(unknown-reference)\n      - run: echo ${{ steps.x.outputs.y }}\n",
    ] {
        assert_eq!(steps(allowed), NOTHING, "{allowed}");
    }
    for not in [
        "      - uses: some/one@v1 # shipway: allow(other)\n",
        "      - uses: some/one@v1\n      # shipway: allow(unpinned-action)\n",
        "      # shipway: allow(unpinned-action)\n\n      - uses: some/one@v1\n",
    ] {
        assert_eq!(steps(not).len(), 1, "{not}");
    }
    // A mistake is no warning.
    assert_eq!(
        steps("      - { uses: x } # shipway: allow(uses)\n").len(),
        1
    );
}

#[test]
fn actions_are_looked_at_too() {
    let source = SourceFile::new(
        "action.yml",
        "runs:\n  using: composite\n  steps:\n    - run: echo ${{ github.event.comment.body }} ::set-output\n      shell: bsh\n    - uses: some/one@v1\n",
    );
    let codes: Vec<&str> = check_action(&source)
        .iter()
        .map(|problem| problem.code)
        .collect();
    assert_eq!(
        codes,
        [
            "untrusted-input",
            "deprecated-command",
            "unknown-shell",
            "unpinned-action"
        ]
    );
}

#[test]
fn broken_files_are_looked_at_as_far_as_they_go() {
    assert!(told("on: [").len() == 1);
    let told = steps("      - { uses: some/one@v1, shell: x }\n");
    assert!(
        told.iter().any(|line| line.starts_with("[conflict]")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|line| line.starts_with("[unpinned-action]")),
        "{told:?}"
    );
}

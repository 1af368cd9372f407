//! Matrices, case by case: the examples of GitHub's documentation, and what its own builder does where that says nothing.

use shipway_syntax::SourceFile;

use super::expand_matrix;
use crate::{
    expr::{Contexts, ExprValue},
    graph::matrix::name,
};

/// The labels of a matrix's cells, each with its context as JSON; or what is wrong.
fn cells(matrix: &str) -> Result<Vec<(String, String)>, String> {
    let text = format!(
        "on: push\njobs:\n  t:\n    runs-on: x\n    strategy:\n      matrix: {matrix}\n    steps: [{{ run: a }}]\n"
    );
    let source = SourceFile::new("w.yml", text);
    let parsed = crate::parse(&source);
    let mistakes = parsed.diagnostics.iter().map(|it| it.one_line(&source));
    let Some(workflow) = parsed.workflow else {
        return Err(mistakes.collect::<Vec<_>>().join("; "));
    };
    let strategy = workflow.jobs[0].strategy.clone().unwrap();
    let github = ExprValue::object([(
        "event",
        ExprValue::object([(
            "client_payload",
            ExprValue::object([(
                "versions",
                ExprValue::array([14.0, 16.0, 18.0].map(ExprValue::Number)),
            )]),
        )]),
    )]);
    let contexts = Contexts::new().with("github", github);
    let made =
        expand_matrix(&strategy.matrix.unwrap(), &contexts).map_err(|error| error.to_string())?;
    let shown = |cell: super::MatrixCombination| {
        let values = serde_json::to_string(&cell.values).unwrap();
        (cell.label, values)
    };
    Ok(made.into_iter().map(shown).collect())
}

fn labels(matrix: &str) -> Vec<String> {
    let made = cells(matrix).unwrap_or_else(|why| panic!("{matrix}: {why}"));
    made.into_iter().map(|(label, _)| label).collect()
}

fn contexts(matrix: &str) -> Vec<String> {
    let made = cells(matrix).unwrap_or_else(|why| panic!("{matrix}: {why}"));
    made.into_iter().map(|(_, values)| values).collect()
}

/// "Running variations of jobs in a workflow", from its first example to its last.
#[test]
fn the_documentations_examples() {
    let table: &[(&str, &[&str])] = &[
        // A single dimension.
        ("{ version: [10, 12, 14] }", &["10", "12", "14"]),
        // Several: the first one varies slowest.
        (
            "{ os: [ubuntu-22.04, ubuntu-20.04], version: [10, 12, 14] }",
            &[
                "ubuntu-22.04, 10",
                "ubuntu-22.04, 12",
                "ubuntu-22.04, 14",
                "ubuntu-20.04, 10",
                "ubuntu-20.04, 12",
                "ubuntu-20.04, 14",
            ],
        ),
        // Values that are objects.
        (
            "{ os: [ubuntu-latest, macos-latest], node: [{ version: 14 }, { version: 20, env: NODE_OPTIONS=--openssl-legacy-provider }] }",
            &[
                "ubuntu-latest, 14",
                "ubuntu-latest, 20, NODE_OPTIONS=--openssl-legacy-provider",
                "macos-latest, 14",
                "macos-latest, 20, NODE_OPTIONS=--openssl-legacy-provider",
            ],
        ),
        // From the event's payload.
        (
            "{ version: '${{ github.event.client_payload.versions }}' }",
            &["14", "16", "18"],
        ),
        // From an output of an earlier job.
        (
            "{ color: \"${{ fromJSON('[\\\"red\\\", \\\"blue\\\"]') }}\" }",
            &["red", "blue"],
        ),
        ("\"${{ fromJSON('{\\\"a\\\": [1, 2]}') }}\"", &["1", "2"]),
        // Expanding: one key of its own for a combination that is there …
        (
            "{ os: [windows-latest, ubuntu-latest], node: [14, 16], include: [{ os: windows-latest, node: 16, npm: 6 }] }",
            &[
                "windows-latest, 14",
                "windows-latest, 16",
                "ubuntu-latest, 14",
                "ubuntu-latest, 16",
            ],
        ),
        // … and one more combination.
        (
            "{ os: [macos-latest, windows-latest, ubuntu-latest], version: [12, 14, 16], include: [{ os: windows-latest, version: 17 }] }",
            &[
                "macos-latest, 12",
                "macos-latest, 14",
                "macos-latest, 16",
                "windows-latest, 12",
                "windows-latest, 14",
                "windows-latest, 16",
                "ubuntu-latest, 12",
                "ubuntu-latest, 14",
                "ubuntu-latest, 16",
                "windows-latest, 17",
            ],
        ),
        // `include` alone.
        (
            "{ include: [{ site: production, datacenter: site-a }, { site: staging, datacenter: site-b }] }",
            &["production, site-a", "staging, site-b"],
        ),
        // `exclude` names parts of combinations.
        (
            "{ os: [macos-latest, windows-latest], version: [12, 14, 16], environment: [staging, production], exclude: [{ os: macos-latest, version: 12, environment: production }, { os: windows-latest, version: 16 }] }",
            &[
                "macos-latest, 12, staging",
                "macos-latest, 14, staging",
                "macos-latest, 14, production",
                "macos-latest, 16, staging",
                "macos-latest, 16, production",
                "windows-latest, 12, staging",
                "windows-latest, 12, production",
                "windows-latest, 14, staging",
                "windows-latest, 14, production",
            ],
        ),
    ];
    for (matrix, expected) in table {
        assert_eq!(labels(matrix), *expected, "{matrix}");
    }
    assert_eq!(
        contexts(
            "{ fruit: [apple, pear], animal: [cat, dog], include: [{ color: green }, { color: pink, animal: cat }, { fruit: apple, shape: circle }, { fruit: banana }, { fruit: banana, animal: cat }] }"
        ),
        [
            r#"{"fruit":"apple","animal":"cat","color":"pink","shape":"circle"}"#,
            r#"{"fruit":"apple","animal":"dog","color":"green","shape":"circle"}"#,
            r#"{"fruit":"pear","animal":"cat","color":"pink"}"#,
            r#"{"fruit":"pear","animal":"dog","color":"green"}"#,
            r#"{"fruit":"banana"}"#,
            r#"{"fruit":"banana","animal":"cat"}"#,
        ]
    );
}

#[test]
fn what_is_excluded_is_gone_before_anything_is_included() {
    // The combination that `include` would have added to is no more: it comes back as one of its own.
    assert_eq!(
        contexts(
            "{ a: [1, 2], b: [x], exclude: [{ a: 1 }], include: [{ a: 1, b: x, more: yes }] }"
        ),
        [r#"{"a":2,"b":"x"}"#, r#"{"a":1,"b":"x","more":"yes"}"#]
    );
    // Later entries go over what earlier ones added, and never over the matrix's own.
    assert_eq!(
        contexts("{ a: [1], include: [{ c: 1 }, { c: 2 }, { a: 2, c: 3 }, { c: 4 }] }"),
        [r#"{"a":1,"c":4}"#, r#"{"a":2,"c":3}"#]
    );
}

#[test]
fn filters_compare_leaf_by_leaf_as_expressions_do() {
    let left = |matrix: &str| labels(&format!("{{ {matrix} }}"));
    for (matrix, expected) in [
        // Text ignores case, and numbers in it count.
        (
            "os: [Linux, mac], v: [1, 2], exclude: [{ os: LINUX, v: '1' }]",
            vec!["Linux, 2", "mac, 1", "mac, 2"],
        ),
        // Of objects the properties that are named.
        (
            "node: [{ version: 14 }, { version: 20, env: x }], exclude: [{ node: { env: x } }]",
            vec!["14"],
        ),
        // What isn't there is null, and null is as good as nothing.
        (
            "node: [{ version: 14 }, { version: 20, env: x }], exclude: [{ node: { env: '' } }]",
            vec!["20, x"],
        ),
        // Of lists the items at their places.
        (
            "pair: [[1, 2], [1, 3], [2, 2]], exclude: [{ pair: [1] }]",
            vec!["2, 2"],
        ),
        // An object is no text.
        (
            "node: [{ version: 14 }, plain], exclude: [{ node: plain }]",
            vec!["14"],
        ),
        ("on: [true, false], exclude: [{ on: 0 }]", vec!["true"]),
    ] {
        assert_eq!(left(matrix), expected, "{matrix}");
    }
}

#[test]
fn labels_are_of_all_that_has_a_text() {
    // The names of the matrix come first, nothing is passed over, empty texts and nulls are.
    for (matrix, expected) in [
        (
            "{ fruit: [apple], include: [{ shape: circle, fruit: banana }] }",
            vec!["apple", "banana, circle"],
        ),
        (
            "{ a: [{ b: { c: [deep, 1.5] }, d: true }, ''], e: [null, x] }",
            vec!["deep, 1.5, true", "deep, 1.5, true, x", "", "x"],
        ),
    ] {
        assert_eq!(labels(matrix), expected, "{matrix}");
    }
    assert_eq!(name("test", ""), "test");
    assert_eq!(name("test", "1, x"), "test (1, x)");
    let long = name("test", &"x".repeat(200));
    assert_eq!(long.len(), 100);
    assert!(long.starts_with("test (xxx") && long.ends_with("xx..."));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let many = |count: u32| {
        let numbers: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        numbers.join(", ")
    };
    for (matrix, expected) in [
        (format!("{{ a: [{}] }}", many(257)), "more than 256 jobs"),
        (
            format!("{{ a: [{}], include: [{{ a: 999 }}] }}", many(256)),
            "more than 256 jobs",
        ),
        (
            "{ a: [1], exclude: [{}] }".to_owned(),
            "an entry of `exclude` in the matrix is empty",
        ),
        (
            "{ a: [1], include: [{}] }".to_owned(),
            "an entry of `include` in the matrix is empty",
        ),
        (
            "{ a: [1], exclude: [{ b: 1 }] }".to_owned(),
            "`exclude` names `b`, which isn't in the matrix",
        ),
        ("{ a: [] }".to_owned(), "`a` in the matrix has no values"),
        (
            "{ exclude: [{ a: 1 }] }".to_owned(),
            "neither lists nor `include`",
        ),
        (
            "{ a: \"${{ fromJSON('[]') }}\" }".to_owned(),
            "`a` in the matrix has no values",
        ),
        (
            "\"${{ fromJSON('[]') }}\"".to_owned(),
            "the matrix must be an object of lists, not array",
        ),
    ] {
        let why = cells(&matrix).unwrap_err();
        assert!(why.contains(expected), "{matrix}: {why}");
    }
    // Exclusions count before the limit does.
    let matrix = format!(
        "{{ a: [{0}], b: [0, 1], exclude: [{{ b: 1 }}] }}",
        many(256)
    );
    assert_eq!(cells(&matrix).unwrap().len(), 256);
}

#[test]
fn lists_that_expressions_give_are_spliced_into_lists() {
    let list = "${{ fromJSON('[2, [3]]') }}";
    assert_eq!(
        labels(&format!("{{ a: [1, \"{list}\", 4] }}")),
        ["1", "2", "3", "4"]
    );
    let include = "${{ fromJSON('[{\"a\": 8}, {\"a\": 9}]') }}";
    assert_eq!(
        labels(&format!(
            "{{ include: [{{ a: 7 }}, '{}'] }}",
            include.replace('\'', "''")
        )),
        ["7", "8", "9"]
    );
    // Text around an expression makes a text of it.
    assert_eq!(labels("{ a: [\"x${{ fromJSON('[2]') }}\"] }"), ["xArray"]);
}

#[test]
fn names_of_a_matrix_may_be_expressions() {
    assert_eq!(
        contexts("{ \"${{ format('k{0}', 1) }}\": [x], b: [y] }"),
        [r#"{"k1":"x","b":"y"}"#]
    );
    let inserted = "{ a: [1], '${{ insert }}': \"${{ fromJSON('{\\\"b\\\": [2, 3]}') }}\" }";
    assert_eq!(contexts(inserted), [r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#]);
    assert_eq!(
        contexts("{ include: [{ \"${{ format('k{0}', 1) }}\": v }] }"),
        [r#"{"k1":"v"}"#]
    );
}

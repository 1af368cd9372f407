//! Tests as data: a repository whose job runs Python's unittest and reports as JUnit XML. A failure is told in three lines, a test
//! that passes and fails on one commit is flaky, in quarantine it no longer blocks, and coverage is asked for.

use serde_json::{Value, json};

use crate::{
    shop::Shop,
    site::{Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

/// Python's own unittest, reporting as pytest does. `test_sometimes` goes by a file outside of the workspace, for what is flaky
/// goes by something outside of the commit.
const RUNNER: &str = r#"
import sys, time, unittest
from xml.sax.saxutils import quoteattr
sys.path.insert(0, ".")
class Result(unittest.TextTestResult):
    def startTest(self, test):
        super().startTest(test)
        self.began = time.time()
    def case(self, test, inner=""):
        name, place = test._testMethodName, type(test).__module__ + "." + type(test).__name__
        took = time.time() - self.began
        self.cases = getattr(self, "cases", [])
        self.cases.append(f"<testcase classname={quoteattr(place)} name={quoteattr(name)} time='{took:.3f}'>{inner}</testcase>")
    def addSuccess(self, test):
        super().addSuccess(test)
        self.case(test)
    def addFailure(self, test, why):
        super().addFailure(test, why)
        self.case(test, f"<failure message={quoteattr(str(why[1]))}/>")
suite = unittest.defaultTestLoader.loadTestsFromNames(["tests.test_cart", "tests.test_till"])
result = unittest.TextTestRunner(resultclass=Result).run(suite)
with open("TEST-all.xml", "w") as out:
    out.write("<testsuites><testsuite name='unittest'>" + "".join(result.cases) + "</testsuite></testsuites>")
with open("lcov.info", "w") as out:
    covered = int(open("COVERED").read())
    out.write("SF:cart.py\n" + "".join(f"DA:{at},{int(at <= covered)}\n" for at in range(1, 11)) + "end_of_record\n")
sys.exit(0 if result.wasSuccessful() else 1)
"#;

const CART: &str = "
import unittest
class Cart(unittest.TestCase):
    def test_adds(self): self.assertEqual(1 + 1, 2)
    def test_pays(self): self.assertEqual(9, PRICE, 'nine cost nine')
";

/// Three that pass and one that goes by a file.
const TILL: &str = "
import pathlib, unittest
class Till(unittest.TestCase):
    def test_opens(self): pass
    def test_closes(self): pass
    def test_sometimes(self): self.assertFalse(pathlib.Path('MOOD_FILE').exists(), 'the till is shut')
";

const WORKFLOW: &str = "
name: ci
on: { push: , workflow_dispatch: }
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Run the tests
        run: python3 run_tests.py
";

const CONFIG: &str = "
service: shop
artifact: { source: . }
run: { command: exec sleep 1000, health: { exec: 'true', interval: 100ms } }
reports: { minimum: 60% }
environments: { production: { strategy: recreate } }
";

fn shop(site: &Site) -> Shop {
    let path = site.folder.path().join("repo");
    std::fs::create_dir_all(path.join(".github/workflows")).unwrap();
    std::fs::create_dir_all(path.join("tests")).unwrap();
    let shop = Shop::of(&path, &site.url("/git/shop"));
    shop.write("shipway.yaml", CONFIG);
    shop.write(".github/workflows/ci.yml", WORKFLOW);
    shop.write("run_tests.py", RUNNER);
    shop.write("tests/__init__.py", "");
    shop.write("tests/test_cart.py", &CART.replace("PRICE", "9"));
    let mood = site.folder.path().join("shut");
    shop.write(
        "tests/test_till.py",
        &TILL.replace("MOOD_FILE", &mood.to_string_lossy()),
    );
    shop.write("COVERED", "8");
    shop
}

/// The till is shut, or it isn't.
fn shut(site: &Site, is_shut: bool) {
    let mood = site.folder.path().join("shut");
    if is_shut {
        std::fs::write(mood, "").unwrap();
    } else {
        std::fs::remove_file(mood).unwrap();
    }
}

/// The run with this number, once it is over.
fn ended(site: &Site, number: u32) -> Value {
    let mut run = Value::Null;
    until(&format!("the end of r{number}"), || {
        run = site
            .get(&format!("/api/v1/runs/shop/{number}"))
            .unwrap_or_default();
        !run["conclusion"].is_null()
    });
    run
}

/// Runs the last commit again; how that ended.
fn again(site: &Site, number: u32) -> Value {
    let asked = site.shipway(&["dispatch", "ci.yml"]);
    assert!(asked.status.success(), "{}", said(&asked));
    ended(site, number)
}

#[test]
fn a_flaky_test_is_found_quarantined_and_lets_go() {
    let site = Site::started();
    let shop = shop(&site);
    assert_says(
        &said(&shop.ship("1")),
        &[
            "test: 5 tests; 80% of the lines covered",
            "run r1 succeeded",
        ],
    );

    // A test that breaks is told in three lines, to the pusher, in the log, on the page.
    shop.write("tests/test_cart.py", &CART.replace("PRICE", "8"));
    let told = said(&shop.ship("2"));
    let lines = [
        "✗ test: step \"Run the tests\": exit code 1",
        "tests.test_cart.Cart/test_pays: 9 != 8 : nine cost nine",
        "re-run: shipway retry shop/r2 --from-failed-step; open a shell: shipway shell shop/r2 test; log: shipway logs shop/r2 --job test",
    ];
    assert_says(&told, &lines);
    let logs = said(&site.shipway(&["logs", "r2"]));
    let first: Vec<&str> = logs.lines().take(3).collect();
    assert_eq!(first, lines, "{logs}");
    assert_ends(&site.shipway(&["watch", "r2"]), 1, &lines);
    let tests = said(&site.shipway(&["tests"]));
    assert_says(
        &tests,
        &[
            "r2 · 5 tests, 1 failed; 80% of the lines covered",
            "✗ tests.test_cart.Cart/test_pays [new] (test): 9 != 8 : nine cost nine",
        ],
    );
    let page = said_page(&site, "/runs/shop/2");
    assert_says(&page, &lines[1..2]);
    assert_says(
        &page,
        &["5 tests, 1 failed", "new", "80%", "the last green run"],
    );
    // The change touches it: it was broken, not flaky.
    let refused = site.shipway(&[
        "tests",
        "quarantine",
        "test_pays",
        "--owner",
        "ann",
        "--reason",
        "x",
    ]);
    assert_ends(
        &refused,
        1,
        &["can't be quarantined", "the change of r2 touches it"],
    );

    // One that passes and fails on the same commit is flaky.
    shop.write("tests/test_cart.py", &CART.replace("PRICE", "9"));
    shut(&site, true);
    assert_says(
        &said(&shop.ship("3")),
        &["tests.test_till.Till/test_sometimes", "run r3 failed"],
    );
    shut(&site, false);
    assert_eq!(again(&site, 4)["conclusion"], "success");
    let flaky = said(&site.shipway(&["tests", "--flaky"]));
    assert_says(
        &flaky,
        &[
            "tests.test_till.Till/test_sometimes",
            "1 commit",
            "passed in r4 and failed in r3",
        ],
    );
    assert_silent_of(&flaky, &["test_pays", "test_adds"]);

    // In quarantine it runs on and doesn't block.
    let words = [
        "tests",
        "quarantine",
        "test_sometimes",
        "--owner",
        "ann",
        "--reason",
        "the till",
        "--until",
        "14d",
        "--clean-runs",
        "2",
    ];
    assert_says(
        &said(&site.shipway(&words)),
        &["is in quarantine until", "owner: ann"],
    );
    shut(&site, true);
    shop.write("README.md", "a change elsewhere");
    let told = said(&shop.ship("4"));
    assert_says(
        &told,
        &[
            "✓ test: counts as success: all failed tests are in quarantine (tests.test_till.Till/test_sometimes)",
            "run r5 succeeded",
        ],
    );
    assert_says(
        &said(&site.shipway(&["tests"])),
        &["in quarantine: ann", "0 of 2 clean runs: the till"],
    );
    assert_says(&said_page(&site, "/runs/shop/5"), &["quarantine", "ann"]);

    // A change of its own file is not excused; nor is another failure beside it.
    shop.write(
        "tests/test_till.py",
        &format!(
            "# mine\n{}",
            std::fs::read_to_string(shop.path.join("tests/test_till.py")).unwrap()
        ),
    );
    assert_says(
        &said(&shop.ship("5")),
        &[
            "not excused by quarantine",
            "this change touches it",
            "run r6 failed",
        ],
    );

    // After enough clean runs it leaves by itself.
    shut(&site, false);
    for number in [7, 8] {
        assert_eq!(again(&site, number)["conclusion"], "success");
    }
    until("the test to leave", || {
        let tests = site.get("/api/v1/services/shop/tests").unwrap();
        tests["quarantine"] == json!([])
    });
}

fn said_page(site: &Site, path: &str) -> String {
    let mut answer = ureq::get(site.url(path)).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn too_little_coverage_is_red_and_the_change_is_told() {
    let site = Site::started();
    let shop = shop(&site);
    shop.ship("1");
    shop.write("COVERED", "5");
    let told = said(&shop.ship("2"));
    assert_says(
        &told,
        &[
            "50% of the lines are covered, but shipway.yaml requires 60% (reports.minimum)",
            "run r2 failed",
        ],
    );
    assert_says(
        &said(&site.shipway(&["tests"])),
        &["50% of the lines covered (−30% since shop/r1)"],
    );
    let tests = site.get("/api/v1/runs/shop/2/tests").unwrap();
    assert_eq!(tests["compared"]["coverage_change"], -3_000, "{tests:#}");
    assert_ends(
        &site.shipway(&["tests", "release", "nothing"]),
        1,
        &["unknown test \"nothing\""],
    );
    assert_ends(
        &site.shipway(&["tests", "--run", "r9"]),
        1,
        &["no such run: shop/r9"],
    );
}

//! JUnit XML as tools write it: one or several suites, nested or not, with missing attributes, with reruns (Surefire,
//! nextest). Parsed as a stream; of a truncated file, the tests before the end are kept.

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesRef, BytesStart, Event},
};
use shipway_workflow::report::{TestCase, TestId, TestOutcome, TestStability};

use super::aggregate::ReportAggregate;
use super::report_error::{DEPTH_MAX, ReportError};

/// Limit for the text of a failure.
const TEXT_MAX: usize = 16 * 1024;

struct TestSuite {
    name: String,
    file: Option<String>,
}

/// A test case being read.
struct OpenTestCase {
    case: TestCase,
    /// Whether an attempt failed and was repeated.
    retried: bool,
    /// The text of the first failure.
    text: String,
}

/// State of the parser.
struct JunitReader<'g, 'm> {
    aggregate: &'g mut ReportAggregate<'m>,
    suites: Vec<TestSuite>,
    test: Option<OpenTestCase>,
    /// Whether text belongs to a failure.
    in_failure: bool,
    depth: usize,
    is_report: bool,
}

/// Reads a report into `aggregate`.
pub(super) fn read_junit(
    text: &str,
    aggregate: &mut ReportAggregate<'_>,
) -> Result<(), ReportError> {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.expand_empty_elements = true;
    config.allow_dangling_amp = true;
    let mut reading = JunitReader {
        aggregate,
        suites: Vec::new(),
        test: None,
        in_failure: false,
        depth: 0,
        is_report: false,
    };
    loop {
        let event = reader
            .read_event()
            .map_err(|source| ReportError::BrokenXml {
                position: reader.error_position(),
                source,
            })?;
        match event {
            Event::Start(start) => reading.start_element(&start)?,
            Event::End(end) => reading.end_element(end.local_name().as_ref()),
            Event::Text(text) => reading.add_text(&text),
            Event::CData(text) => reading.add_text(&text),
            Event::GeneralRef(reference) => reading.add_reference(&reference),
            Event::Eof if reading.depth > 0 => return Err(ReportError::Truncated),
            Event::Eof if !reading.is_report => {
                return Err(ReportError::NoTests);
            }
            Event::Eof => return Ok(()),
            Event::Empty(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_) => {}
        }
    }
}

impl JunitReader<'_, '_> {
    fn start_element(&mut self, start: &BytesStart<'_>) -> Result<(), ReportError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ReportError::TooDeep);
        }
        match start.local_name().as_ref() {
            "testsuites" => self.is_report = true,
            "testsuite" => {
                self.is_report = true;
                let mut suite = TestSuite {
                    name: String::new(),
                    file: None,
                };
                for (key, value) in self.masked_attributes(start) {
                    match key.as_str() {
                        "name" => suite.name = value,
                        "file" | "filepath" => suite.file = Some(value),
                        _ => {}
                    }
                }
                self.suites.push(suite);
            }
            "testcase" => {
                self.is_report = true;
                self.test = Some(self.open_test_case(start));
            }
            tag => self.start_in_test(tag, start),
        }
        Ok(())
    }

    fn open_test_case(&self, start: &BytesStart<'_>) -> OpenTestCase {
        let (mut class, mut name) = (String::new(), String::new());
        let (mut took_ms, mut file, mut line) = (0, None, None);
        let mut outcome = TestOutcome::Passed;
        for (key, value) in self.masked_attributes(start) {
            match key.as_str() {
                // PHPUnit has both `class` and `classname`.
                "classname" => class = value,
                "class" if class.is_empty() => class = value,
                "name" => name = value,
                "time" => took_ms = parse_millis(&value),
                "file" | "filepath" => file = Some(value),
                "line" | "lineno" => line = value.parse().ok(),
                // GoogleTest and CTest report skipped tests only by this attribute.
                "status" if matches!(value.as_str(), "notrun" | "disabled" | "skipped") => {
                    outcome = TestOutcome::Skipped;
                }
                _ => {}
            }
        }
        let suite = self.suites.last();
        OpenTestCase {
            case: TestCase {
                id: TestId::new(suite.map_or("", |suite| &suite.name), &class, &name),
                outcome,
                took_ms,
                steadiness: TestStability::Steady,
                message: None,
                file: file.or_else(|| suite.and_then(|suite| suite.file.clone())),
                line,
            },
            retried: false,
            text: String::new(),
        }
    }

    /// Handles an element inside a test case.
    fn start_in_test(&mut self, tag: &str, start: &BytesStart<'_>) {
        let said = self.masked_attributes(start);
        let Some(test) = &mut self.test else { return };
        match tag {
            "failure" => test.case.outcome = TestOutcome::Failed,
            "error" if test.case.outcome != TestOutcome::Failed => {
                test.case.outcome = TestOutcome::Errored
            }
            "skipped" | "disabled" if !test.case.outcome.is_bad() => {
                test.case.outcome = TestOutcome::Skipped;
                return;
            }
            // `flaky…`: a later attempt passed. `rerun…`: none did, and there is a `failure` as well.
            "flakyFailure" | "flakyError" => test.retried = true,
            _ => return,
        }
        self.in_failure = true;
        if test.case.message.is_none() {
            let said = said.into_iter();
            let mut said = said.filter(|(key, value)| key == "message" && !value.trim().is_empty());
            test.case.message = said.next().map(|(_, value)| value);
        }
    }

    /// The attributes with entities resolved and secrets masked; invalid ones are ignored.
    fn masked_attributes(&self, start: &BytesStart<'_>) -> Vec<(String, String)> {
        let mut attributes = start.attributes();
        let list = attributes.with_checks(false).flatten();
        list.map(|attribute| {
            let value = attribute.normalized_value(XmlVersion::Implicit1_0);
            let value = value.map_or_else(|_| attribute.value.to_string(), Into::into);
            (
                attribute.key.local_name().as_ref().to_owned(),
                self.aggregate.mask_text(value),
            )
        })
        .collect()
    }

    fn add_text(&mut self, text: &str) {
        if let Some(test) = self.test.as_mut().filter(|_| self.in_failure) {
            let room = TEXT_MAX.saturating_sub(test.text.len());
            test.text.push_str(&text[..text.floor_char_boundary(room)]);
        }
    }

    /// Resolves `&amp;`, `&#10;`; custom entities are ignored.
    fn add_reference(&mut self, reference: &BytesRef<'_>) {
        let plain = match &**reference {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => reference.resolve_char_ref().ok().flatten(),
        };
        if let Some(plain) = plain {
            self.add_text(plain.encode_utf8(&mut [0; 4]));
        }
    }

    fn end_element(&mut self, tag: &str) {
        self.depth = self.depth.saturating_sub(1);
        match tag {
            "testsuite" => {
                self.suites.pop();
            }
            "testcase" => {
                if let Some(mut test) = self.test.take() {
                    test.text = self.aggregate.mask_text(test.text);
                    self.aggregate.add_case(finish_case(test));
                }
            }
            "failure" | "error" | "flakyFailure" | "flakyError" => self.in_failure = false,
            _ => {}
        }
    }
}

fn finish_case(test: OpenTestCase) -> TestCase {
    let OpenTestCase {
        mut case,
        retried,
        text,
    } = test;
    if retried && !case.outcome.is_bad() {
        (case.outcome, case.steadiness) = (TestOutcome::Passed, TestStability::PassedOnRerun);
    }
    if case.outcome.is_bad() || retried {
        let message = case.message.take().unwrap_or_default();
        let said = informative_line(&message, &case.id.name)
            .filter(|line| !SAYS_NOTHING.contains(&line.as_str()));
        case.message = said
            .filter(|line| !line.contains("panicked at"))
            .or_else(|| informative_line(&text, &case.id.name))
            .or_else(|| informative_line(&message, &case.id.name));
    } else {
        case.message = None;
    }
    case
}

/// Messages without information.
const SAYS_NOTHING: [&str; 3] = ["Failed", "FAILED", "Error"];

/// The first informative line. Skips Rust's `panicked at` line, and the test's name, which Go and PHPUnit print
/// first.
fn informative_line(text: &str, name: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("=== "));
    let first = lines.next()?;
    let panicked = first.starts_with("thread '") && first.contains("panicked at");
    let after = lines.next().filter(|_| panicked || first.ends_with(name));
    Some(after.unwrap_or(first).to_owned())
}

/// Parses seconds: `0.012`, `1,234.5`, `1e-3`; invalid text is 0.
fn parse_millis(text: &str) -> u64 {
    let seconds: f64 = text.trim().replace(',', "").parse().unwrap_or(0.0);
    // `as` saturates, and converts NaN to 0.
    (seconds * 1_000.0).round() as u64
}

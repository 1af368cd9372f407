//! Coverage reports: Cobertura XML and LCOV.

use std::collections::BTreeMap;

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};
use shipway_workflow::report::{Coverage, CoverageCount};

use super::aggregate::ReportAggregate;
use super::report_error::ReportError;

/// Limit for the lines of one source file.
const LINES_MAX: usize = 1_000_000;

/// Reads a report; false if it has neither format, which is common for files named `coverage.xml`.
pub(super) fn read_coverage(
    text: &str,
    aggregate: &mut ReportAggregate<'_>,
) -> Result<bool, ReportError> {
    if text
        .trim_start_matches('\u{feff}')
        .trim_start()
        .starts_with('<')
    {
        read_cobertura(text, aggregate)
    } else {
        Ok(read_lcov(text, aggregate))
    }
}

/// The coverage of a source file.
#[derive(Default)]
struct SourceCoverage {
    name: String,
    /// Line number and whether it was run; of duplicate lines one run suffices.
    lines: BTreeMap<u32, bool>,
    branches: CoverageCount,
    /// The totals that the report gives for the file.
    said: Coverage,
}

impl SourceCoverage {
    fn add_line(&mut self, number: u32, hits: &str) {
        let run = hits.trim().parse::<f64>().is_ok_and(|hits| hits > 0.0);
        if self.lines.len() < LINES_MAX {
            *self.lines.entry(number).or_default() |= run;
        }
    }

    fn add_to(self, aggregate: &mut ReportAggregate<'_>) {
        // The given totals are used only where single lines are missing.
        let mut counted = Coverage {
            branches: self.branches,
            ..Coverage::default()
        };
        if self.lines.is_empty() {
            counted.lines = self.said.lines;
        }
        if counted.branches.total == 0 {
            counted.branches = self.said.branches;
        }
        // Reports may be inconsistent: never more covered than there is.
        for part in [&mut counted.lines, &mut counted.branches] {
            part.covered = part.covered.min(part.total);
        }
        if counted.lines.total > 0 || !self.lines.is_empty() {
            aggregate.add_source(&self.name, &self.lines, counted);
        }
    }
}

/// `SF:` … `end_of_record`.
fn read_lcov(text: &str, aggregate: &mut ReportAggregate<'_>) -> bool {
    let mut source: Option<SourceCoverage> = None;
    let mut any = false;
    for line in text.lines() {
        let line = line.trim();
        if line == "end_of_record" {
            if let Some(source) = source.take() {
                source.add_to(aggregate);
            }
            continue;
        }
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        if key == "SF" {
            any = true;
            source = Some(SourceCoverage {
                name: value.to_owned(),
                ..SourceCoverage::default()
            });
        }
        let Some(source) = &mut source else { continue };
        let number = || value.trim().parse().unwrap_or(0);
        match key {
            "DA" => {
                let mut parts = value.split(',');
                if let (Some(Ok(at)), Some(hits)) = (parts.next().map(str::parse), parts.next()) {
                    source.add_line(at, hits);
                }
            }
            "LF" => source.said.lines.total = number(),
            "LH" => source.said.lines.covered = number(),
            "BRF" => source.said.branches.total = number(),
            "BRH" => source.said.branches.covered = number(),
            _ => {}
        }
    }
    any
}

/// `<coverage line-rate=…>` with `<class filename=…><lines><line number= hits=/>`. Lines may occur both in methods
/// and in their class: each is counted once.
fn read_cobertura(text: &str, aggregate: &mut ReportAggregate<'_>) -> Result<bool, ReportError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut report = CoberturaReport::default();
    loop {
        let event = reader
            .read_event()
            .map_err(|source| ReportError::BrokenXml {
                position: reader.error_position(),
                source,
            })?;
        match event {
            Event::Start(start) if !report.start_element(&start) => return Ok(false),
            Event::End(end) if end.local_name().as_ref() == "class" => report.class = None,
            Event::Eof => break,
            _ => {}
        }
    }
    if report.sources.is_empty() {
        report.totals.add_to(aggregate);
    }
    report
        .sources
        .into_values()
        .for_each(|source| source.add_to(aggregate));
    Ok(report.has_root)
}

/// State of the Cobertura parser.
#[derive(Default)]
struct CoberturaReport {
    has_root: bool,
    /// The totals of the root element.
    totals: SourceCoverage,
    /// File name of the current class.
    class: Option<String>,
    sources: BTreeMap<String, SourceCoverage>,
}

impl CoberturaReport {
    /// Handles a start tag; false if this is no Cobertura report.
    fn start_element(&mut self, start: &BytesStart<'_>) -> bool {
        match start.local_name().as_ref() {
            "coverage" if !self.has_root => {
                self.has_root = true;
                return self.read_totals(start);
            }
            _ if !self.has_root => return false,
            "class" => {
                self.class = attribute(start, "filename").or_else(|| attribute(start, "name"));
            }
            "line" => self.read_line(start),
            _ => {}
        }
        true
    }

    fn read_totals(&mut self, root: &BytesStart<'_>) -> bool {
        // JaCoCo and Clover have no `line-rate`.
        if attribute(root, "line-rate").is_none() {
            return false;
        }
        let number = |name| {
            let text = attribute(root, name);
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        self.totals.said = Coverage {
            lines: CoverageCount {
                covered: number("lines-covered"),
                total: number("lines-valid"),
            },
            branches: CoverageCount {
                covered: number("branches-covered"),
                total: number("branches-valid"),
            },
        };
        true
    }

    fn read_line(&mut self, line: &BytesStart<'_>) {
        let number = attribute(line, "number").and_then(|number| number.parse().ok());
        let (Some(name), Some(number)) = (&self.class, number) else {
            return;
        };
        let source = self.sources.entry(name.clone());
        let source = source.or_insert_with(|| SourceCoverage {
            name: name.clone(),
            ..SourceCoverage::default()
        });
        let is_known = source.lines.contains_key(&number);
        source.add_line(number, &attribute(line, "hits").unwrap_or_default());
        let branches = attribute(line, "condition-coverage");
        let branches = branches.as_deref().and_then(parse_conditions);
        if let Some(branches) = branches.filter(|_| !is_known) {
            source.branches = source.branches.merge(branches);
        }
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let value = element.try_get_attribute(name).ok().flatten()?;
    Some(value.value.into_owned())
}

/// `50% (1/2)`
fn parse_conditions(text: &str) -> Option<CoverageCount> {
    let inner = text.split_once('(')?.1.split_once(')')?.0;
    let (covered, total) = inner.split_once('/')?;
    Some(CoverageCount {
        covered: covered.trim().parse().ok()?,
        total: total.trim().parse().ok()?,
    })
}

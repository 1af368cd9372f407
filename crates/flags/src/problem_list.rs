//! Collects problems while a document is walked, with the path of each.

use crate::diagnostic::{FlagDiagnostic, FlagDocument, FlagFileError, FlagProblem, NearestWord};
use crate::json_position::{PathSegment, PathTarget, locate, to_json_pointer};
use crate::limits::PROBLEMS_REPORTED_MAX;

/// The problems found so far, and where the walk is.
pub(crate) struct ProblemList<'v> {
    pub(crate) document: FlagDocument,
    path: Vec<PathSegment<'v>>,
    found: Vec<LocatedProblem<'v>>,
    unreported: usize,
    has_structural: bool,
}

struct LocatedProblem<'v> {
    document: FlagDocument,
    path: Vec<PathSegment<'v>>,
    target: PathTarget,
    problem: FlagProblem,
}

/// A place that the walk returns to.
pub(crate) struct WalkPosition<'v> {
    document: FlagDocument,
    path: Vec<PathSegment<'v>>,
}

impl<'v> ProblemList<'v> {
    pub(crate) fn new() -> ProblemList<'v> {
        ProblemList {
            document: FlagDocument::Definitions,
            path: Vec::new(),
            found: Vec::new(),
            unreported: 0,
            has_structural: false,
        }
    }

    pub(crate) fn push(&mut self, segment: PathSegment<'v>) {
        self.path.push(segment);
    }

    pub(crate) fn push_key(&mut self, key: &'v str) {
        self.path.push(PathSegment::Key(key));
    }

    pub(crate) fn pop(&mut self) {
        self.path.pop();
    }

    /// Continues the walk at another place; [`ProblemList::resume`] returns to this one.
    pub(crate) fn move_to(
        &mut self,
        document: FlagDocument,
        path: Vec<PathSegment<'v>>,
    ) -> WalkPosition<'v> {
        WalkPosition {
            document: std::mem::replace(&mut self.document, document),
            path: std::mem::replace(&mut self.path, path),
        }
    }

    pub(crate) fn resume(&mut self, position: WalkPosition<'v>) {
        self.document = position.document;
        self.path = position.path;
    }

    /// A problem of a targeting rule, which a lenient reader confines to its flag.
    pub(crate) fn report_rule(&mut self, problem: FlagProblem) {
        self.record(PathTarget::Value, problem);
    }

    /// The same, shown at the key of the member that the walk is at.
    pub(crate) fn report_rule_key(&mut self, problem: FlagProblem) {
        self.record(PathTarget::Key, problem);
    }

    /// A problem for which every reader refuses the file.
    pub(crate) fn report(&mut self, problem: FlagProblem) {
        self.has_structural = true;
        self.record(PathTarget::Value, problem);
    }

    /// The same, shown at the key of the member that the walk is at.
    pub(crate) fn report_key(&mut self, problem: FlagProblem) {
        self.has_structural = true;
        self.record(PathTarget::Key, problem);
    }

    /// The known word that was probably meant by `word`, for a problem that will be reported.
    pub(crate) fn find_nearest<'k>(
        &self,
        word: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> NearestWord {
        if self.found.len() == PROBLEMS_REPORTED_MAX {
            return NearestWord::default();
        }
        NearestWord::find(word, known)
    }

    fn record(&mut self, target: PathTarget, problem: FlagProblem) {
        if self.found.len() == PROBLEMS_REPORTED_MAX {
            self.unreported += 1;
            return;
        }
        self.found.push(LocatedProblem {
            document: self.document,
            path: self.path.clone(),
            target,
            problem,
        });
    }

    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.unreported
    }

    pub(crate) fn has_structural(&self) -> bool {
        self.has_structural
    }

    /// All problems with their positions in the text of the definitions.
    pub(crate) fn into_error(self, definitions: &str) -> FlagFileError {
        let mut diagnostics: Vec<FlagDiagnostic> = self
            .found
            .into_iter()
            .map(|found| FlagDiagnostic {
                document: found.document,
                pointer: to_json_pointer(&found.path),
                position: match found.document {
                    FlagDocument::Definitions => locate(definitions, &found.path, found.target),
                    FlagDocument::Details => None,
                },
                problem: found.problem,
            })
            .collect();
        diagnostics.sort_by_key(|diagnostic| (diagnostic.position.is_none(), diagnostic.position));
        FlagFileError {
            diagnostics,
            unreported: self.unreported,
        }
    }
}

//! Annotations: messages with an optional position in a file. As in GitHub's runner, an invalid position is dropped
//! and the message kept.

use std::path::{Component, Path, PathBuf};

use shipway_workflow::job::{AnnotationLevel, JournalBody};

use crate::{
    mask::Masker, problem_matcher::MatchedProblem, workflow_command::WorkflowCommand,
    workspace_paths::workspace_relative,
};

/// A range in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FilePosition {
    line: Option<u32>,
    end_line: Option<u32>,
    column: Option<u32>,
    end_column: Option<u32>,
}

impl FilePosition {
    /// Drops inconsistent lines and columns.
    fn drop_inconsistent(mut self) -> Self {
        self.line = self.line.or(self.end_line);
        self.column = self.column.or(self.end_column);
        let is_reversed =
            |from: Option<u32>, to: Option<u32>| from.zip(to).is_some_and(|(from, to)| to < from);
        if is_reversed(self.line, self.end_line) {
            (self.line, self.end_line) = (None, None);
        }
        let lines = self.line.zip(self.end_line);
        // Columns only make sense within one line.
        if self.line.is_none()
            || lines.is_some_and(|(from, to)| from != to)
            || is_reversed(self.column, self.end_column)
        {
            (self.column, self.end_column) = (None, None);
        }
        self
    }
}

/// From a workflow command.
pub(crate) fn from_command(
    level: AnnotationLevel,
    command: &WorkflowCommand,
    workspace: &Path,
    masker: &Masker,
) -> JournalBody {
    let number = |names: &[&str]| {
        let text = names.iter().find_map(|name| command.property(name));
        text.and_then(|text| text.trim().parse().ok())
    };
    let place = FilePosition {
        line: number(&["line"]),
        end_line: number(&["endLine"]),
        column: number(&["col", "column"]),
        end_column: number(&["endColumn"]),
    };
    let file = command.property("file").filter(|file| !file.is_empty());
    let file = file.map(|file| {
        if let Some(inner) = workspace_relative(file) {
            return inner.to_owned();
        }
        let inner = Path::new(file).strip_prefix(workspace);
        inner.map_or_else(|_| file.to_owned(), |inner| inner.display().to_string())
    });
    let title = command.property("title");
    build_annotation(level, &command.value, file, place, title, masker)
}

/// From a problem matcher. The file is dropped unless it exists in the workspace.
pub(crate) fn from_problem(
    problem: &MatchedProblem,
    workspace: &Path,
    masker: &Masker,
) -> JournalBody {
    let place = FilePosition {
        line: problem.line,
        column: problem.column,
        ..FilePosition::default()
    };
    let file = problem
        .file
        .as_deref()
        .and_then(|file| repository_path(workspace, workspace_relative(file).unwrap_or(file)));
    let MatchedProblem {
        level,
        message,
        code,
        ..
    } = problem;
    build_annotation(*level, message, file, place, code.as_deref(), masker)
}

/// From a message of the worker.
pub(crate) fn from_text(level: AnnotationLevel, text: &str, masker: &Masker) -> JournalBody {
    build_annotation(level, text, None, FilePosition::default(), None, masker)
}

fn build_annotation(
    level: AnnotationLevel,
    message: &str,
    file: Option<String>,
    place: FilePosition,
    title: Option<&str>,
    masker: &Masker,
) -> JournalBody {
    let masked = |text: &str| masker.mask(text).into_owned();
    let place = place.drop_inconsistent();
    JournalBody::Annotation {
        level,
        message: masked(message),
        file: file.as_deref().map(masked),
        line: place.line,
        end_line: place.end_line,
        column: place.column,
        end_column: place.end_column,
        title: title.map(masked),
    }
}

/// The path relative to its repository: the nearest enclosing git work tree, otherwise the workspace.
fn repository_path(workspace: &Path, file: &str) -> Option<String> {
    let path = normalize_path(&workspace.join(file))?;
    if !path.starts_with(workspace) || !path.is_file() {
        return None;
    }
    let above = path.ancestors().skip(1);
    let root = above
        .take_while(|folder| folder.starts_with(workspace))
        .find(|folder| folder.join(".git").exists())
        .unwrap_or(workspace);
    let inner = path.strip_prefix(root).ok()?;
    Some(inner.display().to_string())
}

/// Resolves `.` and `..` lexically.
fn normalize_path(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for step in path.components() {
        match step {
            Component::CurDir => {}
            Component::ParentDir => normal.pop().then_some(())?,
            step => normal.push(step),
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, end_line: u32, column: u32, end_column: u32) -> [u32; 4] {
        let some = |n: u32| (n > 0).then_some(n);
        let place = FilePosition {
            line: some(line),
            end_line: some(end_line),
            column: some(column),
            end_column: some(end_column),
        };
        let FilePosition {
            line,
            end_line,
            column,
            end_column,
        } = place.drop_inconsistent();
        [line, end_line, column, end_column].map(|n| n.unwrap_or(0))
    }

    #[test]
    fn places_are_github_s() {
        assert_eq!(place(1, 2, 0, 0), [1, 2, 0, 0]);
        assert_eq!(place(1, 1, 3, 4), [1, 1, 3, 4]);
        assert_eq!(place(0, 2, 0, 0), [2, 2, 0, 0]);
        assert_eq!(place(1, 0, 0, 4), [1, 0, 4, 4]);
        // Columns across lines, columns without a line, reversed ranges.
        assert_eq!(place(1, 2, 3, 4), [1, 2, 0, 0]);
        assert_eq!(place(0, 0, 3, 4), [0, 0, 0, 0]);
        assert_eq!(place(2, 1, 0, 0), [0, 0, 0, 0]);
        assert_eq!(place(1, 1, 4, 3), [1, 1, 0, 0]);
    }

    #[test]
    fn files_are_named_from_their_repository_on() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().join("w");
        std::fs::create_dir_all(workspace.join("repo/.git")).unwrap();
        std::fs::create_dir_all(workspace.join("repo/src")).unwrap();
        std::fs::write(workspace.join("repo/src/a.rs"), "").unwrap();
        std::fs::write(workspace.join("b.rs"), "").unwrap();
        std::fs::write(folder.path().join("out"), "").unwrap();
        let of = |file: &str| repository_path(&workspace, file);
        assert_eq!(of("repo/src/a.rs").as_deref(), Some("src/a.rs"));
        assert_eq!(of("./repo/../b.rs").as_deref(), Some("b.rs"));
        assert_eq!(of("../out"), None);
        assert_eq!(of("/etc/passwd"), None);
        assert_eq!(of("nothing"), None);
    }
}

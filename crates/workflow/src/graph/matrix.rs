//! Matrix combinations: GitHub's rules for `include` and `exclude`, and the names of the jobs.

use crate::{
    expr::{Contexts, EvalError, ExprValue},
    model::{JobMatrix, TemplateTree},
};

/// Jobs of one matrix; GitHub's limit.
pub const CELLS_MAX: usize = 256;

/// Combinations before `exclude`; more would only cost time, as at most [`CELLS_MAX`] may be left.
const PRODUCT_MAX: usize = 65_536;

/// Entries of `include` or `exclude`: each is compared with every combination.
const ENTRIES_MAX: usize = 1_000;

/// Characters in the name of a job; GitHub's limit.
const NAME_MAX: usize = 100;

/// Why a matrix makes no jobs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// An expression has no value.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// It isn't what a matrix is.
    #[error("the matrix must be {expected}, not {got}")]
    Kind {
        /// What would do: "`os` a list".
        expected: String,
        /// The actual type.
        got: &'static str,
    },
    /// A list has nothing in it.
    #[error("`{0}` in the matrix has no values")]
    EmptyAxis(String),
    /// An entry of `include` or `exclude` has nothing in it.
    #[error("an entry of `{0}` in the matrix is empty")]
    EmptyEntry(&'static str),
    /// `exclude` names something that isn't in the matrix.
    #[error("`exclude` names `{0}`, which isn't in the matrix")]
    UnknownExclude(String),
    /// No combination is left.
    #[error("the matrix produces no jobs: everything is excluded")]
    Nothing,
    /// `include` or `exclude` is too long.
    #[error("`{0}` of the matrix has more than {ENTRIES_MAX} entries")]
    TooManyEntries(&'static str),
    /// Too many.
    #[error("the matrix produces more than {CELLS_MAX} jobs")]
    TooMany,
}

/// One combination.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixCombination {
    /// The `matrix` context.
    pub values: ExprValue,
    /// The values that tell it from the others, for its name: `3.11, ubuntu`.
    pub label: String,
}

struct MatrixRow {
    entries: Vec<(String, ExprValue)>,
    /// How many of the first entries are of the matrix itself; `include` may not change those.
    original: usize,
}

/// All combinations, in GitHub's order: the first list varies slowest, then what `include` adds.
pub fn expand_matrix(
    matrix: &JobMatrix,
    contexts: &Contexts<'_>,
) -> Result<Vec<MatrixCombination>, MatrixError> {
    let MatrixParts {
        axes,
        include,
        exclude,
    } = parts(matrix, contexts)?;
    let mut rows = product(&axes)?;
    drop_excluded(&mut rows, &axes, &exclude)?;
    if rows.len() > CELLS_MAX {
        return Err(MatrixError::TooMany);
    }
    let before = rows.len();
    for entry in &include {
        add_included(&mut rows, before, &axes, entry);
        if rows.len() > CELLS_MAX {
            return Err(MatrixError::TooMany);
        }
    }
    if rows.is_empty() {
        return Err(MatrixError::Nothing);
    }
    Ok(rows.into_iter().map(MatrixRow::finish).collect())
}

type MatrixEntries = Vec<(String, ExprValue)>;
type MatrixAxis = (String, Vec<ExprValue>);

/// A matrix with its expressions resolved.
struct MatrixParts {
    axes: Vec<MatrixAxis>,
    include: Vec<MatrixEntries>,
    exclude: Vec<MatrixEntries>,
}

fn parts(matrix: &JobMatrix, contexts: &Contexts<'_>) -> Result<MatrixParts, MatrixError> {
    let mut axes = Vec::new();
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    match matrix {
        JobMatrix::Written {
            axes: written,
            include: included,
            exclude: excluded,
        } => {
            for (name, tree) in written {
                axes.push((name.clone(), list(name, &tree.resolve(contexts)?)?));
            }
            let resolve = |tree: &Option<TemplateTree>| {
                tree.as_ref().map(|tree| tree.resolve(contexts)).transpose()
            };
            include.extend(resolve(included)?);
            exclude.extend(resolve(excluded)?);
        }
        JobMatrix::Computed(template) => {
            let value = template.resolve(contexts)?;
            add_computed(&value, &mut axes, &mut include, &mut exclude)?;
        }
        JobMatrix::Dynamic(tree) => {
            let value = tree.resolve(contexts)?;
            add_computed(&value, &mut axes, &mut include, &mut exclude)?;
        }
    }
    let all = |name: &'static str, values: &[ExprValue]| {
        let lists: Result<Vec<_>, _> = values.iter().map(|value| entries(name, value)).collect();
        let all: Vec<MatrixEntries> = lists?.concat();
        if all.len() > ENTRIES_MAX {
            return Err(MatrixError::TooManyEntries(name));
        }
        match all.iter().any(Vec::is_empty) {
            true => Err(MatrixError::EmptyEntry(name)),
            false => Ok(all),
        }
    };
    Ok(MatrixParts {
        axes,
        include: all("include", &include)?,
        exclude: all("exclude", &exclude)?,
    })
}

/// The parts of a matrix that an expression gave as a whole.
fn add_computed(
    matrix: &ExprValue,
    axes: &mut Vec<MatrixAxis>,
    include: &mut Vec<ExprValue>,
    exclude: &mut Vec<ExprValue>,
) -> Result<(), MatrixError> {
    let ExprValue::Object(object) = matrix else {
        return Err(MatrixError::Kind {
            expected: "an object of lists".to_owned(),
            got: matrix.kind(),
        });
    };
    for (name, value) in object.iter() {
        match &**name {
            "include" => include.push(value.clone()),
            "exclude" => exclude.push(value.clone()),
            name => axes.push((name.to_owned(), list(name, value)?)),
        }
    }
    Ok(())
}

fn list(name: &str, value: &ExprValue) -> Result<Vec<ExprValue>, MatrixError> {
    match value {
        ExprValue::Array(items) if items.is_empty() => Err(MatrixError::EmptyAxis(name.to_owned())),
        ExprValue::Array(items) => Ok(items.to_vec()),
        other => Err(MatrixError::Kind {
            expected: format!("lists: `{name}` one too"),
            got: other.kind(),
        }),
    }
}

fn entries(name: &str, value: &ExprValue) -> Result<Vec<MatrixEntries>, MatrixError> {
    let wrong = |got: &ExprValue| MatrixError::Kind {
        expected: format!("lists: `{name}` a list of objects"),
        got: got.kind(),
    };
    let items = match value {
        ExprValue::Array(items) => items,
        ExprValue::Null => return Ok(Vec::new()),
        other => return Err(wrong(other)),
    };
    items
        .iter()
        .map(|item| match item {
            ExprValue::Object(object) => Ok(object
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect()),
            other => Err(wrong(other)),
        })
        .collect()
}

fn product(axes: &[MatrixAxis]) -> Result<Vec<MatrixRow>, MatrixError> {
    if axes.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = vec![MatrixRow {
        entries: Vec::new(),
        original: axes.len(),
    }];
    for (name, values) in axes {
        if rows.len().saturating_mul(values.len()) > PRODUCT_MAX {
            return Err(MatrixError::TooMany);
        }
        let with = |row: &MatrixRow, value: &ExprValue| {
            let mut entries = row.entries.clone();
            entries.push((name.clone(), value.clone()));
            MatrixRow {
                entries,
                original: row.original,
            }
        };
        rows = rows
            .iter()
            .flat_map(|row| values.iter().map(move |value| with(row, value)))
            .collect();
    }
    Ok(rows)
}

fn drop_excluded(
    rows: &mut Vec<MatrixRow>,
    axes: &[MatrixAxis],
    exclude: &[MatrixEntries],
) -> Result<(), MatrixError> {
    for (name, _) in exclude.iter().flatten() {
        if !axes.iter().any(|(axis, _)| axis.eq_ignore_ascii_case(name)) {
            return Err(MatrixError::UnknownExclude(name.clone()));
        }
    }
    rows.retain(|row| {
        let excluded = |entry: &MatrixEntries| {
            entry
                .iter()
                .all(|(name, value)| matches(row.get(name).unwrap_or(&ExprValue::Null), value))
        };
        !exclude.iter().any(excluded)
    });
    Ok(())
}

/// Adds an entry to every row whose own values it doesn't contradict, or as a row of its own where there is none.
fn add_included(
    rows: &mut Vec<MatrixRow>,
    before: usize,
    axes: &[MatrixAxis],
    entry: &MatrixEntries,
) {
    let mut added = false;
    for row in &mut rows[..before] {
        let fits = row.entries[..row.original].iter().all(|(name, mine)| {
            entry
                .iter()
                .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                .all(|(_, value)| matches(mine, value))
        });
        if !fits {
            continue;
        }
        added = true;
        for (name, value) in entry {
            row.set(name, value);
        }
    }
    if !added {
        // In its label the names of the matrix come first.
        let is_axis = |name: &str| axes.iter().any(|(axis, _)| axis.eq_ignore_ascii_case(name));
        let (mut entries, more): (MatrixEntries, MatrixEntries) =
            (entry.iter().cloned()).partition(|(name, _)| is_axis(name));
        entries.extend(more);
        rows.push(MatrixRow {
            original: entries.len(),
            entries,
        });
    }
}

/// Whether a matrix value matches a filter. Each leaf of the filter is compared with the value at the same path, as `==`
/// compares: paths that the filter lacks are ignored, and missing values are null.
fn matches(mine: &ExprValue, asked: &ExprValue) -> bool {
    match asked {
        ExprValue::Array(asked) => asked.iter().enumerate().all(|(at, asked)| {
            let mine = match mine {
                ExprValue::Array(mine) => mine.get(at),
                _ => None,
            };
            matches(mine.unwrap_or(&ExprValue::Null), asked)
        }),
        ExprValue::Object(asked) => asked
            .iter()
            .all(|(name, asked)| matches(&mine.get(name), asked)),
        ExprValue::Null | ExprValue::Bool(_) | ExprValue::Number(_) | ExprValue::String(_) => {
            mine.loosely_equals(asked)
        }
    }
}

impl MatrixRow {
    fn get(&self, name: &str) -> Option<&ExprValue> {
        self.entries
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn set(&mut self, name: &str, value: &ExprValue) {
        match self
            .entries
            .iter()
            .position(|(key, _)| key.eq_ignore_ascii_case(name))
        {
            Some(at) if at < self.original => {}
            Some(at) => self.entries[at].1 = value.clone(),
            None => self.entries.push((name.to_owned(), value.clone())),
        }
    }

    fn finish(self) -> MatrixCombination {
        let mut words = Vec::new();
        self.entries[..self.original]
            .iter()
            .for_each(|(_, value)| label(value, &mut words));
        MatrixCombination {
            label: words.join(", "),
            values: ExprValue::object(self.entries),
        }
    }
}

fn label(value: &ExprValue, words: &mut Vec<String>) {
    match value {
        ExprValue::Array(items) => items.iter().for_each(|item| label(item, words)),
        ExprValue::Object(object) => object.iter().for_each(|(_, value)| label(value, words)),
        primitive => {
            let text = primitive.to_text();
            words.extend((!text.is_empty()).then(|| text.to_string()));
        }
    }
}

/// `test (3.11, ubuntu)`, cut as GitHub cuts it.
#[must_use]
pub(super) fn name(base: &str, label: &str) -> String {
    let name = if label.is_empty() {
        base.to_owned()
    } else {
        format!("{base} ({label})")
    };
    if name.chars().count() <= NAME_MAX {
        return name;
    }
    name.chars()
        .take(NAME_MAX - 3)
        .chain("...".chars())
        .collect()
}

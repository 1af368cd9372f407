//! Scalars of a workflow file: text with expressions, switches, numbers, tables. Finds the place in the file that an error
//! within a text means, also in quotes and blocks.

use std::{borrow::Cow, ops::Range};

use shipway_syntax::{
    DIAGNOSTICS_MAX, Diagnostic, MappingFields, SourceFile, Span, TextStyle, YamlKey, YamlNode,
    YamlValue as Yaml, nearest,
};

use crate::{
    expr::{ExprSite, ExprValue, IfCondition, ParseError, Template, join_with_or},
    model::{DeferredSetting, FilePosition, TemplateKey, TemplateTable, TemplateTree},
};

/// Levels of a value in a matrix. As JSON each takes up to three, and readers of JSON go 128 deep.
const TREE_DEPTH_MAX: usize = 32;

pub(crate) struct WorkflowReader<'s> {
    source: &'s SourceFile,
    pub(super) problems: Vec<Diagnostic>,
    /// The first byte of each line.
    lines: Vec<usize>,
}

impl<'s> WorkflowReader<'s> {
    pub(crate) fn new(source: &'s SourceFile) -> Self {
        let starts = source
            .text
            .match_indices('\n')
            .map(|(newline, _)| newline + 1);
        Self {
            source,
            problems: Vec::new(),
            lines: std::iter::once(0).chain(starts).collect(),
        }
    }

    pub(super) fn position(&self, span: Span) -> FilePosition {
        let line = self.lines.partition_point(|&start| start <= span.start);
        let start = self.lines[line - 1];
        let column = self
            .source
            .text
            .get(start..span.start)
            .map_or(0, |before| before.chars().count())
            + 1;
        FilePosition {
            line: line as u32,
            column: column as u32,
        }
    }

    pub(super) fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.problems.push(Diagnostic::error(code, span, message));
    }

    pub(super) fn error_with_help(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems
            .push(Diagnostic::error(code, span, message).help(help));
    }

    pub(super) fn warn(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems
            .push(Diagnostic::warning(code, span, message).help(help));
    }

    /// Whether there are more problems than are shown: the next ones only count, and need no costly help.
    pub(super) fn has_many_problems(&self) -> bool {
        self.problems.len() >= DIAGNOSTICS_MAX
    }

    pub(super) fn wrong_type(&mut self, node: &YamlNode, what: &str, expected: &str) {
        let got = node.as_scalar_text().map_or_else(
            || node.kind().to_owned(),
            |text| format!("`{}`", first_line(text)),
        );
        self.error(
            "wrong-type",
            node.span,
            format!("`{what}` must be {expected}, but this is {got}"),
        );
    }

    pub(super) fn unknown_value(
        &mut self,
        node: &YamlNode,
        what: &str,
        word: &str,
        known: &[&str],
    ) {
        let help = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it can be {}", join_with_or(known.iter().copied())),
        };
        self.error_with_help(
            "unknown-value",
            node.span,
            format!("unknown {what} `{}`", first_line(word)),
            help,
        );
    }

    /// An error within the text of `node`, whose places are counted from the beginning of that text.
    pub(super) fn expression_error(&mut self, node: &YamlNode, error: ParseError) {
        let span = self.within(node, error.at);
        let mut problem = Diagnostic::error("expression", span, error.message);
        problem.help = error.help;
        self.problems.push(problem);
    }

    /// The span in the file of a part of a scalar's text.
    pub(crate) fn within(&self, node: &YamlNode, at: Range<usize>) -> Span {
        let (Some(text), Some(raw)) = (
            node.as_scalar_text(),
            self.source.text.get(node.span.start..node.span.end),
        ) else {
            return node.span;
        };
        let from =
            |start: usize| Span::new(node.span.start + start, node.span.start + start + at.len());
        if let Yaml::String {
            style: TextStyle::Plain | TextStyle::Quoted,
            ..
        } = node.value
        {
            let skipped = usize::from(raw.starts_with(['"', '\'']));
            if raw.get(skipped..).is_some_and(|raw| raw.starts_with(text)) {
                return from(skipped + at.start);
            }
        }
        self.by_line(text, raw, &at).map_or(node.span, from)
    }

    /// Blocks keep their lines, only further to the right: each line is looked for after the one before.
    fn by_line(&self, text: &str, raw: &str, at: &Range<usize>) -> Option<usize> {
        let (mut place, mut cursor) = (0, 0);
        for line in text.split_inclusive('\n') {
            let (blank, content) = (line.len() - line.trim_start().len(), line.trim());
            let found = raw
                .get(cursor..)
                .and_then(|rest| rest.find(content))
                .map(|found| cursor + found);
            if at.start < place + line.len() {
                // Folded lines are joined in the text: then at least the words themselves can be found.
                let inside = found.map(|found| found + at.start.saturating_sub(place + blank));
                return inside.or_else(|| {
                    text.get(at.clone())
                        .filter(|words| !words.is_empty())
                        .and_then(|words| raw.find(words))
                });
            }
            cursor = found? + content.len();
            place += line.len();
        }
        None
    }

    /// The text of a scalar. A number is written as expressions write it, as at GitHub: `3.10` without quotes is `3.1`.
    pub(super) fn text<'n>(&mut self, node: &'n YamlNode, what: &str) -> Option<Cow<'n, str>> {
        if let Yaml::Number { number, text } = &node.value {
            let meant = ExprValue::Number(*number).to_text();
            self.warn_of_number(node, text, &meant);
            return Some(Cow::Owned(meant.to_string()));
        }
        let text = node.as_scalar_text().map(Cow::Borrowed);
        if text.is_none() {
            self.wrong_type(node, what, "a string");
        }
        text
    }

    fn warn_of_number(&mut self, node: &YamlNode, written: &str, meant: &str) {
        if written != meant {
            let help = format!("quote it to mean a string: '{written}'");
            self.warn(
                "number",
                node.span,
                format!("`{written}` is the number {meant} here"),
                help,
            );
        }
    }

    /// A text that can't hold expressions.
    pub(super) fn plain(&mut self, node: &YamlNode, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if let Some(start) = text.find("${{") {
            let span = self.within(node, start..start + 3);
            self.error(
                "expression",
                span,
                format!("`{what}` can't hold expressions"),
            );
            return None;
        }
        Some(text.into_owned())
    }

    /// A text that may hold expressions.
    pub(super) fn template(
        &mut self,
        node: &YamlNode,
        what: &str,
        place: ExprSite,
    ) -> Option<Template> {
        let text = self.text(node, what)?;
        if place == ExprSite::Nowhere {
            self.plain(node, what)?;
        }
        match Template::parse(&text, 0)
            .and_then(|template| template.check(place).map(|()| template))
        {
            Ok(template) => Some(template.at_line(self.position(node.span).line)),
            Err(error) => {
                self.expression_error(node, error);
                None
            }
        }
    }

    /// A text that may hold expressions and isn't empty.
    pub(super) fn filled(
        &mut self,
        node: &YamlNode,
        what: &str,
        place: ExprSite,
    ) -> Option<Template> {
        let template = self.template(node, what, place)?;
        if template.text().is_empty() {
            self.error("empty", node.span, format!("`{what}` is empty"));
            return None;
        }
        Some(template)
    }

    /// One text or a list of them, none empty.
    pub(super) fn templates(
        &mut self,
        node: &YamlNode,
        what: &str,
        place: ExprSite,
    ) -> Vec<Template> {
        match node.as_sequence() {
            Some(items) => items
                .iter()
                .filter_map(|item| self.filled(item, what, place))
                .collect(),
            None => self.filled(node, what, place).into_iter().collect(),
        }
    }

    /// One text or a list of them, none empty, none with expressions.
    pub(super) fn plain_list<'n>(
        &mut self,
        node: &'n YamlNode,
        what: &str,
    ) -> Vec<(&'n YamlNode, String)> {
        let nodes = node.as_sequence().unwrap_or(std::slice::from_ref(node));
        let mut words = Vec::new();
        for node in nodes {
            match self.plain(node, what) {
                Some(word) if word.is_empty() => {
                    self.error("empty", node.span, format!("`{what}` is empty"))
                }
                Some(word) => words.push((node, word)),
                None => {}
            }
        }
        words
    }

    pub(super) fn condition(&mut self, node: Option<&YamlNode>, place: ExprSite) -> IfCondition {
        let Some(node) = node else {
            return IfCondition::default();
        };
        let Some(text) = self.text(node, "if") else {
            return IfCondition::default();
        };
        let condition = match IfCondition::parse(&text, 0)
            .and_then(|condition| condition.check(place).map(|()| condition))
        {
            Ok(condition) => condition.at_line(self.position(node.span).line),
            Err(error) => {
                self.expression_error(node, error);
                return IfCondition::default();
            }
        };
        if condition.is_text() {
            let help = "put the whole condition inside `${{ }}`, or remove them";
            self.warn(
                "always-true",
                node.span,
                "text around `${{ }}` turns this condition into a string, which is always true",
                help,
            );
        }
        condition
    }

    /// `true`, `false`, or an expression.
    pub(super) fn truth(
        &mut self,
        node: &YamlNode,
        what: &str,
        place: ExprSite,
    ) -> DeferredSetting<bool> {
        match &node.value {
            Yaml::Bool(value) => DeferredSetting::Value(*value),
            Yaml::String { text, .. } if text.contains("${{") => self
                .template(node, what, place)
                .map_or_else(DeferredSetting::default, DeferredSetting::Expr),
            _ => {
                self.wrong_type(node, what, "true, false or an expression");
                DeferredSetting::default()
            }
        }
    }

    /// A number above 0, or an expression.
    pub(super) fn number(
        &mut self,
        node: &YamlNode,
        what: &str,
        place: ExprSite,
    ) -> Option<DeferredSetting<f64>> {
        match &node.value {
            Yaml::Number { number, .. } if number.is_finite() && *number > 0.0 => {
                Some(DeferredSetting::Value(*number))
            }
            Yaml::String { text, .. } if text.contains("${{") => {
                self.template(node, what, place).map(DeferredSetting::Expr)
            }
            _ => {
                self.wrong_type(node, what, "a number above 0, or an expression");
                None
            }
        }
    }

    /// Names and texts, or an expression that gives them.
    pub(super) fn table(&mut self, node: &YamlNode, what: &str, place: ExprSite) -> TemplateTable {
        match &node.value {
            Yaml::Mapping(entries) if has_dynamic_key(entries) => self
                .texts_tree(entries, place)
                .map_or_else(TemplateTable::default, TemplateTable::Dynamic),
            Yaml::Mapping(entries) => TemplateTable::Entries(
                entries
                    .iter()
                    .filter_map(|(key, node)| self.entry(key, node, place))
                    .collect(),
            ),
            Yaml::String { text, .. }
                if text.trim_start().starts_with("${{") && place != ExprSite::Nowhere =>
            {
                self.template(node, what, place)
                    .map_or_else(TemplateTable::default, TemplateTable::Computed)
            }
            _ => {
                self.wrong_type(node, what, "a mapping of names to values");
                TemplateTable::default()
            }
        }
    }

    fn entry(
        &mut self,
        key: &YamlKey,
        node: &YamlNode,
        place: ExprSite,
    ) -> Option<(String, Template)> {
        if key.text.is_empty() {
            self.error("empty", key.span, "a name is missing here");
            return None;
        }
        if node.is_null() {
            return Template::parse("", 0)
                .ok()
                .map(|empty| (key.text.clone(), empty));
        }
        Some((key.text.clone(), self.template(node, &key.text, place)?))
    }

    /// A table with names that are expressions. Its values are texts, or mappings to insert.
    fn texts_tree(
        &mut self,
        entries: &[(YamlKey, YamlNode)],
        place: ExprSite,
    ) -> Option<TemplateTree> {
        for (key, node) in entries {
            let is_text = node.is_null() || node.as_scalar_text().is_some();
            if !is_text && !is_insert(&key.text) {
                self.wrong_type(node, &key.text, "a text");
                return None;
            }
        }
        self.dynamic_map(entries, place)
    }

    fn dynamic_map(
        &mut self,
        entries: &[(YamlKey, YamlNode)],
        place: ExprSite,
    ) -> Option<TemplateTree> {
        let mut read = Vec::new();
        for (key, node) in entries {
            let template = self.key_template(key, place)?;
            let key = match is_insert(&key.text) {
                true => TemplateKey::Insert(template),
                false => TemplateKey::Name(template),
            };
            read.push((key, self.branch(node, "the value", place)?));
        }
        Some(TemplateTree::DynamicMap(read))
    }

    fn key_template(&mut self, key: &YamlKey, place: ExprSite) -> Option<Template> {
        if is_insert(&key.text) {
            return Some(Template::literal(key.text.as_str()));
        }
        let node = YamlNode {
            span: key.span,
            value: Yaml::String {
                text: key.text.clone(),
                style: TextStyle::Plain,
            },
        };
        self.filled(&node, "the name", place)
    }

    /// Any YAML with expressions in its leaves.
    pub(super) fn tree(
        &mut self,
        node: &YamlNode,
        what: &str,
        place: ExprSite,
    ) -> Option<TemplateTree> {
        if is_deeper(node, TREE_DEPTH_MAX) {
            let message = format!("`{what}` is nested deeper than {TREE_DEPTH_MAX} levels");
            self.error("too-deep", node.span, message);
            return None;
        }
        self.branch(node, what, place)
    }

    fn branch(&mut self, node: &YamlNode, what: &str, place: ExprSite) -> Option<TemplateTree> {
        Some(match &node.value {
            Yaml::Null => TemplateTree::Value(ExprValue::Null),
            Yaml::Bool(value) => TemplateTree::Value(ExprValue::Bool(*value)),
            Yaml::Number { number, text } => {
                let value = ExprValue::Number(*number);
                self.warn_of_number(node, text, &value.to_text());
                TemplateTree::Value(value)
            }
            Yaml::String { text, .. } if text.contains("${{") => {
                TemplateTree::Template(self.template(node, what, place)?)
            }
            Yaml::String { text, .. } => TemplateTree::Value(ExprValue::from(text.as_str())),
            Yaml::Sequence(items) => TemplateTree::List(
                items
                    .iter()
                    .filter_map(|item| self.branch(item, what, place))
                    .collect(),
            ),
            Yaml::Mapping(entries) if has_dynamic_key(entries) => {
                self.dynamic_map(entries, place)?
            }
            Yaml::Mapping(entries) => TemplateTree::Map(
                entries
                    .iter()
                    .filter_map(|(key, node)| {
                        Some((key.text.clone(), self.branch(node, what, place)?))
                    })
                    .collect(),
            ),
        })
    }

    /// The keys of a mapping.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n YamlNode,
        what: &'n str,
        known: &[&str],
    ) -> Option<MappingFields<'n>> {
        MappingFields::read(node, what, known, &mut self.problems)
    }
}

impl From<bool> for DeferredSetting<bool> {
    fn from(value: bool) -> Self {
        Self::Value(value)
    }
}

/// Whether a name in a mapping is an expression.
pub(super) fn has_dynamic_key(entries: &[(YamlKey, YamlNode)]) -> bool {
    entries.iter().any(|(key, _)| key.text.contains("${{"))
}

/// `${{ insert }}`
fn is_insert(key: &str) -> bool {
    let inner = key.trim().strip_prefix("${{");
    let inner = inner.and_then(|key| key.strip_suffix("}}"));
    inner.is_some_and(|inner| inner.trim().eq_ignore_ascii_case("insert"))
}

/// Whether there are more than `levels` below a node.
fn is_deeper(node: &YamlNode, levels: usize) -> bool {
    let below = match &node.value {
        Yaml::Sequence(items) => items.iter().collect::<Vec<_>>(),
        Yaml::Mapping(entries) => entries.iter().map(|(_, node)| node).collect(),
        Yaml::Null | Yaml::Bool(_) | Yaml::Number { .. } | Yaml::String { .. } => return false,
    };
    levels == 0 || below.into_iter().any(|node| is_deeper(node, levels - 1))
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 60 {
        format!("{}…", line.chars().take(60).collect::<String>())
    } else {
        line.to_owned()
    }
}

//! A mapping read key by key: unknown keys are named with the nearest known one, each value by what it should be.

use std::time::Duration;

use crate::{
    diagnostic::{DIAGNOSTICS_MAX, Diagnostic},
    nearest::nearest,
    scalar::{parse_bytes, parse_duration},
    source::{Span, Spanned},
    tree::{YamlKey, YamlNode, YamlValue},
};

/// The keys of a mapping. Reading a key that is absent or null gives `None` and no diagnostic.
#[derive(Clone, Copy, Debug)]
pub struct MappingFields<'n> {
    entries: &'n [(YamlKey, YamlNode)],
    /// Where the mapping stands.
    pub span: Span,
    what: &'n str,
}

impl<'n> MappingFields<'n> {
    /// The keys of `node`, called `what` in messages; unknown ones and anything but a mapping are reported.
    pub fn read(
        node: &'n YamlNode,
        what: &'n str,
        known: &[&str],
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let Some(entries) = node.as_mapping() else {
            problems.push(
                Diagnostic::error(
                    "wrong-type",
                    node.span,
                    format!("{what} must be a mapping, but this is {}", node.kind()),
                )
                .help(format!("its keys are {}", known.join(", "))),
            );
            return None;
        };
        for (key, _) in entries
            .iter()
            .filter(|(key, _)| !known.contains(&key.text.as_str()))
        {
            let near = match problems.len() < DIAGNOSTICS_MAX {
                true => nearest(&key.text, known.iter().copied()),
                false => None,
            };
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", known.join(", ")),
            };
            problems.push(
                Diagnostic::error(
                    "unknown-key",
                    key.span,
                    format!("unknown key `{}` in {what}", key.text),
                )
                .help(help),
            );
        }
        Some(Self {
            entries,
            span: node.span,
            what,
        })
    }

    /// The value of a key, unless absent or null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'n YamlNode> {
        self.entries
            .iter()
            .find(|(it, _)| it.text == key)
            .map(|(_, node)| node)
            .filter(|node| !node.is_null())
    }

    /// The value of a key that must be there.
    pub fn require(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<&'n YamlNode> {
        let found = self.get(key);
        if found.is_none() {
            let place = Span::new(self.span.start, self.span.start);
            problems.push(Diagnostic::error(
                "missing-key",
                place,
                format!("`{key}` is missing in {}", self.what),
            ));
        }
        found
    }

    /// A text; numbers and booleans are taken as written.
    pub fn string(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
        let node = self.get(key)?;
        string(node, key, problems)
    }

    /// `true` or `false`.
    pub fn bool(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<bool> {
        let node = self.get(key)?;
        match node.value {
            YamlValue::Bool(value) => Some(value),
            _ => report(problems, node, key, "true or false"),
        }
    }

    /// A whole number within bounds.
    pub fn integer(
        &self,
        key: &str,
        least: u32,
        most: u32,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<u32> {
        let node = self.get(key)?;
        match node.value {
            YamlValue::Number { number, .. }
                if number.fract() == 0.0
                    && (f64::from(least)..=f64::from(most)).contains(&number) =>
            {
                Some(number as u32)
            }
            _ => report(
                problems,
                node,
                key,
                &format!("a whole number from {least} to {most}"),
            ),
        }
    }

    /// A duration: `250ms`, `2s`, `5m`, `1h30m`, `30d`.
    pub fn duration(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<Duration> {
        let node = self.get(key)?;
        let parsed = node.as_scalar_text().and_then(parse_duration);
        parsed.or_else(|| {
            report(
                problems,
                node,
                key,
                "a duration, such as 250ms, 2s, 5m or 1h30m",
            )
        })
    }

    /// An amount of memory: `256MiB`.
    pub fn bytes(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Option<u64> {
        let node = self.get(key)?;
        let parsed = node.as_scalar_text().and_then(parse_bytes);
        parsed.or_else(|| report(problems, node, key, "an amount of memory, such as 256MiB"))
    }

    /// One string or a list of strings.
    pub fn strings(&self, key: &str, problems: &mut Vec<Diagnostic>) -> Vec<Spanned<String>> {
        match self.get(key) {
            None => Vec::new(),
            Some(YamlNode {
                value: YamlValue::Sequence(items),
                ..
            }) => items
                .iter()
                .filter_map(|item| string(item, key, problems))
                .collect(),
            Some(node) => string(node, key, problems).into_iter().collect(),
        }
    }

    /// The items of a list.
    pub fn list(&self, key: &str, problems: &mut Vec<Diagnostic>) -> &'n [YamlNode] {
        match self.get(key) {
            None => &[],
            Some(node) => node.as_sequence().unwrap_or_else(|| {
                let _: Option<()> = report(problems, node, key, "a list");
                &[]
            }),
        }
    }

    /// Texts by key.
    pub fn map(
        &self,
        key: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> Vec<(&'n YamlKey, Spanned<String>)> {
        match self.get(key) {
            None => Vec::new(),
            Some(YamlNode {
                value: YamlValue::Mapping(entries),
                ..
            }) => entries
                .iter()
                .filter_map(|(key, node)| Some((key, string(node, &key.text, problems)?)))
                .collect(),
            Some(node) => {
                let _: Option<()> = report(problems, node, key, "a mapping of names to strings");
                Vec::new()
            }
        }
    }
}

fn string(node: &YamlNode, key: &str, problems: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
    match node.as_scalar_text() {
        Some(text) => Some(Spanned {
            value: text.to_owned(),
            span: node.span,
        }),
        None => report(problems, node, key, "a string"),
    }
}

fn report<T>(
    problems: &mut Vec<Diagnostic>,
    node: &YamlNode,
    key: &str,
    expected: &str,
) -> Option<T> {
    let got = node
        .as_scalar_text()
        .map_or_else(|| node.kind().to_owned(), |text| format!("`{text}`"));
    problems.push(Diagnostic::error(
        "wrong-type",
        node.span,
        format!("`{key}` must be {expected}, but this is {got}"),
    ));
    None
}

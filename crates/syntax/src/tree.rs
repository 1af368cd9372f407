//! YAML 1.2 (core schema) as a tree with places. Aliases are expanded within a bound, duplicate keys are refused.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as Marked, Tag};
use serde::{Deserialize, Serialize};

use crate::{
    diagnostic::Diagnostic,
    padded_text::{PaddedText, ParserStrictness},
    source::{SourceFile, Span},
};

/// The largest text that is read.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Nodes of a tree, aliases expanded: what hand-written files never reach and a "billion laughs" does at once.
const NODES_MAX: usize = 500_000;
/// Limit on the bytes that anchors and aliases copy: enough for a long text used in a hundred places, not in a hundred thousand.
const COPIED_BYTES_MAX: usize = 32 << 20;
/// How deep a tree may be.
const DEPTH_MAX: usize = 100;

/// A node and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct YamlNode {
    /// Where it stands.
    pub span: Span,
    /// The parsed value.
    pub value: YamlValue,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum YamlValue {
    /// `null`, `~`, or nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number, with its source text: `3.10` and `3.1` can be different versions.
    Number {
        /// Its value.
        number: f64,
        /// As written.
        text: String,
    },
    /// A text.
    String {
        /// The text.
        text: String,
        /// How it was written.
        style: TextStyle,
    },
    /// A list.
    Sequence(Vec<YamlNode>),
    /// Keys and values, in order.
    Mapping(Vec<(YamlKey, YamlNode)>),
}

/// How a text was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextStyle {
    /// Without quotes.
    Plain,
    /// In quotes: its bytes are not those of the file.
    Quoted,
    /// As a block (`|`, `>`).
    Block,
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct YamlKey {
    /// The key.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl YamlNode {
    /// The entries of a mapping.
    #[must_use]
    pub fn as_mapping(&self) -> Option<&[(YamlKey, Self)]> {
        match &self.value {
            YamlValue::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a sequence.
    #[must_use]
    pub fn as_sequence(&self) -> Option<&[Self]> {
        match &self.value {
            YamlValue::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            YamlValue::String { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text of any scalar but null, as it was written.
    #[must_use]
    pub fn as_scalar_text(&self) -> Option<&str> {
        match &self.value {
            YamlValue::Bool(true) => Some("true"),
            YamlValue::Bool(false) => Some("false"),
            YamlValue::Number { text, .. } | YamlValue::String { text, .. } => Some(text),
            YamlValue::Null | YamlValue::Sequence(_) | YamlValue::Mapping(_) => None,
        }
    }

    /// Whether it is null.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self.value, YamlValue::Null)
    }

    /// The value under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_mapping()?
            .iter()
            .find(|(it, _)| it.text == key)
            .map(|(_, node)| node)
    }

    /// The type of the value, for messages: "a list".
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.value {
            YamlValue::Null => "empty",
            YamlValue::Bool(_) => "a boolean",
            YamlValue::Number { .. } => "a number",
            YamlValue::String { .. } => "a string",
            YamlValue::Sequence(_) => "a list",
            YamlValue::Mapping(_) => "a mapping",
        }
    }

    /// How much it is.
    fn measure(&self) -> NodeSize {
        let mut all = NodeSize {
            nodes: 1,
            bytes: size_of::<Self>(),
            height: 0,
        };
        match &self.value {
            YamlValue::Sequence(items) => items.iter().for_each(|item| all.hold(item)),
            YamlValue::Mapping(entries) => {
                for (key, node) in entries {
                    all.nodes += 1;
                    all.bytes += key.text.len();
                    all.hold(node);
                }
            }
            YamlValue::Number { text, .. } | YamlValue::String { text, .. } => {
                all.bytes += text.len()
            }
            YamlValue::Null | YamlValue::Bool(_) => {}
        }
        all
    }
}

/// What a copy of a node costs.
#[derive(Clone, Copy, Debug)]
struct NodeSize {
    nodes: usize,
    bytes: usize,
    /// Levels below it.
    height: usize,
}

impl NodeSize {
    fn hold(&mut self, node: &YamlNode) {
        let part = node.measure();
        self.nodes += part.nodes;
        self.bytes += part.bytes;
        self.height = self.height.max(part.height + 1);
    }
}

/// Reads one YAML document. An empty text is null.
pub fn parse(source: &SourceFile) -> Result<YamlNode, Vec<Diagnostic>> {
    let text: &str = &source.text;
    if text.len() > TEXT_BYTES_MAX {
        return Err(vec![Diagnostic::error(
            "too-large",
            Span::default(),
            format!("the file is larger than {} MiB", TEXT_BYTES_MAX >> 20),
        )]);
    }
    if let Some(place) = text.find('\0') {
        return Err(vec![Diagnostic::error(
            "yaml",
            Span::new(place, place + 1),
            "a NUL byte; is this a text file?",
        )]);
    }
    let mut padded = PaddedText::new(text);
    loop {
        let mut reader = TreeReader::new(text, &padded);
        let problem = match reader.read() {
            Ok(tree) => return Ok(tree),
            Err(problem) => problem,
        };
        let strict = reader.strict_error;
        if !strict.is_some_and(|(strictness, place)| padded.pad(strictness, place)) {
            return Err(vec![problem]);
        }
    }
}

struct TreeReader<'t> {
    /// The text of the file, to which spans refer.
    text: &'t str,
    /// The text that is parsed.
    padded: &'t PaddedText<'t>,
    /// An error that padding may avoid, with its byte in the padded text.
    strict_error: Option<(ParserStrictness, usize)>,
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// Bytes of each 1,024th character, so that character positions are found quickly.
    bytes: Vec<usize>,
    anchors: BTreeMap<usize, (YamlNode, NodeSize)>,
    nodes: usize,
    /// Bytes of nodes that were copied for anchors and aliases.
    copied: usize,
}

type YamlResult<T> = Result<T, Diagnostic>;

const STRIDE: usize = 1_024;

impl<'t> TreeReader<'t> {
    fn new(text: &'t str, padded: &'t PaddedText<'t>) -> Self {
        let bytes = padded
            .as_str()
            .char_indices()
            .step_by(STRIDE)
            .map(|(byte, _)| byte)
            .collect();
        Self {
            text,
            padded,
            strict_error: None,
            events: Parser::new_from_str(padded.as_str()),
            bytes,
            anchors: BTreeMap::new(),
            nodes: 0,
            copied: 0,
        }
    }

    fn read(&mut self) -> YamlResult<YamlNode> {
        let mut document = None;
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::StreamStart
                | Event::Nothing => {}
                other if document.is_none() => document = Some(self.node(other, mark, 0)?),
                _ => {
                    return Err(Diagnostic::error(
                        "yaml",
                        self.span(mark),
                        "a second document; one file holds one",
                    )
                    .help("remove the `---` line"));
                }
            }
        }
        Ok(document.unwrap_or(YamlNode {
            span: Span::default(),
            value: YamlValue::Null,
        }))
    }

    fn next(&mut self) -> YamlResult<(Event<'t>, Marked)> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let strictness = ParserStrictness::from_parser_message(error.info());
                let padded = self.padded_byte(*error.marker());
                self.strict_error = strictness.map(|strictness| (strictness, padded));
                let place = self.padded.to_original(padded);
                let problem =
                    Diagnostic::error("yaml", Span::new(place, place), error.info().to_owned());
                Err(if self.is_tab_near(place) {
                    problem.help("there is a tab here: write spaces")
                } else {
                    problem
                })
            }
            None => Ok((Event::StreamEnd, Marked::empty(Marker::new(0, 1, 0)))),
        }
    }

    /// Whether a tab stands here, or in the blanks before.
    fn is_tab_near(&self, place: usize) -> bool {
        let (before, after) = self.text.split_at(place.min(self.text.len()));
        let blanks = before.len() - before.trim_end_matches([' ', '\t']).len();
        after.starts_with('\t') || before[before.len() - blanks..].contains('\t')
    }

    fn within_bounds(&self, span: Span, depth: usize) -> YamlResult<()> {
        let message = if depth > DEPTH_MAX {
            format!("nested deeper than {DEPTH_MAX} levels")
        } else if self.nodes > NODES_MAX {
            format!("more than {NODES_MAX} nodes, aliases expanded")
        } else {
            return Ok(());
        };
        Err(Diagnostic::error("yaml", span, message))
    }

    fn node(&mut self, event: Event<'t>, mark: Marked, depth: usize) -> YamlResult<YamlNode> {
        let span = self.span(mark);
        self.nodes += 1;
        self.within_bounds(span, depth)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = match tag {
                    None => scalar(&text, style),
                    Some(tag) => tagged(&tag, &text, style)
                        .map_err(|error| Diagnostic::error("yaml", span, error.to_string()))?,
                };
                (YamlNode { span, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(span, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(span, depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(Diagnostic::error("yaml", span, "the file ends too early"));
            }
        };
        if anchor > 0 {
            let measure = node.measure();
            self.copy(measure, span)?;
            self.anchors.insert(anchor, (node.clone(), measure));
        }
        Ok(node)
    }

    /// Counts a copy before it is made, and refuses one over the limit.
    fn copy(&mut self, measure: NodeSize, span: Span) -> YamlResult<()> {
        self.copied += measure.bytes;
        if self.copied > COPIED_BYTES_MAX {
            let message = format!("more than {} MiB, aliases expanded", COPIED_BYTES_MAX >> 20);
            return Err(Diagnostic::error("yaml", span, message));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> YamlResult<YamlNode> {
        let (node, measure) = self
            .anchors
            .get(&anchor)
            .ok_or_else(|| Diagnostic::error("yaml", span, "an alias inside its own anchor"))?;
        let (node, measure) = (node.clone(), *measure);
        self.nodes += measure.nodes;
        self.copy(measure, span)?;
        self.within_bounds(span, depth + measure.height)?;
        Ok(node)
    }

    fn sequence(&mut self, start: Span, depth: usize) -> YamlResult<YamlNode> {
        let mut items = Vec::new();
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                let end = self.end_of(items.last(), start, mark);
                return Ok(YamlNode {
                    span: Span::new(start.start, end),
                    value: YamlValue::Sequence(items),
                });
            }
            items.push(self.node(event, mark, depth + 1)?);
        }
    }

    fn mapping(&mut self, start: Span, depth: usize) -> YamlResult<YamlNode> {
        let mut entries: Vec<(YamlKey, YamlNode)> = Vec::new();
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                let end = self.end_of(entries.last().map(|(_, node)| node), start, mark);
                return Ok(YamlNode {
                    span: Span::new(start.start, end),
                    value: YamlValue::Mapping(entries),
                });
            }
            let key = self.node(event, mark, depth + 1)?;
            let text = key.as_scalar_text().map(str::to_owned);
            let Some(text) = text.or_else(|| key.is_null().then(String::new)) else {
                return Err(Diagnostic::error(
                    "yaml",
                    key.span,
                    format!("a key must be a string, but this is {}", key.kind()),
                ));
            };
            if text == "<<" {
                return Err(Diagnostic::error(
                    "yaml",
                    key.span,
                    "merge keys (`<<`) are not part of YAML 1.2",
                )
                .help("repeat the keys, or use an alias for the whole value"));
            }
            if let Some(first) = seen.insert(text.clone(), key.span) {
                let line = self.text[..first.start].matches('\n').count() + 1;
                return Err(Diagnostic::error(
                    "duplicate-key",
                    key.span,
                    format!("duplicate key `{text}` (first on line {line})"),
                ));
            }
            let (event, mark) = self.next()?;
            let node = self.node(event, mark, depth + 1)?;
            entries.push((
                YamlKey {
                    text,
                    span: key.span,
                },
                node,
            ));
        }
    }

    /// Block collections end where the next thing begins; people mean the end of their last entry.
    fn end_of(&self, last: Option<&YamlNode>, start: Span, mark: Marked) -> usize {
        let mark = self.span(mark);
        // The mark of a bracket includes the blanks and the comment after it.
        let bracket = self.text[mark.start..].starts_with([']', '}']);
        match (bracket, last) {
            (true, _) => mark.start + 1,
            (false, Some(last)) => last.span.end,
            (false, None) => mark.end.max(start.end),
        }
        .max(start.start)
    }

    fn span(&self, mark: Marked) -> Span {
        let start = self.byte(mark.start);
        Span::new(start, self.byte(mark.end).max(start))
    }

    /// The byte of the file.
    fn byte(&self, mark: Marker) -> usize {
        self.padded.to_original(self.padded_byte(mark))
    }

    /// Markers count characters.
    fn padded_byte(&self, mark: Marker) -> usize {
        let (index, text) = (mark.index(), self.padded.as_str());
        let Some(&from) = self.bytes.get(index / STRIDE) else {
            return text.len();
        };
        text[from..]
            .char_indices()
            .nth(index % STRIDE)
            .map_or(text.len(), |(byte, _)| from + byte)
    }
}

/// Why a tagged scalar is refused.
#[derive(Debug, thiserror::Error)]
enum TagError {
    #[error("unknown tag `{tag}`; leave it out")]
    Unknown { tag: String },
    #[error("`{text}` doesn't fit its tag `{tag}`")]
    Mismatch { text: String, tag: String },
}

/// The beginning of the tags of YAML's core schema.
const CORE_NAMESPACE: &str = "tag:yaml.org,2002:";

/// Resolves a scalar with an explicit tag: `!!str 3.10`, `!<tag:yaml.org,2002:str> 3.10`. Supports the tags of the core schema.
fn tagged(tag: &Tag, text: &str, style: ScalarStyle) -> Result<YamlValue, TagError> {
    let string = || YamlValue::String {
        text: text.to_owned(),
        style: TextStyle::Quoted,
    };
    // A lone `!` makes a text of anything.
    if tag.suffix == "!" && tag.handle.is_empty() || (tag.handle == "!" && tag.suffix.is_empty()) {
        return Ok(string());
    }
    // `!!int` has the namespace as its handle, `!<tag:yaml.org,2002:int>` has it in its suffix.
    let full_name = format!("{}{}", tag.handle, tag.suffix);
    let Some(name) = full_name.strip_prefix(CORE_NAMESPACE) else {
        return Err(TagError::Unknown { tag: full_name });
    };
    let shown = || format!("!!{name}");
    let value = scalar(text, style);
    let fits = match name {
        "str" => return Ok(string()),
        "null" => value == YamlValue::Null,
        "bool" => matches!(value, YamlValue::Bool(_)),
        "int" => matches!(value, YamlValue::Number { number, .. } if number.fract() == 0.0),
        "float" => matches!(value, YamlValue::Number { .. }),
        _ => return Err(TagError::Unknown { tag: shown() }),
    };
    if fits {
        return Ok(value);
    }
    Err(TagError::Mismatch {
        text: text.to_owned(),
        tag: shown(),
    })
}

/// Resolves a scalar by the core schema: only a plain scalar can be anything but a string.
fn scalar(text: &str, style: ScalarStyle) -> YamlValue {
    let style = match style {
        ScalarStyle::Plain => TextStyle::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => TextStyle::Quoted,
        ScalarStyle::Literal | ScalarStyle::Folded => TextStyle::Block,
    };
    if style == TextStyle::Plain {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return YamlValue::Null,
            "true" | "True" | "TRUE" => return YamlValue::Bool(true),
            "false" | "False" | "FALSE" => return YamlValue::Bool(false),
            _ => {
                if let Some(number) = number(text) {
                    return YamlValue::Number {
                        number,
                        text: text.to_owned(),
                    };
                }
            }
        }
    }
    YamlValue::String {
        text: text.to_owned(),
        style,
    }
}

fn number(text: &str) -> Option<f64> {
    let radix = |digits: &str, radix| {
        u64::from_str_radix(digits, radix)
            .ok()
            .filter(|_| !digits.starts_with('+'))
            .map(|number| number as f64)
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit())
        || (unsigned.starts_with('.') && unsigned[1..].starts_with(|c: char| c.is_ascii_digit()));
    let plain = unsigned
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    (starts && plain).then(|| text.parse().ok()).flatten()
}

//! JSON as `fromJSON` reads it. GitHub's runner reads with Newtonsoft's reader, which forgives: comments, single quotes,
//! names without quotes, a comma before the end, `NaN`, hexadecimal numbers, and text after the first value. Workflows
//! rely on it (mostly on the comma), so it is forgiven here too. Of two equal names the last counts.

use std::{iter::Peekable, str::CharIndices, sync::Arc};

use super::value::{ExprObject, ExprValue};

/// How deep a value may be: Newtonsoft's limit is 64, the runner's next reader's is 100. A value is written into the spec of
/// a job, and must be read there again.
const DEPTH_MAX: usize = 100;

/// Why a text isn't JSON.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("it is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error(transparent)]
    Syntax(serde_json::Error),
}

/// Parses `text` strictly first, then leniently; the error is that of the strict parser.
pub(crate) fn read(text: &str) -> Result<ExprValue, JsonError> {
    // Nearly all JSON is strict, and serde has the better messages for the rest.
    let strict = match serde_json::from_str::<ExprValue>(text) {
        Ok(value) if is_deeper(&value, DEPTH_MAX) => {
            return Err(JsonError::TooDeep);
        }
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let mut reader = JsonReader {
        text,
        chars: text.char_indices().peekable(),
    };
    reader.value(0).ok_or(JsonError::Syntax(strict))
}

fn is_deeper(value: &ExprValue, levels: usize) -> bool {
    match value {
        ExprValue::Array(items) => {
            levels == 0 || items.iter().any(|item| is_deeper(item, levels - 1))
        }
        ExprValue::Object(object) => {
            levels == 0 || object.iter().any(|(_, item)| is_deeper(item, levels - 1))
        }
        _ => false,
    }
}

struct JsonReader<'t> {
    text: &'t str,
    chars: Peekable<CharIndices<'t>>,
}

impl<'t> JsonReader<'t> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|&(_, c)| c)
    }

    fn take(&mut self, expected: char) -> bool {
        self.chars.next_if(|&(_, c)| c == expected).is_some()
    }

    /// Goes past blanks and comments; none when a comment has no end.
    fn blanks(&mut self) -> Option<()> {
        loop {
            while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
            if !self.take('/') {
                return Some(());
            }
            match self.chars.next()?.1 {
                '/' => while self.chars.next_if(|&(_, c)| c != '\n').is_some() {},
                '*' => {
                    let mut before = ' ';
                    loop {
                        let (_, c) = self.chars.next()?;
                        if before == '*' && c == '/' {
                            break;
                        }
                        before = c;
                    }
                }
                _ => return None,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<ExprValue> {
        self.blanks()?;
        match self.peek()? {
            _ if depth >= DEPTH_MAX => None,
            '[' => self.array(depth),
            '{' => self.object(depth),
            quote @ ('"' | '\'') => Some(ExprValue::from(self.string(quote)?)),
            _ => word(self.read_bare_token()),
        }
    }

    fn array(&mut self, depth: usize) -> Option<ExprValue> {
        self.chars.next();
        let mut items = Vec::new();
        loop {
            self.blanks()?;
            if self.take(']') {
                return Some(ExprValue::array(items));
            }
            items.push(self.value(depth + 1)?);
            self.blanks()?;
            if !self.take(',') && self.peek()? != ']' {
                return None;
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<ExprValue> {
        self.chars.next();
        let mut object = ExprObject::default();
        loop {
            self.blanks()?;
            if self.take('}') {
                return Some(ExprValue::Object(Arc::new(object)));
            }
            let name = match self.peek()? {
                quote @ ('"' | '\'') => self.string(quote)?,
                _ => self.name()?.to_owned(),
            };
            self.blanks()?;
            if !self.take(':') {
                return None;
            }
            object.insert(name, self.value(depth + 1)?);
            self.blanks()?;
            if !self.take(',') && self.peek()? != '}' {
                return None;
            }
        }
    }

    fn string(&mut self, quote: char) -> Option<String> {
        self.chars.next();
        let mut out = String::new();
        loop {
            match self.chars.next()?.1 {
                c if c == quote => return Some(out),
                '\\' => out.push(self.escaped()?),
                c => out.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.chars.next()?.1 {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = self.unit()?;
                match char::from_u32(unit) {
                    Some(c) => c,
                    None => self.pair(unit)?,
                }
            }
            c @ ('"' | '\'' | '\\' | '/') => c,
            _ => return None,
        })
    }

    /// The second half of a character outside the basic plane.
    fn pair(&mut self, first: u32) -> Option<char> {
        if !(self.take('\\') && self.take('u')) {
            return None;
        }
        let second = self.unit()?;
        char::decode_utf16([u16::try_from(first).ok()?, u16::try_from(second).ok()?])
            .next()?
            .ok()
    }

    fn unit(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |unit, _| {
            Some(unit * 16 + self.chars.next()?.1.to_digit(16)?)
        })
    }

    /// A name without quotes.
    fn name(&mut self) -> Option<&'t str> {
        let name = self.run(|c| c.is_alphanumeric() || matches!(c, '_' | '$'));
        (!name.is_empty()).then_some(name)
    }

    /// A number, `true`, …: all up to the next sign.
    fn read_bare_token(&mut self) -> &'t str {
        self.run(|c| c.is_alphanumeric() || matches!(c, '+' | '-' | '.'))
    }

    fn run(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        let start = self.chars.peek().map_or(self.text.len(), |&(at, _)| at);
        while self.chars.next_if(|&(_, c)| belongs(c)).is_some() {}
        let end = self.chars.peek().map_or(self.text.len(), |&(at, _)| at);
        &self.text[start..end]
    }
}

fn word(word: &str) -> Option<ExprValue> {
    Some(match word {
        "true" => ExprValue::Bool(true),
        "false" => ExprValue::Bool(false),
        "null" => ExprValue::Null,
        "NaN" => ExprValue::Number(f64::NAN),
        "Infinity" => ExprValue::Number(f64::INFINITY),
        "-Infinity" => ExprValue::Number(f64::NEG_INFINITY),
        _ => ExprValue::Number(number(word)?),
    })
}

/// `1`, `-.5`, `1e3`; hexadecimal after `0x`, and octal after a leading zero.
fn number(word: &str) -> Option<f64> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        return u32::from_str_radix(hex, 16).ok().map(f64::from);
    }
    let whole = digits.bytes().all(|b| b.is_ascii_digit());
    if whole && digits.len() > 1 && digits.starts_with('0') {
        return i64::from_str_radix(digits, 8)
            .ok()
            .map(|number| number as f64);
    }
    let plain = word
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    (plain && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
        .then(|| word.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(text: &str) -> Option<String> {
        read(text)
            .ok()
            .map(|value| serde_json::to_string(&value).unwrap())
    }

    #[test]
    fn what_newtonsofts_reader_forgives_is_forgiven() {
        for (text, json) in [
            ("[1, 2,]", "[1,2]"),
            ("{\"a\": 1,}", r#"{"a":1}"#),
            ("{a: 1, $b_2: 'x'}", r#"{"a":1,"$b_2":"x"}"#),
            (
                "['it\\'s', \"a\\u00e9\\ud83d\\ude00\"]",
                r#"["it's","aé😀"]"#,
            ),
            ("[1, // one\n /* two */ 2]", "[1,2]"),
            ("[0x1F, 010, -.5, 1e3]", "[31,8,-0.5,1000]"),
            ("{} and more", "{}"),
            ("[1] [2]", "[1]"),
            ("{\"a\": 1, \"a\": 2, \"A\": 3}", r#"{"a":3}"#),
            ("12345678901234567890123", "1.2345678901234568e+22"),
        ] {
            assert_eq!(read_json(text).as_deref(), Some(json), "{text}");
        }
        assert!(matches!(read("NaN"), Ok(ExprValue::Number(number)) if number.is_nan()));
        assert_eq!(
            read("-Infinity").unwrap(),
            ExprValue::Number(f64::NEG_INFINITY)
        );
    }

    #[test]
    fn what_it_refuses_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[1, 2",
            "[1 2]",
            "[,]",
            "[1,,2]",
            "{\"a\" 1}",
            "{\"a\":}",
            "{,}",
            "'open",
            "\"\\x\"",
            "\"\\ud800\"",
            "nope",
            "0x",
            "089",
            "1.2.3",
            "/* open",
            "/",
            "-",
        ] {
            assert_eq!(read_json(text), None, "{text}");
        }
        assert_eq!(read_json(&"[".repeat(100_000)), None);
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(100)).is_ok());
        assert_eq!(
            read(&nested(101)).unwrap_err().to_string(),
            "it is nested deeper than 100 levels"
        );
        assert!(read(&nested(1000)).is_err());
    }
}

//! From values back to lines and columns, looked up only when there is a problem.

use std::fmt;

/// Where something is in a text. Lines and columns start at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextPosition {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for TextPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A step from a JSON value to one in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathSegment<'v> {
    Key(&'v str),
    Index(usize),
}

/// The JSON pointer (RFC 6901) of a path.
pub(crate) fn to_json_pointer(path: &[PathSegment<'_>]) -> String {
    let mut pointer = String::new();
    for segment in path {
        pointer.push('/');
        match segment {
            PathSegment::Key(key) => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            PathSegment::Index(index) => pointer.push_str(&index.to_string()),
        }
    }
    pointer
}

/// Where the value at `path` starts in `text`, or its key if `at_key`. The text is valid JSON; otherwise the answer may be `None`.
pub(crate) fn locate(
    text: &str,
    path: &[PathSegment<'_>],
    target: PathTarget,
) -> Option<TextPosition> {
    let mut scanner = JsonScanner { text, offset: 0 };
    let mut offset = scanner.skip_whitespace();
    for (depth, segment) in path.iter().enumerate() {
        let key_offset = match segment {
            PathSegment::Key(key) => scanner.enter_member(key)?,
            PathSegment::Index(index) => scanner.enter_element(*index)?,
        };
        offset = scanner.skip_whitespace();
        if target == PathTarget::Key && depth + 1 == path.len() {
            offset = key_offset;
        }
    }
    let before = text.get(..offset)?;
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Some(TextPosition {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    })
}

/// What of a member a position points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathTarget {
    Key,
    Value,
}

struct JsonScanner<'t> {
    text: &'t str,
    offset: usize,
}

impl JsonScanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn skip_whitespace(&mut self) -> usize {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.offset += 1;
        }
        self.offset
    }

    fn skip_byte(&mut self, byte: u8) -> Option<()> {
        self.skip_whitespace();
        (self.peek()? == byte).then(|| self.offset += 1)
    }

    /// Moves to the value of `key` in the object at the offset, and returns where the key starts.
    fn enter_member(&mut self, key: &str) -> Option<usize> {
        self.skip_byte(b'{')?;
        loop {
            let key_start = self.skip_whitespace();
            self.skip_string()?;
            let name: String = serde_json::from_str(self.text.get(key_start..self.offset)?).ok()?;
            self.skip_byte(b':')?;
            if name == key {
                return Some(key_start);
            }
            self.skip_value()?;
            self.skip_byte(b',')?;
        }
    }

    fn enter_element(&mut self, index: usize) -> Option<usize> {
        self.skip_byte(b'[')?;
        for _ in 0..index {
            self.skip_value()?;
            self.skip_byte(b',')?;
        }
        Some(self.skip_whitespace())
    }

    fn skip_string(&mut self) -> Option<()> {
        self.skip_byte(b'"')?;
        loop {
            let byte = self.peek()?;
            self.offset += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return Some(());
            }
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            self.skip_whitespace();
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.offset += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.offset += 1;
                }
                b',' | b':' => self.offset += 1,
                _ => self.skip_scalar(),
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn skip_scalar(&mut self) {
        while !matches!(
            self.peek(),
            None | Some(b',' | b']' | b'}' | b':' | b' ' | b'\n' | b'\r' | b'\t')
        ) {
            self.offset += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathSegment::{Index, Key};

    const TEXT: &str = "{\n  \"a\": {\"x, y\": [1, {\"ü\\\"\": \"é\"}, \"}\"]},\n  \"b\": null\n}";

    #[test]
    fn a_path_leads_to_its_line_and_column() {
        let at = |path: &[PathSegment<'_>], target| {
            locate(TEXT, path, target).map(|position| position.to_string())
        };
        assert_eq!(at(&[], PathTarget::Value).as_deref(), Some("1:1"));
        assert_eq!(at(&[Key("b")], PathTarget::Value).as_deref(), Some("3:8"));
        assert_eq!(at(&[Key("b")], PathTarget::Key).as_deref(), Some("3:3"));
        let deep = [Key("a"), Key("x, y"), Index(1), Key("ü\"")];
        assert_eq!(at(&deep, PathTarget::Value).as_deref(), Some("2:29"));
        let third = [Key("a"), Key("x, y"), Index(2)];
        assert_eq!(at(&third, PathTarget::Value).as_deref(), Some("2:35"));
        assert_eq!(at(&[Key("c")], PathTarget::Value), None);
    }
}

//! Reads dotenv files for an import.
//!
//! # Why not a library
//!
//! Those for dotenv files replace `$NAME` in values by variables of the process, and a password may contain `$`. Here a value is what
//! the file says.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

use super::{ParseSecretNameError, SecretName, VALUE_BYTES_MAX};

/// Why a dotenv file is refused. No error contains a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DotenvError {
    #[error("line {line} is not NAME=value")]
    NoAssignment { line: usize },
    #[error("line {line}: {reason}")]
    BadName {
        line: usize,
        reason: ParseSecretNameError,
    },
    #[error("the quote that begins in line {line} has no end")]
    OpenQuote { line: usize },
    #[error("line {line} has text after the closing quote")]
    TextAfterQuote { line: usize },
    #[error("line {line} sets {name} a second time")]
    SetTwice { line: usize, name: SecretName },
    #[error("the value of {name} in line {line} has more than {VALUE_BYTES_MAX} bytes")]
    TooLong { line: usize, name: SecretName },
}

/// The values of a dotenv file: `NAME=value`, `export NAME=value`, comments with `#`. A value in single quotes is taken as it is, in
/// double quotes `\n`, `\r`, `\t`, `\"`, `\$` and `\\` are replaced; both may have several lines. `$NAME` is not replaced.
///
/// ```
/// use shipway_core::secret::parse_dotenv;
/// let values = parse_dotenv("# database\nexport DB=\"a\\nb\" # comment\nKEY='$x'\n").unwrap();
/// let shown: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
/// assert_eq!(shown, [r#"DB="a\nb""#, r#"KEY="$x""#]);
/// ```
///
/// # Errors
/// A line that is none of these, or sets a name a second time.
pub fn parse_dotenv(text: &str) -> Result<BTreeMap<SecretName, String>, DotenvError> {
    let mut values = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = DotenvReader {
        rest: text.chars().peekable(),
        line: 1,
    };
    while let Some((line, name)) = reader.read_name()? {
        let value = reader.read_value()?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(DotenvError::TooLong { line, name });
        }
        if values.contains_key(&name) {
            return Err(DotenvError::SetTwice { line, name });
        }
        values.insert(name, value);
    }
    Ok(values)
}

struct DotenvReader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl DotenvReader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Up to the end of the line, which is consumed.
    fn read_line(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.next() {
            if c == '\n' {
                break;
            }
            text.push(c);
        }
        text
    }

    fn skip_blanks(&mut self) {
        while self
            .rest
            .next_if(|c| matches!(c, ' ' | '\t' | '\r'))
            .is_some()
        {}
    }

    /// The next name with its line, up to and including `=`; none at the end of the file.
    fn read_name(&mut self) -> Result<Option<(usize, SecretName)>, DotenvError> {
        loop {
            self.skip_blanks();
            match self.rest.peek() {
                None => return Ok(None),
                Some('\n') => _ = self.next(),
                Some('#') => _ = self.read_line(),
                Some(_) => break,
            }
        }
        let line = self.line;
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| !matches!(c, '=' | '\n')) {
            name.push(c);
        }
        if self.next() != Some('=') {
            return Err(DotenvError::NoAssignment { line });
        }
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let name = name
            .parse()
            .map_err(|reason| DotenvError::BadName { line, reason })?;
        Ok(Some((line, name)))
    }

    fn read_value(&mut self) -> Result<String, DotenvError> {
        self.skip_blanks();
        match self.rest.next_if(|c| matches!(c, '"' | '\'')) {
            Some(quote) => self.read_quoted(quote),
            None => {
                let text = self.read_line();
                // A `#` inside a word belongs to the value, as in a password.
                let end = text.find(" #").or_else(|| text.find("\t#"));
                let end = if text.starts_with('#') { Some(0) } else { end };
                Ok(text[..end.unwrap_or(text.len())].trim().to_owned())
            }
        }
    }

    fn read_quoted(&mut self, quote: char) -> Result<String, DotenvError> {
        let line = self.line;
        let mut value = String::new();
        loop {
            match self.next().ok_or(DotenvError::OpenQuote { line })? {
                c if c == quote => break,
                '\\' if quote == '"' => {
                    let escaped = self.next().ok_or(DotenvError::OpenQuote { line })?;
                    match escaped {
                        'n' => value.push('\n'),
                        'r' => value.push('\r'),
                        't' => value.push('\t'),
                        '"' | '\\' | '$' => value.push(escaped),
                        other => value.extend(['\\', other]),
                    }
                }
                c => value.push(c),
            }
        }
        let line = self.line;
        let after = self.read_line();
        let after = after.trim();
        if after.is_empty() || after.starts_with('#') {
            return Ok(value);
        }
        Err(DotenvError::TextAfterQuote { line })
    }
}

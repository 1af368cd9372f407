//! Cuts an expression into tokens, as GitHub's runner does: `1-2` is one bad word there, and `-` may be part of a name.

use std::{iter::Peekable, ops::Range, str::CharIndices};

use super::{error::ParseError, text};

/// A token and its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExprToken<'t> {
    pub(crate) what: TokenKind<'t>,
    pub(crate) at: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind<'t> {
    Number(f64),
    Text(String),
    Word(&'t str),
    /// `(`, `)`, `[`, `]`, `,`, `.`, `*`, and the operators.
    Sign(&'static str),
}

const OPERATORS: [&str; 9] = ["==", "!=", "<=", ">=", "&&", "||", "!", "<", ">"];

/// The tokens of `text`; places are counted from `offset`.
pub(crate) fn tokens(text: &str, offset: usize) -> Result<Vec<ExprToken<'_>>, ParseError> {
    let mut lexer = ExprLexer {
        text,
        offset,
        chars: text.char_indices().peekable(),
        tokens: Vec::new(),
    };
    while lexer.next()? {}
    Ok(lexer.tokens)
}

/// Whether a `.` belongs to the name or number, or ends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Points {
    Included,
    Boundary,
}

struct ExprLexer<'t> {
    text: &'t str,
    offset: usize,
    chars: Peekable<CharIndices<'t>>,
    tokens: Vec<ExprToken<'t>>,
}

/// Whether a word ends before `c`.
fn is_boundary(c: char) -> bool {
    c.is_whitespace() || "()[],.!<>=&|".contains(c)
}

/// Whether `word` may be the name of a context, a property or a function.
fn is_name(word: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    word.starts_with(first)
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

impl<'t> ExprLexer<'t> {
    fn next(&mut self) -> Result<bool, ParseError> {
        while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let Some(&(start, c)) = self.chars.peek() else {
            return Ok(false);
        };
        match c {
            '(' => self.sign(start, "("),
            ')' => self.sign(start, ")"),
            '[' => self.sign(start, "["),
            ']' => self.sign(start, "]"),
            ',' => self.sign(start, ","),
            '*' => self.sign(start, "*"),
            '\'' => self.string(start)?,
            '.' if !self.follows_value() => self.number(start)?,
            '.' => self.sign(start, "."),
            '+' | '-' | '0'..='9' => self.number(start)?,
            '!' | '<' | '>' | '=' | '&' | '|' => self.operator(start)?,
            _ => self.name_or_keyword(start)?,
        }
        Ok(true)
    }

    /// Whether a `.` here would look into the token before.
    fn follows_value(&self) -> bool {
        self.tokens.last().is_some_and(|token| match &token.what {
            TokenKind::Number(_) | TokenKind::Text(_) | TokenKind::Word(_) => true,
            TokenKind::Sign(sign) => matches!(*sign, ")" | "]" | "*" | "."),
        })
    }

    fn push(&mut self, what: TokenKind<'t>, start: usize, end: usize) {
        self.tokens.push(ExprToken {
            what,
            at: self.offset + start..self.offset + end,
        });
    }

    fn sign(&mut self, start: usize, sign: &'static str) {
        for _ in sign.chars() {
            self.chars.next();
        }
        self.push(TokenKind::Sign(sign), start, start + sign.len());
    }

    /// Goes to the end of the word and says where that is.
    fn end_of_name(&mut self, points: Points) -> usize {
        self.chars.next();
        while self
            .chars
            .next_if(|&(_, c)| !is_boundary(c) || (points == Points::Included && c == '.'))
            .is_some()
        {}
        self.chars.peek().map_or(self.text.len(), |&(end, _)| end)
    }

    fn error(&self, message: String, start: usize, end: usize) -> ParseError {
        ParseError::new(message, self.offset + start..self.offset + end)
    }

    fn number(&mut self, start: usize) -> Result<(), ParseError> {
        let end = self.end_of_name(Points::Included);
        let word = &self.text[start..end];
        let number = text::parse_number(word);
        if number.is_nan() {
            let help =
                "expressions have no arithmetic; numbers look like 1, -2.5, 1e3, 0xff or 0o17";
            return Err(self
                .error(format!("`{word}` is not a number"), start, end)
                .help(help));
        }
        self.push(TokenKind::Number(number), start, end);
        Ok(())
    }

    fn string(&mut self, start: usize) -> Result<(), ParseError> {
        self.chars.next();
        let mut value = String::new();
        while let Some((at, c)) = self.chars.next() {
            if c != '\'' {
                value.push(c);
            } else if self.chars.next_if(|&(_, c)| c == '\'').is_some() {
                value.push('\'');
            } else {
                self.push(TokenKind::Text(value), start, at + 1);
                return Ok(());
            }
        }
        let error = self.error(
            "the string that starts here is not closed".to_owned(),
            start,
            self.text.len(),
        );
        Err(error.help("close it with '; a ' inside is written ''"))
    }

    fn operator(&mut self, start: usize) -> Result<(), ParseError> {
        if let Some(sign) = OPERATORS
            .iter()
            .find(|sign| self.text[start..].starts_with(**sign))
        {
            self.sign(start, sign);
            return Ok(());
        }
        let c = &self.text[start..=start];
        let help = format!("did you mean `{c}{c}`?");
        Err(self
            .error(format!("`{c}` is not an operator"), start, start + 1)
            .help(help))
    }

    fn name_or_keyword(&mut self, start: usize) -> Result<(), ParseError> {
        let end = self.end_of_name(Points::Boundary);
        let word = &self.text[start..end];
        if is_name(word) {
            self.push(TokenKind::Word(word), start, end);
            return Ok(());
        }
        let error = self.error(format!("unexpected `{word}`"), start, end);
        Err(match word.chars().next() {
            Some('"') => error.help("write strings in single quotes: 'like this'"),
            Some('?') => error.help("write `case(condition, this, that)`"),
            Some('$') => error.help("`${{` can't be used inside an expression"),
            _ => {
                error.help("names start with a letter or _ and consist of letters, digits, - and _")
            }
        })
    }
}

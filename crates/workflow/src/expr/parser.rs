//! Builds the tree of an expression from its tokens.
//!
//! Operators wait on a stack, so that a thousand brackets need no recursion; the depth that counts is the tree's, as at
//! GitHub, where brackets and chains of `&&` are free. From tightest to loosest: `.` `[…]`, `!`, `<` `<=` `>` `>=`,
//! `==` `!=`, `&&`, `||`; all of them from left to right.

use std::{ops::Range, sync::Arc};

use super::{
    ast::{Comparison, DEPTH_MAX, Function, Kind, LENGTH_MAX, Node},
    error::{ParseError, suggestion},
    functions,
    lexer::{Lexeme, Token, tokens},
    value::Value,
};

/// The tree of `text`; places are counted from `offset`.
pub(crate) fn parse(text: &str, offset: usize) -> Result<Node, ParseError> {
    let whole = offset..offset + text.len();
    // GitHub counts UTF-16 units, as .NET does.
    if text.encode_utf16().count() > LENGTH_MAX {
        let help = "put the text into an environment variable or a file and use it from there";
        return Err(ParseError::new(
            format!("an expression may have at most {LENGTH_MAX} characters"),
            whole,
        )
        .help(help));
    }
    let mut parser = Parser {
        operands: Vec::new(),
        waiting: Vec::new(),
        end: whole.end,
    };
    let tokens = tokens(text, offset)?;
    if tokens.is_empty() {
        return Err(ParseError::new("an expression is missing here", whole)
            .help("write one between `${{` and `}}`"));
    }
    let mut rest = tokens.as_slice();
    let mut place = Place::Value;
    while let [token, after @ ..] = rest {
        (place, rest) = match place {
            Place::Value => parser.value(token, after)?,
            Place::Operator => parser.operator(token, after, Indexable::No)?,
            Place::OperatorOrIndex => parser.operator(token, after, Indexable::Yes)?,
        };
    }
    parser.finish(place)
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Value,
    Operator,
    OperatorOrIndex,
}

/// Whether `.` and `[` may look into the value before; not into a literal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexable {
    Yes,
    No,
}

/// What waits for its right side, or its closing bracket.
enum Waiting {
    Group,
    Index,
    Call { function: Function, values: usize },
    Not,
    Infix(Infix),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Infix {
    And,
    Or,
    Compare(Comparison),
}

impl Infix {
    fn of(sign: &str) -> Option<Self> {
        Some(match sign {
            "&&" => Self::And,
            "||" => Self::Or,
            "==" => Self::Compare(Comparison::Equal),
            "!=" => Self::Compare(Comparison::NotEqual),
            "<" => Self::Compare(Comparison::Less),
            "<=" => Self::Compare(Comparison::LessOrEqual),
            ">" => Self::Compare(Comparison::Greater),
            ">=" => Self::Compare(Comparison::GreaterOrEqual),
            _ => return None,
        })
    }

    const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Compare(Comparison::Equal | Comparison::NotEqual) => 3,
            Self::Compare(_) => 4,
        }
    }
}

struct Parser {
    operands: Vec<Node>,
    waiting: Vec<(Waiting, Range<usize>)>,
    end: usize,
}

type Step<'r, 't> = Result<(Place, &'r [Token<'t>]), ParseError>;

impl Parser {
    /// Where a value must begin.
    fn value<'r, 't>(&mut self, token: &Token<'t>, rest: &'r [Token<'t>]) -> Step<'r, 't> {
        let at = token.at.clone();
        match &token.what {
            Lexeme::Number(number) => self.literal(Value::Number(*number), at, rest),
            Lexeme::Text(text) => self.literal(Value::from(text.as_str()), at, rest),
            Lexeme::Word("null") => self.literal(Value::Null, at, rest),
            Lexeme::Word(word @ ("true" | "false")) => {
                self.literal(Value::Bool(*word == "true"), at, rest)
            }
            Lexeme::Word("NaN") => self.literal(Value::Number(f64::NAN), at, rest),
            Lexeme::Word("Infinity") => self.literal(Value::Number(f64::INFINITY), at, rest),
            Lexeme::Word(word) => self.name(word, at, rest),
            Lexeme::Sign("(") => {
                self.waiting.push((Waiting::Group, at));
                Ok((Place::Value, rest))
            }
            Lexeme::Sign("!") => {
                self.waiting.push((Waiting::Not, at));
                Ok((Place::Value, rest))
            }
            Lexeme::Sign("*") if matches!(self.waiting.last(), Some((Waiting::Index, _))) => {
                self.bracket_filter(at, rest)
            }
            Lexeme::Sign(sign) => Err(ParseError::new(
                format!("expected a value, found `{sign}`"),
                at,
            )),
        }
    }

    fn literal<'r, 't>(
        &mut self,
        value: Value,
        at: Range<usize>,
        rest: &'r [Token<'t>],
    ) -> Step<'r, 't> {
        self.operands.push(Node {
            kind: Kind::Literal(value),
            at,
            depth: 1,
        });
        Ok((Place::Operator, rest))
    }

    fn name<'r, 't>(
        &mut self,
        word: &str,
        at: Range<usize>,
        rest: &'r [Token<'t>],
    ) -> Step<'r, 't> {
        let [
            Token {
                what: Lexeme::Sign("("),
                ..
            },
            inside @ ..,
        ] = rest
        else {
            let kind = Kind::Context(Arc::from(word.to_ascii_lowercase()));
            self.operands.push(Node { kind, at, depth: 1 });
            return Ok((Place::OperatorOrIndex, rest));
        };
        let Some(function) = Function::named(word) else {
            return Err(ParseError::new(format!("unknown function `{word}`"), at)
                .help(suggestion(word, &Function::names())));
        };
        if let [
            Token {
                what: Lexeme::Sign(")"),
                at: end,
            },
            after @ ..,
        ] = inside
        {
            self.call(function, 0, at.start..end.end)?;
            return Ok((Place::OperatorOrIndex, after));
        }
        self.waiting.push((
            Waiting::Call {
                function,
                values: 1,
            },
            at,
        ));
        Ok((Place::Value, inside))
    }

    /// `[*]`
    fn bracket_filter<'r, 't>(&mut self, at: Range<usize>, rest: &'r [Token<'t>]) -> Step<'r, 't> {
        let [
            Token {
                what: Lexeme::Sign("]"),
                at: end,
            },
            after @ ..,
        ] = rest
        else {
            return Err(ParseError::new("expected `]` after `*`", at));
        };
        self.waiting.pop();
        self.filter(end.end)?;
        Ok((Place::OperatorOrIndex, after))
    }

    /// After a value.
    fn operator<'r, 't>(
        &mut self,
        token: &Token<'t>,
        rest: &'r [Token<'t>],
        indexable: Indexable,
    ) -> Step<'r, 't> {
        let at = token.at.clone();
        let sign = match &token.what {
            Lexeme::Sign(sign) => *sign,
            Lexeme::Word(word) => return Err(self.expected_operator(&format!("`{word}`"), at)),
            Lexeme::Number(_) => return Err(self.expected_operator("a number", at)),
            Lexeme::Text(_) => return Err(self.expected_operator("a text", at)),
        };
        match sign {
            "." | "[" if indexable == Indexable::No => {
                Err(ParseError::new("a literal has no properties", at)
                    .help("use fromJSON('…') to make an object or an array"))
            }
            "." => self.property(rest, at),
            "[" => {
                self.waiting.push((Waiting::Index, at));
                Ok((Place::Value, rest))
            }
            ")" | "]" => {
                self.close(sign, &at)?;
                Ok((Place::OperatorOrIndex, rest))
            }
            "," => {
                self.comma(at)?;
                Ok((Place::Value, rest))
            }
            _ => match Infix::of(sign) {
                Some(infix) => {
                    self.reduce(infix.precedence())?;
                    self.waiting.push((Waiting::Infix(infix), at));
                    Ok((Place::Value, rest))
                }
                None => Err(self.expected_operator(&format!("`{sign}`"), at)),
            },
        }
    }

    fn expected_operator(&self, found: &str, at: Range<usize>) -> ParseError {
        let error = ParseError::new(
            format!("expected an operator or the end, found {found}"),
            at,
        );
        if found == "`*`" {
            error.help("expressions have no arithmetic")
        } else {
            error
        }
    }

    fn property<'r, 't>(&mut self, rest: &'r [Token<'t>], point: Range<usize>) -> Step<'r, 't> {
        match rest {
            [
                Token {
                    what: Lexeme::Word(word),
                    at,
                },
                after @ ..,
            ] => {
                let name = Node {
                    kind: Kind::Literal(Value::from(*word)),
                    at: at.clone(),
                    depth: 1,
                };
                self.index(name, at.end)?;
                Ok((Place::OperatorOrIndex, after))
            }
            [
                Token {
                    what: Lexeme::Sign("*"),
                    at,
                },
                after @ ..,
            ] => {
                self.filter(at.end)?;
                Ok((Place::OperatorOrIndex, after))
            }
            [Token { at, .. }, ..] => Err(ParseError::new(
                "expected the name of a property after `.`",
                at.clone(),
            )),
            [] => Err(ParseError::new(
                "expected the name of a property after `.`",
                point,
            )),
        }
    }

    fn comma(&mut self, at: Range<usize>) -> Result<(), ParseError> {
        self.reduce(0)?;
        match self.waiting.last_mut() {
            Some((Waiting::Call { values, .. }, _)) => {
                *values += 1;
                Ok(())
            }
            _ => Err(ParseError::new(
                "`,` can only stand between the values given to a function",
                at,
            )),
        }
    }

    fn close(&mut self, sign: &str, at: &Range<usize>) -> Result<(), ParseError> {
        self.reduce(0)?;
        match (self.waiting.pop(), sign) {
            (Some((Waiting::Group, _)), ")") => Ok(()),
            (Some((Waiting::Call { function, values }, start)), ")") => {
                self.call(function, values, start.start..at.end)
            }
            (Some((Waiting::Index, _)), "]") => {
                let index = self.pop();
                self.index(index, at.end)
            }
            (Some((Waiting::Index, open)), _) => {
                Err(ParseError::new("expected `]`, found `)`", at.clone()).help(opened("[", &open)))
            }
            (Some((_, open)), _) => {
                Err(ParseError::new("expected `)`, found `]`", at.clone()).help(opened("(", &open)))
            }
            (None, _) => Err(ParseError::new(
                format!("`{sign}` closes nothing"),
                at.clone(),
            )),
        }
    }

    /// Builds the operators that bind at least as tightly as `precedence`, back to the last open bracket.
    fn reduce(&mut self, precedence: u8) -> Result<(), ParseError> {
        while let Some((waiting, _)) = self.waiting.last() {
            let infix = match waiting {
                Waiting::Group | Waiting::Index | Waiting::Call { .. } => return Ok(()),
                Waiting::Not => None,
                Waiting::Infix(infix) if infix.precedence() < precedence => return Ok(()),
                Waiting::Infix(infix) => Some(*infix),
            };
            let (_, sign) = self.waiting.pop().expect("it was just looked at");
            let right = self.pop();
            match infix {
                None => {
                    let at = sign.start..right.at.end;
                    self.push(|node| Kind::Not(Box::new(node)), right, at)?;
                }
                Some(infix) => self.infix(infix, right)?,
            }
        }
        Ok(())
    }

    fn infix(&mut self, infix: Infix, right: Node) -> Result<(), ParseError> {
        let left = self.pop();
        let at = left.at.start..right.at.end;
        let (depth, kind) = match infix {
            Infix::And => {
                let (mut depth, mut nodes) = (0, Vec::new());
                for node in [left, right] {
                    match node.kind {
                        Kind::And(inner) => {
                            (depth, nodes) = (depth.max(node.depth - 1), joined(nodes, inner))
                        }
                        _ => (depth, nodes) = (depth.max(node.depth), joined(nodes, vec![node])),
                    }
                }
                (depth, Kind::And(nodes))
            }
            Infix::Or => {
                let (mut depth, mut nodes) = (0, Vec::new());
                for node in [left, right] {
                    match node.kind {
                        Kind::Or(inner) => {
                            (depth, nodes) = (depth.max(node.depth - 1), joined(nodes, inner))
                        }
                        _ => (depth, nodes) = (depth.max(node.depth), joined(nodes, vec![node])),
                    }
                }
                (depth, Kind::Or(nodes))
            }
            Infix::Compare(comparison) => (
                left.depth.max(right.depth),
                Kind::Compare(comparison, Box::new([left, right])),
            ),
        };
        self.place(kind, at, depth)
    }

    fn index(&mut self, index: Node, end: usize) -> Result<(), ParseError> {
        let collection = self.pop();
        let (at, depth) = (collection.at.start..end, collection.depth.max(index.depth));
        self.place(Kind::Index(Box::new([collection, index])), at, depth)
    }

    fn filter(&mut self, end: usize) -> Result<(), ParseError> {
        let collection = self.pop();
        let at = collection.at.start..end;
        self.push(|node| Kind::Filter(Box::new(node)), collection, at)
    }

    fn call(
        &mut self,
        function: Function,
        values: usize,
        at: Range<usize>,
    ) -> Result<(), ParseError> {
        let values = self.operands.split_off(self.operands.len() - values);
        if let Some(message) = function.arity_error(values.len()) {
            return Err(ParseError::new(message, at));
        }
        if let (
            Function::Format,
            [
                Node {
                    kind: Kind::Literal(pattern),
                    at: place,
                    ..
                },
                given @ ..,
            ],
        ) = (function, values.as_slice())
        {
            functions::places(pattern, given.len())
                .map_err(|message| ParseError::new(format!("format: {message}"), place.clone()))?;
        }
        let depth = values
            .iter()
            .map(|node| node.depth)
            .max()
            .unwrap_or_default();
        self.place(Kind::Call(function, values), at, depth)
    }

    fn push(
        &mut self,
        kind: impl FnOnce(Node) -> Kind,
        inner: Node,
        at: Range<usize>,
    ) -> Result<(), ParseError> {
        let depth = inner.depth;
        self.place(kind(inner), at, depth)
    }

    /// Puts a node on top of others of which the deepest has `depth`.
    fn place(&mut self, kind: Kind, at: Range<usize>, depth: u8) -> Result<(), ParseError> {
        if depth >= DEPTH_MAX {
            return Err(ParseError::new(
                format!("the expression is nested deeper than {DEPTH_MAX} levels"),
                at,
            ));
        }
        self.operands.push(Node {
            kind,
            at,
            depth: depth + 1,
        });
        Ok(())
    }

    fn pop(&mut self) -> Node {
        self.operands
            .pop()
            .expect("every operator was preceded by its value")
    }

    fn finish(mut self, place: Place) -> Result<Node, ParseError> {
        if place == Place::Value {
            return Err(ParseError::new(
                "expected a value, found the end",
                self.end.saturating_sub(1)..self.end,
            ));
        }
        self.reduce(0)?;
        if let Some((waiting, open)) = self.waiting.pop() {
            let (sign, close) = if matches!(waiting, Waiting::Index) {
                ("[", "]")
            } else {
                ("(", ")")
            };
            return Err(ParseError::new(format!("`{sign}` is never closed"), open)
                .help(format!("add `{close}`")));
        }
        Ok(self.pop())
    }
}

fn joined(mut nodes: Vec<Node>, more: Vec<Node>) -> Vec<Node> {
    if nodes.is_empty() {
        return more;
    }
    nodes.extend(more);
    nodes
}

fn opened(sign: &str, at: &Range<usize>) -> String {
    format!("the `{sign}` at character {} is still open", at.start + 1)
}

//! Builds the tree of an expression from its tokens.
//!
//! Operators wait on a stack, so that a thousand brackets need no recursion; the depth that counts is the tree's, as at
//! GitHub, where brackets and chains of `&&` are free. From tightest to loosest: `.` `[…]`, `!`, `<` `<=` `>` `>=`,
//! `==` `!=`, `&&`, `||`; all of them from left to right.

use std::{ops::Range, sync::Arc};

use super::{
    ast::{BuiltinFunction, ComparisonOperator, DEPTH_MAX, ExprKind, ExprNode, LENGTH_MAX},
    error::{ParseError, suggestion},
    functions,
    lexer::{ExprToken, TokenKind, tokens},
    value::ExprValue,
};

/// The tree of `text`; places are counted from `offset`.
pub(crate) fn parse(text: &str, offset: usize) -> Result<ExprNode, ParseError> {
    let whole = offset..offset + text.len();
    // GitHub counts UTF-16 units, as .NET does.
    if text.encode_utf16().count() > LENGTH_MAX {
        let help = "put the value into an environment variable or a file and use it from there";
        return Err(ParseError::new(
            format!("an expression may have at most {LENGTH_MAX} characters"),
            whole,
        )
        .help(help));
    }
    let mut parser = ExprParser {
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
    let mut place = ParserState::Value;
    while let [token, after @ ..] = rest {
        (place, rest) = match place {
            ParserState::Value => parser.value(token, after)?,
            ParserState::Operator => parser.operator(token, after, CanIndex::No)?,
            ParserState::OperatorOrIndex => parser.operator(token, after, CanIndex::Yes)?,
        };
    }
    parser.finish(place)
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ParserState {
    Value,
    Operator,
    OperatorOrIndex,
}

/// Whether `.` and `[` may look into the value before; not into a literal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CanIndex {
    Yes,
    No,
}

/// An operator that waits for its right operand, or a bracket for its closing one.
enum PendingOperator {
    Group,
    Index,
    Call {
        function: BuiltinFunction,
        values: usize,
    },
    Not,
    Infix(InfixOperator),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InfixOperator {
    And,
    Or,
    Compare(ComparisonOperator),
}

impl InfixOperator {
    fn from_sign(sign: &str) -> Option<Self> {
        Some(match sign {
            "&&" => Self::And,
            "||" => Self::Or,
            "==" => Self::Compare(ComparisonOperator::Equal),
            "!=" => Self::Compare(ComparisonOperator::NotEqual),
            "<" => Self::Compare(ComparisonOperator::Less),
            "<=" => Self::Compare(ComparisonOperator::LessOrEqual),
            ">" => Self::Compare(ComparisonOperator::Greater),
            ">=" => Self::Compare(ComparisonOperator::GreaterOrEqual),
            _ => return None,
        })
    }

    const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Compare(ComparisonOperator::Equal | ComparisonOperator::NotEqual) => 3,
            Self::Compare(_) => 4,
        }
    }
}

struct ExprParser {
    operands: Vec<ExprNode>,
    waiting: Vec<(PendingOperator, Range<usize>)>,
    end: usize,
}

type ParserStep<'r, 't> = Result<(ParserState, &'r [ExprToken<'t>]), ParseError>;

impl ExprParser {
    /// Where a value must begin.
    fn value<'r, 't>(
        &mut self,
        token: &ExprToken<'t>,
        rest: &'r [ExprToken<'t>],
    ) -> ParserStep<'r, 't> {
        let at = token.at.clone();
        match &token.what {
            TokenKind::Number(number) => self.literal(ExprValue::Number(*number), at, rest),
            TokenKind::Text(text) => self.literal(ExprValue::from(text.as_str()), at, rest),
            TokenKind::Word("null") => self.literal(ExprValue::Null, at, rest),
            TokenKind::Word(word @ ("true" | "false")) => {
                self.literal(ExprValue::Bool(*word == "true"), at, rest)
            }
            TokenKind::Word("NaN") => self.literal(ExprValue::Number(f64::NAN), at, rest),
            TokenKind::Word("Infinity") => self.literal(ExprValue::Number(f64::INFINITY), at, rest),
            TokenKind::Word(word) => self.name(word, at, rest),
            TokenKind::Sign("(") => {
                self.waiting.push((PendingOperator::Group, at));
                Ok((ParserState::Value, rest))
            }
            TokenKind::Sign("!") => {
                self.waiting.push((PendingOperator::Not, at));
                Ok((ParserState::Value, rest))
            }
            TokenKind::Sign("*")
                if matches!(self.waiting.last(), Some((PendingOperator::Index, _))) =>
            {
                self.bracket_filter(at, rest)
            }
            TokenKind::Sign(sign) => Err(ParseError::new(
                format!("expected a value, found `{sign}`"),
                at,
            )),
        }
    }

    fn literal<'r, 't>(
        &mut self,
        value: ExprValue,
        at: Range<usize>,
        rest: &'r [ExprToken<'t>],
    ) -> ParserStep<'r, 't> {
        self.operands.push(ExprNode {
            kind: ExprKind::Literal(value),
            at,
            depth: 1,
        });
        Ok((ParserState::Operator, rest))
    }

    fn name<'r, 't>(
        &mut self,
        word: &str,
        at: Range<usize>,
        rest: &'r [ExprToken<'t>],
    ) -> ParserStep<'r, 't> {
        let [
            ExprToken {
                what: TokenKind::Sign("("),
                ..
            },
            inside @ ..,
        ] = rest
        else {
            let kind = ExprKind::Context(Arc::from(word.to_ascii_lowercase()));
            self.operands.push(ExprNode { kind, at, depth: 1 });
            return Ok((ParserState::OperatorOrIndex, rest));
        };
        let Some(function) = BuiltinFunction::named(word) else {
            return Err(ParseError::new(format!("unknown function `{word}`"), at)
                .help(suggestion(word, &BuiltinFunction::names())));
        };
        if let [
            ExprToken {
                what: TokenKind::Sign(")"),
                at: end,
            },
            after @ ..,
        ] = inside
        {
            self.call(function, 0, at.start..end.end)?;
            return Ok((ParserState::OperatorOrIndex, after));
        }
        self.waiting.push((
            PendingOperator::Call {
                function,
                values: 1,
            },
            at,
        ));
        Ok((ParserState::Value, inside))
    }

    /// `[*]`
    fn bracket_filter<'r, 't>(
        &mut self,
        at: Range<usize>,
        rest: &'r [ExprToken<'t>],
    ) -> ParserStep<'r, 't> {
        let [
            ExprToken {
                what: TokenKind::Sign("]"),
                at: end,
            },
            after @ ..,
        ] = rest
        else {
            return Err(ParseError::new("expected `]` after `*`", at));
        };
        self.waiting.pop();
        self.filter(end.end)?;
        Ok((ParserState::OperatorOrIndex, after))
    }

    /// After a value.
    fn operator<'r, 't>(
        &mut self,
        token: &ExprToken<'t>,
        rest: &'r [ExprToken<'t>],
        indexable: CanIndex,
    ) -> ParserStep<'r, 't> {
        let at = token.at.clone();
        let sign = match &token.what {
            TokenKind::Sign(sign) => *sign,
            TokenKind::Word(word) => return Err(self.expected_operator(&format!("`{word}`"), at)),
            TokenKind::Number(_) => return Err(self.expected_operator("a number", at)),
            TokenKind::Text(_) => return Err(self.expected_operator("a string", at)),
        };
        match sign {
            "." | "[" if indexable == CanIndex::No => {
                Err(ParseError::new("a literal has no properties", at)
                    .help("use fromJSON('…') to make an object or an array"))
            }
            "." => self.property(rest, at),
            "[" => {
                self.waiting.push((PendingOperator::Index, at));
                Ok((ParserState::Value, rest))
            }
            ")" | "]" => {
                self.close(sign, &at)?;
                Ok((ParserState::OperatorOrIndex, rest))
            }
            "," => {
                self.comma(at)?;
                Ok((ParserState::Value, rest))
            }
            _ => match InfixOperator::from_sign(sign) {
                Some(infix) => {
                    self.reduce(infix.precedence())?;
                    self.waiting.push((PendingOperator::Infix(infix), at));
                    Ok((ParserState::Value, rest))
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

    fn property<'r, 't>(
        &mut self,
        rest: &'r [ExprToken<'t>],
        point: Range<usize>,
    ) -> ParserStep<'r, 't> {
        match rest {
            [
                ExprToken {
                    what: TokenKind::Word(word),
                    at,
                },
                after @ ..,
            ] => {
                let name = ExprNode {
                    kind: ExprKind::Literal(ExprValue::from(*word)),
                    at: at.clone(),
                    depth: 1,
                };
                self.index(name, at.end)?;
                Ok((ParserState::OperatorOrIndex, after))
            }
            [
                ExprToken {
                    what: TokenKind::Sign("*"),
                    at,
                },
                after @ ..,
            ] => {
                self.filter(at.end)?;
                Ok((ParserState::OperatorOrIndex, after))
            }
            [ExprToken { at, .. }, ..] => Err(ParseError::new(
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
            Some((PendingOperator::Call { values, .. }, _)) => {
                *values += 1;
                Ok(())
            }
            _ => Err(ParseError::new(
                "`,` is only allowed between the arguments of a function",
                at,
            )),
        }
    }

    fn close(&mut self, sign: &str, at: &Range<usize>) -> Result<(), ParseError> {
        self.reduce(0)?;
        match (self.waiting.pop(), sign) {
            (Some((PendingOperator::Group, _)), ")") => Ok(()),
            (Some((PendingOperator::Call { function, values }, start)), ")") => {
                self.call(function, values, start.start..at.end)
            }
            (Some((PendingOperator::Index, _)), "]") => {
                let index = self.pop();
                self.index(index, at.end)
            }
            (Some((PendingOperator::Index, open)), _) => {
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
                PendingOperator::Group | PendingOperator::Index | PendingOperator::Call { .. } => {
                    return Ok(());
                }
                PendingOperator::Not => None,
                PendingOperator::Infix(infix) if infix.precedence() < precedence => return Ok(()),
                PendingOperator::Infix(infix) => Some(*infix),
            };
            let (_, sign) = self.waiting.pop().expect("it was just looked at");
            let right = self.pop();
            match infix {
                None => {
                    let at = sign.start..right.at.end;
                    self.push(|node| ExprKind::Not(Box::new(node)), right, at)?;
                }
                Some(infix) => self.infix(infix, right)?,
            }
        }
        Ok(())
    }

    fn infix(&mut self, infix: InfixOperator, right: ExprNode) -> Result<(), ParseError> {
        let left = self.pop();
        let at = left.at.start..right.at.end;
        let (depth, kind) = match infix {
            InfixOperator::And => {
                let (mut depth, mut nodes) = (0, Vec::new());
                for node in [left, right] {
                    match node.kind {
                        ExprKind::And(inner) => {
                            (depth, nodes) = (depth.max(node.depth - 1), joined(nodes, inner))
                        }
                        _ => (depth, nodes) = (depth.max(node.depth), joined(nodes, vec![node])),
                    }
                }
                (depth, ExprKind::And(nodes))
            }
            InfixOperator::Or => {
                let (mut depth, mut nodes) = (0, Vec::new());
                for node in [left, right] {
                    match node.kind {
                        ExprKind::Or(inner) => {
                            (depth, nodes) = (depth.max(node.depth - 1), joined(nodes, inner))
                        }
                        _ => (depth, nodes) = (depth.max(node.depth), joined(nodes, vec![node])),
                    }
                }
                (depth, ExprKind::Or(nodes))
            }
            InfixOperator::Compare(comparison) => (
                left.depth.max(right.depth),
                ExprKind::Compare(comparison, Box::new([left, right])),
            ),
        };
        self.push_node(kind, at, depth)
    }

    fn index(&mut self, index: ExprNode, end: usize) -> Result<(), ParseError> {
        let collection = self.pop();
        let (at, depth) = (collection.at.start..end, collection.depth.max(index.depth));
        self.push_node(ExprKind::Index(Box::new([collection, index])), at, depth)
    }

    fn filter(&mut self, end: usize) -> Result<(), ParseError> {
        let collection = self.pop();
        let at = collection.at.start..end;
        self.push(|node| ExprKind::Filter(Box::new(node)), collection, at)
    }

    fn call(
        &mut self,
        function: BuiltinFunction,
        values: usize,
        at: Range<usize>,
    ) -> Result<(), ParseError> {
        let values = self.operands.split_off(self.operands.len() - values);
        if let Some(message) = function.arity_error(values.len()) {
            return Err(ParseError::new(message, at));
        }
        if let (
            BuiltinFunction::Format,
            [
                ExprNode {
                    kind: ExprKind::Literal(pattern),
                    at: place,
                    ..
                },
                given @ ..,
            ],
        ) = (function, values.as_slice())
        {
            functions::placeholder_indexes(pattern, given.len())
                .map_err(|error| ParseError::new(format!("format: {error}"), place.clone()))?;
        }
        let depth = values
            .iter()
            .map(|node| node.depth)
            .max()
            .unwrap_or_default();
        self.push_node(ExprKind::Call(function, values), at, depth)
    }

    fn push(
        &mut self,
        kind: impl FnOnce(ExprNode) -> ExprKind,
        inner: ExprNode,
        at: Range<usize>,
    ) -> Result<(), ParseError> {
        let depth = inner.depth;
        self.push_node(kind(inner), at, depth)
    }

    /// Puts a node on top of others of which the deepest has `depth`.
    fn push_node(&mut self, kind: ExprKind, at: Range<usize>, depth: u8) -> Result<(), ParseError> {
        if depth >= DEPTH_MAX {
            return Err(ParseError::new(
                format!("the expression is nested deeper than {DEPTH_MAX} levels"),
                at,
            ));
        }
        self.operands.push(ExprNode {
            kind,
            at,
            depth: depth + 1,
        });
        Ok(())
    }

    fn pop(&mut self) -> ExprNode {
        self.operands
            .pop()
            .expect("every operator was preceded by its value")
    }

    fn finish(mut self, place: ParserState) -> Result<ExprNode, ParseError> {
        if place == ParserState::Value {
            return Err(ParseError::new(
                "expected a value, found the end",
                self.end.saturating_sub(1)..self.end,
            ));
        }
        self.reduce(0)?;
        if let Some((waiting, open)) = self.waiting.pop() {
            let (sign, close) = if matches!(waiting, PendingOperator::Index) {
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

fn joined(mut nodes: Vec<ExprNode>, more: Vec<ExprNode>) -> Vec<ExprNode> {
    if nodes.is_empty() {
        return more;
    }
    nodes.extend(more);
    nodes
}

fn opened(sign: &str, at: &Range<usize>) -> String {
    format!("the `{sign}` at character {} is still open", at.start + 1)
}

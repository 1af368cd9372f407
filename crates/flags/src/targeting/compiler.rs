//! From a rule's JSON to [`TargetingExpression`], with everything that is wrong with it.
//!
//! An operator that can't be evaluated makes the rule *invalid*: evaluations give `PARSE_ERROR`. Arguments that an operator can't use
//! make the operator *failing*: evaluations give the default variant, as flagd's providers do.

use std::sync::Arc;

use super::evaluators::{NamedRuleState, NamedRules};
use super::expression::{TargetingExpression, VariablePath};
use super::operators::{OPERATORS, OperatorKind, OperatorRule, find_operator};
use crate::diagnostic::FlagProblem;
use crate::document_value::{DocumentObject, DocumentValue};
use crate::json_position::PathSegment;
use crate::limits::TARGETING_DEPTH_MAX;
use crate::problem_list::ProblemList;
use crate::schema::describe_type;

/// Compiles the rules of one set.
pub(crate) struct TargetingCompiler<'v> {
    pub(crate) rules: NamedRules<'v>,
    /// The evaluators being compiled, outermost first.
    open_references: Vec<&'v str>,
    /// The deepest level of the rule being compiled.
    deepest: usize,
    is_invalid: bool,
}

/// A compiled rule.
pub(crate) enum CompiledRule {
    Valid(TargetingExpression),
    /// Evaluations give `PARSE_ERROR`.
    Invalid,
}

/// The arguments of an operator: those of an array, or one without an array around it.
#[derive(Clone, Copy)]
pub(super) struct OperatorArguments<'v> {
    pub(super) values: &'v [DocumentValue<'v>],
    is_bare: bool,
}

impl<'v> TargetingCompiler<'v> {
    pub(crate) fn new(rules: NamedRules<'v>) -> TargetingCompiler<'v> {
        TargetingCompiler {
            rules,
            open_references: Vec::new(),
            deepest: 0,
            is_invalid: false,
        }
    }

    /// Compiles a rule; `problems` is at its place.
    pub(crate) fn compile_rule(
        &mut self,
        rule: &'v DocumentValue<'v>,
        problems: &mut ProblemList<'v>,
    ) -> CompiledRule {
        self.deepest = 0;
        self.is_invalid = false;
        let expression = self.compile(rule, 1, problems);
        if self.is_invalid {
            CompiledRule::Invalid
        } else {
            CompiledRule::Valid(expression)
        }
    }

    /// Compiles evaluators that nothing refers to, for their problems.
    pub(crate) fn compile_unused_rules(&mut self, problems: &mut ProblemList<'v>) {
        for index in 0..self.rules.len() {
            self.compile_named_rule(index, problems);
        }
    }

    pub(super) fn compile(
        &mut self,
        value: &'v DocumentValue<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        if level > TARGETING_DEPTH_MAX {
            problems.report_rule(FlagProblem::TargetingTooDeep);
            return self.invalidate();
        }
        self.deepest = self.deepest.max(level);
        match value {
            DocumentValue::Null => TargetingExpression::Null,
            DocumentValue::Bool(boolean) => TargetingExpression::Boolean(*boolean),
            DocumentValue::Number(number) => {
                TargetingExpression::Number(number.as_f64().unwrap_or(f64::NAN))
            }
            DocumentValue::String(text) => TargetingExpression::Text(Box::from(text.as_ref())),
            DocumentValue::Array(elements) if elements.iter().all(is_scalar) => {
                TargetingExpression::ConstantArray(Box::new(value.to_json()))
            }
            DocumentValue::Array(elements) => {
                TargetingExpression::Array(self.compile_all(elements, level, problems))
            }
            DocumentValue::Object(operator) => self.compile_operator(operator, level, problems),
        }
    }

    fn compile_all(
        &mut self,
        values: &'v [DocumentValue<'v>],
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> Box<[TargetingExpression]> {
        let compile_at = |(index, value): (usize, &'v DocumentValue<'v>)| {
            problems.push(PathSegment::Index(index));
            let expression = self.compile(value, level + 1, problems);
            problems.pop();
            expression
        };
        values.iter().enumerate().map(compile_at).collect()
    }

    fn compile_operator(
        &mut self,
        operator: &'v DocumentObject<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        let mut members = operator.iter();
        let (Some((name, arguments)), None) = (members.next(), members.next()) else {
            problems.report_rule(FlagProblem::OperatorCount {
                count: operator.len(),
            });
            return self.invalidate();
        };
        problems.push_key(name);
        let expression = match (name, find_operator(name)) {
            ("$ref", _) => self.compile_reference(arguments, level, problems),
            (_, Some(rule)) => self.compile_operator_call(rule, arguments, level, problems),
            (_, None) => {
                problems.report_rule_key(FlagProblem::UnknownOperator {
                    operator: name.to_owned(),
                    nearest: problems.find_nearest(name, OPERATORS.iter().map(|rule| rule.name)),
                });
                self.invalidate()
            }
        };
        problems.pop();
        expression
    }

    fn compile_operator_call(
        &mut self,
        rule: &'static OperatorRule,
        arguments: &'v DocumentValue<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        let arguments = match arguments {
            DocumentValue::Array(values) => OperatorArguments {
                values,
                is_bare: false,
            },
            bare => {
                if !rule.takes_bare_argument() {
                    problems.report_rule(FlagProblem::ArgumentType {
                        operator: rule.name,
                        expected: "an array of arguments",
                        actual: describe_type(bare).to_owned(),
                    });
                }
                OperatorArguments {
                    values: std::slice::from_ref(bare),
                    is_bare: true,
                }
            }
        };
        let count = arguments.values.len();
        if !rule.arguments.contains(&count) {
            problems.report_rule(FlagProblem::ArgumentCount {
                operator: rule.name,
                expected: rule.describe_arguments(),
                actual: count,
            });
            return TargetingExpression::Failing;
        }
        match rule.kind {
            OperatorKind::Fractional => self.compile_fractional(arguments, level, problems),
            OperatorKind::CompareVersions => self.compile_versions(arguments, level, problems),
            OperatorKind::CompareEdge(edge) => {
                check_edge_arguments(rule, arguments, problems);
                TargetingExpression::CompareEdge(
                    edge,
                    self.compile_arguments(arguments, level, problems),
                )
            }
            OperatorKind::Variable => self.compile_variable(arguments, level, problems),
            kind => build_operator(kind, self.compile_arguments(arguments, level, problems)),
        }
    }

    pub(super) fn compile_arguments(
        &mut self,
        arguments: OperatorArguments<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> Box<[TargetingExpression]> {
        if arguments.is_bare {
            let compile = |value| self.compile(value, level + 1, problems);
            arguments.values.iter().map(compile).collect()
        } else {
            self.compile_all(arguments.values, level, problems)
        }
    }

    pub(super) fn compile_argument(
        &mut self,
        arguments: OperatorArguments<'v>,
        index: usize,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        if arguments.is_bare {
            return self.compile(&arguments.values[index], level + 1, problems);
        }
        problems.push(PathSegment::Index(index));
        let expression = self.compile(&arguments.values[index], level + 1, problems);
        problems.pop();
        expression
    }

    fn compile_variable(
        &mut self,
        arguments: OperatorArguments<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        let path = match &arguments.values[0] {
            DocumentValue::String(path) => VariablePath::parse(path),
            DocumentValue::Number(number) => VariablePath::parse(&number.to_string()),
            DocumentValue::Null => VariablePath::Whole,
            _ => {
                return TargetingExpression::ComputedVariable(
                    self.compile_arguments(arguments, level, problems),
                );
            }
        };
        check_flagd_property(&arguments.values[0], problems);
        let default = (arguments.values.len() > 1)
            .then(|| Box::new(self.compile_argument(arguments, 1, level, problems)));
        TargetingExpression::Variable { path, default }
    }

    fn compile_reference(
        &mut self,
        name: &'v DocumentValue<'v>,
        level: usize,
        problems: &mut ProblemList<'v>,
    ) -> TargetingExpression {
        let DocumentValue::String(name) = name else {
            problems.report_rule(FlagProblem::ArgumentType {
                operator: "$ref",
                expected: "the name of an evaluator",
                actual: describe_type(name).to_owned(),
            });
            return self.invalidate();
        };
        let Some(index) = self.rules.get_index_of(name.as_ref()) else {
            problems.report_rule(FlagProblem::UnknownEvaluator {
                name: name.to_string(),
                nearest: problems.find_nearest(name, self.rules.keys().copied()),
            });
            return self.invalidate();
        };
        match self.compile_named_rule(index, problems) {
            NamedRuleState::Compiled { expression, depth } => {
                if level + depth > TARGETING_DEPTH_MAX {
                    problems.report_rule(FlagProblem::TargetingTooDeep);
                    return self.invalidate();
                }
                self.deepest = self.deepest.max(level + depth);
                TargetingExpression::Shared(expression)
            }
            NamedRuleState::Compiling => {
                let chain = &self.open_references;
                let start = chain.iter().position(|open| open == name).unwrap_or(0);
                problems.report_rule(FlagProblem::CyclicEvaluators {
                    chain: format!("{} → {name}", chain[start..].join(" → ")),
                });
                self.invalidate()
            }
            NamedRuleState::Pending | NamedRuleState::Invalid => self.invalidate(),
        }
    }

    fn compile_named_rule(
        &mut self,
        index: usize,
        problems: &mut ProblemList<'v>,
    ) -> NamedRuleState {
        let Some((name, rule)) = self.rules.get_index_mut(index) else {
            return NamedRuleState::Invalid;
        };
        let (name, value) = (*name, rule.value);
        if !matches!(rule.state, NamedRuleState::Pending) {
            return rule.state.clone();
        }
        rule.state = if self.open_references.len() < TARGETING_DEPTH_MAX {
            NamedRuleState::Compiling
        } else {
            NamedRuleState::Invalid
        };
        let path = vec![PathSegment::Key(rule.parent_key()), PathSegment::Key(name)];
        let position = problems.move_to(rule.document, path);
        let mut state = rule.state.clone();
        if matches!(state, NamedRuleState::Invalid) {
            problems.report_rule(FlagProblem::TargetingTooDeep);
        } else {
            state = self.compile_open_rule(name, value, problems);
        }
        problems.resume(position);
        self.rules[index].state = state.clone();
        state
    }

    /// Compiles an evaluator as a rule of its own: its depth and validity are not those of the rule that refers to it.
    fn compile_open_rule(
        &mut self,
        name: &'v str,
        value: &'v DocumentValue<'v>,
        problems: &mut ProblemList<'v>,
    ) -> NamedRuleState {
        let outer = (
            std::mem::take(&mut self.deepest),
            std::mem::take(&mut self.is_invalid),
        );
        self.open_references.push(name);
        let expression = self.compile(value, 1, problems);
        self.open_references.pop();
        let state = if self.is_invalid {
            NamedRuleState::Invalid
        } else {
            NamedRuleState::Compiled {
                expression: Arc::new(expression),
                depth: self.deepest,
            }
        };
        (self.deepest, self.is_invalid) = outer;
        state
    }

    fn invalidate(&mut self) -> TargetingExpression {
        self.is_invalid = true;
        TargetingExpression::Failing
    }
}

fn is_scalar(value: &DocumentValue<'_>) -> bool {
    !matches!(value, DocumentValue::Array(_) | DocumentValue::Object(_))
}

/// The operators whose arguments are compiled alike. The others are compiled by [`TargetingCompiler::compile_operator_call`].
fn build_operator(
    kind: OperatorKind,
    mut arguments: Box<[TargetingExpression]>,
) -> TargetingExpression {
    use TargetingExpression as Expression;
    let mut first = || {
        let first = arguments.first_mut();
        Box::new(first.map_or(Expression::Null, |first| {
            std::mem::replace(first, Expression::Null)
        }))
    };
    match kind {
        OperatorKind::Not => Expression::Not(first()),
        OperatorKind::IsTruthy => Expression::IsTruthy(first()),
        OperatorKind::ChangeCase(letter_case) => Expression::ChangeCase(letter_case, first()),
        OperatorKind::Missing => Expression::Missing(arguments),
        OperatorKind::MissingSome => Expression::MissingSome(arguments),
        OperatorKind::If => Expression::If(arguments),
        OperatorKind::And => Expression::And(arguments),
        OperatorKind::Or => Expression::Or(arguments),
        OperatorKind::Compare(operator) => Expression::Compare(operator, arguments),
        OperatorKind::Calculate(operator) => Expression::Calculate(operator, arguments),
        OperatorKind::In => Expression::In(arguments),
        OperatorKind::Concatenate => Expression::Concatenate(arguments),
        OperatorKind::Substring => Expression::Substring(arguments),
        OperatorKind::Merge => Expression::Merge(arguments),
        OperatorKind::Iterate(operator) => Expression::Iterate(operator, arguments),
        OperatorKind::Reduce => Expression::Reduce(arguments),
        OperatorKind::CompareEdge(edge) => Expression::CompareEdge(edge, arguments),
        OperatorKind::Variable | OperatorKind::CompareVersions | OperatorKind::Fractional => {
            Expression::Failing
        }
    }
}

fn check_edge_arguments<'v>(
    rule: &'static OperatorRule,
    arguments: OperatorArguments<'v>,
    problems: &mut ProblemList<'v>,
) {
    for (index, argument) in arguments.values.iter().enumerate() {
        if !matches!(
            argument,
            DocumentValue::String(_) | DocumentValue::Object(_)
        ) {
            problems.push(PathSegment::Index(index));
            problems.report_rule(FlagProblem::ArgumentType {
                operator: rule.name,
                expected: "a string or a rule",
                actual: describe_type(argument).to_owned(),
            });
            problems.pop();
        }
    }
}

fn check_flagd_property(path: &DocumentValue<'_>, problems: &mut ProblemList<'_>) {
    const PROPERTIES: [&str; 2] = ["$flagd.flagKey", "$flagd.timestamp"];
    let DocumentValue::String(path) = path else {
        return;
    };
    if (path == "$flagd" || path.starts_with("$flagd.")) && !PROPERTIES.contains(&path.as_ref()) {
        problems.report_rule(FlagProblem::UnknownFlagdProperty {
            name: path.to_string(),
            nearest: problems.find_nearest(path, PROPERTIES),
        });
    }
}

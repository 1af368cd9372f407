//! Targeting rules: flagd's JsonLogic, compiled once and then evaluated per request.

mod compiler;
mod evaluators;
mod expression;
mod interpreter;
mod iteration;
mod operand;
mod operators;
mod split_compiler;
mod version_test;

pub(crate) use compiler::{CompiledRule, TargetingCompiler};
pub(crate) use evaluators::{NamedRule, NamedRuleState, NamedRules};
pub(crate) use expression::TargetingExpression;
pub(crate) use interpreter::{EvaluationBudget, RuleInterpreter, RuleInterruption};
pub(crate) use operand::TargetingOperand;

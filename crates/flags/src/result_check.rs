//! Whether the constant results of a rule name variants of its flag.

use crate::definition::FlagVariants;
use crate::diagnostic::FlagProblem;
use crate::document_value::DocumentValue;
use crate::json_position::PathSegment;
use crate::problem_list::ProblemList;
use crate::schema::describe_type;

/// Reports constant results of a rule that name no variant. Results that are computed are checked by evaluations.
pub(crate) fn check_results<'v>(
    rule: &'v DocumentValue<'v>,
    variants: &FlagVariants,
    problems: &mut ProblemList<'v>,
) {
    match rule {
        DocumentValue::Null => {}
        DocumentValue::String(name) => check_variant(name, variants, problems),
        DocumentValue::Bool(boolean) => {
            check_variant(if *boolean { "true" } else { "false" }, variants, problems);
        }
        DocumentValue::Number(_) | DocumentValue::Array(_) => {
            problems.report_rule(FlagProblem::ResultNotVariant {
                actual: describe_type(rule),
            })
        }
        DocumentValue::Object(operator) => {
            let Some((name, DocumentValue::Array(arguments))) = operator.iter().next() else {
                return;
            };
            problems.push_key(name);
            match name {
                "if" => check_branches(arguments, variants, problems),
                "fractional" => check_buckets(arguments, variants, problems),
                _ => {}
            }
            problems.pop();
        }
    }
}

fn check_branches<'v>(
    arguments: &'v [DocumentValue<'v>],
    variants: &FlagVariants,
    problems: &mut ProblemList<'v>,
) {
    let is_otherwise = |index: usize| index + 1 == arguments.len() && index > 0;
    for (index, branch) in arguments.iter().enumerate() {
        if index % 2 == 1 || is_otherwise(index) {
            problems.push(PathSegment::Index(index));
            check_results(branch, variants, problems);
            problems.pop();
        }
    }
}

fn check_buckets<'v>(
    arguments: &'v [DocumentValue<'v>],
    variants: &FlagVariants,
    problems: &mut ProblemList<'v>,
) {
    for (index, bucket) in arguments.iter().enumerate() {
        if let Some(name) = bucket.as_array().and_then(|bucket| bucket.first()) {
            problems.push(PathSegment::Index(index));
            problems.push(PathSegment::Index(0));
            check_results(name, variants, problems);
            problems.pop();
            problems.pop();
        }
    }
}

fn check_variant(name: &str, variants: &FlagVariants, problems: &mut ProblemList<'_>) {
    if variants.index_of(name).is_none() {
        problems.report_rule(FlagProblem::UnknownVariant {
            variant: name.to_owned(),
            nearest: problems.find_nearest(name, variants.names()),
        });
    }
}

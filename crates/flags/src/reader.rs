//! From JSON to a [`FlagSet`]: flagd's schema, then rules, then what refers to other flags.

use foldhash::fast::FixedState;
use serde_json::{Map, Value};

use crate::definition::{
    FlagDefinition, FlagFileStrictness, FlagMap, FlagSet, FlagSetSource, FlagState, FlagTargeting,
    FlagValueType, FlagVariants,
};
use crate::details::{FlagDetails, FlagKind, FlagSetDetails};
use crate::diagnostic::{FlagDiagnostic, FlagDocument, FlagFileError, FlagProblem};
use crate::document_value::{DocumentObject, DocumentValue};
use crate::json_position::TextPosition;
use crate::limits::{FLAG_FILE_BYTES_MAX, FLAGS_MAX, VARIANTS_MAX};
use crate::prerequisites::link_prerequisites;
use crate::problem_list::ProblemList;
use crate::result_check::check_results;
use crate::schema::{check_name, check_property_names, check_safe_integer, describe_type};
use crate::targeting::{CompiledRule, NamedRule, NamedRuleState, NamedRules, TargetingCompiler};

impl FlagSet {
    /// Reads flagd's JSON, strictly.
    ///
    /// # Errors
    /// Each problem with its line, column and JSON pointer, and the word that was probably meant.
    pub fn parse(definitions: &str) -> Result<FlagSet, FlagFileError> {
        FlagSet::read(&FlagSetSource {
            definitions,
            details: None,
            strictness: FlagFileStrictness::Strict,
        })
    }

    /// Reads flags with Shipway's own facts about them.
    ///
    /// # Errors
    /// As for [`FlagSet::parse`]; leniently only problems that are not confined to a targeting rule.
    pub fn read(source: &FlagSetSource<'_>) -> Result<FlagSet, FlagFileError> {
        read_flag_set(source)
    }
}

fn read_flag_set(source: &FlagSetSource<'_>) -> Result<FlagSet, FlagFileError> {
    let text = source.definitions;
    if text.len() > FLAG_FILE_BYTES_MAX {
        let problem = FlagProblem::FileTooLarge { bytes: text.len() };
        return Err(refuse_file(problem, None));
    }
    let document = serde_json::from_str(text).map_err(|error| {
        let position = TextPosition {
            line: error.line(),
            column: error.column().max(1),
        };
        let message = error.to_string();
        refuse_file(FlagProblem::InvalidJson { message }, Some(position))
    })?;
    let segments: Vec<(&str, DocumentValue<'_>)> = source
        .details
        .iter()
        .flat_map(|details| &details.segments)
        .map(|(name, rule)| (name.as_str(), DocumentValue::from_json(rule)))
        .collect();
    let mut problems = ProblemList::new();
    let flag_set = read_document(&document, source, &segments, &mut problems);
    let is_refused = match source.strictness {
        FlagFileStrictness::Strict => problems.count() > 0,
        FlagFileStrictness::Lenient => problems.has_structural(),
    };
    match flag_set {
        Some(mut flag_set) if !is_refused => {
            flag_set.warnings = problems.into_error(text).diagnostics;
            Ok(flag_set)
        }
        _ => Err(problems.into_error(text)),
    }
}

fn refuse_file(problem: FlagProblem, position: Option<TextPosition>) -> FlagFileError {
    FlagFileError {
        diagnostics: vec![FlagDiagnostic {
            document: FlagDocument::Definitions,
            pointer: String::new(),
            position,
            problem,
        }],
        unreported: 0,
    }
}

/// `None` when there is nothing to walk; the problem is reported.
fn read_document<'v>(
    document: &'v DocumentValue<'v>,
    source: &FlagSetSource<'v>,
    segments: &'v [(&'v str, DocumentValue<'v>)],
    problems: &mut ProblemList<'v>,
) -> Option<FlagSet> {
    let DocumentValue::Object(root) = document else {
        report_type("the file", "an object", document, problems);
        return None;
    };
    check_property_names(
        root,
        &["flags", "$evaluators", "metadata", "$schema"],
        problems,
    );
    let metadata = read_metadata(root, problems);
    let rules = read_named_rules(root, segments, problems);
    let mut compiler = TargetingCompiler::new(rules);
    let definitions = match root.get("flags") {
        Some(DocumentValue::Object(definitions)) => definitions,
        Some(other) => {
            problems.push_key("flags");
            report_type("flags", "an object of flags by their keys", other, problems);
            problems.pop();
            return None;
        }
        None => {
            problems.report(FlagProblem::MissingProperty { name: "flags" });
            return None;
        }
    };
    problems.push_key("flags");
    if definitions.len() > FLAGS_MAX {
        problems.report(FlagProblem::TooManyFlags {
            count: definitions.len(),
        });
        return None;
    }
    let mut flags = FlagMap::with_capacity_and_hasher(definitions.len(), FixedState::default());
    for (key, definition) in definitions.iter() {
        problems.push_key(key);
        check_name(key, problems);
        if let Some(flag) = read_flag(definition, &metadata, &mut compiler, problems) {
            flags.insert(Box::from(key), flag);
        }
        problems.pop();
    }
    problems.pop();
    compiler.compile_unused_rules(problems);
    if let Some(details) = source.details {
        attach_details(&mut flags, details, problems);
    }
    Some(FlagSet {
        flags,
        metadata,
        bucketing: source
            .details
            .map(|details| details.bucketing)
            .unwrap_or_default(),
        warnings: Vec::new(),
    })
}

fn read_named_rules<'v>(
    root: &'v DocumentObject<'v>,
    segments: &'v [(&'v str, DocumentValue<'v>)],
    problems: &mut ProblemList<'v>,
) -> NamedRules<'v> {
    let mut rules = NamedRules::default();
    problems.push_key("$evaluators");
    match root.get("$evaluators") {
        Some(DocumentValue::Object(evaluators)) => {
            for (name, value) in evaluators.iter() {
                problems.push_key(name);
                check_name(name, problems);
                problems.pop();
                rules.insert(name, new_rule(value, FlagDocument::Definitions));
            }
        }
        Some(other) => report_type(
            "$evaluators",
            "an object of rules by their names",
            other,
            problems,
        ),
        None => {}
    }
    problems.pop();
    problems.document = FlagDocument::Details;
    problems.push_key("segments");
    for (name, value) in segments {
        problems.push_key(name);
        check_name(name, problems);
        if rules.contains_key(name) {
            problems.report_key(FlagProblem::SegmentNameTaken {
                name: (*name).to_owned(),
            });
        } else {
            rules.insert(name, new_rule(value, FlagDocument::Details));
        }
        problems.pop();
    }
    problems.pop();
    problems.document = FlagDocument::Definitions;
    rules
}

fn new_rule<'v>(value: &'v DocumentValue<'v>, document: FlagDocument) -> NamedRule<'v> {
    NamedRule {
        value,
        document,
        state: NamedRuleState::Pending,
    }
}

/// `None` when the flag can't be evaluated in any way; the problem is reported.
fn read_flag<'v>(
    definition: &'v DocumentValue<'v>,
    set_metadata: &Map<String, Value>,
    compiler: &mut TargetingCompiler<'v>,
    problems: &mut ProblemList<'v>,
) -> Option<FlagDefinition> {
    let DocumentValue::Object(definition) = definition else {
        report_type("a flag", "an object", definition, problems);
        return None;
    };
    let known = [
        "state",
        "variants",
        "defaultVariant",
        "targeting",
        "metadata",
    ];
    check_property_names(definition, &known, problems);
    let state = read_state(definition, problems);
    let variants = read_variants(definition, problems);
    let metadata = definition.get("metadata").map(|_| {
        let mut metadata = set_metadata.clone();
        metadata.extend(read_metadata(definition, problems));
        metadata
    });
    let (value_type, variants) = variants?;
    let default_variant = read_default_variant(definition, &variants, problems);
    let targeting = read_targeting(definition, &variants, compiler, problems);
    Some(FlagDefinition {
        state: state?,
        value_type,
        variants,
        default_variant,
        targeting,
        metadata,
        details: None,
        prerequisites: Box::default(),
        unmet_variant: None,
    })
}

fn read_state<'v>(
    definition: &'v DocumentObject<'v>,
    problems: &mut ProblemList<'v>,
) -> Option<FlagState> {
    let state = match definition.get("state") {
        Some(DocumentValue::String(state)) => state,
        Some(other) => {
            problems.push_key("state");
            report_type("state", "`ENABLED` or `DISABLED`", other, problems);
            problems.pop();
            return None;
        }
        None => {
            problems.report(FlagProblem::MissingProperty { name: "state" });
            return None;
        }
    };
    match state.as_ref() {
        "ENABLED" => Some(FlagState::Enabled),
        "DISABLED" => Some(FlagState::Disabled),
        _ => {
            problems.push_key("state");
            problems.report(FlagProblem::UnknownState {
                actual: state.to_string(),
                nearest: problems.find_nearest(state, ["ENABLED", "DISABLED"]),
            });
            problems.pop();
            None
        }
    }
}

fn read_variants<'v>(
    definition: &'v DocumentObject<'v>,
    problems: &mut ProblemList<'v>,
) -> Option<(FlagValueType, FlagVariants)> {
    let Some(variants) = definition.get("variants") else {
        problems.report(FlagProblem::MissingProperty { name: "variants" });
        return None;
    };
    problems.push_key("variants");
    let read = match variants {
        DocumentValue::Object(variants) if (1..=VARIANTS_MAX).contains(&variants.len()) => {
            read_variant_values(variants, problems)
        }
        DocumentValue::Object(variants) => {
            problems.report(FlagProblem::VariantCount {
                count: variants.len(),
            });
            None
        }
        other => {
            report_type(
                "variants",
                "an object of values by their names",
                other,
                problems,
            );
            None
        }
    };
    problems.pop();
    read
}

fn read_variant_values<'v>(
    variants: &'v DocumentObject<'v>,
    problems: &mut ProblemList<'v>,
) -> Option<(FlagValueType, FlagVariants)> {
    let mut flag_type: Option<(&str, FlagValueType)> = None;
    let mut entries = Vec::with_capacity(variants.len());
    for (name, value) in variants.iter() {
        problems.push_key(name);
        check_name(name, problems);
        check_safe_integer(value, problems);
        match (find_value_type(value), flag_type) {
            (None, _) => report_type(
                name,
                "a boolean, a string, a number or an object",
                value,
                problems,
            ),
            (Some(found), None) => flag_type = Some((name, found)),
            (Some(found), Some((first, expected))) if found != expected => {
                problems.report(FlagProblem::MixedVariants {
                    variant: name.to_string(),
                    actual: describe_type(value),
                    first: first.to_owned(),
                    expected: variants.get(first).map_or("of another type", describe_type),
                });
            }
            (Some(_), Some(_)) => {}
        }
        problems.pop();
        entries.push((Box::from(name), value.to_json()));
    }
    flag_type.map(|(_, value_type)| (value_type, FlagVariants { entries }))
}

fn find_value_type(value: &DocumentValue<'_>) -> Option<FlagValueType> {
    match value {
        DocumentValue::Bool(_) => Some(FlagValueType::Boolean),
        DocumentValue::String(_) => Some(FlagValueType::Text),
        DocumentValue::Number(_) => Some(FlagValueType::Number),
        DocumentValue::Object(_) => Some(FlagValueType::Object),
        DocumentValue::Null | DocumentValue::Array(_) => None,
    }
}

fn read_default_variant<'v>(
    definition: &'v DocumentObject<'v>,
    variants: &FlagVariants,
    problems: &mut ProblemList<'v>,
) -> Option<usize> {
    problems.push_key("defaultVariant");
    let default = match definition.get("defaultVariant") {
        None | Some(DocumentValue::Null) => None,
        Some(DocumentValue::String(name)) => {
            let index = variants.index_of(name);
            if index.is_none() {
                problems.report(FlagProblem::UnknownVariant {
                    variant: name.to_string(),
                    nearest: problems.find_nearest(name, variants.names()),
                });
            }
            index
        }
        Some(other) => {
            report_type(
                "defaultVariant",
                "the name of a variant or null",
                other,
                problems,
            );
            None
        }
    };
    problems.pop();
    default
}

fn read_targeting<'v>(
    definition: &'v DocumentObject<'v>,
    variants: &FlagVariants,
    compiler: &mut TargetingCompiler<'v>,
    problems: &mut ProblemList<'v>,
) -> FlagTargeting {
    let rule = match definition.get("targeting") {
        None | Some(DocumentValue::Null) => return FlagTargeting::None,
        Some(DocumentValue::Object(rule)) if rule.is_empty() => return FlagTargeting::None,
        Some(rule) => rule,
    };
    problems.push_key("targeting");
    if !matches!(rule, DocumentValue::Object(_)) {
        problems.report_rule(FlagProblem::WrongType {
            name: "targeting".to_owned(),
            expected: "a rule",
            actual: describe_type(rule),
        });
    }
    let compiled = compiler.compile_rule(rule, problems);
    let targeting = match compiled {
        CompiledRule::Valid(expression) => {
            check_results(rule, variants, problems);
            FlagTargeting::Rule(Box::new(expression))
        }
        CompiledRule::Invalid => FlagTargeting::Invalid(Box::from(
            "the flag's targeting rule can't be evaluated; the warnings of its file say why",
        )),
    };
    problems.pop();
    targeting
}

fn read_metadata<'v>(
    owner: &'v DocumentObject<'v>,
    problems: &mut ProblemList<'v>,
) -> Map<String, Value> {
    problems.push_key("metadata");
    let metadata = match owner.get("metadata") {
        None => Map::new(),
        Some(DocumentValue::Object(metadata)) => {
            for (name, value) in metadata.iter() {
                if matches!(
                    value,
                    DocumentValue::Null | DocumentValue::Array(_) | DocumentValue::Object(_)
                ) {
                    problems.push_key(name);
                    problems.report_rule(FlagProblem::WrongType {
                        name: name.to_string(),
                        expected: "a string, a number or a boolean",
                        actual: describe_type(value),
                    });
                    problems.pop();
                }
            }
            metadata.to_json()
        }
        Some(other) => {
            report_type("metadata", "an object", other, problems);
            Map::new()
        }
    };
    problems.pop();
    metadata
}

fn attach_details<'v>(
    flags: &mut FlagMap,
    details: &'v FlagSetDetails,
    problems: &mut ProblemList<'v>,
) {
    problems.document = FlagDocument::Details;
    problems.push_key("flags");
    for (key, flag_details) in &details.flags {
        problems.push_key(key);
        check_kind(flag_details, problems);
        match flags.get_mut(key.as_str()) {
            Some(flag) => {
                flag.unmet_variant = find_unmet_variant(flag_details, flag, problems);
                flag.details = Some(Box::new(flag_details.clone()));
            }
            None => problems.report(FlagProblem::UnknownFlag {
                name: key.clone(),
                nearest: problems.find_nearest(key, flags.keys().map(AsRef::as_ref)),
            }),
        }
        problems.pop();
    }
    link_prerequisites(flags, details, problems);
    problems.pop();
    problems.document = FlagDocument::Definitions;
}

fn check_kind(details: &FlagDetails, problems: &mut ProblemList<'_>) {
    if details.kind == Some(FlagKind::Release) && details.expires.is_none() {
        problems.report(FlagProblem::ReleaseWithoutExpiry);
    }
}

fn find_unmet_variant(
    details: &FlagDetails,
    flag: &FlagDefinition,
    problems: &mut ProblemList<'_>,
) -> Option<usize> {
    let name = details.unmet_variant.as_ref()?;
    let index = flag.variants.index_of(name);
    if index.is_none() {
        problems.push_key("unmetVariant");
        problems.report(FlagProblem::UnknownVariant {
            variant: name.to_string(),
            nearest: problems.find_nearest(name, flag.variants.names()),
        });
        problems.pop();
    }
    index
}

fn report_type(
    name: &str,
    expected: &'static str,
    actual: &DocumentValue<'_>,
    problems: &mut ProblemList<'_>,
) {
    problems.report(FlagProblem::WrongType {
        name: name.to_owned(),
        expected,
        actual: describe_type(actual),
    });
}

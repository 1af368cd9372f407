//! Links flags to those that they require, and refuses cycles and long chains.

use crate::definition::{FlagMap, PrerequisiteIndex};
use crate::details::{FlagPrerequisite, FlagSetDetails};
use crate::diagnostic::FlagProblem;
use crate::json_position::PathSegment;
use crate::limits::PREREQUISITE_CHAIN_MAX;
use crate::problem_list::ProblemList;

pub(crate) fn link_prerequisites<'v>(
    flags: &mut FlagMap,
    details: &'v FlagSetDetails,
    problems: &mut ProblemList<'v>,
) {
    for (key, flag_details) in &details.flags {
        let Some(index) = flags.get_index_of(key.as_str()) else {
            continue;
        };
        problems.push_key(key);
        problems.push_key("prerequisites");
        let mut linked = Vec::with_capacity(flag_details.prerequisites.len());
        for (place, prerequisite) in flag_details.prerequisites.iter().enumerate() {
            problems.push(PathSegment::Index(place));
            linked.extend(link_prerequisite(flags, prerequisite, problems));
            problems.pop();
        }
        flags[index].prerequisites = linked.into_boxed_slice();
        problems.pop();
        problems.pop();
    }
    check_chains(flags, details, problems);
}

fn link_prerequisite<'v>(
    flags: &FlagMap,
    prerequisite: &'v FlagPrerequisite,
    problems: &mut ProblemList<'v>,
) -> Option<PrerequisiteIndex> {
    let Some((index, _, required)) = flags.get_full(prerequisite.flag.as_str()) else {
        problems.report(FlagProblem::UnknownFlag {
            name: prerequisite.flag.clone(),
            nearest: problems.find_nearest(&prerequisite.flag, flags.keys().map(AsRef::as_ref)),
        });
        return None;
    };
    if prerequisite.variants.is_empty() {
        problems.report(FlagProblem::PrerequisiteVariants {
            flag: prerequisite.flag.clone(),
        });
    }
    let mut variants = Vec::with_capacity(prerequisite.variants.len());
    for name in &prerequisite.variants {
        match required.variants.index_of(name) {
            Some(variant) => variants.push(variant),
            None => problems.report(FlagProblem::UnknownVariant {
                variant: name.clone(),
                nearest: problems.find_nearest(name, required.variants.names()),
            }),
        }
    }
    Some(PrerequisiteIndex {
        flag: index,
        variants: variants.into_boxed_slice(),
    })
}

/// Walks the chains from each flag that has prerequisites. A flag whose chains are fine is not walked again.
fn check_chains<'v>(flags: &FlagMap, details: &'v FlagSetDetails, problems: &mut ProblemList<'v>) {
    let mut chain_lengths: Vec<Option<usize>> = vec![None; flags.len()];
    for key in details.flags.keys() {
        let Some(index) = flags.get_index_of(key.as_str()) else {
            continue;
        };
        let mut open = Vec::new();
        if let Err(problem) = measure_chain(flags, index, &mut open, &mut chain_lengths) {
            problems.push_key(key);
            problems.report(problem);
            problems.pop();
        }
    }
}

/// The flags in the longest chain that starts with the one at `index`.
fn measure_chain(
    flags: &FlagMap,
    index: usize,
    open: &mut Vec<usize>,
    chain_lengths: &mut [Option<usize>],
) -> Result<usize, FlagProblem> {
    if let Some(length) = chain_lengths[index] {
        if open.len() + length > PREREQUISITE_CHAIN_MAX {
            return Err(FlagProblem::PrerequisiteChain);
        }
        return Ok(length);
    }
    if let Some(start) = open.iter().position(|&opened| opened == index) {
        let names = open[start..].iter().chain([&index]);
        let chain: Vec<&str> = names.map(|&flag| key_of(flags, flag)).collect();
        return Err(FlagProblem::CyclicPrerequisites {
            chain: chain.join(" → "),
        });
    }
    if open.len() == PREREQUISITE_CHAIN_MAX {
        return Err(FlagProblem::PrerequisiteChain);
    }
    open.push(index);
    let mut longest = 0;
    for prerequisite in &flags[index].prerequisites {
        longest = longest.max(measure_chain(
            flags,
            prerequisite.flag,
            open,
            chain_lengths,
        )?);
    }
    open.pop();
    chain_lengths[index] = Some(longest + 1);
    Ok(longest + 1)
}

fn key_of(flags: &FlagMap, index: usize) -> &str {
    flags.get_index(index).map_or("", |(key, _)| key)
}

//! Verdicts: pass, fail, inconclusive or no data, with one sentence, and whether more evidence can change it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Metric,
    metric::{grouped, pluralized},
};

/// The result of an analysis, with one sentence for users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The evidence is good.
    Pass {
        /// The measured values, and the limit or the comparison.
        why: String,
    },
    /// The evidence is bad: the release goes back.
    Fail {
        /// The measured values, and the limit or the comparison.
        why: String,
    },
    /// The evidence can't be used (a source that is down, NaN, windows that contradict each other), or speaks against the release
    /// without being enough for a fail.
    Inconclusive {
        /// The missing or contradicting evidence.
        why: String,
    },
    /// The service had too little traffic, and nothing speaks against the release. Never a pass; the end of a hold accepts it
    /// unless a rule is `required`.
    NoData {
        /// How much was seen, of how much.
        why: String,
        /// How much was counted so far: requests, unless `why` says otherwise.
        seen: u64,
        /// How much the rule needs.
        needed: u64,
        /// Whether a rule that is `required: true` lacks the traffic.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        required: bool,
    },
}

impl Verdict {
    /// The sentence.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Pass { why }
            | Self::Fail { why }
            | Self::Inconclusive { why }
            | Self::NoData { why, .. } => why,
        }
    }

    /// Whether it is a pass.
    #[must_use]
    pub const fn is_pass(&self) -> bool {
        matches!(self, Self::Pass { .. })
    }

    /// Whether it is a fail.
    #[must_use]
    pub const fn is_fail(&self) -> bool {
        matches!(self, Self::Fail { .. })
    }

    /// Whether the end of a hold's time accepts it: a pass, or too little traffic where no rule is `required`.
    #[must_use]
    pub const fn is_accepted_at_end(&self) -> bool {
        matches!(
            self,
            Self::Pass { .. }
                | Self::NoData {
                    required: false,
                    ..
                }
        )
    }

    /// Whether the same follows from both, whatever their sentences say.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.is_same_kind(other) && self.is_accepted_at_end() == other.is_accepted_at_end()
    }

    /// Whether it is the same of the four.
    pub(crate) fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// `pass`, `fail`, `inconclusive` or `no data`
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pass { .. } => "pass",
            Self::Fail { .. } => "fail",
            Self::Inconclusive { .. } => "inconclusive",
            Self::NoData { .. } => "no data",
        }
    }

    /// Several verdicts as one, the worst winning: any fail fails, else any inconclusive is inconclusive, else any without
    /// data has no data, else it passes. The sentence is made of those of the winning kind. No verdicts at all is inconclusive.
    #[must_use]
    pub fn worst<'v>(verdicts: impl IntoIterator<Item = &'v Self>) -> Self {
        let (mut passes, mut fails, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
        let mut no_data: Option<Self> = None;
        for verdict in verdicts {
            match verdict {
                Self::Pass { why } => passes.push(why.as_str()),
                Self::Fail { why } => fails.push(why.as_str()),
                Self::Inconclusive { why } => unclear.push(why.as_str()),
                Self::NoData { .. } => {
                    no_data = Some(match no_data {
                        None => verdict.clone(),
                        Some(known) => known.with_no_data(verdict),
                    });
                }
            }
        }
        if !fails.is_empty() {
            Self::Fail {
                why: fails.join("; "),
            }
        } else if !unclear.is_empty() {
            Self::Inconclusive {
                why: unclear.join("; "),
            }
        } else if let Some(no_data) = no_data {
            no_data
        } else if !passes.is_empty() {
            Self::Pass {
                why: passes.join("; "),
            }
        } else {
            Self::Inconclusive {
                why: "nothing was measured".to_owned(),
            }
        }
    }

    /// Combines two rules without data: both sentences, and the counts of the rule with the smaller share of its need.
    fn with_no_data(self, other: &Self) -> Self {
        match (self, other) {
            (
                Self::NoData {
                    why,
                    seen,
                    needed,
                    required,
                },
                Self::NoData {
                    why: other_why,
                    seen: other_seen,
                    needed: other_needed,
                    required: other_required,
                },
            ) => {
                let product = |count: u64, need: u64| u128::from(count) * u128::from(need);
                let is_less = product(*other_seen, needed) < product(seen, *other_needed);
                let (seen, needed) = if is_less {
                    (*other_seen, *other_needed)
                } else {
                    (seen, needed)
                };
                // Two rules for one metric lack the same traffic: that is said once.
                let why = if why == *other_why {
                    why
                } else {
                    format!("{why}; {other_why}")
                };
                Self::NoData {
                    why,
                    seen,
                    needed,
                    required: required || *other_required,
                }
            }
            (known, _) => known,
        }
    }

    /// The same of a rule that is `required`: too little traffic keeps a hold from ending.
    #[must_use]
    pub fn into_required(mut self) -> Self {
        if let Self::NoData { required, .. } = &mut self {
            *required = true;
        }
        self
    }
}

impl fmt::Display for Verdict {
    /// `fail: error rate of #3 is over the limit: 5.2% …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.as_str(), self.why())
    }
}

/// The releases of which a rule needs requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestSource {
    Canary,
    Stable,
    BothReleases,
}

/// `too little traffic to judge the error rate of #3: 12 of the 100 requests needed`
pub(crate) fn too_little_traffic(
    metric: Metric,
    release: &str,
    seen: u64,
    needed: u64,
    source: RequestSource,
) -> String {
    let (title, seen) = (metric.title(), grouped(&seen.to_string()));
    let needed = pluralized(needed, "request");
    let source = match source {
        RequestSource::Canary => "",
        RequestSource::Stable => " on stable",
        RequestSource::BothReleases => " on each side",
    };
    format!(
        "too little traffic to judge the {title} of {release}: {seen} of the {needed} needed{source}"
    )
}

/// `CPU use of #3 can't be judged: the target reports no CPU use`
pub(crate) fn not_judged(metric: Metric, release: &str, why: &str) -> String {
    format!("{} of {release} can't be judged: {why}", metric.title())
}

/// Whether more evidence can still change a verdict within this hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finality {
    /// So it stands now; a hold that ends now takes it as its result.
    Open,
    /// So it stays: nothing is gained by waiting. A fail always is.
    Settled,
}

/// A verdict, and whether it can still change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// How things stand.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether it can still change.
    pub finality: Finality,
    /// Of several rules: the metric of the first rule with this verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
}

impl Judgement {
    /// One that more evidence can change.
    #[must_use]
    pub const fn new_open(verdict: Verdict) -> Self {
        Self {
            verdict,
            finality: Finality::Open,
            metric: None,
        }
    }

    /// One that stays.
    #[must_use]
    pub const fn new_final(verdict: Verdict) -> Self {
        Self {
            verdict,
            finality: Finality::Settled,
            metric: None,
        }
    }

    /// Whether waiting for more evidence is pointless.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.finality == Finality::Settled
    }

    /// Several judgements as one: the worst verdict. A fail is settled at once; anything else only when all are.
    #[must_use]
    pub fn worst<'j>(judgements: impl IntoIterator<Item = &'j Self> + Clone) -> Self {
        let verdict = Verdict::worst(
            judgements
                .clone()
                .into_iter()
                .map(|judgement| &judgement.verdict),
        );
        let mut judgements = judgements.into_iter().peekable();
        let all_settled = judgements.peek().is_some() && judgements.all(Self::is_final);
        if verdict.is_fail() || all_settled {
            Self::new_final(verdict)
        } else {
            Self::new_open(verdict)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass() -> Verdict {
        Verdict::Pass { why: "good".into() }
    }
    fn fail() -> Verdict {
        Verdict::Fail { why: "bad".into() }
    }
    #[test]
    fn rules_that_lack_the_same_traffic_say_it_once() {
        let lacking = |why: &str| Verdict::NoData {
            why: why.to_owned(),
            seen: 0,
            needed: 100,
            required: false,
        };
        let once = Verdict::worst(&[lacking("0 of 100 requests"), lacking("0 of 100 requests")]);
        assert_eq!(once.why(), "0 of 100 requests");
        let both = Verdict::worst(&[lacking("0 of 100 requests"), lacking("0 of 50 users")]);
        assert_eq!(both.why(), "0 of 100 requests; 0 of 50 users");
    }

    fn unclear() -> Verdict {
        Verdict::Inconclusive { why: "dark".into() }
    }

    #[test]
    fn the_worst_verdict_wins_and_brings_its_reasons() {
        assert_eq!(
            Verdict::worst(&[pass(), unclear(), fail(), fail()]),
            Verdict::Fail {
                why: "bad; bad".into()
            }
        );
        assert_eq!(Verdict::worst(&[pass(), unclear()]), unclear());
        assert_eq!(Verdict::worst(&[pass()]), pass());
        assert_eq!(Verdict::worst(&[pass(), no_data(3)]), no_data(3));
        assert_eq!(Verdict::worst(&[no_data(3), unclear()]), unclear());
        assert!(!Verdict::worst(&[]).is_pass(), "no evidence never passes");
    }

    fn no_data(seen: u64) -> Verdict {
        Verdict::NoData {
            why: format!("{seen} of 100 requests"),
            seen,
            needed: 100,
            required: false,
        }
    }

    #[test]
    fn too_little_traffic_is_no_pass_and_only_a_required_rule_keeps_a_hold_from_ending() {
        let both = Verdict::worst(&[no_data(30), no_data(7), pass()]);
        assert_eq!(
            both,
            Verdict::NoData {
                why: "30 of 100 requests; 7 of 100 requests".into(),
                seen: 7,
                needed: 100,
                required: false,
            }
        );
        assert!(!both.is_pass() && both.is_accepted_at_end());
        let required = no_data(30).into_required();
        assert!(!Verdict::worst(&[required, no_data(7)]).is_accepted_at_end());
        assert!(!unclear().into_required().is_accepted_at_end());
        assert!(pass().into_required().is_accepted_at_end());
    }

    #[test]
    fn a_fail_needs_no_other_metric_to_be_settled() {
        let open = Judgement::new_open(unclear());
        assert!(Judgement::worst(&[open.clone(), Judgement::new_final(fail())]).is_final());
        assert!(!Judgement::worst(&[open, Judgement::new_final(pass())]).is_final());
        assert!(
            Judgement::worst(&[
                Judgement::new_final(pass()),
                Judgement::new_final(unclear())
            ])
            .is_final()
        );
    }

    #[test]
    fn a_judgement_is_flat_json_and_reads_back() {
        let json = serde_json::to_string(&Judgement::new_final(fail())).unwrap();
        assert_eq!(
            json,
            r#"{"verdict":"fail","why":"bad","finality":"settled"}"#
        );
        assert_eq!(
            serde_json::from_str::<Judgement>(&json).unwrap(),
            Judgement::new_final(fail())
        );
    }
}

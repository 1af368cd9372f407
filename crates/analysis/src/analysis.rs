//! All rules of an environment together: one state, one verdict, the worst winning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Expression, Finality, Judge, Judgement, MannWhitney, Metric, Observation, Sequential, Threshold,
};

/// Makes [`Rule`] of all judges there are. They are told apart by their key; limits have none, and come last.
macro_rules! judges {
    ($($(#[$doc:meta])* $judge:ident = $key:ident),* $(,)?) => {
        /// One rule: what is measured, and the judge that judges it.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        pub enum Rule {
            $($(#[$doc])* $judge {
                /// How.
                $key: $judge,
            },)*
            /// Against a limit.
            Threshold(Threshold),
        }

        /// Memory of one rule.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        #[expect(clippy::large_enum_variant, reason = "one for each rule: a handful")]
        enum RuleState {
            $($judge { $key: <$judge as Judge>::State },)*
            Threshold(<Threshold as Judge>::State),
        }

        impl RuleState {
            fn begin_hold(&mut self) {
                match self {
                    $(Self::$judge { $key } => $judge::begin_hold($key),)*
                    Self::Threshold(state) => Threshold::begin_hold(state),
                }
            }
        }

        impl From<Threshold> for Rule {
            fn from(threshold: Threshold) -> Self {
                Self::Threshold(threshold)
            }
        }

        $(impl From<$judge> for Rule {
            fn from($key: $judge) -> Self {
                Self::$judge { $key }
            }
        })*

        impl Rule {
            /// What is measured; never empty.
            #[must_use]
            pub fn metrics(&self) -> Vec<Metric> {
                match self {
                    $(Self::$judge { $key } => $key.metrics(),)*
                    Self::Threshold(threshold) => threshold.metrics(),
                }
            }

            /// At least this long from one measurement to the next; `None`: every look counts.
            #[must_use]
            pub fn interval(&self) -> Option<Duration> {
                match self {
                    $(Self::$judge { $key } => $key.interval(),)*
                    Self::Threshold(threshold) => threshold.interval(),
                }
            }

            /// Whether it compares with stable.
            #[must_use]
            pub fn compares(&self) -> bool {
                match self {
                    $(Self::$judge { $key } => $key.compares(),)*
                    Self::Threshold(threshold) => threshold.compares(),
                }
            }

            fn begin(&self) -> RuleState {
                match self {
                    $(Self::$judge { .. } => RuleState::$judge { $key: Default::default() },)*
                    Self::Threshold(_) => RuleState::Threshold(Default::default()),
                }
            }

            fn observe(&self, state: &mut RuleState, seen: &Observation) -> Judgement {
                match (self, &mut *state) {
                    $((Self::$judge { $key }, RuleState::$judge { $key: state }) => {
                        $key.observe(state, seen)
                    })*
                    (Self::Threshold(threshold), RuleState::Threshold(state)) => {
                        threshold.observe(state, seen)
                    }
                    // Of an older configuration: what was known of another rule says nothing about this one.
                    _ => {
                        *state = self.begin();
                        self.observe(state, seen)
                    }
                }
            }
        }
    };
}

judges! {
    /// Against stable, as early as the evidence allows.
    Sequential = sequential,
    /// Windows of both sides, as Kayenta judges them.
    MannWhitney = mann_whitney,
    /// By a condition.
    Expression = expression,
}

impl Rule {
    /// What is measured, or the first of what is.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metrics().first().copied().unwrap_or(Metric::Requests)
    }
}

/// What is judged during a hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Analysis {
    rules: Vec<Rule>,
}

/// Memory of the rules, one entry for each. Belongs into the log with what was decided from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AnalysisState {
    rules: Vec<RuleState>,
}

/// How one rule stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricJudgement {
    /// What was measured.
    pub metric: Metric,
    /// How it stands.
    #[serde(flatten)]
    pub judgement: Judgement,
}

impl Analysis {
    /// Judges by all of `rules`; the same metric may be among them more than once.
    #[must_use]
    pub fn new<R: Into<Rule>>(rules: Vec<R>) -> Self {
        Self {
            rules: rules.into_iter().map(Into::into).collect(),
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether there is nothing to judge. Then every observation is inconclusive: who wants to go on without evidence
    /// says so by not asking.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The state when a rollout begins.
    #[must_use]
    pub fn begin(&self) -> AnalysisState {
        AnalysisState {
            rules: self.rules.iter().map(Rule::begin).collect(),
        }
    }

    /// Takes one observation into account and says how each rule stands, in their order.
    pub fn observe_each(
        &self,
        state: &mut AnalysisState,
        seen: &Observation,
    ) -> Vec<MetricJudgement> {
        // A state of another length is of an older configuration; what it knows of rules that are still there stays.
        state.rules.truncate(self.rules.len());
        let missing = self.rules.iter().skip(state.rules.len());
        state.rules.extend(missing.map(Rule::begin));
        let judged = self.rules.iter().zip(&mut state.rules);
        judged
            .map(|(rule, state)| MetricJudgement {
                metric: rule.metric(),
                judgement: rule.observe(state, seen),
            })
            .collect()
    }

    /// Takes one observation into account and says how all stand together: any fail fails, else any inconclusive is
    /// inconclusive, else it passes.
    ///
    /// A pass is settled, so that a hold may end early, when there are comparisons with stable, all of them are settled, and no
    /// limit is exceeded: limits alone say nothing about the time that is left.
    pub fn observe(&self, state: &mut AnalysisState, seen: &Observation) -> Judgement {
        let each = self.observe_each(state, seen);
        let mut judgement = Judgement::worst(each.iter().map(|judged| &judged.judgement));
        if judgement.verdict.is_pass() {
            let mut comparisons = each
                .iter()
                .zip(&self.rules)
                .filter(|(_, rule)| rule.compares())
                .map(|(judged, _)| judged.judgement.is_settled())
                .peekable();
            let ends_early = comparisons.peek().is_some() && comparisons.all(|settled| settled);
            judgement.finality = if ends_early {
                Finality::Settled
            } else {
                Finality::Open
            };
        }
        judgement
    }
}

impl AnalysisState {
    /// The state when the next hold begins: limits are judged from now on, comparisons with stable go on.
    pub fn begin_hold(&mut self) {
        for state in &mut self.rules {
            state.begin_hold();
        }
    }
}

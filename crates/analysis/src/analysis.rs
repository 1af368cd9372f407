//! All rules of an environment together: one state, one verdict, the worst winning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ComparisonOdds, ConditionRule, Finality, Judge, Judgement, MannWhitney, Metric, MetricKind,
    Observation, SequentialComparison, ThresholdLimit,
};

/// Generates [`AnalysisRule`] from the list of judges. The key of the JSON object selects the judge; limits have no key and come last.
macro_rules! judges {
    ($($(#[$doc:meta])* $variant:ident($judge:ident) = $key:ident),* $(,)?) => {
        /// One rule of an environment: a judge with its metrics.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        pub enum AnalysisRule {
            $($(#[$doc])* $variant {
                #[expect(missing_docs, reason = "named as its type")]
                $key: $judge,
            },)*
            /// Against a limit.
            Threshold(ThresholdLimit),
        }

        /// Memory of one rule.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        #[expect(clippy::large_enum_variant, reason = "one for each rule: a handful")]
        enum RuleState {
            $($variant { $key: <$judge as Judge>::State },)*
            Threshold(<ThresholdLimit as Judge>::State),
        }

        impl RuleState {
            fn start_hold(&mut self) {
                match self {
                    $(Self::$variant { $key } => $judge::start_hold($key),)*
                    Self::Threshold(state) => ThresholdLimit::start_hold(state),
                }
            }
        }

        impl From<ThresholdLimit> for AnalysisRule {
            fn from(threshold: ThresholdLimit) -> Self {
                Self::Threshold(threshold)
            }
        }

        $(impl From<$judge> for AnalysisRule {
            fn from($key: $judge) -> Self {
                Self::$variant { $key }
            }
        })*

        impl AnalysisRule {
            /// Metrics of the rule; never empty.
            #[must_use]
            pub fn metrics(&self) -> Vec<Metric> {
                match self {
                    $(Self::$variant { $key } => $key.metrics(),)*
                    Self::Threshold(threshold) => threshold.metrics(),
                }
            }

            /// At least this long from one measurement to the next; `None`: every look counts.
            #[must_use]
            pub fn interval(&self) -> Option<Duration> {
                match self {
                    $(Self::$variant { $key } => $key.interval(),)*
                    Self::Threshold(threshold) => threshold.interval(),
                }
            }

            /// Whether it compares with stable.
            #[must_use]
            pub fn compares(&self) -> bool {
                match self {
                    $(Self::$variant { $key } => $key.compares(),)*
                    Self::Threshold(threshold) => threshold.compares(),
                }
            }

            /// Whether too little traffic for it keeps a hold from ending.
            #[must_use]
            pub fn is_required(&self) -> bool {
                match self {
                    $(Self::$variant { $key } => $key.is_required(),)*
                    Self::Threshold(threshold) => threshold.is_required(),
                }
            }

            fn initial_state(&self) -> RuleState {
                match self {
                    $(Self::$variant { .. } => RuleState::$variant { $key: Default::default() },)*
                    Self::Threshold(_) => RuleState::Threshold(Default::default()),
                }
            }

            fn observe(&self, state: &mut RuleState, seen: &Observation) -> Judgement {
                match (self, &mut *state) {
                    $((Self::$variant { $key }, RuleState::$variant { $key: state }) => {
                        $key.observe(state, seen)
                    })*
                    (Self::Threshold(threshold), RuleState::Threshold(state)) => {
                        threshold.observe(state, seen)
                    }
                    // State of another rule (older configuration): discard it.
                    _ => {
                        *state = self.initial_state();
                        self.observe(state, seen)
                    }
                }
            }
        }
    };
}

judges! {
    /// Against stable, as early as the evidence allows.
    Sequential(SequentialComparison) = sequential,
    /// Windows of both sides, as Kayenta judges them.
    MannWhitney(MannWhitney) = mann_whitney,
    /// By a condition.
    Expression(ConditionRule) = expression,
}

impl AnalysisRule {
    /// The same where too little traffic keeps a hold from ending.
    #[must_use]
    pub fn into_required(mut self) -> Self {
        match &mut self {
            Self::Sequential { sequential } => sequential.required = true,
            Self::MannWhitney { mann_whitney } => mann_whitney.required = true,
            Self::Expression { expression } => expression.counting.required = true,
            Self::Threshold(threshold) => threshold.counting.required = true,
        }
        self
    }

    /// How long after the beginning of a hold nothing is counted.
    #[must_use]
    pub const fn skip(&self) -> Duration {
        match self {
            Self::Sequential { sequential } => sequential.skip,
            Self::MannWhitney { mann_whitney } => mann_whitney.skip,
            Self::Expression { expression } => expression.counting.skip,
            Self::Threshold(threshold) => threshold.counting.skip,
        }
    }

    /// How many requests of the new release it needs before it passes; 0 where that depends on something else.
    #[must_use]
    pub fn min_requests(&self) -> u64 {
        match self {
            Self::Sequential { sequential } if sequential.metric.is_traffic_metric() => {
                sequential.min_requests
            }
            Self::Expression { expression } if expression.metric.is_traffic_metric() => {
                expression.counting.min_requests
            }
            Self::Threshold(threshold) if threshold.metric.is_traffic_metric() => {
                threshold.counting.min_requests
            }
            Self::Sequential { .. }
            | Self::MannWhitney { .. }
            | Self::Expression { .. }
            | Self::Threshold(_) => 0,
        }
    }

    /// Whether it remembers what the counts don't tell: values, windows, how often a limit failed.
    fn needs_checkpoint(&self) -> bool {
        match self {
            Self::Sequential { sequential } => sequential.metric.kind() == MetricKind::Value,
            Self::MannWhitney { .. } => true,
            Self::Expression { expression } => expression.counting.counts_outcomes(),
            Self::Threshold(threshold) => threshold.counting.counts_outcomes(),
        }
    }

    fn metrics_mut(&mut self) -> Vec<&mut Metric> {
        match self {
            Self::Sequential { sequential } => vec![&mut sequential.metric],
            Self::MannWhitney { mann_whitney } => mann_whitney.metrics_mut(),
            Self::Expression { expression } => vec![&mut expression.metric],
            Self::Threshold(threshold) => vec![&mut threshold.metric],
        }
    }

    /// The first metric of the rule.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metrics().first().copied().unwrap_or(Metric::Requests)
    }
}

/// All rules of an environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Analysis {
    rules: Vec<AnalysisRule>,
}

/// State of all rules, in their order. It is logged together with the decisions made from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AnalysisState {
    rules: Vec<RuleState>,
}

/// State of the judges that counts do not contain, one entry per rule; `None` for a rule that resumes from the counts alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AnalysisCheckpoint {
    rules: Vec<Option<RuleState>>,
}

impl AnalysisCheckpoint {
    /// Whether the counts alone are enough to resume.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.iter().all(Option::is_none)
    }
}

/// The judgement of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricJudgement {
    /// The rule's metric; of several metrics the first.
    pub metric: Metric,
    /// The rule's judgement.
    pub judgement: Judgement,
}

impl Analysis {
    /// Judges by all of `rules`; the same metric may be among them more than once.
    #[must_use]
    pub fn new<R: Into<AnalysisRule>>(rules: Vec<R>) -> Self {
        Self {
            rules: rules.into_iter().map(Into::into).collect(),
        }
    }

    /// The same where rules of the slow rate that have no limit yet (`over: auto`) get this one.
    #[must_use]
    pub fn with_slow_limit(mut self, over_micros: u64) -> Self {
        for rule in &mut self.rules {
            for metric in rule.metrics_mut() {
                if *metric == Metric::SLOW_RATE_AUTO {
                    *metric = Metric::SlowRate { over_micros };
                }
            }
        }
        self
    }

    /// The most requests of the new release that a rule needs before it passes.
    #[must_use]
    pub fn min_requests(&self) -> u64 {
        let needs = self.rules.iter().map(AnalysisRule::min_requests);
        needs.max().unwrap_or_default()
    }

    /// Whether a rule lacks the limit of its slow rate (`over: auto`).
    #[must_use]
    pub fn needs_slow_limit(&self) -> bool {
        let mut metrics = self.rules.iter().flat_map(AnalysisRule::metrics);
        metrics.any(|metric| metric == Metric::SLOW_RATE_AUTO)
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[AnalysisRule] {
        &self.rules
    }

    /// Whether there are no rules. Every observation is then inconclusive: an environment without analysis must not call
    /// [`Self::observe`].
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a judge remembers what the counts don't tell.
    #[must_use]
    pub fn has_memory(&self) -> bool {
        self.rules.iter().any(AnalysisRule::needs_checkpoint)
    }

    /// The part of `state` that can't be rebuilt from counts. Logged with the last observation, it gives the same judgements as a log
    /// of all observations.
    #[must_use]
    pub fn checkpoint(&self, state: &AnalysisState) -> AnalysisCheckpoint {
        let rules = self.rules.iter().zip(&state.rules);
        let mut kept = AnalysisCheckpoint {
            rules: rules
                .map(|(rule, state)| rule.needs_checkpoint().then(|| state.clone()))
                .collect(),
        };
        if kept.is_empty() {
            kept.rules.clear();
        }
        kept
    }

    /// The state when a rollout begins.
    #[must_use]
    pub fn initial_state(&self) -> AnalysisState {
        AnalysisState {
            rules: self.rules.iter().map(AnalysisRule::initial_state).collect(),
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
        state.rules.extend(missing.map(AnalysisRule::initial_state));
        let judged = self.rules.iter().zip(&mut state.rules);
        judged
            .map(|(rule, state)| MetricJudgement {
                metric: rule.metric(),
                judgement: {
                    let mut judgement = rule.observe(state, seen);
                    if rule.is_required() {
                        judgement.verdict = judgement.verdict.into_required();
                    }
                    judgement
                },
            })
            .collect()
    }

    /// The odds of each rule, in their order; `None` for rules without.
    #[must_use]
    pub fn odds_of_rules(&self, state: &AnalysisState) -> Vec<Option<ComparisonOdds>> {
        let odds = |(rule, state): (&AnalysisRule, &RuleState)| match (rule, state) {
            (
                AnalysisRule::Sequential { sequential },
                RuleState::Sequential { sequential: state },
            ) => sequential.odds(state),
            _ => None,
        };
        self.rules.iter().zip(&state.rules).map(odds).collect()
    }

    /// Takes one observation into account and says how all stand together: any fail fails, else any inconclusive is
    /// inconclusive, else any without data has no data, else it passes.
    ///
    /// A pass is settled, so that a hold may end early, when there are comparisons with stable, all of them are settled, and no
    /// limit is exceeded: limits alone predict nothing about the rest of the hold.
    pub fn observe(&self, state: &mut AnalysisState, seen: &Observation) -> Judgement {
        let each = self.observe_each(state, seen);
        self.combine(&each)
    }

    /// The judgements of all rules, in their order, as one: see [`Analysis::observe`].
    #[must_use]
    pub fn combine(&self, each: &[MetricJudgement]) -> Judgement {
        let mut judgement = Judgement::worst(each.iter().map(|judged| &judged.judgement));
        judgement.metric = each
            .iter()
            .find(|judged| judged.judgement.verdict.is_same_kind(&judgement.verdict))
            .map(|judged| judged.metric);
        if judgement.verdict.is_pass() {
            let mut comparisons = each
                .iter()
                .zip(&self.rules)
                .filter(|(_, rule)| rule.compares())
                .map(|(judged, _)| judged.judgement.is_final())
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
    /// Replaces the states that were folded from fewer observations by those of the checkpoint.
    pub fn restore(&mut self, checkpoint: &AnalysisCheckpoint) {
        for (state, kept) in self.rules.iter_mut().zip(&checkpoint.rules) {
            if let Some(kept) = kept {
                state.clone_from(kept);
            }
        }
    }

    /// Starts the next hold: limits forget earlier measurements, comparisons with stable keep their evidence.
    pub fn start_hold(&mut self) {
        for state in &mut self.rules {
            state.start_hold();
        }
    }
}

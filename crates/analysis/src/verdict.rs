//! What a judge says: three values and one sentence, and whether more evidence can still change it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the evidence stands, with one sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The evidence is good.
    Pass {
        /// What was seen, against which limit.
        why: String,
    },
    /// The evidence is bad: the release goes back.
    Fail {
        /// What was seen, against which limit.
        why: String,
    },
    /// There isn't enough evidence, or none that could be used. Neither good nor bad.
    Inconclusive {
        /// What is missing.
        why: String,
    },
}

impl Verdict {
    /// The sentence.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Pass { why } | Self::Fail { why } | Self::Inconclusive { why } => why,
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

    /// Which of the three it is, in a word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pass { .. } => "pass",
            Self::Fail { .. } => "fail",
            Self::Inconclusive { .. } => "inconclusive",
        }
    }

    /// Several verdicts as one, the worst winning: any fail fails, else any inconclusive is inconclusive, else it
    /// passes. The sentence is made of those of the winning kind. No verdicts at all is inconclusive: nobody looked.
    #[must_use]
    pub fn worst<'v>(verdicts: impl IntoIterator<Item = &'v Self>) -> Self {
        let (mut passes, mut fails, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
        for verdict in verdicts {
            match verdict {
                Self::Pass { why } => passes.push(why.as_str()),
                Self::Fail { why } => fails.push(why.as_str()),
                Self::Inconclusive { why } => unclear.push(why.as_str()),
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
}

impl fmt::Display for Verdict {
    /// `fail: error-rate 5.2 % over the limit …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word(), self.why())
    }
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
}

impl Judgement {
    /// One that more evidence can change.
    #[must_use]
    pub const fn open(verdict: Verdict) -> Self {
        Self {
            verdict,
            finality: Finality::Open,
        }
    }

    /// One that stays.
    #[must_use]
    pub const fn settled(verdict: Verdict) -> Self {
        Self {
            verdict,
            finality: Finality::Settled,
        }
    }

    /// Whether waiting for more evidence is pointless.
    #[must_use]
    pub fn is_settled(&self) -> bool {
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
        let all_settled = judgements.peek().is_some() && judgements.all(Self::is_settled);
        if verdict.is_fail() || all_settled {
            Self::settled(verdict)
        } else {
            Self::open(verdict)
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
        assert!(!Verdict::worst(&[]).is_pass(), "no evidence never passes");
    }

    #[test]
    fn a_fail_needs_no_other_metric_to_be_settled() {
        let open = Judgement::open(unclear());
        assert!(Judgement::worst(&[open.clone(), Judgement::settled(fail())]).is_settled());
        assert!(!Judgement::worst(&[open, Judgement::settled(pass())]).is_settled());
        assert!(
            Judgement::worst(&[Judgement::settled(pass()), Judgement::settled(unclear())])
                .is_settled()
        );
    }

    #[test]
    fn a_judgement_is_flat_json_and_reads_back() {
        let json = serde_json::to_string(&Judgement::settled(fail())).unwrap();
        assert_eq!(
            json,
            r#"{"verdict":"fail","why":"bad","finality":"settled"}"#
        );
        assert_eq!(
            serde_json::from_str::<Judgement>(&json).unwrap(),
            Judgement::settled(fail())
        );
    }
}

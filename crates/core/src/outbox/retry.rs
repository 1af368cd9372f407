//! The retry schedule of the outbox.

use std::time::Duration;

/// Exponential backoff with a limit. Without jitter: one server sends to a destination in order, so there is no thundering herd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Pause before the second attempt.
    pub first: Duration,
    /// Factor between pauses.
    pub factor: u32,
    /// Longest pause.
    pub longest: Duration,
    /// Number of attempts, after which it is a dead letter.
    pub attempts: u32,
}

impl Default for RetryPolicy {
    /// From one second to fifteen minutes, 100 attempts: a receiver may be down for a day.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor: 2,
            longest: Duration::from_secs(15 * 60),
            attempts: 100,
        }
    }
}

impl RetryPolicy {
    /// The pause after `failed` attempts (from 1), at least what the receiver requested; `None` after the last attempt.
    #[must_use]
    pub fn wait(&self, failed: u32, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let factor = self.factor.saturating_pow(failed.saturating_sub(1));
        let wait = self.first.saturating_mul(factor).min(self.longest);
        Some(asked.map_or(wait, |asked| wait.max(asked.min(self.longest))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_end() {
        let policy = RetryPolicy {
            attempts: 14,
            ..RetryPolicy::default()
        };
        let seconds: Vec<u64> = (1..20)
            .map_while(|failed| policy.wait(failed, None))
            .map(|wait| wait.as_secs())
            .collect();
        assert_eq!(
            seconds,
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
        );
        assert_eq!(
            RetryPolicy::default().wait(99, None),
            Some(Duration::from_secs(900))
        );
    }

    #[test]
    fn a_receiver_may_ask_for_more_patience_but_not_for_forever() {
        let policy = RetryPolicy::default();
        let ask = |seconds| {
            policy
                .wait(2, Some(Duration::from_secs(seconds)))
                .unwrap()
                .as_secs()
        };
        assert_eq!((ask(1), ask(30), ask(1 << 40)), (2, 30, 900));
    }
}

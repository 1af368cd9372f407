//! Limits the requests for documents of a provider: each takes one of ten, and one is added every ten seconds.

use std::time::{Duration, Instant};

const FETCHES_MAX: u32 = 10;
const REFILL: Duration = Duration::from_secs(10);

/// The requests that may be sent now.
#[derive(Debug)]
pub(super) struct FetchBudget {
    remaining: u32,
    refilled_at: Instant,
}

impl FetchBudget {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            remaining: FETCHES_MAX,
            refilled_at: now,
        }
    }

    /// Whether a request may be sent now; it is counted.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let periods = now.saturating_duration_since(self.refilled_at).as_secs() / REFILL.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods > 0 {
            self.remaining = self.remaining.saturating_add(periods).min(FETCHES_MAX);
            self.refilled_at += REFILL.saturating_mul(periods);
        }
        let has_remaining = self.remaining > 0;
        self.remaining = self.remaining.saturating_sub(1);
        has_remaining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_every_ten_seconds() {
        let start = Instant::now();
        let mut budget = FetchBudget::new(start);
        let burst = (0..100).filter(|_| budget.take(start)).count();
        assert_eq!(burst, 10);
        let later = (1..=600).filter(|it| budget.take(start + Duration::from_secs(*it)));
        assert_eq!(later.count(), 60);
        let day = start + Duration::from_secs(86_400);
        assert_eq!((0..100).filter(|_| budget.take(day)).count(), 10);
    }
}

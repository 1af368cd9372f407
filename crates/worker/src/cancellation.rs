//! Cancellation of a job: on request or by timeout.
//!
//! Steps whose condition asks for it (`if: always()`) still run during a grace period. A second request stops those,
//! too.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a cancelled job may clean up; GitHub's value.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Why a job is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelReason {
    /// On request.
    Requested,
    /// `timeout-minutes` of the job.
    TimedOut,
}

/// What a step does when the job is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WhenCancelled {
    #[default]
    Stop,
    /// Until the end of the grace period (`if: always()`).
    KeepRunning,
}

impl WhenCancelled {
    pub(crate) const fn survives_cancellation(self) -> bool {
        matches!(self, Self::KeepRunning)
    }
}

/// How to stop a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopMode {
    /// With signals, then a grace period.
    Graceful,
    /// With SIGKILL.
    Immediate,
}

/// The cancellation state of a job, as seen by one runner of steps.
pub(crate) struct JobCancellation {
    asked: CancellationToken,
    /// Cancels only this background step, even one that keeps running in a cancelled job.
    alone: CancellationToken,
    /// Whether `alone` has been handled.
    told_alone: bool,
    asked_again: CancellationToken,
    deadline: Instant,
    cut: Option<CancelReason>,
}

impl JobCancellation {
    /// Cancels the job after `timeout`, or on SIGTERM or SIGINT.
    pub(crate) fn with_timeout(timeout: Duration) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let cancel = Self::without_signals(timeout);
        let tokens = [cancel.asked.clone(), cancel.asked_again.clone()];
        // The task ends with the runtime.
        tokio::spawn(async move {
            for token in tokens {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(cancel)
    }

    fn without_signals(timeout: Duration) -> Self {
        let now = Instant::now();
        let forever = now + Duration::from_secs(10 * 365 * 24 * 3600);
        Self {
            asked: CancellationToken::new(),
            alone: CancellationToken::new(),
            told_alone: false,
            asked_again: CancellationToken::new(),
            deadline: now.checked_add(timeout).unwrap_or(forever),
            cut: None,
        }
    }

    /// The state for a background step, which is cancelled with the job or alone.
    pub(crate) fn for_background_step(&self) -> Self {
        Self {
            asked: self.asked.child_token(),
            alone: CancellationToken::new(),
            told_alone: false,
            asked_again: self.asked_again.child_token(),
            deadline: self.deadline,
            cut: self.cut,
        }
    }

    /// The token that cancels only this step.
    pub(crate) fn step_token(&self) -> CancellationToken {
        self.alone.clone()
    }

    /// Requests cancellation of the job.
    pub(crate) fn request(&self) {
        self.asked.cancel();
    }

    /// Updates the state; returns why the job is cancelled.
    pub(crate) fn update(&mut self) -> Option<CancelReason> {
        if self.cut.is_none() {
            if self.asked.is_cancelled() || self.alone.is_cancelled() {
                self.set_reason(CancelReason::Requested);
            } else if Instant::now() >= self.deadline {
                self.set_reason(CancelReason::TimedOut);
            }
        }
        self.cut
    }

    /// Why the job is cancelled, as of the last update.
    pub(crate) const fn reason(&self) -> Option<CancelReason> {
        self.cut
    }

    /// Whether the grace period has ended: not even `always()` steps may start.
    pub(crate) fn is_grace_over(&self) -> bool {
        self.cut.is_some() && (self.asked_again.is_cancelled() || Instant::now() >= self.deadline)
    }

    /// Waits until a running process must be stopped. One that keeps running in a cancelled job only has to stop at the
    /// end of the grace period.
    pub(crate) async fn wait_for_stop(&mut self, when_cancelled: WhenCancelled) -> StopMode {
        let goes_on = when_cancelled.survives_cancellation();
        if self.cut.is_none() {
            let cut = tokio::select! {
                () = self.alone.cancelled() => {
                    self.told_alone = true;
                    CancelReason::Requested
                }
                () = self.asked.cancelled() => CancelReason::Requested,
                () = sleep_until(self.deadline) => CancelReason::TimedOut,
            };
            self.set_reason(cut);
            if !goes_on || self.told_alone {
                return StopMode::Graceful;
            }
        }
        tokio::select! {
            // The job is cancelled and this step keeps running; now the step itself is cancelled.
            () = self.alone.cancelled(), if goes_on && !self.told_alone => {
                self.told_alone = true;
                self.deadline = Instant::now() + GRACE;
                StopMode::Graceful
            }
            () = self.asked_again.cancelled() => StopMode::Immediate,
            () = sleep_until(self.deadline) => StopMode::Immediate,
        }
    }

    fn set_reason(&mut self, cut: CancelReason) {
        self.cut = Some(cut);
        self.deadline = Instant::now() + GRACE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_ends_with_the_grace_and_the_rest_at_once() {
        let mut cancel = JobCancellation::without_signals(Duration::from_secs(60));
        assert_eq!(cancel.update(), None);
        assert_eq!(
            cancel.wait_for_stop(WhenCancelled::Stop).await,
            StopMode::Graceful
        );
        assert_eq!(cancel.update(), Some(CancelReason::TimedOut));
        assert!(!cancel.is_grace_over());
        let before = Instant::now();
        assert_eq!(
            cancel.wait_for_stop(WhenCancelled::KeepRunning).await,
            StopMode::Immediate
        );
        assert_eq!(before.elapsed().as_secs(), GRACE.as_secs());
        assert!(cancel.is_grace_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_beside_others_goes_on_with_a_cancelled_job_until_it_is_asked_itself() {
        let job = JobCancellation::without_signals(Duration::MAX);
        let (mut one, mut other) = (job.for_background_step(), job.for_background_step());
        one.step_token().cancel();
        assert_eq!(
            one.wait_for_stop(WhenCancelled::KeepRunning).await,
            StopMode::Graceful
        );
        job.request();
        other.step_token().cancel();
        assert_eq!(
            other.wait_for_stop(WhenCancelled::KeepRunning).await,
            StopMode::Graceful
        );
        let before = Instant::now();
        assert_eq!(
            other.wait_for_stop(WhenCancelled::KeepRunning).await,
            StopMode::Immediate
        );
        assert_eq!(before.elapsed().as_secs(), GRACE.as_secs());
        let mut third = job.for_background_step();
        assert_eq!(third.update(), Some(CancelReason::Requested));
        assert_eq!(
            third.wait_for_stop(WhenCancelled::KeepRunning).await,
            StopMode::Immediate
        );
    }

    #[tokio::test(start_paused = true)]
    async fn asked_twice_nothing_goes_on() {
        let mut cancel = JobCancellation::without_signals(Duration::MAX);
        cancel.asked.cancel();
        cancel.asked_again.cancel();
        assert_eq!(
            cancel.wait_for_stop(WhenCancelled::KeepRunning).await,
            StopMode::Immediate
        );
        assert_eq!(cancel.reason(), Some(CancelReason::Requested));
        assert!(cancel.is_grace_over());
    }
}

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
    requested: CancellationToken,
    /// Cancels only this background step, even one that keeps running in a cancelled job.
    step_cancel: CancellationToken,
    /// Whether `step_cancel` has been handled.
    step_cancel_handled: bool,
    forced: CancellationToken,
    deadline: Instant,
    reason: Option<CancelReason>,
}

impl JobCancellation {
    /// Cancels the job after `timeout`, or on SIGTERM or SIGINT.
    pub(crate) fn with_timeout(timeout: Duration) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let cancel = Self::without_signals(timeout);
        let tokens = [cancel.requested.clone(), cancel.forced.clone()];
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
            requested: CancellationToken::new(),
            step_cancel: CancellationToken::new(),
            step_cancel_handled: false,
            forced: CancellationToken::new(),
            deadline: now.checked_add(timeout).unwrap_or(forever),
            reason: None,
        }
    }

    /// The state for a background step, which is cancelled with the job or alone.
    pub(crate) fn for_background_step(&self) -> Self {
        Self {
            requested: self.requested.child_token(),
            step_cancel: CancellationToken::new(),
            step_cancel_handled: false,
            forced: self.forced.child_token(),
            deadline: self.deadline,
            reason: self.reason,
        }
    }

    /// The token that cancels only this step.
    pub(crate) fn step_token(&self) -> CancellationToken {
        self.step_cancel.clone()
    }

    /// Requests cancellation of the job.
    pub(crate) fn request(&self) {
        self.requested.cancel();
    }

    /// Updates the state; returns why the job is cancelled.
    pub(crate) fn update(&mut self) -> Option<CancelReason> {
        if self.reason.is_none() {
            if self.requested.is_cancelled() || self.step_cancel.is_cancelled() {
                self.set_reason(CancelReason::Requested);
            } else if Instant::now() >= self.deadline {
                self.set_reason(CancelReason::TimedOut);
            }
        }
        self.reason
    }

    /// Why the job is cancelled, as of the last update.
    pub(crate) const fn reason(&self) -> Option<CancelReason> {
        self.reason
    }

    /// Whether the grace period has ended: not even `always()` steps may start.
    pub(crate) fn is_grace_over(&self) -> bool {
        self.reason.is_some() && (self.forced.is_cancelled() || Instant::now() >= self.deadline)
    }

    /// Waits until a running process must be stopped. One that keeps running in a cancelled job only has to stop at the
    /// end of the grace period.
    pub(crate) async fn wait_for_stop(&mut self, when_cancelled: WhenCancelled) -> StopMode {
        let goes_on = when_cancelled.survives_cancellation();
        if self.reason.is_none() {
            let reason = tokio::select! {
                () = self.step_cancel.cancelled() => {
                    self.step_cancel_handled = true;
                    CancelReason::Requested
                }
                () = self.requested.cancelled() => CancelReason::Requested,
                () = sleep_until(self.deadline) => CancelReason::TimedOut,
            };
            self.set_reason(reason);
            if !goes_on || self.step_cancel_handled {
                return StopMode::Graceful;
            }
        }
        tokio::select! {
            // The job is cancelled and this step keeps running; now the step itself is cancelled.
            () = self.step_cancel.cancelled(), if goes_on && !self.step_cancel_handled => {
                self.step_cancel_handled = true;
                self.deadline = Instant::now() + GRACE;
                StopMode::Graceful
            }
            () = self.forced.cancelled() => StopMode::Immediate,
            () = sleep_until(self.deadline) => StopMode::Immediate,
        }
    }

    fn set_reason(&mut self, reason: CancelReason) {
        self.reason = Some(reason);
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
        cancel.requested.cancel();
        cancel.forced.cancel();
        assert_eq!(
            cancel.wait_for_stop(WhenCancelled::KeepRunning).await,
            StopMode::Immediate
        );
        assert_eq!(cancel.reason(), Some(CancelReason::Requested));
        assert!(cancel.is_grace_over());
    }
}

//! When a job ends before its steps do: asked to from outside, or because its time is over. Steps whose condition wants it
//! so (`if: always()`) still run, for a while; asked a second time, nothing does.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a cancelled job may clean up; GitHub's.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Why a job is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Somebody asked.
    Asked,
    /// It took longer than it may.
    TooLong,
}

/// How what runs is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Asked to end, and given time.
    Politely,
    /// Killed.
    AtOnce,
}

/// Whether, why and since when the job is cut short.
pub(crate) struct Cancel {
    asked: CancellationToken,
    /// Somebody wants this one step to end, whatever its condition says of a cancelled job.
    alone: CancellationToken,
    /// Whether it has been told to.
    told_alone: bool,
    asked_again: CancellationToken,
    deadline: Instant,
    cut: Option<Cut>,
}

impl Cancel {
    /// A job that may take `timeout`. SIGTERM and SIGINT are heard from now on.
    pub(crate) fn after(timeout: Duration) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let cancel = Self::quiet(timeout);
        let tokens = [cancel.asked.clone(), cancel.asked_again.clone()];
        // Ends with the runtime.
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

    fn quiet(timeout: Duration) -> Self {
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

    /// For a step that runs beside others: ends with the job, or alone.
    pub(crate) fn beside(&self) -> Self {
        Self {
            asked: self.asked.child_token(),
            alone: CancellationToken::new(),
            told_alone: false,
            asked_again: self.asked_again.child_token(),
            deadline: self.deadline,
            cut: self.cut,
        }
    }

    /// What asks for the end of this step alone.
    pub(crate) fn asker(&self) -> CancellationToken {
        self.alone.clone()
    }

    /// Somebody wants the job to stop.
    pub(crate) fn ask(&self) {
        self.asked.cancel();
    }

    /// Why the job is cut short, if it is; looks at what has happened since.
    pub(crate) fn look(&mut self) -> Option<Cut> {
        if self.cut.is_none() {
            if self.asked.is_cancelled() || self.alone.is_cancelled() {
                self.note(Cut::Asked);
            } else if Instant::now() >= self.deadline {
                self.note(Cut::TooLong);
            }
        }
        self.cut
    }

    /// Why the job was cut short when a step last saw to it.
    pub(crate) const fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Whether not even steps that always run may begin.
    pub(crate) fn is_over(&self) -> bool {
        self.cut.is_some() && (self.asked_again.is_cancelled() || Instant::now() >= self.deadline)
    }

    /// Returns when what runs must end. What `goes_on` when the job is cancelled must so only when its grace is over.
    pub(crate) async fn must_end(&mut self, goes_on: bool) -> Manner {
        if self.cut.is_none() {
            let cut = tokio::select! {
                () = self.alone.cancelled() => {
                    self.told_alone = true;
                    Cut::Asked
                }
                () = self.asked.cancelled() => Cut::Asked,
                () = sleep_until(self.deadline) => Cut::TooLong,
            };
            self.note(cut);
            if !goes_on || self.told_alone {
                return Manner::Politely;
            }
        }
        tokio::select! {
            // The job was cancelled, the step goes on, and now it is ended, too.
            () = self.alone.cancelled(), if goes_on && !self.told_alone => {
                self.told_alone = true;
                self.deadline = Instant::now() + GRACE;
                Manner::Politely
            }
            () = self.asked_again.cancelled() => Manner::AtOnce,
            () = sleep_until(self.deadline) => Manner::AtOnce,
        }
    }

    fn note(&mut self, cut: Cut) {
        self.cut = Some(cut);
        self.deadline = Instant::now() + GRACE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_ends_with_the_grace_and_the_rest_at_once() {
        let mut cancel = Cancel::quiet(Duration::from_secs(60));
        assert_eq!(cancel.look(), None);
        assert_eq!(cancel.must_end(false).await, Manner::Politely);
        assert_eq!(cancel.look(), Some(Cut::TooLong));
        assert!(!cancel.is_over());
        let before = Instant::now();
        assert_eq!(cancel.must_end(true).await, Manner::AtOnce);
        assert_eq!(before.elapsed().as_secs(), GRACE.as_secs());
        assert!(cancel.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_beside_others_goes_on_with_a_cancelled_job_until_it_is_asked_itself() {
        let job = Cancel::quiet(Duration::MAX);
        let (mut one, mut other) = (job.beside(), job.beside());
        one.asker().cancel();
        assert_eq!(one.must_end(true).await, Manner::Politely);
        job.ask();
        other.asker().cancel();
        assert_eq!(other.must_end(true).await, Manner::Politely);
        let before = Instant::now();
        assert_eq!(other.must_end(true).await, Manner::AtOnce);
        assert_eq!(before.elapsed().as_secs(), GRACE.as_secs());
        let mut third = job.beside();
        assert_eq!(third.look(), Some(Cut::Asked));
        assert_eq!(third.must_end(true).await, Manner::AtOnce);
    }

    #[tokio::test(start_paused = true)]
    async fn asked_twice_nothing_goes_on() {
        let mut cancel = Cancel::quiet(Duration::MAX);
        cancel.asked.cancel();
        cancel.asked_again.cancel();
        assert_eq!(cancel.must_end(true).await, Manner::AtOnce);
        assert_eq!(cancel.cut(), Some(Cut::Asked));
        assert!(cancel.is_over());
    }
}

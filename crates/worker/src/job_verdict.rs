//! The result of a job while it runs.

use shipway_workflow::{expr::StatusChecks, job::Conclusion};

/// The result of a job so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobVerdict {
    /// Why the job has failed.
    pub(crate) failed: Option<String>,
    /// Why the job was cancelled.
    pub(crate) cancelled: Option<String>,
    /// Why the job, or one of its steps, could not be run here.
    pub(crate) unsupported: Option<String>,
}

impl JobVerdict {
    /// Like at GitHub, cancelled takes precedence over failed.
    pub(crate) const fn conclusion(&self) -> Conclusion {
        if self.cancelled.is_some() {
            Conclusion::Cancelled
        } else if self.failed.is_some() {
            Conclusion::Failure
        } else if self.unsupported.is_some() {
            Conclusion::Incomplete
        } else {
            Conclusion::Success
        }
    }

    /// The status that conditions of steps see. A step that could not be run here doesn't keep later steps from
    /// running.
    pub(crate) const fn status(&self) -> StatusChecks {
        let (cancelled, failed) = (self.cancelled.is_some(), self.failed.is_some());
        StatusChecks {
            success: !cancelled && !failed,
            failure: !cancelled && failed,
            cancelled,
        }
    }
}

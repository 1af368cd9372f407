//! What requests ask for.

use std::fmt;

/// An operation that a request asks for. Its text is followed by the text of a [`Resource`](super::Resource).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Read,
    /// Read a web page.
    Browse,
    Push,
    /// Report a push, as git's hook does.
    ReportPush,
    Deploy,
    /// Deploy a release even if it was rolled back before.
    ForceDeploy,
    Rollback,
    Retry,
    Promote,
    Abort,
    Pause,
    Resume,
    Approve,
    Reject,
    CancelRun,
    Rerun,
    Dispatch,
    /// Put a test into quarantine, or take it out.
    Quarantine,
    /// Open a shell in the workspace of a job.
    OpenShell,
    /// Open a shell that has the secrets of the job.
    ShowSecrets,
    ReportMetrics,
    /// Fetch the source and the artifacts that a job works on.
    FetchInputs,
    /// Send the journal, the log and the files of a job.
    SendRecords,
    /// Delete a service or an environment.
    Delete,
    /// Remove files that the retention rule no longer covers.
    Prune,
    /// List secrets, without their values.
    ReadSecrets,
    /// Set and remove secrets and variables.
    ChangeSecrets,
    /// Connect a repository to one of a forge, or end that.
    ConnectForge,
    /// Read who changed what on the whole server.
    ReadAudit,
    /// Send dead letters again, remove them, and send a test message.
    ManageNotifications,
    /// Read and change users, groups, and the tokens of others.
    ManageUsers,
    /// Read and change the own account: its tokens, sessions and password.
    UseAccount,
}

impl Verb {
    /// Every verb, in the order of their declaration.
    pub const ALL: [Self; 32] = [
        Self::Read,
        Self::Browse,
        Self::Push,
        Self::ReportPush,
        Self::Deploy,
        Self::ForceDeploy,
        Self::Rollback,
        Self::Retry,
        Self::Promote,
        Self::Abort,
        Self::Pause,
        Self::Resume,
        Self::Approve,
        Self::Reject,
        Self::CancelRun,
        Self::Rerun,
        Self::Dispatch,
        Self::Quarantine,
        Self::OpenShell,
        Self::ShowSecrets,
        Self::ReportMetrics,
        Self::FetchInputs,
        Self::SendRecords,
        Self::Delete,
        Self::Prune,
        Self::ReadSecrets,
        Self::ChangeSecrets,
        Self::ConnectForge,
        Self::ReadAudit,
        Self::ManageNotifications,
        Self::ManageUsers,
        Self::UseAccount,
    ];
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Browse => "read the page of",
            Self::Push => "push to",
            Self::ReportPush => "report a push to",
            Self::Deploy => "deploy",
            Self::ForceDeploy => "force a deploy of",
            Self::Rollback => "roll back",
            Self::Retry => "retry",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::CancelRun => "cancel",
            Self::Rerun => "rerun",
            Self::Dispatch => "start a workflow of",
            Self::Quarantine => "change the quarantine of",
            Self::OpenShell => "open a shell in",
            Self::ShowSecrets => "open a shell with secrets in",
            Self::ReportMetrics => "report metrics of",
            Self::FetchInputs => "fetch the inputs of",
            Self::SendRecords => "send records of",
            Self::Delete => "delete",
            Self::Prune => "remove old files of",
            Self::ReadSecrets => "list the secrets of",
            Self::ChangeSecrets => "change the secrets of",
            Self::ConnectForge => "connect a forge to",
            Self::ReadAudit => "read the audit of",
            Self::ManageNotifications => "manage the notifications of",
            Self::ManageUsers => "manage the users and tokens of",
            Self::UseAccount => "use an account of",
        })
    }
}

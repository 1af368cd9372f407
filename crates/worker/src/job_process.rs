//! The worker's process: reads the spec of its job, enters the sandbox and runs the job.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use shipway_workflow::job::{Conclusion, InputDelivery, JobMounts, JobSpec};

use crate::{
    cancellation::JobCancellation,
    job_execution::JobExecution,
    journal::{Durability, JOURNAL_FILE},
    record_upload::RecordUploader,
    sandbox,
};

/// The spec of the job, in the job's folder. It contains secrets and is removed after reading.
pub const JOB_FILE: &str = "job.json";

/// Exists when the job was cancelled. A running worker gets a signal as well; the file is for a worker that is still
/// starting.
const CANCEL_FILE: &str = "cancel";

/// Locked by the worker as long as it lives.
const LOCK_FILE: &str = "worker.lock";

/// Runs the job in `folder` until it ends: the main function of `shipway worker --dir FOLDER`.
///
/// Exit code 0: the job succeeded; 1: it did not; 2: it could not be run, and stderr has the reason. A second worker
/// for the same folder waits for the first one and then exits.
#[must_use]
pub fn run_job(folder: &Path, keeping: Durability) -> ExitCode {
    match start(folder, keeping) {
        Ok(None | Some(Conclusion::Success | Conclusion::Skipped)) => ExitCode::SUCCESS,
        Ok(Some(Conclusion::Failure | Conclusion::Cancelled | Conclusion::Incomplete)) => {
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("shipway worker: {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

fn start(folder: &Path, keeping: Durability) -> io::Result<Option<Conclusion>> {
    // The kernel releases the lock when the process ends. A second worker blocks here until the first has finished
    // the job.
    let lock = File::create(folder.join(LOCK_FILE))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let job_file = folder.join(JOB_FILE);
    if fs::metadata(folder.join(JOURNAL_FILE)).is_ok_and(|journal| journal.len() > 0) {
        // Another worker has run or lost this job. If the spec was written again meanwhile, remove it: it holds
        // secrets.
        let _ = fs::remove_file(&job_file);
        return Ok(None);
    }
    let mut spec: JobSpec = serde_json::from_slice(&fs::read(&job_file)?)?;
    fs::remove_file(&job_file)?;
    if spec.delivery == InputDelivery::Fetched {
        spec.mounts = JobMounts {
            folder: std::path::absolute(folder)?,
            ..JobMounts::default()
        };
    }
    // Read the forge's token now: the sandbox hides its file.
    crate::forge::forge_login::move_token_into_address(&mut spec.actions, &spec.mounts.hidden);
    match sandbox::enter_sandbox(&spec) {
        Err(error) if !error.is_harmless() => return Err(io::Error::other(error)),
        // Run unsandboxed; the server has reported at startup that it can't isolate jobs.
        Err(_) | Ok(()) => {}
    }
    // Detach from the terminal, so that steps can neither prompt there nor be interrupted from it. EPERM means that
    // the process already leads a group, which is enough.
    let _ = rustix::process::setsid();
    // Child subreaper: orphaned processes of steps are reparented to the worker, which kills and reports them.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Background steps are local tasks.
    let beside = tokio::task::LocalSet::new();
    let ended = runtime.block_on(beside.run_until(run_spec(spec, folder, keeping)));
    // Don't wait for blocking tasks: an action that was cancelled may still be hashing a file.
    runtime.shutdown_background();
    ended.map(Some)
}

async fn run_spec(spec: JobSpec, folder: &Path, keeping: Durability) -> io::Result<Conclusion> {
    // Install signal handlers before the journal publishes the pid, from when on the job may be cancelled.
    let cancel = JobCancellation::with_timeout(Duration::from_millis(spec.timeout_ms))?;
    let mut uploader = start_upload(&spec, folder)?;
    let mut job = JobExecution::start(spec, folder, cancel, keeping)?;
    if let Some(upload) = &mut uploader
        && !upload.wait_until_claimed().await
    {
        return finish_upload(uploader, Conclusion::Cancelled);
    }
    // Check the file after the journal has published the pid: a server that writes it later also sends a signal.
    if folder.join(CANCEL_FILE).exists() {
        job.resources.cancel.request();
    }
    if job.evaluate_job_env() && job.fetch_step_actions().await? && job.start_containers().await {
        let from = job.restore_previous_steps()?;
        job.run_pre_steps().await?;
        job.run_main_steps(from).await?;
        job.run_post_steps().await?;
    }
    let resources = &mut job.resources;
    resources.containers.remove_all(&mut resources.output).await;
    let conclusion = job.finish_job()?;
    finish_upload(uploader, conclusion)
}

/// Sends the records of a job to the server, if the server can't read them here.
fn start_upload(spec: &JobSpec, folder: &Path) -> io::Result<Option<RecordUploader>> {
    match (spec.delivery, &spec.server) {
        (InputDelivery::Fetched, Some(server)) => RecordUploader::start(server, folder).map(Some),
        (InputDelivery::Fetched, None) | (InputDelivery::Mounted, _) => Ok(None),
    }
}

/// Waits until the server has all records.
fn finish_upload(
    uploader: Option<RecordUploader>,
    conclusion: Conclusion,
) -> io::Result<Conclusion> {
    let finished = uploader.map_or(Ok(()), RecordUploader::finish);
    finished.map_err(io::Error::other)?;
    Ok(conclusion)
}

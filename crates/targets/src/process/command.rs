//! The command of a workload, which is all that a process can run.

use shipway_core::target::{TargetKind, Workload, WorkloadCommand, WorkloadProgram};

use crate::target::TargetError;

/// The command that a process runs for a workload.
///
/// # Errors
/// When the workload is an image.
pub(super) fn process_command(workload: &Workload) -> Result<&WorkloadCommand, TargetError> {
    match &workload.program {
        WorkloadProgram::Command(command) => Ok(command),
        WorkloadProgram::Image { image, .. } => Err(TargetError::Image {
            target: TargetKind::Process,
            image: image.clone(),
        }),
    }
}

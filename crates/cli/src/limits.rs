//! What a job may use, for the commands that run workflows.

use shipway_core::target::ResourceLimits;
use shipway_syntax::{parse_bytes, parse_cores};

/// The options.
#[derive(Clone, Debug, clap::Args)]
pub struct JobLimits {
    /// Memory limit of a job, including its child processes, such as 4GiB (needs cgroups). No limit by default
    #[arg(long, env = "SHIPWAY_JOB_MEMORY", value_name = "BYTES", value_parser = bytes)]
    job_memory: Option<u64>,

    /// CPU limit of a job in cores, such as 1.5. No limit by default
    #[arg(long, env = "SHIPWAY_JOB_CPU", value_name = "CORES", value_parser = millis)]
    job_cpu: Option<u32>,

    /// Limit of processes and threads of a job. No limit by default
    #[arg(long, env = "SHIPWAY_JOB_PROCESSES", value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    job_processes: Option<u32>,
}

impl JobLimits {
    /// What each job is held to.
    pub const fn limits(&self) -> ResourceLimits {
        ResourceLimits {
            memory_bytes: self.job_memory,
            cpu_millis: self.job_cpu,
            processes: self.job_processes,
        }
    }
}

/// Less than this, and the worker itself, which reads logs and masks them, has no room.
const MEMORY_MIN: u64 = 64 << 20;
/// In thousandths of a core. With less, a job that only begins takes minutes.
const CPU_MIN: u32 = 10;

/// A limit that can't be read, or that is too low for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ParseLimitError {
    #[error("write an amount of memory, such as 512MiB or 4GiB")]
    Memory,
    #[error("a job needs at least 64MiB")]
    MemoryTooLow,
    #[error("write a number of cores from 0.01, such as 0.5 or 500m")]
    Cores,
}

fn bytes(text: &str) -> Result<u64, ParseLimitError> {
    let bytes = parse_bytes(text).ok_or(ParseLimitError::Memory)?;
    if bytes < MEMORY_MIN {
        return Err(ParseLimitError::MemoryTooLow);
    }
    Ok(bytes)
}

fn millis(text: &str) -> Result<u32, ParseLimitError> {
    let millis = parse_cores(text).filter(|millis| *millis >= CPU_MIN);
    millis.ok_or(ParseLimitError::Cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_too_little_is_refused() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert!(bytes("1MiB").is_err() && bytes("lots").is_err());
        assert_eq!(millis("1.5"), Ok(1_500));
        assert!(millis("9m").is_err() && millis("NaN").is_err());
    }
}

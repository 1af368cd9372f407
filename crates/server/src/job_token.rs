//! The token that a worker gets for its job.
//!
//! # Why
//!
//! A job runs code of a repository. With a token of the server it could approve itself, deploy other services, or ask for the
//! secrets of another environment.
//!
//! # Invariants
//!
//! - A token names one attempt at one job of one run, and is valid only while that runs.
//! - Nothing of it is stored: it is an HMAC of those names and the run's random uid, with a key in `DATA/keys`. So it survives a
//!   restart of the server, and no two jobs have the same.
//! - What it allows is decided by [`shipway_core::access::may`], and nowhere else.

use std::{fs, io, path::Path};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use shipway_core::{
    access::JobIdentity,
    ids::{RunId, RunUid},
    run::{JobRecord, RunState},
};

/// What every such token begins with.
pub(crate) const PREFIX: &str = "shipway-job/";
/// The key's file, in `DATA/keys`.
const KEY_FILE: &str = "job-tokens";

/// Signs and checks tokens.
pub struct JobTokens {
    key: [u8; 32],
}

/// A token as it was presented: whose it says it is, and its signature.
pub(crate) struct PresentedToken {
    pub(crate) job: JobIdentity,
    mac: String,
}

impl JobTokens {
    /// Reads the key, or makes it.
    pub fn open(keys: &Path) -> io::Result<Self> {
        let path = keys.join(KEY_FILE);
        if let Ok(key) = fs::read(&path)
            && let Ok(key) = key.try_into()
        {
            return Ok(Self { key });
        }
        let mut key = [0; 32];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
        crate::key_files::write_key(&path, &key)?;
        Ok(Self { key })
    }

    /// The token of an attempt at a job.
    #[must_use]
    pub fn token(&self, job: &JobIdentity, uid: &RunUid) -> String {
        let JobIdentity { run, key, attempt } = job;
        let (service, number, mac) = (&run.service, run.number.0, self.mac(job, uid));
        format!("{PREFIX}{service}/{number}/{key}/{attempt}/{mac}")
    }

    fn mac(&self, job: &JobIdentity, uid: &RunUid) -> String {
        let JobIdentity { run, key, attempt } = job;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key has any length");
        let (service, number, uid) = (&run.service, run.number.0, uid.as_str());
        mac.update(format!("job\n{service}\n{number}\n{uid}\n{key}\n{attempt}").as_bytes());
        let bytes = mac.finalize().into_bytes();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a token is that of a job that runs now, by the state of its run.
    pub(crate) fn is_valid(&self, presented: &PresentedToken, state: &RunState) -> bool {
        use subtle::ConstantTimeEq as _;
        let Some((run, uid)) = state
            .0
            .as_deref()
            .and_then(|run| Some((run, run.spec.uid.as_ref()?)))
        else {
            return false;
        };
        let job = &presented.job;
        let wanted = self.mac(job, uid);
        let attempt = run.jobs.get(&job.key).map_or(1, JobRecord::attempt);
        let is_active = run.progress.active().iter().any(|cell| cell.key == job.key);
        bool::from(wanted.as_bytes().ct_eq(presented.mac.as_bytes()))
            && run.ended.is_none()
            && is_active
            && attempt == job.attempt
    }
}

impl PresentedToken {
    /// Reads a token; none when it isn't one of a job.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let mut parts = token.strip_prefix(PREFIX)?.split('/');
        let mut next = || parts.next();
        let run = RunId {
            service: next()?.parse().ok()?,
            number: next()?.parse().ok()?,
        };
        let job = JobIdentity {
            run,
            key: next()?.parse().ok()?,
            attempt: next()?.parse().ok()?,
        };
        let mac = next()?.to_owned();
        next().is_none().then_some(Self { job, mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobIdentity {
        JobIdentity {
            run: "shop/r7".parse().unwrap(),
            key: "test.2".parse().unwrap(),
            attempt: 2,
        }
    }

    #[test]
    fn a_token_names_its_job_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = JobTokens::open(folder.path()).unwrap();
        let uid = "0123456789ab".parse().unwrap();
        let token = tokens.token(&job(), &uid);
        let presented = PresentedToken::parse(&token).unwrap();
        assert_eq!(presented.job, job());
        let again = JobTokens::open(folder.path()).unwrap();
        assert_eq!(again.token(&job(), &uid), token, "the next server knows it");
        let other = tokens.token(&job(), &"ba9876543210".parse().unwrap());
        assert_ne!(other, token, "another run of the number has another");
        for wrong in [
            "",
            "shipway-job/",
            "shipway-job/shop/7/a/1",
            &format!("{token}/x"),
        ] {
            assert!(PresentedToken::parse(wrong).is_none(), "{wrong}");
        }
        assert!(!tokens.is_valid(&presented, &RunState::default()));
    }
}

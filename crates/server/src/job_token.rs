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
//! - What it allows is decided by [`JobIdentity::may`], and nowhere else.

use std::{fs, io, path::Path};

use axum::http::Method;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use shipway_core::{
    ids::{RunId, RunUid},
    run::{JobRecord, RunState},
};
use shipway_workflow::job::JobKey;

/// What every such token begins with.
pub(crate) const PREFIX: &str = "shipway-job/";
/// The key's file, in `DATA/keys`.
const KEY_FILE: &str = "job-tokens";

/// Signs and checks tokens.
pub struct JobTokens {
    key: [u8; 32],
}

/// One attempt at one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobIdentity {
    /// Of which run.
    pub run: RunId,
    /// Which job.
    pub key: JobKey,
    /// Which attempt at it, from 1.
    pub attempt: u32,
}

impl std::fmt::Display for JobIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.key, self.run)
    }
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
        crate::start::write_key(&path, &key)?;
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

impl JobIdentity {
    /// Whether the job may make this request: what `shipway/deploy` and `actions/download-artifact` need, of its own service.
    #[must_use]
    pub fn may(&self, method: &Method, path: &str, query: Option<&str>) -> bool {
        let own = self.run.service.as_str();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            (&Method::POST, ["api", "v1", "services", service, "deploys"])
            | (&Method::GET, ["api", "v1", "rollouts", service, _])
            | (&Method::GET, ["api", "v1", "runs", service, _])
            | (&Method::GET, ["api", "v1", "runs", service, _, "artifacts", _]) => *service == own,
            (&Method::GET, ["api", "v1", "events"]) => {
                let stream = query.and_then(|query| query.strip_prefix("stream=rollout/"));
                stream.is_some_and(|stream| {
                    stream.starts_with(&format!("{own}/")) && !stream.contains('&')
                })
            }
            _ => false,
        }
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

    #[test]
    fn a_job_may_deploy_and_read_its_own_service_and_nothing_else() {
        let (get, post) = (Method::GET, Method::POST);
        for (method, path, query, wanted) in [
            (&post, "/api/v1/services/shop/deploys", None, true),
            (&get, "/api/v1/rollouts/shop/3", None, true),
            (&get, "/api/v1/runs/shop/7/artifacts/app", None, true),
            (&get, "/api/v1/events", Some("stream=rollout/shop/3"), true),
            (&get, "/api/v1/events", Some("stream=rollout/cart/3"), false),
            (&get, "/api/v1/events", None, false),
            (&post, "/api/v1/services/cart/deploys", None, false),
            (&post, "/api/v1/services/shop/rollbacks", None, false),
            (&post, "/api/v1/rollouts/shop/3/approve", None, false),
            (
                &post,
                "/api/v1/runs/shop/7/jobs/deploy/approve",
                None,
                false,
            ),
            (&post, "/api/v1/runs/shop/7/jobs/deploy/shell", None, false),
            (&post, "/git/shop/git-receive-pack", None, false),
        ] {
            let may = job().may(method, path, query);
            assert_eq!(may, wanted, "{method} {path} {query:?}");
        }
    }
}

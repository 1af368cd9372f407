//! Users, their tokens and their sessions.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use shipway_core::{
    access::{Principal, PrincipalRole, RoleBinding},
    aggregate::{Actor, Event},
    ids::{AccessTokenId, Digest, UserName},
    sealed_value::SealedValue,
    user_directory::{
        SESSION_IDLE, SESSION_LIFETIME, STREAM, TokenProblem, UserDirectory, UserDirectoryEvent,
        UserDirectoryInput, UserDirectoryRejection, UserDirectoryState, UserProfile,
    },
};
use shipway_engine::{Clock, Driver, Engine, EngineError, Outcome, Store, StoreError, Work};
use tokio::sync::{Semaphore, watch};

use super::{
    access_grant::{AccessGrant, TimedAccess},
    access_secret::AccessSecret,
    login_error::LoginError,
    login_limiter::LoginLimiter,
    openid_login::AuthenticatedPerson,
    password_hash::PasswordHash,
    usage_times::UsageTimes,
};
use crate::sealing::SealingKeys;

/// Between two writes of the times of use.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// Passwords that are hashed at once: each takes 19 MiB and a core.
const HASHES_MAX: usize = 2;
/// A setup link that is not used expires after this time.
const SETUP_LINK_LIFETIME: SignedDuration = SignedDuration::from_mins(60);

/// Carries out nothing: the directory asks nothing of the world.
pub(crate) struct NoDirectoryEffects;

#[async_trait]
impl Driver<UserDirectory> for NoDirectoryEffects {
    async fn carry_out(&self, work: Work<UserDirectory>) -> UserDirectoryInput {
        match work.effect {}
    }
}

/// Users, their tokens and their sessions.
pub(crate) struct UserAccounts {
    log: Engine<UserDirectory>,
    /// Signals each change of the directory.
    changes: watch::Sender<()>,
    clock: Arc<dyn Clock>,
    pub(super) sealing: Arc<SealingKeys>,
    usage: UsageTimes,
    limiter: LoginLimiter,
    hashing: Semaphore,
    /// Checked for users that don't exist, so that the time of an answer doesn't tell who does.
    unusable: Arc<PasswordHash>,
    /// The hash of the setup link, and when it expires. A restart makes another.
    setup_link: Mutex<Option<(Digest, Timestamp)>>,
}

impl UserAccounts {
    pub(crate) fn open(
        data: &Path,
        log: Engine<UserDirectory>,
        clock: Arc<dyn Clock>,
        sealing: Arc<SealingKeys>,
    ) -> Result<Self, LoginError> {
        Ok(Self {
            log,
            changes: watch::Sender::new(()),
            clock,
            sealing,
            usage: UsageTimes::open(data),
            limiter: LoginLimiter::default(),
            hashing: Semaphore::new(HASHES_MAX),
            unusable: Arc::new(PasswordHash::unusable()?),
            setup_link: Mutex::default(),
        })
    }

    pub(crate) async fn directory(&self) -> Result<Arc<UserDirectoryState>, StoreError> {
        Ok(self.log.state(STREAM).await?.unwrap_or_default())
    }

    pub(crate) async fn change(
        &self,
        input: UserDirectoryInput,
        by: Actor,
    ) -> Result<Outcome<UserDirectory>, EngineError<UserDirectoryRejection>> {
        let (log, changes) = (self.log.clone(), self.changes.clone());
        // Spawned: the request may be dropped while the change is being written, and its signal must be sent all the same.
        let sent = tokio::spawn(async move {
            let outcome = log.send(STREAM, input, by).await;
            changes.send_replace(());
            outcome
        });
        sent.await.unwrap_or(Err(EngineError::Stopping))
    }

    /// Whether requests must come from a user.
    pub(crate) async fn has_users(&self) -> Result<bool, StoreError> {
        Ok(self.directory().await?.has_users())
    }

    /// The principal of an access token. The use is recorded.
    pub(crate) async fn find_token(
        &self,
        secret: &AccessSecret,
    ) -> Result<Result<Principal, TokenProblem>, StoreError> {
        let (directory, now) = (self.directory().await?, self.clock.now());
        let found = directory.token_principal(&secret.hash(), now);
        if let Ok(Principal {
            token: Some(token), ..
        }) = &found
        {
            self.usage.record(token.as_str(), now);
        }
        Ok(found)
    }

    /// The principal of a session. The use is recorded, so that the session stays open.
    pub(crate) async fn find_session(
        &self,
        secret: &AccessSecret,
    ) -> Result<Option<Principal>, StoreError> {
        let (directory, now) = (self.directory().await?, self.clock.now());
        let hash = secret.hash();
        let access = self.session_access(&directory, &hash, now);
        if access.is_some() {
            self.usage.record(hash.hex(), now);
        }
        Ok(access.map(|access| access.principal))
    }

    /// The access of a session that is neither idle nor too old.
    fn session_access(
        &self,
        directory: &UserDirectoryState,
        session: &Digest,
        now: Timestamp,
    ) -> Option<TimedAccess> {
        let (principal, started_at) = directory.session_principal(session, now)?;
        let last_used = self.usage.last(session.hex());
        let last_used = last_used.map_or(started_at, |at| at.max(started_at));
        let idle_end = last_used
            .saturating_add(SESSION_IDLE)
            .unwrap_or(Timestamp::MAX);
        let lifetime_end = started_at
            .saturating_add(SESSION_LIFETIME)
            .unwrap_or(Timestamp::MAX);
        let ends_at = idle_end.min(lifetime_end);
        (now < ends_at).then_some(TimedAccess {
            principal,
            ends_at: Some(ends_at),
        })
    }

    /// The access that a grant gives now.
    async fn current_access(
        &self,
        grant: &AccessGrant,
        granted: &Principal,
    ) -> Result<Option<TimedAccess>, StoreError> {
        let (directory, now) = (self.directory().await?, self.clock.now());
        Ok(match grant {
            AccessGrant::AccessToken(secret) => {
                let principal = directory.token_principal(&secret.hash(), now).ok();
                principal.map(|principal| {
                    let id = principal.token.as_ref();
                    let token = id.and_then(|id| directory.tokens.get(id));
                    let ends_at = token.and_then(|(_, token)| token.expires_at);
                    TimedAccess { principal, ends_at }
                })
            }
            AccessGrant::Session(secret) => self.session_access(&directory, &secret.hash(), now),
            AccessGrant::OpenServer => (!directory.has_users()).then(|| TimedAccess {
                principal: granted.clone(),
                ends_at: None,
            }),
            AccessGrant::ServerToken | AccessGrant::JobToken => Some(TimedAccess {
                principal: granted.clone(),
                ends_at: None,
            }),
        })
    }

    /// Returns when a principal has less access than at the start of its request: its token was revoked or has expired, its session
    /// has ended, its user lost a role or is disabled, or a server without users has one now. Also when the directory can't be read.
    ///
    /// It is checked after each change of the directory and at the end by time. A clock that is set forward is noticed with the next change.
    pub(crate) async fn wait_for_access_loss(&self, grant: &AccessGrant, granted: &Principal) {
        let mut changes = self.changes.subscribe();
        loop {
            // Before the check, so that a change during the check is not missed.
            changes.mark_unchanged();
            let current = match self.current_access(grant, granted).await {
                Ok(Some(current)) if current.includes(granted) => current,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "the users can't be read: an open response is ended");
                    return;
                }
            };
            let expiry = async {
                match current.ends_at {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// When a token was last used.
    pub(crate) fn token_last_used(&self, token: &AccessTokenId) -> Option<Timestamp> {
        self.usage.last(token.as_str())
    }

    /// Hashes and seals a new password.
    pub(crate) async fn seal_password(
        &self,
        user: &UserName,
        password: &str,
    ) -> Result<SealedValue, LoginError> {
        let _permit = self
            .hashing
            .acquire()
            .await
            .map_err(std::io::Error::other)?;
        let password = password.to_owned();
        let hashed = tokio::task::spawn_blocking(move || PasswordHash::new(&password)).await;
        let hashed = hashed.map_err(std::io::Error::other)??;
        let text = serde_json::to_vec(&hashed).map_err(std::io::Error::other)?;
        Ok(self.sealing.seal(&password_purpose(user), &text)?)
    }

    /// Checks a user's name and password.
    pub(crate) async fn check_login(
        &self,
        user: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<UserName, LoginError> {
        let now = self.clock.now();
        if let Some(seconds) = self.limiter.wait_seconds(Some(user), address, now) {
            return Err(LoginError::TooMany { seconds });
        }
        // Counted before the check, so that many logins at once are not all checked.
        self.limiter.record_failure(Some(user), address, now);
        let directory = self.directory().await?;
        let name = user.parse::<UserName>().ok();
        let known = name.as_ref().and_then(|name| directory.users.get(name));
        let known = known.filter(|user| !user.is_disabled);
        let sealed = known.and_then(|user| user.password.as_ref());
        let hash = name.as_ref().zip(sealed).and_then(|(name, sealed)| {
            let opened = self.sealing.unseal(&password_purpose(name), sealed);
            if let Err(error) = &opened {
                tracing::error!(%error, user = %name, "the hash of a password can't be read");
            }
            serde_json::from_slice(&opened.ok()?).ok()
        });
        let hash = hash.map_or_else(|| self.unusable.clone(), Arc::new);
        let _permit = self
            .hashing
            .acquire()
            .await
            .map_err(std::io::Error::other)?;
        let password = password.to_owned();
        let checked = tokio::task::spawn_blocking(move || hash.matches(&password)).await;
        let is_right = checked.map_err(std::io::Error::other)? && known.is_some();
        match name.filter(|_| is_right) {
            Some(name) => {
                self.limiter.record_success(user);
                Ok(name)
            }
            None => Err(LoginError::Wrong),
        }
    }

    /// Starts a session of a user; its secret is the cookie.
    pub(crate) async fn start_session(&self, user: &UserName) -> Result<AccessSecret, LoginError> {
        let secret = AccessSecret::random("")?;
        let input = UserDirectoryInput::StartSession {
            session: secret.hash(),
            user: user.clone(),
        };
        let by = Principal::user(user, Vec::new(), Vec::new()).actor();
        self.change(input, by).await?;
        Ok(secret)
    }

    /// Starts a session of a person whom a provider has authenticated; its secret is the cookie.
    pub(crate) async fn start_external_session(
        &self,
        person: AuthenticatedPerson,
    ) -> Result<AccessSecret, LoginError> {
        let secret = AccessSecret::random("")?;
        let directory = self.directory().await?;
        let by = match directory.linked_user(&person.identity) {
            Some(user) => Principal::user(user, Vec::new(), Vec::new()).actor(),
            None => Actor::Shipway(format!("the first login with {}", person.identity.issuer)),
        };
        let input = UserDirectoryInput::StartExternalSession {
            session: secret.hash(),
            identity: person.identity,
            profile: person.profile,
            preferred_name: person.preferred_name,
        };
        self.change(input, by).await?;
        Ok(secret)
    }

    /// The user of a session, if it has no role.
    pub(crate) async fn user_without_role(
        &self,
        secret: &AccessSecret,
    ) -> Result<Option<UserName>, StoreError> {
        let (directory, now) = (self.directory().await?, self.clock.now());
        let session = directory.session_principal(&secret.hash(), now);
        let principal = session.map(|(principal, _)| principal);
        let roleless = principal.filter(|principal| principal.roles.is_empty());
        Ok(roleless.and_then(|it| it.name?.parse().ok()))
    }

    /// The number of seconds for which a client's address must wait before the next login; none when it may be tried now.
    pub(crate) fn login_wait_seconds(&self, address: Option<IpAddr>) -> Option<i64> {
        let now = self.clock.now();
        self.limiter.wait_seconds(None, address, now)
    }

    /// Counts a failed login of a client's address.
    pub(crate) fn record_failed_login(&self, address: Option<IpAddr>) {
        self.limiter.record_failure(None, address, self.clock.now());
    }

    /// Makes the setup link of a server without users.
    pub(crate) fn issue_setup_link(&self) -> Result<AccessSecret, LoginError> {
        let secret = AccessSecret::random("")?;
        let expires_at = self.clock.now().saturating_add(SETUP_LINK_LIFETIME);
        let expires_at = expires_at.unwrap_or(Timestamp::MAX);
        let link = Some((secret.hash(), expires_at));
        *self
            .setup_link
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = link;
        Ok(secret)
    }

    /// Whether a setup link can be used now.
    pub(crate) fn is_setup_link(&self, secret: &AccessSecret) -> bool {
        let link = self
            .setup_link
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        (link.as_ref()).is_some_and(|(hash, end)| *hash == secret.hash() && now < *end)
    }

    /// Adds the first admin with the setup link, which is then used up.
    pub(crate) async fn set_up(
        &self,
        link: &AccessSecret,
        user: &UserName,
        password: &str,
    ) -> Result<(), LoginError> {
        if !self.is_setup_link(link) {
            return Err(LoginError::InvalidSetupLink);
        }
        let input = UserDirectoryInput::SetUp {
            user: user.clone(),
            profile: UserProfile {
                roles: vec![RoleBinding::everywhere(PrincipalRole::Admin)],
                ..UserProfile::default()
            },
            password: self.seal_password(user, password).await?,
        };
        let by = Principal::user(user, Vec::new(), Vec::new()).actor();
        // Only the first of two requests adds its user.
        self.change(input, by).await?;
        *self
            .setup_link
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Writes the times of use now and then, for as long as the server runs.
    pub(crate) async fn save_usage(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SAVE_INTERVAL).await;
            self.save_usage_once().await;
        }
    }

    async fn save_usage_once(&self) {
        let Ok(directory) = self.directory().await else {
            return;
        };
        let now = self.clock.now();
        let saved = self.usage.save(|key| {
            let is_token =
                (key.parse::<AccessTokenId>()).is_ok_and(|id| directory.tokens.contains_key(&id));
            is_token || directory.has_session(key, now)
        });
        if let Err(error) = saved {
            tracing::warn!(%error, "the times of use can't be written");
        }
    }

    pub(crate) async fn stop(&self) {
        self.save_usage_once().await;
        self.log.stop().await;
    }
}

/// What the hash of a password is sealed for.
fn password_purpose(user: &UserName) -> String {
    format!("password of user {user}")
}

/// The directory as the log has it, without an engine.
pub(crate) async fn recorded_directory(
    store: &dyn Store,
) -> Result<UserDirectoryState, StoreError> {
    let mut state = UserDirectoryState::default();
    for text in store.read(STREAM, 0).await? {
        let event: Event<UserDirectoryEvent> =
            serde_json::from_str(&text).map_err(|error| StoreError(error.to_string()))?;
        shipway_core::aggregate::fold::<UserDirectory>(&mut state, [&event]);
    }
    Ok(state)
}

//! Ids as users type them: `r12`, `ro7`, `shop/ro7`. Ids without a service refer to the default service (see `service_argument`).

use shipway_core::ids::{ParseIdError, RolloutId, RolloutNumber, RunId, RunNumber, ServiceName};

use crate::{client::ServerConnection, exit::Failure, service_argument::default_service};

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `r12`
    Run,
    /// `ro7`
    Rollout,
}

/// What ids look like.
pub const ID_HELP: &str = "ids look like r12 (a run), ro7 (a rollout) or shop/ro7";

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Run => "a run",
            Self::Rollout => "a rollout",
        })
    }
}

/// The kind of `id`: `ro7` is a rollout, `r12` a run, a bare number either.
#[must_use]
pub fn kind_of(id: &str) -> Option<Kind> {
    let number = id.rsplit('/').next().unwrap_or(id);
    if number
        .strip_prefix("ro")
        .is_some_and(|digits| digits.parse::<u32>().is_ok())
    {
        Some(Kind::Rollout)
    } else if number
        .strip_prefix('r')
        .is_some_and(|digits| digits.parse::<u32>().is_ok())
    {
        Some(Kind::Run)
    } else {
        None
    }
}

/// The rollout that `shop/ro7`, `ro7` or `7` names; the id of a run is refused.
pub fn rollout_id(server: &ServerConnection, text: &str) -> Result<RolloutId, Failure> {
    let (service, number) = parse_id(server, text, Kind::Rollout)?;
    let number = RolloutNumber(number);
    Ok(RolloutId { service, number })
}

/// The run that `shop/r12`, `r12` or `12` names; the id of a rollout is refused.
pub fn run_id(server: &ServerConnection, text: &str) -> Result<RunId, Failure> {
    let (service, number) = parse_id(server, text, Kind::Run)?;
    let number = RunNumber(number);
    Ok(RunId { service, number })
}

fn parse_id(
    server: &ServerConnection,
    id: &str,
    kind: Kind,
) -> Result<(ServiceName, u32), Failure> {
    let named = kind_of(id);
    if let Some(other) = named.filter(|named| *named != kind) {
        return Err(Failure::usage_with(
            format!("{id} is {other}, but this command needs {kind}"),
            ID_HELP,
        ));
    }
    let (service, number) = match id.split_once('/') {
        Some((service, number)) => (Some(service), number),
        None => (None, id),
    };
    let digits =
        number.trim_start_matches(|letter: char| named.is_some() && !letter.is_ascii_digit());
    let number = digits.parse::<u32>().ok().filter(|number| *number > 0);
    let number =
        number.ok_or_else(|| Failure::usage_with(format!("{id:?} is not an id"), ID_HELP))?;
    let service = match service {
        Some(service) => service
            .parse()
            .map_err(|error: ParseIdError| Failure::usage(error.to_string()))?,
        None => default_service(server)?,
    };
    Ok((service, number))
}

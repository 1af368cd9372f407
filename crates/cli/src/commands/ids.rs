//! `r12`, `ro7`, `shop/ro7`: what people type, as paths of the API. A bare number belongs to the only service there is.

use shipway_core::{ids::ServiceName, service::ServiceView};

use crate::{client::Server, exit::Failure};

/// What a list of the API looks like.
#[derive(serde::Deserialize)]
pub struct Page<T> {
    /// Its entries.
    pub items: Vec<T>,
}

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

/// What `id` names, when it says so: `ro7` a rollout, `r12` a run, a bare number either.
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

/// `shop/7` of `shop/ro7`, `ro7` or `7`, where a rollout is meant; what names a run is refused. The same the other way round.
pub fn path_of(server: &Server, id: &str, meant: Kind) -> Result<String, Failure> {
    let named = kind_of(id);
    if let Some(other) = named.filter(|kind| *kind != meant) {
        return Err(Failure::usage_with(
            format!("{id} is {other}, and this is about {meant}"),
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
    let number = number.ok_or_else(|| Failure::usage_with(format!("{id:?} is no id"), ID_HELP))?;
    let service = match service {
        Some(service) => service.to_owned(),
        None => only_service(server)?.to_string(),
    };
    Ok(format!("{service}/{number}"))
}

/// The only service of the server, where a command doesn't name one.
pub fn only_service(server: &Server) -> Result<ServiceName, Failure> {
    let services: Page<ServiceView> = server.get("/api/v1/services")?;
    match services.items.as_slice() {
        [service] => Ok(service.name.clone()),
        [] => Err(Failure::usage_with(
            "the server has no service yet",
            "push a commit with a shipway.yaml, as `shipway init` writes it",
        )),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|service| service.name.as_str())
                .collect();
            Err(Failure::usage_with(
                "which service?",
                format!(
                    "there are {}; ids can name one, as in {}/ro7",
                    names.join(", "),
                    names[0]
                ),
            ))
        }
    }
}

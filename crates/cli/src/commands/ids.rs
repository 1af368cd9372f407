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

/// `shop/7` of `shop/ro7` or `ro7`.
pub fn path_of(server: &Server, id: &str) -> Result<String, Failure> {
    let (service, number) = match id.split_once('/') {
        Some((service, number)) => (service.to_owned(), number),
        None => (only_service(server)?.to_string(), id),
    };
    let digits = number.trim_start_matches("ro").trim_start_matches('r');
    match digits.parse::<u32>() {
        Ok(number) if number > 0 => Ok(format!("{service}/{number}")),
        _ => Err(Failure::usage_with(
            format!("{id:?} is no id"),
            "ids look like r12 (a run), ro7 (a rollout) or shop/ro7",
        )),
    }
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

//! Rows that an earlier version of Shipway did not write. They are found when the server starts, and written by one rebuild from the log,
//! before anything appends to it.

use std::collections::BTreeSet;

use shipway_core::{
    address::{
        claim_row::AddressClaimView,
        claims::{AddressClaims, ClaimsState},
    },
    service::{EnvironmentRow, ServiceAggregate, ServiceView},
};
use shipway_engine::{Store, StoreError};
use shipway_store::rebuild_rows;

/// Rebuilds the rows of environments and of addresses if some are missing. Nothing may append to the log meanwhile.
pub(crate) async fn rebuild_missing_rows(
    store: &dyn Store,
    claims: &ClaimsState,
) -> Result<(), StoreError> {
    if has_unlisted_environment(store).await? {
        let rows = rebuild_rows::<ServiceAggregate>(store).await?;
        tracing::info!(
            rows,
            "rebuilt the rows of services: an earlier version wrote none for environments"
        );
    }
    if has_unlisted_address(store, claims).await? {
        let rows = rebuild_rows::<AddressClaims>(store).await?;
        tracing::info!(
            rows,
            "rebuilt the rows of addresses: an earlier version wrote none"
        );
    }
    Ok(())
}

/// Whether the row of a service names an environment that has no row.
async fn has_unlisted_environment(store: &dyn Store) -> Result<bool, StoreError> {
    let listed = row_keys(store, EnvironmentRow::KIND).await?;
    let services = store.all_rows("service").await?.into_iter();
    let mut services =
        services.filter_map(|row| serde_json::from_value::<ServiceView>(row.doc).ok());
    Ok(services.any(|service| {
        let mut environments = service.environments.iter();
        environments.any(|it| !listed.contains(&format!("{}/{}", service.name, it.name)))
    }))
}

/// Whether a claimed address has no row.
async fn has_unlisted_address(store: &dyn Store, claims: &ClaimsState) -> Result<bool, StoreError> {
    let listed = row_keys(store, AddressClaimView::KIND).await?;
    let mut addresses = claims.claims.keys();
    Ok(addresses.any(|address| !listed.contains(&address.to_string())))
}

async fn row_keys(store: &dyn Store, kind: &str) -> Result<BTreeSet<String>, StoreError> {
    let rows = store.all_rows(kind).await?;
    Ok(rows.into_iter().map(|row| row.key).collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use shipway_core::{
        address::claims::{AskedAddresses, ClaimsInput, STREAM},
        aggregate::{Actor, Aggregate, Event, ViewRow},
        config,
        ids::ServiceName,
        release::Commit,
        service::{Push, ServiceInput},
    };
    use shipway_engine::{Append, MemoryStore};
    use shipway_syntax::SourceFile;

    use super::*;

    const CONFIG: &str =
        "service: shop\nrun: { command: ./shop }\nenvironments: { staging: {}, production: {} }\n";

    fn push() -> ServiceInput {
        let (config, _) = config::parse(&SourceFile::new("shipway.yaml", CONFIG)).unwrap();
        let push = Push {
            reference: "refs/heads/main".into(),
            before: None,
            commit: Commit {
                id: "a".repeat(40).parse().unwrap(),
                subject: "a change".into(),
                author: "ada".into(),
                committer: None,
                at: Timestamp::UNIX_EPOCH,
            },
            config: Some(Box::new(config)),
            unconfigured: None,
            tests: Vec::new(),
            source: None,
            location: None,
            commits: Vec::new(),
            commits_omitted: 0,
        };
        ServiceInput::Pushed {
            service: "shop".parse().unwrap(),
            push: Box::new(push),
            workflows: Vec::new(),
            standing: None,
        }
    }

    /// Appends what an input decides with the rows of these kinds alone, as a version without the others did.
    async fn append<A: Aggregate>(
        store: &MemoryStore,
        stream: &str,
        input: A::Input,
        kinds: &[&str],
    ) -> A::State {
        let mut state = A::State::default();
        let by = Actor::Shipway("a test".to_owned());
        let events = A::decide(&state, input, by, Timestamp::UNIX_EPOCH).unwrap();
        events.iter().for_each(|event| A::apply(&mut state, event));
        let mut rows = A::rows(&state, &events);
        rows.retain(|row: &ViewRow| kinds.contains(&row.kind.as_str()));
        let text = |event: &Event<A::Body>| serde_json::to_string(event).unwrap();
        let append = Append {
            stream: stream.to_owned(),
            expected: 0,
            events: events.iter().map(text).collect(),
            rows,
            snapshot: None,
            live: false,
        };
        store.append(append).await.unwrap();
        state
    }

    #[tokio::test]
    async fn the_rows_of_environments_and_addresses_are_rebuilt_once_from_the_log_of_an_earlier_version()
     {
        let store = MemoryStore::default();
        let service = "service/shop";
        append::<ServiceAggregate>(&store, service, push(), &["service"]).await;
        let (config, _) = config::parse(&SourceFile::new("shipway.yaml", CONFIG)).unwrap();
        let asked = ClaimsInput::Synchronize {
            service: ServiceName::try_from("shop".to_owned()).unwrap(),
            asked: AskedAddresses {
                addresses: config.addresses(),
                ..AskedAddresses::default()
            },
        };
        let claims = append::<AddressClaims>(&store, STREAM, asked, &[]).await;
        assert!(!claims.claims.is_empty());

        rebuild_missing_rows(&store, &claims).await.unwrap();
        let environments = row_keys(&store, EnvironmentRow::KIND).await.unwrap();
        let expected = ["shop/production", "shop/staging"].map(str::to_owned);
        assert_eq!(environments, expected.into());
        let addresses = row_keys(&store, AddressClaimView::KIND).await.unwrap();
        assert_eq!(addresses.len(), claims.claims.len());

        assert!(!has_unlisted_environment(&store).await.unwrap());
        assert!(!has_unlisted_address(&store, &claims).await.unwrap());
    }
}

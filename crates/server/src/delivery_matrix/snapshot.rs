//! The overview at one moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use shipway_api::{DeliveryMatrix, MatrixQuery, MatrixService, MatrixState, MatrixStateCount};
use shipway_core::{
    access::VisibleServices,
    ids::{EnvironmentName, ServiceName},
};

/// Environments that have a column of their own at most.
const COLUMNS_MAX: usize = 8;

/// The overview at one moment. A revision is increased with each change, and is never used again by a later server.
#[derive(Debug, Default)]
pub(crate) struct MatrixSnapshot {
    pub(crate) revision: u64,
    /// When a service or a column was last added or removed: a page of before must be made anew.
    pub(crate) layout_revision: u64,
    pub(crate) columns: Vec<EnvironmentName>,
    pub(crate) entries: BTreeMap<ServiceName, Arc<MatrixEntry>>,
}

/// A service in a snapshot.
#[derive(Debug)]
pub(crate) struct MatrixEntry {
    /// When it last changed.
    pub(crate) revision: u64,
    pub(crate) service: MatrixService,
    /// Its row for pages that are open, made when the first one needs it.
    pub(crate) live_row: OnceLock<Arc<str>>,
}

impl MatrixEntry {
    fn new(revision: u64, service: MatrixService) -> Arc<Self> {
        Arc::new(Self {
            revision,
            service,
            live_row: OnceLock::new(),
        })
    }
}

impl MatrixSnapshot {
    /// The snapshot after changes; none if nothing that is shown has changed. A service that is none is gone.
    pub(super) fn changed(
        &self,
        services: Vec<(ServiceName, Option<MatrixService>)>,
    ) -> Option<Self> {
        let revision = self.revision + 1;
        let mut entries = self.entries.clone();
        let (mut has_changed, mut layout_revision) = (false, self.layout_revision);
        for (name, service) in services {
            let known = entries.get(&name);
            if known.map(|entry| &entry.service) == service.as_ref() {
                continue;
            }
            has_changed = true;
            if known.is_none() || service.is_none() {
                layout_revision = revision;
            }
            match service {
                Some(service) => drop(entries.insert(name, MatrixEntry::new(revision, service))),
                None => drop(entries.remove(&name)),
            }
        }
        if !has_changed {
            return None;
        }
        let columns = choose_columns(&entries);
        if columns != self.columns {
            layout_revision = revision;
        }
        Some(Self {
            revision,
            layout_revision,
            columns,
            entries,
        })
    }

    /// The overview of the services that the caller may see; `query` chooses among them. The counts are of all of them.
    pub(crate) fn matrix(&self, visible: &VisibleServices, query: &MatrixQuery) -> DeliveryMatrix {
        let services = self.entries.values().map(|entry| &entry.service);
        let services = services.filter(|service| query.matches(service));
        DeliveryMatrix {
            columns: self.columns.clone(),
            services: services
                .filter(|service| visible.contains(&service.service))
                .cloned()
                .collect(),
            counts: self.counts(visible),
        }
    }

    /// How many environments that the caller may see are in each state.
    pub(crate) fn counts(&self, visible: &VisibleServices) -> Vec<MatrixStateCount> {
        let mut counts = MatrixState::ALL.map(|state| MatrixStateCount {
            state,
            environments: 0,
        });
        let services = self.entries.values().map(|entry| &entry.service);
        let seen = services.filter(|service| visible.contains(&service.service));
        for cell in seen.flat_map(|service| &service.environments) {
            for count in &mut counts {
                count.environments += u32::from(cell.states.contains(&count.state));
            }
        }
        counts.into()
    }
}

/// The most common environments, in the order of promotion.
fn choose_columns(entries: &BTreeMap<ServiceName, Arc<MatrixEntry>>) -> Vec<EnvironmentName> {
    let mut seen: BTreeMap<&EnvironmentName, (usize, usize)> = BTreeMap::new();
    for entry in entries.values() {
        for (position, cell) in entry.service.environments.iter().enumerate() {
            let (count, positions) = seen.entry(&cell.environment).or_default();
            *count += 1;
            *positions += position;
        }
    }
    let mut all: Vec<_> = seen.into_iter().collect();
    all.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    all.truncate(COLUMNS_MAX);
    // The average position, without rounding.
    all.sort_by(|(_, (a_count, a_sum)), (_, (b_count, b_sum))| {
        (a_sum * b_count).cmp(&(b_sum * a_count))
    });
    all.into_iter().map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use shipway_api::{EnvironmentCell, MatrixHealth};

    use super::*;

    fn service(name: &str, environments: &[&str]) -> (ServiceName, Option<MatrixService>) {
        let cell = |environment: &&str| EnvironmentCell {
            environment: environment.parse().unwrap(),
            states: vec![MatrixState::Empty],
            release: None,
            serves_since: None,
            health: MatrixHealth::Empty,
            problem: None,
            rollout: None,
            last_rollout: None,
            hold: None,
            queue: Vec::new(),
            deletion: None,
        };
        let name: ServiceName = name.parse().unwrap();
        let service = MatrixService {
            service: name.clone(),
            last_run: None,
            environments: environments.iter().map(cell).collect(),
        };
        (name, Some(service))
    }

    fn names(snapshot: &MatrixSnapshot) -> Vec<&str> {
        snapshot
            .columns
            .iter()
            .map(EnvironmentName::as_str)
            .collect()
    }

    #[test]
    fn columns_are_in_the_order_of_promotion_and_the_rarest_are_left_out() {
        let empty = MatrixSnapshot::default();
        let services = vec![
            service("a", &["dev", "staging", "production"]),
            service("b", &["staging", "production"]),
            service("c", &["production"]),
        ];
        let snapshot = empty.changed(services).unwrap();
        assert_eq!(names(&snapshot), ["dev", "staging", "production"]);

        let many: Vec<String> = (0..500).map(|number| format!("e{number}")).collect();
        let own = many
            .iter()
            .map(|name| service(&format!("s{name}"), &[name, "production"]));
        let snapshot = empty.changed(own.collect()).unwrap();
        assert_eq!(snapshot.columns.len(), COLUMNS_MAX);
        assert!(names(&snapshot).contains(&"production"));
    }

    #[test]
    fn only_what_is_shown_differently_is_a_new_revision() {
        let first = MatrixSnapshot::default();
        let first = first.changed(vec![service("a", &["staging"])]).unwrap();
        assert!(first.changed(vec![service("a", &["staging"])]).is_none());
        assert_eq!(first.layout_revision, first.revision);

        let mut moved = service("a", &["staging"]);
        moved.1.as_mut().unwrap().environments[0].health = MatrixHealth::Healthy;
        let second = first.changed(vec![moved]).unwrap();
        let name = "a".parse().unwrap();
        assert_eq!(second.entries[&name].revision, second.revision);
        assert_eq!(second.layout_revision, first.layout_revision);

        let gone = second.changed(vec![(name, None)]).unwrap();
        assert!(gone.entries.is_empty() && gone.columns.is_empty());
        assert_eq!(gone.layout_revision, gone.revision);
    }
}

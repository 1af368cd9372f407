//! From lanes and instances to the routes of the data plane. Pure.

use std::collections::BTreeMap;

use shipway_analysis::Asked;
use shipway_core::{
    config::{Environment, Sticky},
    ids::ReleaseNumber,
    rollout::{
        plan::Split,
        reach::{Match, Mirrored, Reach, Text},
    },
    target::{InstanceStatus, Place},
};
use shipway_proxy::protocol::{
    self, Backend, Compared, CountUsers, Instance, Methods, Route, Rule, Snapshot,
};

/// How long the data plane holds requests while a lane that has shares has no ready instance: as long as a `recreate` usually takes.
const HOLD_MS: u64 = 15_000;
/// How long a backend may take to the first byte of its answer.
const RESPONSE_MS: u64 = 60_000;

/// The traffic of one service in one environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// Hosts that lead here.
    pub hosts: Vec<String>,
    /// The first path segments that lead here.
    pub paths: Vec<String>,
    /// A port of its own.
    pub port: Option<u16>,
    /// By what a user is known again.
    pub sticky: Sticky,
    /// Who gets which share.
    pub split: Split,
    /// What the users are hashed with: the rollout, so that each rollout draws anew.
    pub salt: String,
    /// The limits of slow answers whose users are counted beside those who meet errors; `None` when nobody asks about users.
    pub counted: Option<Vec<u64>>,
    /// Releases of which only the first instances serve, because the others are being taken down.
    pub kept: BTreeMap<ReleaseNumber, u32>,
}

impl Lane {
    /// A lane without traffic.
    #[must_use]
    pub fn new(place: &Place, environment: &Environment, is_last: bool) -> Self {
        let mut lane = Self {
            hosts: Vec::new(),
            paths: Vec::new(),
            port: None,
            sticky: environment.sticky.clone(),
            split: Split::default(),
            salt: String::new(),
            counted: None,
            kept: BTreeMap::new(),
        };
        lane.configure(place, environment, is_last);
        lane
    }

    /// Takes over where the environment is reached: by its hosts, or else by a host and a path of its own.
    pub fn configure(&mut self, place: &Place, environment: &Environment, is_last: bool) {
        self.hosts.clone_from(&environment.hosts);
        self.paths = environment.path.iter().cloned().collect();
        self.port = environment.port;
        self.sticky = environment.sticky.clone();
        let asked = Asked::of(&environment.analysis);
        self.counted = asked.users.then_some(asked.slow);
        if self.hosts.is_empty() && self.paths.is_empty() {
            self.paths.push(default_path(place, is_last));
        }
    }
}

impl Lane {
    /// What users are counted by, while that says something: they are known again, more than one release has some, and each has
    /// its side by chance alone, not by a rule and not by way of copies.
    #[must_use]
    pub fn users(&self) -> Option<CountUsers> {
        let are_known = self.sticky != Sticky::None;
        let with_users = self.split.shares.iter().filter(|(_, it)| !it.is_zero());
        let are_drawn = self.split.reach.as_ref().is_none_or(Reach::is_nobody);
        let slow_over_micros = self.counted.clone()?;
        (are_known && are_drawn && with_users.count() > 1)
            .then_some(CountUsers { slow_over_micros })
    }

    /// Where it is reached by way of the proxy at `proxy_url`: by its first host, its port, or its first path.
    #[must_use]
    pub fn address(&self, proxy_url: &str) -> String {
        let path = self.paths.first().map_or("", String::as_str);
        if let Some(host) = self.hosts.first() {
            return format!("http://{host}{path}/");
        }
        match (self.port, proxy_url.rsplit_once(':')) {
            (Some(port), Some((machine, _))) => format!("{machine}:{port}{path}"),
            _ => format!("{proxy_url}{path}"),
        }
    }
}

/// The default first path segment of a place: `/shop` for the last environment, `/shop-staging` for the others.
#[must_use]
pub fn default_path(place: &Place, is_last: bool) -> String {
    if is_last {
        format!("/{}", place.service)
    } else {
        format!("/{}-{}", place.service, place.environment)
    }
}

/// All routes: each lane by its hosts, by its path and by its port.
#[must_use]
pub fn compose(lanes: &BTreeMap<Place, Lane>, instances: &[InstanceStatus]) -> Snapshot {
    let routes = lanes
        .iter()
        .flat_map(|(place, lane)| routes_of(place, lane, instances))
        .collect();
    Snapshot {
        version: protocol::VERSION,
        routes,
    }
}

fn routes_of(place: &Place, lane: &Lane, instances: &[InstanceStatus]) -> Vec<Route> {
    let backend = |(release, weight): &(ReleaseNumber, shipway_core::exposure::Weight)| Backend {
        release: release.0,
        weight: weight.basis_points(),
        instances: ready(place, *release, lane, instances),
    };
    let base = Route {
        service: place.service.to_string(),
        environment: place.environment.to_string(),
        hosts: lane.hosts.clone(),
        path_prefix: None,
        port: lane.port,
        salt: lane.salt.clone(),
        sticky: sticky(lane),
        backends: lane.split.shares.iter().map(backend).collect(),
        mirror: mirror(lane),
        users: lane.users(),
        hold_ms: HOLD_MS,
        timeout_ms: RESPONSE_MS,
    };
    if lane.paths.is_empty() {
        return vec![base];
    }
    // One port leads to one route.
    let with_path = |(index, path): (usize, &String)| Route {
        path_prefix: Some(path.clone()),
        port: lane.port.filter(|_| index == 0),
        ..base.clone()
    };
    lane.paths.iter().enumerate().map(with_path).collect()
}

/// By what users are known, and which requests go to the newcomer whoever sends them.
fn sticky(lane: &Lane) -> protocol::Sticky {
    let otherwise = match &lane.sticky {
        Sticky::Cookie(name) => protocol::Sticky::Cookie(name.clone()),
        Sticky::Header(name) => protocol::Sticky::Header(name.clone()),
        Sticky::Address => protocol::Sticky::Address,
        Sticky::None => protocol::Sticky::None,
    };
    match &lane.split.reach {
        Some(reach) if !reach.matches.is_empty() => protocol::Sticky::Matched {
            rules: reach
                .matches
                .iter()
                .map(|it| rule(it, reach.release))
                .collect(),
            otherwise: Box::new(otherwise),
        },
        Some(_) | None => otherwise,
    }
}

fn rule(wanted: &Match, release: ReleaseNumber) -> Rule {
    let compared = |text: &Text| match text {
        Text::Is(value) => (value.clone(), Compared::Exact),
        Text::Prefix(value) => (value.clone(), Compared::Prefix),
        Text::Regex(value) => (value.clone(), Compared::Regex),
        Text::Present => (String::new(), Compared::Present),
    };
    let header = |(name, text): (&String, &Text)| {
        let (value, compared) = compared(text);
        let name = name.clone();
        protocol::Match::Header {
            name,
            value,
            compared,
        }
    };
    let cookie = |(name, text): (&String, &Text)| {
        let (value, compared) = compared(text);
        let name = name.clone();
        protocol::Match::Cookie {
            name,
            value,
            compared,
        }
    };
    let headers = wanted.headers.iter().map(header);
    Rule {
        only_if: protocol::Match::All(headers.chain(wanted.cookies.iter().map(cookie)).collect()),
        release: release.0,
    }
}

fn mirror(lane: &Lane) -> Option<protocol::Mirror> {
    let reach = lane.split.reach.as_ref()?;
    let mirror = reach.mirror?;
    Some(protocol::Mirror {
        release: reach.release.0,
        share: mirror.share.basis_points(),
        methods: match mirror.methods {
            Mirrored::Safe => Methods::Safe,
            Mirrored::All => Methods::All,
        },
    })
}

fn ready(
    place: &Place,
    release: ReleaseNumber,
    lane: &Lane,
    instances: &[InstanceStatus],
) -> Vec<Instance> {
    let keep = lane.kept.get(&release).copied().unwrap_or(u32::MAX);
    let serves = |status: &&InstanceStatus| {
        status.id.set.place == *place
            && status.id.set.release == release
            && status.id.slot <= keep
            && status.is_ready()
    };
    instances
        .iter()
        .filter(serves)
        .map(|status| Instance {
            id: status.id.to_string(),
            address: status.address.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use shipway_core::{exposure::Weight, rollout::reach::Mirror};

    use super::*;

    fn lane(canary: u32) -> Lane {
        let weight = |points| Weight::from_basis_points(points).unwrap();
        let shares = vec![
            (ReleaseNumber(2), weight(canary)),
            (ReleaseNumber(1), weight(canary).rest()),
        ];
        Lane {
            hosts: Vec::new(),
            paths: Vec::new(),
            port: None,
            sticky: Sticky::Cookie("user".to_owned()),
            split: Split {
                shares,
                reach: None,
            },
            salt: "shop/ro2".to_owned(),
            counted: Some(vec![300_000]),
            kept: BTreeMap::new(),
        }
    }

    #[test]
    fn users_are_counted_while_each_has_a_side_by_chance_alone() {
        let users = lane(1_000).users();
        assert_eq!(users.unwrap().slow_over_micros, [300_000]);
        let nobody_asks = Lane {
            counted: None,
            ..lane(1_000)
        };
        let nobody_is_known = Lane {
            sticky: Sticky::None,
            ..lane(1_000)
        };
        let mut copied = lane(1_000);
        copied.split.reach = Some(Reach {
            mirror: Some(Mirror {
                share: Weight::from_basis_points(500).unwrap(),
                methods: Mirrored::Safe,
            }),
            ..Reach::default()
        });
        for lane in [nobody_asks, nobody_is_known, copied, lane(0), lane(10_000)] {
            assert_eq!(lane.users(), None, "{lane:?}");
        }
    }
}

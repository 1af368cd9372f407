//! Addresses and claims: what is reached where, and who gets what.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    claim_row::AddressClaimView,
    claims::{
        AddressClaim, AddressClaims, AddressesByEnvironment, AskedAddresses, ClaimRequest,
        ClaimStage, ClaimsEvent, ClaimsInput, ClaimsRejection, ClaimsState, PortUse,
    },
    *,
};
use crate::{
    aggregate::{Actor, Aggregate as _, Event, ViewRow, fold},
    config,
    ids::EnvironmentName,
};

fn place(text: &str) -> ServiceEnvironment {
    let (service, environment) = text.split_once('/').unwrap();
    ServiceEnvironment {
        service: service.parse().unwrap(),
        environment: environment.parse().unwrap(),
    }
}

fn proxy() -> SocketAddr {
    "127.0.0.1:8080".parse().unwrap()
}

/// The configuration of a service with these lines for each environment.
fn parsed(service: &str, environments: &[(&str, &str)]) -> config::ServiceConfig {
    let lines: Vec<String> = environments
        .iter()
        .map(|(name, keys)| format!("  {name}: {{ {keys} }}\n"))
        .collect();
    let text = format!(
        "service: {service}\nrun: {{ command: ./start }}\nenvironments:\n{}",
        lines.concat()
    );
    let source = shipway_syntax::SourceFile::new("shipway.yaml", text);
    config::parse(&source).unwrap().0
}

fn asked(service: &str, environments: &[(&str, &str)]) -> AddressesByEnvironment {
    let config = parsed(service, environments);
    config.addresses()
}

/// All claims, with the log that led to them.
#[derive(Default)]
struct Log {
    state: ClaimsState,
    events: Vec<Event<ClaimsEvent>>,
    /// The rows of the store, by key.
    rows: BTreeMap<String, ViewRow>,
}

impl Log {
    fn send(&mut self, input: ClaimsInput) -> Result<(), ClaimsRejection> {
        let by = Actor::Shipway("a test".to_owned());
        let events = AddressClaims::decide(&self.state, input, by, Timestamp::UNIX_EPOCH)?;
        fold::<AddressClaims>(&mut self.state, &events);
        self.update_rows(&events);
        self.events.extend(events);
        let mut again = ClaimsState::default();
        fold::<AddressClaims>(&mut again, &self.events);
        assert_eq!(again, self.state, "the log alone gives the same claims");
        self.assert_one_owner_each();
        Ok(())
    }

    /// Updates the rows as the store does: one for each claim, with its owner.
    fn update_rows(&mut self, events: &[Event<ClaimsEvent>]) {
        for row in AddressClaims::rows(&self.state, events) {
            match row.doc.is_null() {
                true => drop(self.rows.remove(&row.key)),
                false => drop(self.rows.insert(row.key.clone(), row)),
            }
        }
        let listed = self.rows.values().map(|row| {
            let row: AddressClaimView = serde_json::from_value(row.doc.clone()).unwrap();
            let owner = format!("{}/{}", row.service, row.environment);
            (row.address, (owner, row.transferable))
        });
        let claims = self.state.claims.iter().map(|(address, claim)| {
            let owner = format!("{}/{}", claim.owner.service, claim.owner.environment);
            (address.clone(), (owner, claim.is_transferable))
        });
        assert_eq!(listed.collect::<BTreeMap<_, _>>(), claims.collect());
    }

    fn assert_one_owner_each(&self) {
        for (one, claim) in &self.state.claims {
            for (other, other_claim) in &self.state.claims {
                let are_shared = one.conflicts_with(other) && claim.owner != other_claim.owner;
                assert!(
                    !are_shared,
                    "{one} of {:?}, {other} of {:?}",
                    claim, other_claim
                );
            }
        }
    }

    fn claim(
        &mut self,
        service: &str,
        environments: &[(&str, &str)],
        stage: ClaimStage,
    ) -> Result<(), String> {
        let request = request(service, environments, stage);
        self.send(ClaimsInput::Claim(request))
            .map_err(|it| it.to_string())
    }

    fn push(&mut self, service: &str, environments: &[(&str, &str)]) -> Result<(), String> {
        self.claim(service, environments, ClaimStage::Push)
    }

    /// A service reports what it asks for.
    fn synchronize(&mut self, service: &str, addresses: AddressesByEnvironment, given_up: &[&str]) {
        let transferable = given_up.iter().map(|it| it.parse().unwrap()).collect();
        let asked = AskedAddresses {
            addresses,
            transferable,
        };
        let service = service.parse().unwrap();
        self.send(ClaimsInput::Synchronize { service, asked })
            .unwrap();
    }

    fn owner(&self, address: &str) -> Option<String> {
        let claim: Option<&AddressClaim> = self.state.claims.get(&address.parse().unwrap());
        claim.map(|claim| format!("{}/{}", claim.owner.service, claim.owner.environment))
    }
}

fn request(service: &str, environments: &[(&str, &str)], stage: ClaimStage) -> ClaimRequest {
    let addresses = asked(service, environments);
    ClaimRequest {
        service: service.parse().unwrap(),
        named: addresses.keys().cloned().collect(),
        addresses,
        reserved: BTreeMap::from([(8_080, PortUse::Proxy), (7_878, PortUse::Api)]),
        stage,
    }
}

#[test]
fn an_address_is_a_host_a_path_or_a_port_and_by_default_a_host() {
    let shown = |at: &str, keys: &str| {
        let at = place(at);
        let config = parsed(at.service.as_str(), &[(at.environment.as_str(), keys)]);
        let addresses = config.environments[0].addresses(&at);
        let local = addresses.local_url(proxy()).unwrap_or_default();
        format!("{addresses} | {} | {local}", addresses.url(proxy()))
    };
    let table = [
        (
            "shop/production",
            "",
            "shop.localhost | http://shop.localhost:8080/ | http://127.0.0.1:8080/shop/",
        ),
        (
            "shop/staging",
            "",
            "shop-staging.localhost | http://shop-staging.localhost:8080/ | http://127.0.0.1:8080/shop-staging/",
        ),
        (
            "shop/live",
            "instances: 2",
            "shop-live.localhost | http://shop-live.localhost:8080/ | http://127.0.0.1:8080/shop-live/",
        ),
        (
            "shop/production",
            "hosts: [Shop.Example.com]",
            "shop.example.com | http://shop.example.com:8080/ | ",
        ),
        (
            "shop/production",
            "hosts: [a.example, b.example], path: /x/",
            "a.example/x, b.example/x | http://a.example:8080/x/ | ",
        ),
        (
            "shop/production",
            "path: /",
            "/ | http://127.0.0.1:8080/ | ",
        ),
        (
            "shop/production",
            "port: 9000",
            "port 9000 | http://127.0.0.1:9000/ | ",
        ),
        (
            "shop/production",
            "path: /s, port: 9000",
            "/s, port 9000 | http://127.0.0.1:8080/s/ | ",
        ),
    ];
    for (at, keys, says) in table {
        assert_eq!(shown(at, keys), says, "{at} {keys}");
    }
}

#[test]
fn a_printed_url_names_the_proxy_s_port_and_an_address_that_can_be_reached() {
    let url = |address: &str, proxy: &str| {
        let address: PublicAddress = address.parse().unwrap();
        address.url(proxy.parse().unwrap())
    };
    assert_eq!(url("a.example", "127.0.0.1:80"), "http://a.example/");
    assert_eq!(url("a.example/b", "[::1]:8080"), "http://a.example:8080/b/");
    assert_eq!(url("/b", "0.0.0.0:8080"), "http://127.0.0.1:8080/b/");
    assert_eq!(url("/b", "[::]:8080"), "http://[::1]:8080/b/");
    assert_eq!(url("/b", "[::1]:80"), "http://[::1]/b/");
    assert_eq!(url("/b", "192.0.2.7:80"), "http://192.0.2.7/b/");
    assert_eq!(url("port 9000", "127.0.0.2:8080"), "http://127.0.0.2:9000/");
}

#[test]
fn a_default_host_is_printed_only_where_names_below_localhost_lead_to_the_proxy() {
    let config = parsed("shop", &[("production", "")]);
    let addresses = config.environments[0].addresses(&place("shop/production"));
    let table = [
        ("127.0.0.1:80", "http://shop.localhost/"),
        ("0.0.0.0:8080", "http://shop.localhost:8080/"),
        ("[::1]:8080", "http://shop.localhost:8080/"),
        ("127.0.0.2:8080", "http://127.0.0.2:8080/shop/"),
        ("192.0.2.7:8080", "http://192.0.2.7:8080/shop/"),
    ];
    for (proxy, url) in table {
        assert_eq!(addresses.url(proxy.parse().unwrap()), url);
    }
}

#[test]
fn an_address_reads_as_it_is_written() {
    for text in ["a.example", "*.a.example/b", "/", "/a/b", "port 9000"] {
        assert_eq!(text.parse::<PublicAddress>().unwrap().to_string(), text);
    }
    for text in ["", "port", "port 70000", "port x"] {
        let refused = text.parse::<PublicAddress>();
        assert!(refused.is_err() || text == "port", "{text}: {refused:?}");
    }
}

/// Two services whose names make one default address: staging of `web`, and production of `web-staging`. Each says its address in
/// each of the four ways, so that they collide wherever they can.
#[test]
fn sixteen_combinations_of_two_services_are_refused_with_the_owner_or_both_allowed() {
    let ways = [
        "path: /web-staging",
        "hosts: [Web-Staging.localhost]",
        "port: 9000",
        "",
    ];
    let (path, host) = ("/web-staging", "web-staging.localhost");
    let (default, nothing) = ([host, path], [].as_slice());
    let refused: [[&[&str]; 4]; 4] = [
        //  path      hosts     port           default
        [&[path], nothing, nothing, &[path]],
        [nothing, &[host], nothing, &[host]],
        [nothing, nothing, &["port 9000"], nothing],
        [&[path], &[host], nothing, &default],
    ];
    for (first, row) in ways.iter().zip(refused) {
        for (second, taken) in ways.iter().zip(row) {
            let mut log = Log::default();
            log.push("web", &[("staging", first)]).unwrap();
            let says: Vec<String> = taken
                .iter()
                .map(|address| format!("{address} belongs to web in staging"))
                .collect();
            let says = if says.is_empty() {
                Ok(())
            } else {
                Err(says.join("; "))
            };
            for stage in [ClaimStage::Push, ClaimStage::Rollout] {
                let answer = log.claim("web-staging", &[("production", second)], stage);
                assert_eq!(answer, says, "{first:?} beside {second:?} at {stage:?}");
            }
        }
    }
}

#[test]
fn a_service_whose_default_address_is_taken_can_have_another() {
    let mut log = Log::default();
    log.push("web", &[("staging", ""), ("production", "")])
        .unwrap();
    assert!(log.push("web-staging", &[("production", "")]).is_err());
    let other = [("production", "hosts: [ws.example]")];
    assert_eq!(log.push("web-staging", &other), Ok(()));
    assert_eq!(log.owner("web-staging.localhost").unwrap(), "web/staging");
}

#[test]
fn ports_of_shipway_itself_are_refused() {
    let mut log = Log::default();
    let refused = log.push(
        "web",
        &[("production", "port: 8080"), ("staging", "port: 7878")],
    );
    assert_eq!(
        refused,
        Err("port 8080 is used by the proxy itself; port 7878 is used by the API".to_owned())
    );
    assert!(log.events.is_empty(), "all or nothing");
}

#[test]
fn a_host_or_path_within_another_is_allowed_and_named() {
    let mut log = Log::default();
    log.push(
        "web",
        &[
            ("production", "path: /shop"),
            ("staging", "hosts: [\"*.example.com\"]"),
        ],
    )
    .unwrap();
    let inner = [
        ("production", "path: /shop/admin"),
        ("staging", "hosts: [a.example.com]"),
    ];
    let overlaps = log
        .state
        .overlaps(&request("admin", &inner, ClaimStage::Push));
    let said: Vec<String> = overlaps.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "/shop/admin lies within /shop of web in production: the more specific address wins, requests to it go to admin in production",
            "a.example.com lies within *.example.com of web in staging: the more specific address wins, requests to it go to admin in staging",
        ]
    );
    assert_eq!(log.push("admin", &inner), Ok(()));
    let apart = request("x", &[("production", "path: /shopping")], ClaimStage::Push);
    assert_eq!(log.state.overlaps(&apart), []);
}

#[test]
fn localhost_as_a_host_does_not_take_the_path_of_a_default_address() {
    let mut log = Log::default();
    log.push("web", &[("production", "")]).unwrap();
    let taken = log.push("local", &[("production", "hosts: [localhost], path: /web")]);
    assert_eq!(
        taken,
        Err("localhost/web belongs to web in production".to_owned())
    );
    assert_eq!(
        log.push("local", &[("production", "hosts: [localhost]")]),
        Ok(())
    );
}

#[test]
fn of_two_services_that_ask_at_once_the_second_is_refused_and_nothing_is_taken_from_the_first() {
    let mut log = Log::default();
    let keys = [("production", "hosts: [a.example]")];
    assert_eq!(log.push("one", &keys), Ok(()));
    assert!(log.push("two", &keys).is_err());
    assert!(log.claim("two", &keys, ClaimStage::Rollout).is_err());
    // What a service derives from its state takes nothing either.
    log.synchronize("two", asked("two", &keys), &[]);
    assert_eq!(log.owner("a.example").unwrap(), "one/production");
    // Asking again, as after a crash, changes nothing.
    let before = log.events.len();
    assert_eq!(log.push("one", &keys), Ok(()));
    log.synchronize("one", asked("one", &keys), &[]);
    assert_eq!(log.events.len(), before);
}

#[test]
fn an_address_that_its_owner_no_longer_asks_for_is_free() {
    let mut log = Log::default();
    log.push("one", &[("production", "hosts: [a.example, b.example]")])
        .unwrap();
    log.synchronize(
        "one",
        asked("one", &[("production", "hosts: [b.example]")]),
        &[],
    );
    assert_eq!(
        log.push("two", &[("production", "hosts: [a.example]")]),
        Ok(())
    );
    // A push that came to nothing.
    log.synchronize("two", BTreeMap::new(), &[]);
    assert_eq!(log.owner("a.example"), None);
    assert_eq!(log.owner("b.example").unwrap(), "one/production");
}

#[test]
fn an_environment_that_is_renamed_takes_its_address_along_when_it_is_rolled_out() {
    let mut log = Log::default();
    let keys = "hosts: [a.example]";
    log.push("web", &[("prod", keys)]).unwrap();
    let renamed = [("production", keys)];
    assert_eq!(log.push("web", &renamed), Ok(()));
    assert_eq!(
        log.owner("a.example").unwrap(),
        "web/prod",
        "a push alone moves nothing"
    );
    assert_eq!(log.claim("web", &renamed, ClaimStage::Rollout), Ok(()));
    assert_eq!(log.owner("a.example").unwrap(), "web/production");
}

#[test]
fn an_environment_that_is_still_named_gives_its_address_to_no_other() {
    let mut log = Log::default();
    log.push("web", &[("blue", "hosts: [a.example]"), ("green", "")])
        .unwrap();
    let swapped = [("blue", ""), ("green", "hosts: [a.example]")];
    assert_eq!(
        log.push("web", &swapped),
        Ok(()),
        "its own environments may change places"
    );
    assert_eq!(
        log.claim("web", &swapped, ClaimStage::Rollout),
        Err("a.example belongs to web in blue".to_owned()),
        "but only once blue has left it"
    );
}

#[test]
fn an_environment_that_no_configuration_names_keeps_its_address_until_another_claims_it() {
    let mut log = Log::default();
    let keys = [("old", "hosts: [a.example]")];
    log.push("web", &keys).unwrap();
    log.synchronize("web", asked("web", &keys), &["old"]);
    assert_eq!(log.owner("a.example").unwrap(), "web/old");
    let next = [("production", "hosts: [a.example]")];
    assert_eq!(log.push("two", &next), Ok(()));
    assert_eq!(log.owner("a.example").unwrap(), "web/old");
    assert_eq!(log.claim("two", &next, ClaimStage::Rollout), Ok(()));
    assert_eq!(log.owner("a.example").unwrap(), "two/production");
    log.synchronize("web", asked("web", &keys), &[]);
    assert_eq!(log.owner("a.example").unwrap(), "two/production");
}

#[test]
fn an_address_that_an_unnamed_environment_has_lost_does_not_come_back_to_it() {
    let mut log = Log::default();
    let keys = [("old", "hosts: [a.example]")];
    log.push("web", &keys).unwrap();
    log.synchronize("web", asked("web", &keys), &["old"]);
    let next = [("production", "hosts: [a.example]")];
    assert_eq!(log.claim("two", &next, ClaimStage::Rollout), Ok(()));
    log.synchronize("two", BTreeMap::new(), &[]);
    log.synchronize("web", asked("web", &keys), &["old"]);
    assert_eq!(log.owner("a.example"), None);
    assert!(log.state.is_free(&"a.example".parse().unwrap()));
}

#[test]
fn what_is_claimed_covers_the_local_path_of_a_default_host() {
    let claims = asked("web", &[("production", "")]);
    let all: BTreeSet<PublicAddress> =
        claims[&"production".parse::<EnvironmentName>().unwrap()].clone();
    assert_eq!(
        all,
        BTreeSet::from([
            PublicAddress::path("/web"),
            PublicAddress::host("web.localhost", "")
        ])
    );
}

#[test]
fn a_change_of_address_is_named() {
    let mut log = Log::default();
    log.push(
        "web",
        &[("staging", ""), ("production", "hosts: [a.example]")],
    )
    .unwrap();
    let next = [("staging", ""), ("production", "port: 9000"), ("eu", "")];
    let moves = log.state.moves(&request("web", &next, ClaimStage::Push));
    let said: Vec<String> = moves.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "the address of production changes from a.example to port 9000 when this is promoted there"
        ]
    );
}

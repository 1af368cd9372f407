use super::*;

fn route(addresses: &[&[&str]]) -> ServiceRoute {
    let backend = |(index, addresses): (usize, &&[&str])| RouteBackend {
        release: u32::try_from(addresses.len()).unwrap() + 100 * u32::try_from(index).unwrap(),
        weight: if index == 0 { FULL } else { 0 },
        instances: addresses
            .iter()
            .map(|address| BackendInstance {
                id: format!("i-{address}"),
                address: (*address).into(),
            })
            .collect(),
    };
    ServiceRoute {
        service: "shop".into(),
        environment: "production".into(),
        hosts: vec!["h".into()],
        path_prefix: None,
        strip_prefix: true,
        local_only: false,
        port: None,
        salt: "shop/ro7".into(),
        sticky: StickyBy::None,
        instance_affinity: None,
        backends: addresses.iter().enumerate().map(backend).collect(),
        mirror: None,
        users: None,
        hold_ms: 0,
        timeout_ms: 1_000,
        answer_within_ms: 0,
    }
}

fn table(routes: Vec<ServiceRoute>) -> Result<RouteTable, RouteTableError> {
    RouteTable::compile(
        RouteSnapshot {
            version: VERSION,
            routes,
            reserved_ports: Vec::new(),
        },
        1,
        &CounterRegistry::new(1),
    )
}

#[test]
fn a_snapshot_that_makes_no_sense_is_refused() {
    let mut uneven = route(&[&["127.0.0.1:9"]]);
    uneven.backends[0].weight = u32::MAX;
    assert!(matches!(
        table(vec![uneven]),
        Err(RouteTableError::Weights(..))
    ));
    assert!(matches!(
        table(vec![route(&[&["nowhere"]])]),
        Err(RouteTableError::Address(_))
    ));
    let port = ServiceRoute {
        port: Some(80),
        ..route(&[&[]])
    };
    assert!(matches!(
        table(vec![port.clone(), port]),
        Err(RouteTableError::Port(80))
    ));
    let cookie = ServiceRoute {
        sticky: StickyBy::Cookie("a b\r\n".into()),
        ..route(&[&[]])
    };
    assert!(matches!(table(vec![cookie]), Err(RouteTableError::Name(_))));
    let newer = RouteSnapshot {
        version: 2,
        routes: vec![],
        reserved_ports: vec![],
    };
    let refused = RouteTable::compile(newer, 1, &CounterRegistry::new(1));
    assert!(matches!(refused, Err(RouteTableError::Version(2))));
}

#[test]
fn routes_that_make_no_sense_hold_back_no_other_services_routes() {
    let named = |service: &str, port: Option<u16>, address: &str| ServiceRoute {
        service: service.into(),
        port,
        ..route(&[&[address]])
    };
    let snapshot = |routes| RouteSnapshot {
        version: VERSION,
        routes,
        reserved_ports: vec![9_001],
    };
    let current = snapshot(vec![
        named("bad", Some(80), "127.0.0.1:1"),
        named("gone", None, "127.0.0.1:2"),
    ]);
    let new = snapshot(vec![
        named("good", None, "127.0.0.1:3"),
        named("bad", None, "nowhere"),
        named("first", Some(80), "127.0.0.1:4"),
        named("second", Some(80), "127.0.0.1:5"),
    ]);
    let (admitted, refused) = admit_snapshot(new, &current).unwrap();
    let said: Vec<String> = refused
        .iter()
        .map(|it| format!("{}: {}", it.service, it.reason))
        .collect();
    assert_eq!(
        said,
        [
            "bad: \"nowhere\" is not an address of an instance, such as 127.0.0.1:8080",
            "second: two routes use port 80"
        ]
    );
    let in_force: Vec<_> = admitted
        .routes
        .iter()
        .map(|it| {
            (
                it.service.as_str(),
                it.port,
                it.backends[0].instances[0].address.as_str(),
            )
        })
        .collect();
    assert_eq!(
        in_force,
        [
            ("good", None, "127.0.0.1:3"),
            ("first", Some(80), "127.0.0.1:4"),
            ("bad", None, "127.0.0.1:1"),
        ]
    );
    let table = RouteTable::compile(admitted, 1, &CounterRegistry::new(1)).unwrap();
    assert_eq!(table.route_ports(), BTreeSet::from([80, 9_001]));
    assert!(
        table.find_route(9_001, "h", "/").is_none(),
        "reserved, without a route"
    );
    assert!(table.find_route(80, "h", "/").is_some());
}

#[test]
fn who_is_ejected_or_busy_is_asked_last() {
    let table = table(vec![route(&[&[
        "127.0.0.1:1",
        "127.0.0.1:2",
        "127.0.0.1:3",
    ]])])
    .unwrap();
    let route = table.find_route(80, "h", "/").unwrap();
    let port = |turn, tried: &[Arc<InstanceState>]| {
        let place = route.pick_instance(Some(0), 0, turn, tried)?;
        Some(
            route.backends[place.backend].instances[place.instance]
                .address
                .port(),
        )
    };
    assert_eq!(
        (0..3)
            .map(|turn| port(turn, &[]).unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let instances = &route.backends[0].instances;
    instances[0].ejected.store(true, Relaxed);
    instances[1].open.increment(0);
    assert_eq!(
        (0..3)
            .map(|turn| port(turn, &[]).unwrap())
            .collect::<Vec<_>>(),
        [3, 3, 3]
    );
    assert_eq!(port(0, &instances[1..]), Some(1));
    assert_eq!(port(0, instances), None);
}

#[test]
fn a_release_without_weight_stands_in_for_nobody() {
    let table = table(vec![route(&[&[], &["127.0.0.1:1"]])]).unwrap();
    let route = table.find_route(80, "h", "/").unwrap();
    assert!(route.pick_instance(Some(0), 0, 0, &[]).is_none());
    assert_eq!(
        route.pick_instance(Some(1), 0, 0, &[]),
        Some(InstanceIndex {
            backend: 1,
            instance: 0
        })
    );
}

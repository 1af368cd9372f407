//! The proxy as the server keeps it: the real one, run by this test binary in a process of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use shipway_core::{ids::ReleaseNumber, target::ServiceEnvironment};
use shipway_proxy::protocol::{
    BackendInstance, RouteBackend, RouteSnapshot, ServiceRoute, StickyBy, VERSION,
};
use shipway_targets::data_plane::{
    DataPlane, DataPlaneError, DataPlaneOptions, traffic_meter::TrafficMeter,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test: what the others start as `shipway proxy …`.
#[test]
#[ignore = "run by the other tests as the proxy"]
fn as_the_proxy() {
    let arguments = std::env::var("PROXY_ARGUMENTS").unwrap();
    let words: Vec<&str> = arguments.split(' ').collect();
    let after = |flag: &str| {
        words
            .windows(2)
            .filter(|pair| pair[0] == flag)
            .map(|pair| pair[1].to_owned())
            .collect::<Vec<_>>()
    };
    let options = shipway_proxy::ProxyOptions {
        listen: after("--listen")
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        control: after("--control").remove(0).into(),
        state: after("--state").remove(0).into(),
        workers: after("--workers").remove(0).parse().unwrap(),
        trusted: after("--trust-proxy")
            .iter()
            .map(|network| network.parse().unwrap())
            .collect(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    if let Err(error) = runtime.block_on(shipway_proxy::run(options, |_| {})) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// A folder with a proxy that ends with it.
struct House {
    folder: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        for pid in self.pids() {
            let is_ours = std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(12).any(|window| window == b"as_the_proxy"));
            if is_ours {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

impl House {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every process ever started here.
    fn pids(&self) -> Vec<i32> {
        let list = std::fs::read_to_string(self.path("pids")).unwrap_or_default();
        list.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn script(&self, body: &str) -> PathBuf {
        let path = self.path("shipway");
        std::fs::write(
            &path,
            format!(
                "#!/bin/sh\necho $$ >> '{}'\n{body}\n",
                self.path("pids").display()
            ),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn options(&self) -> DataPlaneOptions {
        let this = std::env::current_exe().unwrap();
        let run = format!(
            "PROXY_ARGUMENTS=\"$*\" exec '{}' --ignored --exact as_the_proxy --nocapture",
            this.display()
        );
        DataPlaneOptions {
            exe: vec![self.script(&run).into(), "proxy".into()],
            control: self.path("proxy/control"),
            state: self.path("proxy"),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            workers: 1,
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            log: self.path("proxy/log"),
        }
    }

    async fn plane(&self) -> DataPlane {
        DataPlane::attach_or_start(self.options()).await.unwrap()
    }
}

/// A backend that answers its name at once, and on `/slow` when it is allowed to.
struct Shop {
    address: String,
    go_on: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

impl Shop {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let go_on = Arc::new(Semaphore::new(0));
        let allowed = go_on.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let allowed = allowed.clone();
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let allowed = allowed.clone();
                    async move {
                        if request.uri().path().ends_with("/slow") {
                            allowed.acquire().await.unwrap().forget();
                        }
                        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(
                            name.as_bytes(),
                        ))))
                    }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            go_on,
            _tasks: tasks,
        }
    }
}

fn routes(release: u32, instances: &[(u32, &Shop)]) -> RouteSnapshot {
    let instance = |(slot, shop): &(u32, &Shop)| BackendInstance {
        id: format!("shop.production.{release}.{slot}"),
        address: shop.address.clone(),
    };
    let backend = RouteBackend {
        release,
        weight: 10_000,
        instances: instances.iter().map(instance).collect(),
    };
    let route = ServiceRoute {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        hosts: vec!["shop".to_owned()],
        path_prefix: None,
        strip_prefix: true,
        local_only: false,
        port: None,
        salt: String::new(),
        sticky: StickyBy::None,
        instance_affinity: None,
        backends: vec![backend],
        mirror: None,
        users: None,
        hold_ms: 0,
        timeout_ms: 10_000,
        answer_within_ms: 0,
    };
    RouteSnapshot {
        version: VERSION,
        routes: vec![route],
        reserved_ports: Vec::new(),
    }
}

fn service_environment() -> ServiceEnvironment {
    ServiceEnvironment {
        service: "shop".parse().unwrap(),
        environment: "production".parse().unwrap(),
    }
}

/// What the proxy answers: status and body.
async fn get(plane: &DataPlane, path: &str) -> (u16, String) {
    let address = plane.listen_address().await.unwrap();
    let work = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path)
            .header("host", "shop")
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("the proxy answers")
}

/// Kills the proxy and waits until another answers.
async fn kill_and_wait(plane: &DataPlane) {
    let health = plane.health().await.unwrap();
    kill_process(
        Pid::from_raw(health.pid.cast_signed()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let another = async {
        while plane
            .health()
            .await
            .map_or(true, |now| now.boot == health.boot)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, another)
        .await
        .expect("another proxy answers");
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_proxy_is_started_and_serves_what_is_put() {
    let (house, shop) = (House::new(), Shop::start("one").await);
    let plane = house.plane().await;
    plane.apply_routes(routes(1, &[(1, &shop)])).await.unwrap();
    assert_eq!(get(&plane, "/").await, (200, "one".to_owned()));
    assert_eq!(
        plane
            .routed_instances()
            .await
            .into_iter()
            .collect::<Vec<_>>(),
        ["shop.production.1.1"]
    );
    plane.stop(Duration::from_secs(5)).await;
    assert!(!plane.is_healthy().await);
}

#[tokio::test]
async fn a_server_that_comes_back_finds_the_proxy_serving() {
    let (house, shop) = (House::new(), Shop::start("one").await);
    let first = house.plane().await;
    first.apply_routes(routes(1, &[(1, &shop)])).await.unwrap();
    let before = first.health().await.unwrap();
    drop(first);
    let second = house.plane().await;
    assert_eq!(
        second.health().await.unwrap(),
        before,
        "it is the same process"
    );
    assert_eq!(
        get(&second, "/").await,
        (200, "one".to_owned()),
        "with the routes it had"
    );
    assert_eq!(house.pids().len(), 1);
    // Adopted, it is looked after as if it were a child.
    kill_and_wait(&second).await;
    assert_eq!(get(&second, "/").await, (200, "one".to_owned()));
    second.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_proxy_that_dies_is_started_again_with_the_latest_routes() {
    let (house, one, two) = (
        House::new(),
        Shop::start("one").await,
        Shop::start("two").await,
    );
    let plane = house.plane().await;
    plane.apply_routes(routes(1, &[(1, &one)])).await.unwrap();
    kill_and_wait(&plane).await;
    // What is put while there is none is in force as soon as there is one.
    let pid = plane.health().await.unwrap().pid;
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    tokio::time::timeout(PATIENCE, plane.apply_routes(routes(2, &[(1, &two)])))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(get(&plane, "/").await, (200, "two".to_owned()));
    // The disk is not relied on: the routes are put again.
    std::fs::remove_file(house.path("proxy/routes.json")).unwrap();
    kill_and_wait(&plane).await;
    until("the routes are put again", async || {
        get(&plane, "/").await == (200, "two".to_owned())
    })
    .await;
    plane.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_latest_routes_win() {
    let (house, old, new) = (
        House::new(),
        Shop::start("old").await,
        Shop::start("new").await,
    );
    let plane = Arc::new(house.plane().await);
    let mut puts = JoinSet::new();
    for release in 1..200 {
        let (plane, routes) = (plane.clone(), routes(release, &[(1, &old)]));
        puts.spawn(async move { plane.apply_routes(routes).await.unwrap() });
    }
    puts.join_all().await;
    plane.apply_routes(routes(200, &[(1, &new)])).await.unwrap();
    assert_eq!(get(&plane, "/").await, (200, "new".to_owned()));
    plane.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn refused_routes_leave_those_before_in_force() {
    let (house, shop) = (House::new(), Shop::start("one").await);
    let plane = house.plane().await;
    plane.apply_routes(routes(1, &[(1, &shop)])).await.unwrap();
    let mut wrong = routes(2, &[(1, &shop)]);
    wrong.routes[0].backends[0].weight = 9_999;
    let refused = plane.apply_routes(wrong).await.unwrap().refused;
    assert!(refused[0].reason.contains("9999"), "{refused:?}");
    let mut newer = routes(2, &[(1, &shop)]);
    newer.version += 1;
    let error = plane.apply_routes(newer).await.unwrap_err();
    assert!(
        matches!(&error, DataPlaneError::Refused(why) if !why.is_empty()),
        "{error}"
    );
    assert_eq!(get(&plane, "/").await, (200, "one".to_owned()));
    plane.apply_routes(routes(3, &[(1, &shop)])).await.unwrap();
    plane.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_port_in_use_is_the_reason_given() {
    let house = House::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let options = DataPlaneOptions {
        listen: vec![address],
        ..house.options()
    };
    let error = DataPlane::attach_or_start(options).await.unwrap_err();
    assert!(matches!(error, DataPlaneError::Ended(_)), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_program_that_is_no_proxy_is_said_to_be_none() {
    let house = House::new();
    let missing = DataPlaneOptions {
        exe: vec![house.path("nothing").into()],
        ..house.options()
    };
    let error = DataPlane::attach_or_start(missing).await.unwrap_err();
    assert!(
        error.to_string().contains("could not be started"),
        "{error}"
    );
    // `options` writes the script too, so this one comes last.
    let options = house.options();
    let options = DataPlaneOptions {
        exe: vec![house.script("exec sleep 600").into()],
        ..options
    };
    let error = DataPlane::attach_or_start(options).await.unwrap_err();
    assert!(matches!(error, DataPlaneError::Silent { .. }), "{error}");
    let pid = house.pids()[0];
    until("it was killed", async || ended(pid)).await;
}

/// A process that is gone, or gone and not waited for.
fn ended(pid: i32) -> bool {
    let stat = Path::new("/proc").join(pid.to_string()).join("stat");
    std::fs::read_to_string(stat).map_or(true, |stat| stat.contains(") Z "))
}

/// A request that is open until the instance may go on.
async fn held_open(plane: &Arc<DataPlane>) -> JoinHandle<(u16, String)> {
    let asking = plane.clone();
    let slow = tokio::spawn(async move { get(&asking, "/slow").await });
    until("the request is open", async || {
        let counters = plane.counters().await.unwrap();
        counters.entries.iter().any(|entry| entry.totals.open == 1)
    })
    .await;
    slow
}

#[tokio::test]
async fn draining_waits_for_the_instances_that_go() {
    let (house, one, two) = (
        House::new(),
        Shop::start("one").await,
        Shop::start("two").await,
    );
    let plane = Arc::new(house.plane().await);
    let release = ReleaseNumber(1);
    plane.apply_routes(routes(1, &[(2, &two)])).await.unwrap();
    let slow = held_open(&plane).await;
    plane.apply_routes(routes(1, &[(1, &one)])).await.unwrap();
    let short = Duration::from_millis(50);
    assert_eq!(
        plane
            .wait_until_drained(&service_environment(), release, 1, short)
            .await,
        1,
        "slot 2 is busy"
    );
    assert_eq!(
        plane
            .wait_until_drained(&service_environment(), release, 0, short)
            .await,
        1,
        "so is the release"
    );
    assert_eq!(
        plane
            .wait_until_drained(&service_environment(), release, 2, short)
            .await,
        0,
        "slots after it are not"
    );
    let drained = async {
        plane
            .wait_until_drained(&service_environment(), release, 1, PATIENCE)
            .await
    };
    let finish = async { two.go_on.add_permits(1) };
    let (open, ()) = tokio::join!(drained, finish);
    assert_eq!(open, 0);
    assert_eq!(slow.await.unwrap(), (200, "two".to_owned()));
    plane.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn totals_survive_the_proxy_and_the_server() {
    let (house, shop) = (House::new(), Shop::start("one").await);
    let plane = Arc::new(house.plane().await);
    let meter = TrafficMeter::new(plane.clone(), house.path("meter.json"));
    plane.apply_routes(routes(7, &[(1, &shop)])).await.unwrap();
    let requests = async |meter: &TrafficMeter, wanted: u64| {
        // An answer is counted when its last byte is out, which its reader may see first.
        until("the requests are counted", async || {
            meter
                .read_totals()
                .await
                .unwrap()
                .totals_for(&service_environment(), ReleaseNumber(7))
                .requests
                == wanted
        })
        .await;
    };
    for _ in 0..3 {
        get(&plane, "/").await;
    }
    requests(&meter, 3).await;
    let before = meter.read_totals().await.unwrap();
    kill_and_wait(&plane).await;
    get(&plane, "/").await;
    requests(&meter, 4).await;
    let delta = meter
        .read_totals()
        .await
        .unwrap()
        .since(&before)
        .totals_for(&service_environment(), ReleaseNumber(7));
    assert_eq!(
        (delta.requests, delta.latency.count(), delta.errors()),
        (1, 1, 0)
    );
    // The next server, with the same proxy.
    drop((meter, plane));
    let plane = Arc::new(house.plane().await);
    let meter = TrafficMeter::new(plane.clone(), house.path("meter.json"));
    requests(&meter, 4).await;
    get(&plane, "/").await;
    requests(&meter, 5).await;
    plane.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_stopped_proxy_finishes_what_is_open_and_stays_down() {
    let (house, shop) = (House::new(), Shop::start("one").await);
    let plane = Arc::new(house.plane().await);
    plane.apply_routes(routes(1, &[(1, &shop)])).await.unwrap();
    let slow = held_open(&plane).await;
    let stop = async { plane.stop(PATIENCE).await };
    let finish = async { shop.go_on.add_permits(1) };
    tokio::join!(stop, finish);
    assert_eq!(slow.await.unwrap(), (200, "one".to_owned()));
    assert!(ended(house.pids()[0]));
    assert!(matches!(
        plane.apply_routes(routes(2, &[(1, &shop)])).await,
        Err(DataPlaneError::Stopped)
    ));
    assert_eq!(house.pids().len(), 1);
}

//! Releases that don't answer: seen while their requests are open, and when clients give up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    evidence::{config, ended, repository},
    shop::Shop,
    site::{Site, said},
    words::assert_says,
};

/// Clients that ask ten times a second and wait for so long; some for ever.
struct Clients {
    enough: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

impl Clients {
    fn of(site: &Site, service: &str, patience: Option<Duration>) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (proxy, service, over) = (site.proxy.clone(), service.to_owned(), enough.clone());
        let asking = std::thread::spawn(move || {
            let mut waiting = Vec::new();
            while !over.load(SeqCst) {
                let mut client = TcpStream::connect(&proxy).unwrap();
                let request = format!(
                    "GET /{service}/ HTTP/1.1\r\nHost: {proxy}\r\nConnection: close\r\n\r\n"
                );
                client.write_all(request.as_bytes()).unwrap();
                match patience {
                    None => waiting.push(client),
                    Some(patience) => {
                        client.set_read_timeout(Some(patience)).unwrap();
                        std::thread::spawn(move || drop(client.read(&mut [0; 4_096])));
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self {
            enough,
            asking: Some(asking),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.enough.store(true, SeqCst);
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

/// A shop that serves well, and would not answer this share of requests with the mood of its next version.
fn shop(site: &Site, service: &str, environment: &str) -> Shop {
    let shop = repository(site, service, environment);
    shop.edit(
        "shop.py",
        "        code = 500 if random.random() < float(mood)",
        "        hangs = random.random() < float(mood) and not self.path.startswith(\"/ready\")\n        if hangs:\n            time.sleep(600)\n        code = 500 if False",
    );
    shop.edit("shop.py", "daemon_threads = False", "daemon_threads = True");
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop
}

const CANARY: &str = "    strategy: { canary: { steps: [{ weight: 30%, hold: 10m }] } }";

#[test]
fn a_canary_that_answers_nothing_goes_back_by_each_rule_while_all_its_requests_are_open() {
    let site = Site::started();
    for (service, keys, says) in [
        (
            "errors",
            "    answer_within: 2s\n    analysis: [{ metric: error-rate, worse_than: stable }]",
            "unanswered",
        ),
        (
            "slow",
            "    analysis: [{ metric: slow-rate, over: 500ms, worse_than: stable }]",
            "slow rate (over 500 ms) of #2 is worse than #1: 100%",
        ),
        (
            "quantile",
            "    analysis: [{ metric: latency-p99, max: 500ms, interval: 1s }]",
            "latency p99 of #2 is over the limit: ",
        ),
    ] {
        let shop = shop(&site, service, &format!("{CANARY}\n{keys}"));
        let clients = Clients::of(&site, service, None);
        shop.write("MOOD", "1\n");
        let push = shop.ship_begun("1.1");
        let rollout = ended(&site, service, 2);
        drop(clients);
        push.wait_with_output().unwrap();
        assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
        let why = rollout["rollback_start"]["why"].as_str().unwrap();
        assert_says(why, &[says]);
    }
}

#[test]
fn requests_that_clients_give_up_are_errors_of_their_own_class() {
    let site = Site::started();
    let rule = "    analysis: [{ metric: error-rate, worse_than: stable }]";
    let shop = shop(&site, "hanging", &format!("{CANARY}\n{rule}"));
    let _clients = [(); 4].map(|()| Clients::of(&site, "hanging", Some(Duration::from_secs(1))));
    shop.write("MOOD", "0.5\n");
    let push = shop.ship_begun("1.1");
    let rollout = ended(&site, "hanging", 2);
    push.wait_with_output().unwrap();
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    let why = rollout["rollback_start"]["why"].as_str().unwrap();
    assert_says(
        why,
        &[
            "error rate of #2 is worse than #1: ",
            " vs 0% (",
            "abandoned",
        ],
    );
}

#[test]
fn a_proxy_in_front_that_is_trusted_says_what_users_asked_for() {
    let mut site = Site::new();
    site.flags
        .extend(["--trust-proxy".to_owned(), "127.0.0.0/8".to_owned()]);
    site.start();
    let shop = repository(&site, "echo", "    strategy: recreate");
    shop.edit(
        "shop.py",
        "        body = version.encode()",
        "        body = self.headers.get(\"X-Forwarded-Proto\", \"-\").encode()",
    );
    shop.write("shipway.yaml", &config("echo", "    strategy: recreate"));
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let mut client = TcpStream::connect(&site.proxy).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: echo.localhost\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("https"), "{answer}");
}

//! Steady traffic from many users, counted by how it was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Clients at once.
const CLIENTS: u32 = 8;

/// Counts of requests and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Answered below 500.
    pub(super) good: u64,
    /// Answered 500 by the service itself.
    pub(super) failed_by_service: u64,
    /// No answer, or one that the proxy made because it had none.
    pub(super) failed_by_shipway: u64,
}

impl Counted {
    pub(super) fn sent(self) -> u64 {
        self.good + self.failed_by_service + self.failed_by_shipway
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            good: self.good - earlier.good,
            failed_by_service: self.failed_by_service - earlier.failed_by_service,
            failed_by_shipway: self.failed_by_shipway - earlier.failed_by_shipway,
        }
    }
}

#[derive(Default)]
struct Counters {
    good: AtomicU64,
    failed_by_service: AtomicU64,
    failed_by_shipway: AtomicU64,
    stop: AtomicBool,
}

/// Clients that send until they are stopped.
pub(super) struct Traffic {
    counters: Arc<Counters>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Sends `rate` requests a second to `url`.
    pub(super) fn start(url: &str, rate: u32) -> Self {
        let counters = Arc::new(Counters::default());
        let pause = Duration::from_secs(1) * CLIENTS / rate;
        let client = |_| {
            let (counters, url) = (counters.clone(), url.to_owned());
            std::thread::spawn(move || send(&url, pause, &counters))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { counters, clients }
    }

    pub(super) fn counted(&self) -> Counted {
        let Counters {
            good,
            failed_by_service,
            failed_by_shipway,
            ..
        } = &*self.counters;
        Counted {
            good: good.load(Relaxed),
            failed_by_service: failed_by_service.load(Relaxed),
            failed_by_shipway: failed_by_shipway.load(Relaxed),
        }
    }

    pub(super) fn stop(self) -> Counted {
        self.counters.stop.store(true, Relaxed);
        let Self { counters, clients } = self;
        for client in clients {
            // A client that panicked has counted until then.
            let _ = client.join();
        }
        Self {
            counters,
            clients: Vec::new(),
        }
        .counted()
    }
}

fn send(url: &str, pause: Duration, counters: &Counters) {
    // No cookies are kept: each request is from a new user, so the shares are those of the requests.
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let mut next = Instant::now();
    while !counters.stop.load(Relaxed) {
        let answer = agent.get(url).call().and_then(|mut answer| {
            let status = answer.status().as_u16();
            answer.body_mut().read_to_vec().map(|_| status)
        });
        match answer {
            Ok(500) => &counters.failed_by_service,
            Ok(status) if status < 500 => &counters.good,
            Ok(_) | Err(_) => &counters.failed_by_shipway,
        }
        .fetch_add(1, Relaxed);
        next += pause;
        // Behind the plan there is no pause, and no burst to catch up either.
        let now = Instant::now();
        if next > now {
            std::thread::sleep(next - now);
        } else {
            next = now;
        }
    }
}

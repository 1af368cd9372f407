//! Requests at a fixed rate, whatever the answers take: what comes late is sent at once, so that the rate holds on average.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Clients; each keeps its connection.
const CLIENTS: u32 = 8;

/// Requests that go on until they are stopped.
pub struct Steady {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Steady {
    /// So many requests a second, each of a new user.
    pub fn start(url: &str, per_second: u32) -> Self {
        Self::with(url, per_second, &[])
    }

    /// The same with headers.
    pub fn with(url: &str, per_second: u32, headers: &[(&'static str, &'static str)]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let pause = Duration::from_secs(1) * CLIENTS / per_second;
        let client = |number: u32| {
            let (url, stop, counts) = (url.to_owned(), stop.clone(), counts.clone());
            let (headers, first) = (headers.to_vec(), pause * number / CLIENTS);
            thread::spawn(move || client(&url, &headers, first, pause, &stop, &counts))
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self {
            stop,
            counts,
            threads,
        }
    }

    /// How often each answer came so far: `200 1.0`, `500 1.1`, `broken: …`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap().clone()
    }

    /// How many answers ended so.
    pub fn of(&self, version: &str) -> u64 {
        let of = |(answer, count): (String, u64)| answer.ends_with(version).then_some(count);
        self.counts().into_iter().filter_map(of).sum()
    }

    /// Ends it; how often each answer came.
    pub fn stop(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        Arc::into_inner(self.counts).unwrap().into_inner().unwrap()
    }
}

fn client(
    url: &str,
    headers: &[(&'static str, &'static str)],
    first: Duration,
    pause: Duration,
    stop: &AtomicBool,
    counts: &Mutex<BTreeMap<String, u64>>,
) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let mut due = Instant::now() + first;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pause;
        let mut request = agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match request.call() {
            Ok(mut answer) => match answer.body_mut().read_to_string() {
                Ok(body) => format!("{} {body}", answer.status().as_u16()),
                Err(error) => format!("broken: {error}"),
            },
            Err(error) => format!("broken: {error}"),
        };
        *counts.lock().unwrap().entry(answer).or_default() += 1;
    }
}

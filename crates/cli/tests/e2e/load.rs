//! Requests through the proxy, each one counted by what became of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Requests that go on until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    threads: Vec<JoinHandle<()>>,
}

/// When a client asks again.
#[derive(Clone, Copy)]
enum Pace {
    /// So long after an answer.
    After(Duration),
    /// So long after it asked before, whatever the answer took: what comes late is sent at once, so that the rate holds on average.
    Every(Duration),
}

impl Pace {
    const fn pause(self) -> Duration {
        let (Self::After(pause) | Self::Every(pause)) = self;
        pause
    }
}

impl Load {
    /// Four clients that ask again soon after each answer; each request is of a new user.
    pub fn start(url: &str) -> Self {
        Self::of_clients(url, 4, Pace::After(Duration::from_millis(8)), &[])
    }

    /// So many requests a second, each of a new user.
    pub fn steady(url: &str, per_second: u32) -> Self {
        Self::steady_with(url, per_second, &[])
    }

    /// The same with headers.
    pub fn steady_with(
        url: &str,
        per_second: u32,
        headers: &[(&'static str, &'static str)],
    ) -> Self {
        let clients = 8;
        let pause = Duration::from_secs(1) * clients / per_second;
        Self::of_clients(url, clients, Pace::Every(pause), headers)
    }

    fn of_clients(
        url: &str,
        clients: u32,
        pace: Pace,
        headers: &[(&'static str, &'static str)],
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let threads = (0..clients).map(|number| {
            let client = Client {
                url: url.to_owned(),
                headers: headers.to_vec(),
                pace,
                first: pace.pause() * number / clients,
                stop: stop.clone(),
                counts: counts.clone(),
            };
            thread::spawn(move || client.run())
        });
        Self {
            threads: threads.collect(),
            stop,
            counts,
        }
    }

    /// How often each answer came so far: `200 1.0`, `500 1.1`, `broken: …`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap().clone()
    }

    /// Requests so far that were answered with this version.
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

struct Client {
    url: String,
    headers: Vec<(&'static str, &'static str)>,
    pace: Pace,
    /// How long it waits at first: clients begin one after the other.
    first: Duration,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Client {
    fn run(self) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .into();
        let mut due = Instant::now() + self.first;
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let answer = self.ask(&agent);
            *self.counts.lock().unwrap().entry(answer).or_default() += 1;
            due = match self.pace {
                Pace::After(pause) => Instant::now() + pause,
                Pace::Every(pause) => due + pause,
            };
        }
    }

    fn ask(&self, agent: &ureq::Agent) -> String {
        let mut request = agent.get(&self.url);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        match request.call() {
            Ok(mut answer) => match answer.body_mut().read_to_string() {
                Ok(body) => format!("{} {body}", answer.status().as_u16()),
                Err(error) => format!("broken: {error}"),
            },
            Err(error) => format!("broken: {error}"),
        }
    }
}

/// Asserts that every request was answered with 200.
pub fn assert_all_good(counts: &BTreeMap<String, u64>) {
    let bad: Vec<_> = counts
        .iter()
        .filter(|(answer, _)| !answer.starts_with("200 "))
        .collect();
    assert!(bad.is_empty(), "{bad:?} among {counts:?}");
    assert!(counts.values().sum::<u64>() > 0, "nothing was asked");
}

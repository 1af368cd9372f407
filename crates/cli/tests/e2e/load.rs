//! Steady requests through the proxy, each one counted by what became of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Requests that go on until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Four clients, new users all of them, against a URL.
    pub fn start(url: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let client = |_| {
            let (url, stop, counts) = (url.to_owned(), stop.clone(), counts.clone());
            thread::spawn(move || client(&url, &stop, &counts))
        };
        let threads = (0..4).map(client).collect();
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

fn client(url: &str, stop: &AtomicBool, counts: &Mutex<BTreeMap<String, u64>>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    while !stop.load(Ordering::Relaxed) {
        let answer = match agent.get(url).call() {
            Ok(mut answer) => match answer.body_mut().read_to_string() {
                Ok(body) => format!("{} {body}", answer.status().as_u16()),
                Err(error) => format!("broken: {error}"),
            },
            Err(error) => format!("broken: {error}"),
        };
        *counts.lock().unwrap().entry(answer).or_default() += 1;
        thread::sleep(Duration::from_millis(8));
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

//! Who is notified: takes what is posted, and keeps it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use serde_json::Value;

/// Takes what is posted to it.
pub struct Listener {
    pub address: String,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    status: Arc<AtomicU16>,
}

impl Listener {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        let status = Arc::new(AtomicU16::new(200));
        let answered = status.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut reader = BufReader::new(connection.try_clone().unwrap());
                let mut head = String::new();
                reader.read_line(&mut head).unwrap();
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let line = line.trim().to_ascii_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(value) = line.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = serde_json::from_slice(&body).unwrap();
                let status = answered.load(Ordering::SeqCst);
                if status == 200 {
                    into.lock().unwrap().push((path, body));
                }
                let answer = format!(
                    "HTTP/1.1 {status} Said\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        Self {
            address,
            heard,
            status,
        }
    }

    /// Answers with this status from now on; only what is answered with 200 is kept.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Accepts connections and never answers: the address.
    pub fn hanging() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || listener.incoming().collect::<Vec<_>>());
        address
    }

    /// What came to a path.
    pub fn at(&self, path: &str) -> Vec<Value> {
        let heard = self.heard.lock().unwrap();
        let here = heard.iter().filter(|(at, _)| at == path);
        here.map(|(_, body)| body.clone()).collect()
    }
}

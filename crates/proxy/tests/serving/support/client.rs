//! Clients: one that speaks HTTP properly, one that says whatever bytes a test wants, and many at once.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};

use super::{SHOP, within};

pub type Body = BoxBody<Bytes, std::io::Error>;

/// A body that is there at once.
pub fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A request to the shop.
pub fn ask(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.header("host", SHOP).body(whole(body)).unwrap()
}

/// One connection, for one request after another.
pub struct Conversation {
    sender: http1::SendRequest<Body>,
    task: JoinHandle<()>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer to its end.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Conversation {
    pub async fn with(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Self { sender, task }
    }

    /// The head of an answer.
    pub async fn begin(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        within("an answer begins", async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
        .await
    }

    /// An answer to its end.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Got> {
        let (parts, body) = self.begin(request).await?.into_parts();
        let body = within("an answer ends", body.collect()).await?.to_bytes();
        Ok(Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    pub async fn get(&mut self, path: &str) -> Got {
        self.send(ask(Method::GET, path, "")).await.unwrap()
    }

    /// Whether the other side has closed it.
    pub fn is_over(&self) -> bool {
        self.sender.is_closed()
    }
}

/// One request on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Got {
    Conversation::with(address).await.get(path).await
}

/// A connection on which bytes are written by hand.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Writes; that the other side has had enough is no failure.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("bytes go out", self.0.get_mut().write_all(bytes.as_ref())).await;
    }

    /// The head of the next answer, in small letters.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match within("a head comes", self.0.read_u8()).await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    /// So many bytes.
    pub async fn bytes(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        within("bytes come", self.0.read_exact(&mut bytes))
            .await
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Everything until the other side closes. That it resets is an end, too.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = within("the end comes", self.0.read_to_end(&mut bytes)).await;
        String::from_utf8(bytes).unwrap()
    }

    /// No more will be said.
    pub async fn finish(&mut self) {
        self.0.get_mut().shutdown().await.unwrap();
    }
}

/// Clients that ask as fast as they can: half of them on connections that they keep as long as they may, the others each time on
/// a new one.
pub struct Load {
    enough: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: JoinSet<Tally>,
}

/// What clients got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By status and body.
    pub answers: BTreeMap<(u16, String), u64>,
    /// Requests without an answer, by reason.
    pub lost: BTreeMap<String, u64>,
}

impl Tally {
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// How often a body came with 200.
    pub fn of(&self, body: &str) -> u64 {
        let key = (200, body.to_owned());
        self.answers.get(&key).copied().unwrap_or(0)
    }

    /// Panics unless every request was answered with 200 and one of these bodies.
    pub fn assert_only(&self, bodies: &[&str]) {
        assert_eq!(self.lost, BTreeMap::new());
        for ((status, body), count) in &self.answers {
            let fits = *status == 200 && bodies.contains(&body.as_str());
            assert!(fits, "{count} times {status} {body:?}");
        }
    }
}

impl Load {
    /// Every third request of each client is a POST with a body.
    pub fn on(address: SocketAddr, clients: usize) -> Self {
        let (enough, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut load = Self {
            enough,
            answered,
            clients: JoinSet::new(),
        };
        for number in 0..clients {
            let (enough, answered) = (load.enough.clone(), load.answered.clone());
            load.clients
                .spawn(client(address, number % 2 == 0, enough, answered));
        }
        load
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// Waits until so many more were answered.
    pub async fn goes_on(&self, count: u64) {
        let wanted = self.answered() + count;
        super::until("the load goes on", async || self.answered() >= wanted).await;
    }

    pub async fn stop(self) -> Tally {
        self.enough.store(true, SeqCst);
        let mut sum = Tally::default();
        for tally in within("clients end", self.clients.join_all()).await {
            for (key, count) in tally.answers {
                *sum.answers.entry(key).or_default() += count;
            }
            for (key, count) in tally.lost {
                *sum.lost.entry(key).or_default() += count;
            }
        }
        sum
    }
}

async fn client(
    address: SocketAddr,
    keeps: bool,
    enough: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<Conversation> = None;
    for number in 0u64.. {
        if enough.load(SeqCst) {
            break;
        }
        let mut conversation = match kept.take() {
            Some(conversation) => conversation,
            None => Conversation::with(address).await,
        };
        let request = match number % 3 {
            0 => ask(Method::POST, "/order", "one of each"),
            _ => ask(Method::GET, "/", ""),
        };
        match conversation.send(request).await {
            Ok(got) => {
                let key = (got.status, got.text().to_owned());
                *tally.answers.entry(key).or_default() += 1;
                let closes = got
                    .headers
                    .get("connection")
                    .is_some_and(|it| it == "close");
                kept = (keeps && !closes).then_some(conversation);
            }
            Err(error) => *tally.lost.entry(format!("{error:?}")).or_default() += 1,
        }
        answered.fetch_add(1, SeqCst);
    }
    tally
}

//! Instances: well-behaved ones on hyper, and raw ones that do with a connection whatever a test says.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

pub type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// An answer of 200 with this body.
pub fn text(body: impl Into<Bytes>) -> Answer {
    Response::new(
        Full::new(body.into())
            .map_err(|never| match never {})
            .boxed(),
    )
}

/// An HTTP server, until it is dropped.
pub struct Upstream {
    pub address: String,
    requests: Arc<AtomicUsize>,
    raw: Raw,
}

impl Upstream {
    /// Answers everything with its name, once it has all of the request: who closes with something unread takes back the answer
    /// with it, as TCP has it.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |request: Request<Incoming>| async move {
            let _ = request.into_body().collect().await;
            text(name)
        })
        .await
    }

    pub async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answer)
    }

    /// The same on a socket that is there already.
    pub fn on<F, A>(listener: TcpListener, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let raw = Raw::on(listener, move |stream| {
            let (answer, counted) = (answer.clone(), counted.clone());
            let service = service_fn(move |request| {
                counted.fetch_add(1, SeqCst);
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered.await) }
            });
            async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            }
        });
        Self {
            address: raw.address.clone(),
            requests,
            raw,
        }
    }

    /// How many requests reached it.
    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    /// How many connections reached it.
    pub fn connections(&self) -> usize {
        self.raw.connections()
    }
}

/// A TCP server, until it is dropped; its connections go with it.
pub struct Raw {
    pub address: String,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Raw {
    pub async fn start<F, A>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), serve)
    }

    fn on<F, A>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, SeqCst);
                stream.set_nodelay(true).unwrap();
                open.spawn(serve(stream));
                while open.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens, and nobody will while this lives.
pub struct Nobody {
    pub address: String,
    socket: socket2::Socket,
}

impl Nobody {
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self {
            address: address.to_string(),
            socket,
        }
    }

    /// From now on somebody does.
    pub fn listen(self) -> TcpListener {
        self.socket.listen(128).unwrap();
        self.socket.set_nonblocking(true).unwrap();
        TcpListener::from_std(self.socket.into()).unwrap()
    }
}

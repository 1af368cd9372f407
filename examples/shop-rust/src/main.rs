//! The shop over HTTP. PORT says where to listen, DATA_DIR where its journal is (default: `data` in the working
//! directory). SIGTERM: no new requests, open ones are finished, exit 0.

use std::{
    env,
    error::Error,
    io::Read,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use shop::{
    api::{Shop, version},
    journal::Journal,
};
use signal_hook::{consts::TERM_SIGNALS, iterator::Signals};
use tiny_http::{Header, Request, Response, Server};

/// Requests answered at once. They wait for the disk, not for the processor.
const WORKERS: usize = 16;
/// The largest body that is read; an order is far smaller.
const BODY_BYTES_MAX: u64 = 64 * 1024;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let port: u16 = env::var("PORT").map_or(Ok(0), |port| port.parse())?;
    let folder = env::var_os("DATA_DIR").map_or_else(|| PathBuf::from("data"), PathBuf::from);
    let shop = Shop::new(Journal::open(&folder)?);
    let mut signals = Signals::new(TERM_SIGNALS)?;
    let server = Arc::new(Server::http(("127.0.0.1", port))?);
    println!("shop {} on http://{}", version(), server.server_addr());

    let stopping = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Ok(request) = server.recv() {
                    answer(&shop, request);
                    if stopping.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        signals.forever().next();
        stopping.store(true, Ordering::Relaxed);
        // Each call wakes one worker that waits; one that is busy finishes first.
        (0..WORKERS).for_each(|_| server.unblock());
    });
    println!("shop {} stopped", version());
    Ok(())
}

fn answer(shop: &Shop, mut request: Request) {
    let mut body = Vec::new();
    let (status, document) = match request
        .as_reader()
        .take(BODY_BYTES_MAX)
        .read_to_end(&mut body)
    {
        Ok(_) => shop.answer(request.method().as_str(), request.url(), &body),
        // The client is gone; nobody reads the answer either.
        Err(_) => return,
    };
    let json = Header::from_bytes("Content-Type", "application/json").expect("a valid header");
    let response = Response::from_string(document.to_string())
        .with_status_code(status)
        .with_header(json);
    // A client that hung up before its answer loses only its own answer.
    let _ = request.respond(response);
}

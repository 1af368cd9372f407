//! Drills of a mirrored release: whatever it does with its copies, users get their answers, as quickly as ever, and the proxy's
//! memory stays bounded.

use std::time::{Duration, Instant};

use shipway_proxy::protocol::MirroredMethods;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    mirroring::{copies, mirrored},
    support::{
        Conversation, House, Upstream,
        client::{Load, ask},
        until,
        upstream::Raw,
    },
};

/// What a broken release does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum UpstreamFault {
    /// Closes without a word.
    Silent,
    /// Closes in the middle of its answer's head.
    HalfAHead,
    /// Promises a thousand bytes, sends ten, and closes.
    HalfABody,
    /// Speaks something else.
    Gibberish,
    /// A head that never ends.
    EndlessHead,
    /// A body that never ends.
    EndlessBody,
    /// A byte now and then, never all of them.
    Trickle,
}

impl UpstreamFault {
    const ALL: [Self; 7] = [
        Self::Silent,
        Self::HalfAHead,
        Self::HalfABody,
        Self::Gibberish,
        Self::EndlessHead,
        Self::EndlessBody,
        Self::Trickle,
    ];

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = vec![b'x'; 65_536];
        if !matches!(stream.read(&mut bytes).await, Ok(1..)) {
            return;
        }
        let promised = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n0123456789";
        let begun: &str = match self {
            Self::Silent => "",
            Self::HalfAHead => "HTTP/1.1 200 OK\r\ncontent-le",
            Self::HalfABody | Self::Trickle => promised,
            Self::Gibberish => "220 mail.example.com ESMTP\r\n\r\n",
            Self::EndlessHead => "HTTP/1.1 200 OK\r\n",
            Self::EndlessBody => "HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n",
        };
        if stream.write_all(begun.as_bytes()).await.is_err() {
            return;
        }
        let (more, pause): (&[u8], Duration) = match self {
            Self::Silent | Self::HalfAHead | Self::HalfABody | Self::Gibberish => return,
            Self::EndlessHead => (b"x-more: and more and more\r\n", Duration::ZERO),
            Self::EndlessBody => (&bytes, Duration::ZERO),
            Self::Trickle => (b".", Duration::from_millis(50)),
        };
        while stream.write_all(more).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[tokio::test]
async fn whatever_a_mirrored_release_does_users_get_their_answers() {
    let house = House::new();
    let old = Upstream::named("old").await;
    let proxy = house.proxy().await;
    for fault in UpstreamFault::ALL {
        let broken = Raw::start(move |stream| fault.serve(stream)).await;
        let mut routes = mirrored(&old.address, &broken.address, MirroredMethods::All);
        routes.routes[0].timeout_ms = 1_000;
        let before = copies_so_far(&proxy).await;
        proxy.put(&routes).await;
        let load = Load::on(proxy.address, 4);
        load.goes_on(300).await;
        let tally = load.stop().await;
        tally.assert_only(&["old"]);
        until(&format!("copies to be over: {fault:?}"), async || {
            let copies = copies(&proxy).await;
            copies.totals.open == 0 && copies.totals.requests > before.0
        })
        .await;
        let after = copies_so_far(&proxy).await;
        // A body without an end is an answer all the same; all others are none.
        let errors = if fault == UpstreamFault::EndlessBody {
            0
        } else {
            after.0 - before.0
        };
        assert_eq!(after.1 - before.1, errors, "{fault:?}");
        assert!(broken.connections() > 0, "{fault:?}");
    }
    let users = proxy.count(1).await;
    assert_eq!(users.proxy_errors, 0, "none of it is a user's");
}

/// Copies that are over, and those of them that had no answer.
async fn copies_so_far(proxy: &super::support::Proxy) -> (u64, u64) {
    let entries = proxy.counters().await.unwrap().entries;
    let copies = entries.into_iter().find(|it| it.mirror);
    copies.map_or((0, 0), |it| (it.totals.requests, it.totals.proxy_errors))
}

#[tokio::test]
async fn a_mirrored_release_that_is_slow_makes_nobody_slow() {
    let house = House::new();
    let (old, new) = (Upstream::named("old").await, slow().await);
    let proxy = house.proxy().await;
    let mut conversation = Conversation::with(proxy.address).await;
    proxy
        .put(&mirrored(&old.address, &new.address, MirroredMethods::Safe))
        .await;
    let mut took = Vec::new();
    for _ in 0..400 {
        let begun = Instant::now();
        assert_eq!(conversation.get("/").await.text(), "old");
        took.push(begun.elapsed());
    }
    took.sort();
    // A copy takes a second. On a slow machine some requests may be late, but not as late as that.
    let (median, slowest) = (took[200], took[399]);
    assert!(median < Duration::from_millis(100), "{median:?}");
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
    until("copies come to an end", async || {
        copies(&proxy).await.totals.requests > 0
    })
    .await;
}

async fn slow() -> Upstream {
    Upstream::start(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        super::support::upstream::text("new")
    })
    .await
}

#[tokio::test]
async fn copies_of_bodies_and_floods_of_answers_take_bounded_memory() {
    let house = House::new();
    let (old, new) = (Upstream::named("old").await, Upstream::named("new").await);
    let proxy = house.proxy().await;
    proxy
        .put(&mirrored(&old.address, &new.address, MirroredMethods::All))
        .await;
    let mut conversation = Conversation::with(proxy.address).await;
    let order = || ask(http::Method::POST, "/order", vec![b'x'; 65_536]);
    for _ in 0..200 {
        conversation.send(order()).await.unwrap();
    }
    let before = proxy.resident_bytes();
    for fault in [
        UpstreamFault::EndlessBody,
        UpstreamFault::EndlessHead,
        UpstreamFault::Trickle,
    ] {
        let broken = Raw::start(move |stream| fault.serve(stream)).await;
        proxy
            .put(&mirrored(
                &old.address,
                &broken.address,
                MirroredMethods::All,
            ))
            .await;
        // 64 MiB of bodies, and answers without an end to each.
        for _ in 0..1_000 {
            let got = conversation.send(order()).await.unwrap();
            assert_eq!(got.text(), "old");
        }
        let more = proxy.resident_bytes().saturating_sub(before) >> 20;
        assert!(more < 40, "{more} MiB more with {fault:?}");
    }
}

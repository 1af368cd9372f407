//! Tunnels upgraded connections, such as WebSockets. They count as open, so that a release is not stopped under them before its
//! grace period has expired.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::open_requests::OpenRequest;

/// Copies in both directions until either side closes, which is how such connections normally end.
pub(crate) async fn run_tunnel(client: OnUpgrade, instance: OnUpgrade, open: OpenRequest) {
    let (Ok(client), Ok(instance)) = tokio::join!(client, instance) else {
        return;
    };
    let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
    let ended = copy_bidirectional(&mut client, &mut instance).await;
    if let Ok((bytes_in, bytes_out)) = ended {
        open.backend()
            .counters
            .record_tunnel_bytes(open.worker(), bytes_in, bytes_out);
    }
}

//! A connection that changed its protocol, such as a WebSocket: bytes go both ways until one side ends it. It counts as open, so
//! that a release isn't stopped under it before its grace is over.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::open::OpenRequest;

/// Copies both ways. Either side may end it at any time; that is how such connections end.
pub(crate) async fn run(client: OnUpgrade, instance: OnUpgrade, open: OpenRequest) {
    let (Ok(client), Ok(instance)) = tokio::join!(client, instance) else {
        return;
    };
    let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
    let ended = copy_bidirectional(&mut client, &mut instance).await;
    if let Ok((bytes_in, bytes_out)) = ended {
        open.side()
            .counters
            .carried(open.worker(), bytes_in, bytes_out);
    }
}

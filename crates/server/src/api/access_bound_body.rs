//! Responses that end with the access of their principal: event streams, logs that are followed, downloads, the progress of a push.
//!
//! *Why.* Authentication checks a request once, and its response may last for hours. A token that is revoked must not read on.
//!
//! *Limits.* The buffers of a connection are still sent. A client that stops reading gets nothing more; its connection ends when
//! it reads again.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    http::header,
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use shipway_core::access::Principal;

use crate::accounts::{AccessGrant, UserAccounts};

/// How a response ends with the access.
#[derive(Clone, Copy, Debug)]
enum AccessLossEnd {
    /// An event stream may end at any event: the client connects again and is refused.
    Complete,
    /// Other content would be taken for all of it: the connection breaks off.
    BrokenOff,
}

#[derive(Debug, thiserror::Error)]
#[error("the access to this response has ended")]
struct AccessLost;

/// A body with the access that it is sent under.
struct AccessBoundBody {
    content: Body,
    /// None once it has resolved.
    access_loss: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    end: AccessLossEnd,
}

/// Ends the body of a response with the access. A body that is complete already is sent as it is.
pub(super) fn bind_to_access(
    response: Response,
    accounts: Arc<UserAccounts>,
    grant: AccessGrant,
    principal: Principal,
) -> Response {
    if !grant.can_end() || response.body().size_hint().exact().is_some() {
        return response;
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_event_stream =
        content_type.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    let end = match is_event_stream {
        true => AccessLossEnd::Complete,
        false => AccessLossEnd::BrokenOff,
    };
    let access_loss = Box::pin(async move {
        accounts.wait_for_access_loss(&grant, &principal).await;
    });
    response.map(|content| {
        Body::new(AccessBoundBody {
            content,
            access_loss: Some(access_loss),
            end,
        })
    })
}

impl HttpBody for AccessBoundBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(access_loss) = &mut self.access_loss else {
            return Poll::Ready(None);
        };
        if access_loss.as_mut().poll(context).is_ready() {
            self.access_loss = None;
            // Dropped now: the source of a stream may hold resources.
            self.content = Body::empty();
            return Poll::Ready(match self.end {
                AccessLossEnd::Complete => None,
                AccessLossEnd::BrokenOff => Some(Err(axum::Error::new(AccessLost))),
            });
        }
        Pin::new(&mut self.content).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.access_loss.is_some() && self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use tokio::sync::oneshot;

    use super::*;

    /// A body with one part, which stays open until the access is lost.
    fn open_body(end: AccessLossEnd) -> (AccessBoundBody, oneshot::Sender<()>) {
        let (lose, lost) = oneshot::channel::<()>();
        let part = stream::once(std::future::ready(Ok::<_, Infallible>("part")));
        let body = AccessBoundBody {
            content: Body::from_stream(part.chain(stream::pending())),
            access_loss: Some(Box::pin(async move { drop(lost.await) })),
            end,
        };
        (body, lose)
    }

    #[tokio::test]
    async fn a_body_ends_when_the_access_is_lost() {
        let (mut body, lose) = open_body(AccessLossEnd::Complete);
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().now_or_never().is_none(), "it stays open");
        lose.send(()).unwrap();
        assert!(body.frame().await.is_none());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_download_breaks_off_and_sends_nothing_more() {
        let (mut body, lose) = open_body(AccessLossEnd::BrokenOff);
        lose.send(()).unwrap();
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }
}

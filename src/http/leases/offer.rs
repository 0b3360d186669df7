//! Leases on their way to a worker. Whatever becomes of its connection, those that it was not sent are handed
//! back, and do not count as attempts.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;

use crate::http::api::Api;
use crate::store::{Held, Lease, LeaseRequest, Store};

pub struct Offer {
    api: Api,
    leases: Vec<Lease>,
}

impl Offer {
    pub fn new(api: Api, leases: Vec<Lease>) -> Self {
        Offer { api, leases }
    }

    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// As the body of an answer: taken when it is sent.
    pub fn into_body(self, text: Vec<u8>) -> Body {
        Body::new(OfferedBody {
            text: Some(text.into()),
            offer: self,
        })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let leases = std::mem::take(&mut self.leases);
        if leases.is_empty() {
            return;
        }
        // Without a runtime the process is gone, and its leases end by themselves.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let api = self.api.clone();
        let unfinished = api.unfinished.clone();
        unfinished.spawn_on(
            async move { hand_back(&*api.store, leases).await },
            &runtime,
        );
    }
}

async fn hand_back(store: &dyn Store, leases: Vec<Lease>) {
    tracing::debug!(leases = leases.len(), "handed back: their worker is gone");
    let releases = leases.into_iter().map(|lease| {
        store.release(Held {
            user: lease.task.user,
            task: lease.task.id,
            token: lease.token,
            lease: LeaseRequest::LEASE_DEFAULT,
        })
    });
    for released in join_all(releases).await {
        if let Err(error) = released {
            tracing::warn!(%error, "a lease was not handed back; it ends by itself");
        }
    }
}

/// A body in one piece.
struct OfferedBody {
    text: Option<Bytes>,
    offer: Offer,
}

impl HttpBody for OfferedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = self.text.take();
        if text.is_some() {
            self.offer.leases.clear();
        }
        Poll::Ready(text.map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.text.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(rest as u64)
    }
}

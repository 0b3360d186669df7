//! What every handler works with.

use std::fmt::Display;
use std::ops::Deref;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::events::pace::Pace;
use super::events::survey::Surveys;
use super::key_cache::KeyCache;
use super::request_metrics::RequestMetrics;
use crate::blobs::Blobs;
use crate::catalogue::Catalogue;
use crate::limits::Limits;
use crate::links::Links;
use crate::store::Store;
use crate::worker_gauge::WorkerGauge;

/// Cheap to clone: the state of the router.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    parts: Parts,
    keys: KeyCache,
    requests: RequestMetrics,
    pace: Pace,
    surveys: Surveys,
    links: Links,
}

pub struct Parts {
    pub store: Arc<dyn Store>,
    pub blobs: Arc<dyn Blobs>,
    pub types: Catalogue,
    pub limits: Limits,
    pub edge: Edge,
    /// Requests that wait for a task's end.
    pub waiting: Semaphore,
    /// Streams of events that are open.
    pub streams: Arc<Semaphore>,
    /// Work that must finish although its client has gone away; the shutdown waits for it.
    pub unfinished: TaskTracker,
    /// Fires when the replica begins to drain: readyz turns 503, waiting requests answer, streams of events end.
    pub draining: CancellationToken,
    pub workers: WorkerGauge,
    /// What confines the parsers of foreign files on this machine, for readyz.
    pub sandbox: Vec<String>,
}

/// How the service is seen from outside.
#[derive(Clone, Debug)]
pub struct Edge {
    pub auth: AuthMode,
    /// Exact origins that browsers may call from.
    pub cors_origins: Vec<String>,
    /// Before every path: empty, or `/prefix` without a slash at its end.
    pub base_path: String,
    /// For absolute links; they are relative to the host without it.
    pub public_url: Option<Url>,
    /// Networks that may set `Forwarded` and `X-Forwarded-*`.
    pub trusted_proxies: Vec<IpNet>,
}

impl Edge {
    pub fn links(&self) -> Links {
        Links::new(&self.base_path, self.public_url.as_ref())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Everyone may do everything, as the user that `X-User-Id` names.
    Off,
    /// API keys, kept in the store.
    Keys,
}

impl Api {
    pub fn new(parts: Parts) -> Self {
        Api(Arc::new(Shared {
            links: parts.edge.links(),
            parts,
            keys: KeyCache::default(),
            requests: RequestMetrics::default(),
            pace: Pace::default(),
            surveys: Surveys::default(),
        }))
    }

    /// API keys that were found valid a moment ago.
    pub fn keys(&self) -> &KeyCache {
        &self.0.keys
    }

    pub fn requests(&self) -> &RequestMetrics {
        &self.0.requests
    }

    /// The pace at which streams of events look at tasks.
    pub fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// What streams of events learn together of their users' tasks.
    pub fn surveys(&self) -> &Surveys {
        &self.0.surveys
    }

    /// The path of a route as the documentation names it, without the base path.
    pub fn route<'a>(&self, matched: &'a str) -> &'a str {
        let route = matched.strip_prefix(self.edge.base_path.as_str());
        match route {
            Some("") => "/",
            Some(route) => route,
            // The probes are there without the prefix, too.
            None => matched,
        }
    }

    /// A link to a path of this service, such as `/v1/tasks/…`.
    pub fn link(&self, path: impl Display) -> String {
        self.links().to(path)
    }

    pub fn links(&self) -> &Links {
        &self.0.links
    }
}

impl AsRef<Links> for Api {
    fn as_ref(&self) -> &Links {
        self.links()
    }
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

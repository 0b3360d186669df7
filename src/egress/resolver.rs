//! Names to addresses, judged: the connection goes to what was judged and to nothing else.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::error::EgressError;
use super::rules::Rules;

/// Resolves names.
#[async_trait]
pub trait Lookup: std::fmt::Debug + Send + Sync + 'static {
    async fn lookup(&self, name: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// As this machine resolves them.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Lets only addresses through that requests may go to.
#[derive(Clone, Debug)]
pub struct Guard {
    rules: Rules,
    lookup: Arc<dyn Lookup>,
}

impl Guard {
    pub fn new(rules: Rules, lookup: Arc<dyn Lookup>) -> Self {
        Guard { rules, lookup }
    }

    async fn judged(&self, name: &str) -> Result<Vec<IpAddr>, EgressError> {
        let found = self.lookup.lookup(name).await;
        let found = found.map_err(|_| EgressError::Unresolved)?;
        if found.is_empty() {
            return Err(EgressError::Unresolved);
        }
        self.rules.check_resolved(name, &found).inspect_err(|_| {
            tracing::warn!(name, ?found, "a name leads to an address that is refused");
        })?;
        Ok(found)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let judged = guard.judged(name.as_str()).await;
            let judged = judged.map_err(|error| Box::new(error) as Box<dyn Error + Send + Sync>)?;
            // The port is that of the URL.
            let addresses = judged
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

//! SIGHUP: the task types are read anew, and nothing else. What is wrong leaves everything as it is.
//!
//! Nothing is lost: attempts under way go on by the types that they began with, keys are compared under the
//! rule that they were recorded with, and tasks of a type that is gone wait until it is declared again.

use std::sync::Arc;

use tokio::signal::unix;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalogue::Catalogue;
use crate::config::error::ConfigError;
use crate::config::{Settings, Sources};
use crate::domain::task_type::TaskTypes;
use crate::runners::{self, Surroundings};
use crate::worker::Workshop;

/// What is replaced, and where it is read from.
pub struct Reload {
    pub sources: Sources,
    pub catalogue: Catalogue,
    pub shop: watch::Sender<Workshop>,
    pub surroundings: Surroundings,
}

impl Reload {
    /// Reads at each signal, until `stop` fires.
    pub async fn run(self, mut signals: unix::Signal, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                signal = signals.recv() => match signal {
                    Some(()) => self.read().await,
                    None => return,
                },
            }
        }
    }

    async fn read(&self) {
        let sources = self.sources.clone();
        let read = tokio::task::spawn_blocking(move || Settings::load(sources)).await;
        match read {
            Ok(Ok(settings)) => self.take(settings.types),
            Ok(Err(error)) => refuse(&error),
            Err(error) => tracing::error!(%error, "reading the configuration broke off"),
        }
    }

    fn take(&self, types: TaskTypes) {
        let types = Arc::new(types);
        let before = self.catalogue.now();
        for name in before.names().filter(|name| types.get(name).is_none()) {
            tracing::warn!(task_type = name, "is declared no more: its tasks wait");
        }
        // Submissions first: what is leased must be of a type that is known.
        self.catalogue.replace(types.clone());
        let runners = runners::for_types(&types, &self.surroundings);
        let shop = self.shop.borrow().with(types.clone(), runners);
        let names = types.run_inside().map(str::to_owned);
        shop.gauge.set_types(names.collect());
        self.shop.send_replace(shop);
        let count = types.iter().count();
        tracing::info!(task_types = count, "the task types were read anew");
    }
}

fn refuse(error: &ConfigError) {
    tracing::error!(%error, "the configuration was not taken over: the task types stay as they were");
}

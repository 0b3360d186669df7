//! The composition root: picks the adapters, checks what must hold at the start, and ends everything
//! in order. The only module that names adapters.

pub mod bootstrap;
pub mod doctor;
pub mod folder;
pub mod greeting;
pub mod log_buffer;
pub mod logging;
pub mod outside;
pub mod reload;
pub mod signal;
pub mod wiring;

use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::Blobs;
use crate::catalogue::Catalogue;
use crate::config::{Drain, Settings, Sources};
use crate::http::api::{Api, Parts};
use crate::runners::command::launcher::Launcher;
use crate::runners::{self, Surroundings};
use crate::scheduler;
use crate::store::Store;
use crate::worker::pool::{End, Pool};
use crate::worker::{Tools, Workshop, herald, rescuer, sweeper};
use crate::worker_gauge::WorkerGauge;
use folder::Folders;
use outside::Outside;
use reload::Reload;
use signal::{Signal, Signals};

pub use wiring::openapi;

/// Serves and works until a signal ends it.
pub fn run(settings: Settings, sources: Sources) -> anyhow::Result<()> {
    let _last_lines = logging::start(&settings.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(serve(settings, sources));
    // What blocks a thread now is of no use to anyone.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: Settings, sources: Sources) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let hang_ups = signal::hang_ups().context("cannot listen for signals")?;
    let folders = Folders::open(&settings.storage)?;
    let blobs = wiring::open_blobs(folders.blobs(), &settings)?;
    let store = wiring::open_store(folders.data(), &settings).await?;
    if store.durability() < settings.durability_min {
        bail!(
            "the store offers durability {}, and JUSTONCE_DURABILITY asks for {}",
            store.durability().name(),
            settings.durability_min.name()
        );
    }
    let outside = Outside::open(&settings, &folders, &store).await?;
    let news = bootstrap::ensure_admin_key(&*store, &settings, folders.data()).await?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let address = listener.local_addr()?;

    let draining = CancellationToken::new();
    let unfinished = TaskTracker::new();
    let sandbox = wiring::sandbox(&settings)?;
    let gauge = WorkerGauge::new(
        wiring::worker_name(),
        settings.types.run_inside().map(str::to_owned).collect(),
        settings.workers,
    );
    let catalogue = Catalogue::new(settings.types.clone());
    let api = Api::new(Parts {
        store: store.clone(),
        blobs: blobs.clone(),
        types: catalogue.clone(),
        limits: settings.limits.clone(),
        edge: settings.edge.clone(),
        waiting: Semaphore::new(settings.limits.waiting_requests_max),
        streams: Arc::new(Semaphore::new(settings.limits.event_streams_max)),
        unfinished: unfinished.clone(),
        draining: draining.clone(),
        workers: gauge.clone(),
        sandbox: wiring::sandbox_layers(&sandbox).await,
    });
    let surroundings = Surroundings {
        folder: settings.folder.clone(),
        launcher: Launcher::this_binary().context("cannot find this program's file")?,
        sandbox,
        limits: settings.limits.clone(),
        egress: outside.egress,
        webhooks: outside.webhooks,
        links: settings.edge.links(),
        notify: outside.notify,
        pages: outside.pages,
        store: store.clone(),
        blobs: blobs.clone(),
        parsing: Arc::new(Semaphore::new(settings.workers.max(1))),
    };
    let (work, shop) = Work::start(
        &settings,
        store.clone(),
        blobs,
        gauge,
        &surroundings,
        &catalogue,
    );
    let reload = Reload {
        sources,
        catalogue,
        shop,
        surroundings,
    };
    tokio::spawn(reload.run(hang_ups, draining.clone()));
    let stop_http = CancellationToken::new();
    let http = tokio::spawn(wiring::serve_http(
        listener,
        api,
        stop_http.clone(),
        settings.drain.grace,
    ));
    greeting::print(address, &settings);
    greeting::say(news.as_deref().unwrap_or_default());

    let signal = signals.next().await;
    let end = async {
        drain(signal, settings.drain, &draining).await;
        stop_http.cancel();
        let requests = async {
            if let Err(error) = http.await {
                tracing::error!(%error, "the HTTP server broke off");
            }
            unfinished.close();
            unfinished.wait().await;
        };
        let requests = tokio::time::timeout(settings.drain.grace, requests);
        let (requests, ()) = tokio::join!(requests, work.end(settings.drain));
        if requests.is_err() {
            tracing::warn!("requests were cut off: the grace is over");
        }
        store.close().await;
    };
    tokio::select! {
        () = end => tracing::info!("stopped"),
        _ = signals.next() => bail!("stopped at once by a second signal"),
    }
    Ok(())
}

/// Unready at once, so that balancers look elsewhere, but still serving until they have noticed.
/// Nobody waits for a balancer at a terminal.
async fn drain(signal: Signal, drain: Drain, draining: &CancellationToken) {
    draining.cancel();
    match signal {
        Signal::Terminate => {
            tracing::info!(delay_seconds = drain.delay.as_secs_f64(), "draining");
            tokio::time::sleep(drain.delay).await;
        }
        Signal::Interrupt => tracing::info!("stopping"),
    }
}

/// What goes on besides requests.
struct Work {
    end: End,
    pool: Option<JoinHandle<()>>,
    /// Rescue, sweep and schedules go on until the last attempt has ended.
    stop_upkeep: CancellationToken,
    upkeep: [JoinHandle<()>; 4],
}

impl Work {
    /// What runs, and the way to show it other types.
    fn start(
        settings: &Settings,
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        gauge: WorkerGauge,
        surroundings: &Surroundings,
        catalogue: &Catalogue,
    ) -> (Work, watch::Sender<Workshop>) {
        let stop_upkeep = CancellationToken::new();
        let upkeep = [
            tokio::spawn(rescuer::run(
                store.clone(),
                blobs.clone(),
                stop_upkeep.clone(),
            )),
            tokio::spawn(sweeper::run(
                store.clone(),
                blobs.clone(),
                stop_upkeep.clone(),
            )),
            tokio::spawn(herald::run(
                store.clone(),
                gauge.clone(),
                stop_upkeep.clone(),
            )),
            tokio::spawn(scheduler::run(
                store.clone(),
                catalogue.clone(),
                settings.limits.quotas.clone(),
                stop_upkeep.clone(),
            )),
        ];
        let shop = Workshop::new(Tools {
            runners: runners::for_types(&settings.types, surroundings),
            types: Arc::new(settings.types.clone()),
            limits: settings.limits.clone(),
            gauge,
            store,
            blobs,
        });
        let end = End::default();
        let (shop, shops) = watch::channel(shop);
        let pool = (settings.workers > 0).then(|| Pool::new(shops, end.clone()));
        let work = Work {
            pool: pool.map(|pool| tokio::spawn(pool.run())),
            end,
            stop_upkeep,
            upkeep,
        };
        (work, shop)
    }

    /// Leases no more, gives attempts the grace to end, and hands back the others.
    async fn end(self, drain: Drain) {
        self.end.stop.cancel();
        if let Some(mut pool) = self.pool
            && tokio::time::timeout(drain.grace, &mut pool).await.is_err()
        {
            tracing::warn!("attempts are handed back: the grace is over");
            self.end.hand_back.cancel();
            if let Err(error) = pool.await {
                tracing::error!(%error, "the pool broke off");
            }
        }
        self.stop_upkeep.cancel();
        for task in self.upkeep {
            if let Err(error) = task.await {
                tracing::error!(%error, "upkeep broke off");
            }
        }
    }
}

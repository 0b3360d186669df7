//! The adapters of the runner port.

pub mod chores;
pub mod clean_up;
pub mod command;
pub mod deliver;
pub mod echo;
pub mod http;
pub mod notify;
pub mod outgoing;
pub mod report;
pub mod request;
pub mod sandboxed;
pub mod scrape;
pub mod silent_targets;
pub mod webhooks;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::blobs::Blobs;
use crate::domain::callback::Callback;
use crate::domain::task_type::{RunnerSpec, TaskTypes};
use crate::egress::Egress;
use crate::limits::Limits;
use crate::links::Links;
use crate::runner::Runner;
use crate::sandbox::{Kind, Sandbox};
use crate::store::Store;
use clean_up::CleanUp;
use command::CommandRunner;
use command::launcher::Launcher;
use deliver::Deliver;
use echo::Echo;
use http::HttpRunner;
use notify::Notify;
use report::AnalyticsReport;
use sandboxed::SandboxedRunner;
use scrape::Scrape;
use scrape::pages::Pages;
use webhooks::Webhooks;

/// What runs each task type, by its name.
pub type Runners = HashMap<String, Arc<dyn Runner>>;

/// What runners need from the process that they live in.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the operator's programs run.
    pub folder: PathBuf,
    pub launcher: Launcher,
    pub sandbox: Sandbox,
    pub limits: Limits,
    /// For requests that go out.
    pub egress: Egress,
    pub webhooks: Webhooks,
    pub notify: Notify,
    pub links: Links,
    /// What was learnt of pages.
    pub pages: Pages,
    /// For those that work on what is kept of their user, or tell of it.
    pub store: Arc<dyn Store>,
    pub blobs: Arc<dyn Blobs>,
    /// Parsers of pages that may use the processor at a time.
    pub parsing: Arc<Semaphore>,
}

/// A runner for each type that this process can run; it leaves the tasks of other types alone.
pub fn for_types(types: &TaskTypes, surroundings: &Surroundings) -> Runners {
    let runner = |spec: &RunnerSpec| -> Option<Arc<dyn Runner>> {
        match spec {
            RunnerSpec::Builtin(name) => builtin(name, surroundings),
            RunnerSpec::External => None,
            RunnerSpec::Http(url) => Some(Arc::new(HttpRunner::new(url.clone(), surroundings))),
            RunnerSpec::Sandboxed(name) => {
                let kind = Kind::from_name(name)?;
                Some(Arc::new(SandboxedRunner::new(
                    kind,
                    surroundings.sandbox.clone(),
                )))
            }
            RunnerSpec::Command(words) => {
                let (folder, launcher) =
                    (surroundings.folder.clone(), surroundings.launcher.clone());
                let bytes_max = surroundings.limits.result_bytes_max;
                Some(Arc::new(CommandRunner::new(
                    words.clone(),
                    folder,
                    launcher,
                    bytes_max,
                )))
            }
        }
    };
    let named = types
        .iter()
        .map(|made| Some((made.name.clone(), runner(&made.runner)?)));
    named.flatten().collect()
}

fn builtin(name: &str, surroundings: &Surroundings) -> Option<Arc<dyn Runner>> {
    match name {
        Callback::TASK_TYPE => Some(Arc::new(Deliver::new(surroundings))),
        "echo" => Some(Arc::new(Echo)),
        "scrape_website" => Some(Arc::new(Scrape::new(surroundings))),
        "cleanup_old_data" => Some(Arc::new(CleanUp::new(surroundings))),
        "generate_analytics_report" => Some(Arc::new(AnalyticsReport::new(surroundings))),
        "send_notification" => Some(Arc::new(surroundings.notify.clone())),
        _ => None,
    }
}

//! What is wrong with a store, for an operator: its settings, lost state, and records that contradict each
//! other. Changes nothing, and may be asked while the service is at work.
//!
//! Why no lock on the data folder? One process may write the embedded store, and that is what the lock says.
//! SQLite lets others read beside it, each look in a transaction of its own; a lock would keep the service from
//! starting while somebody looks.

mod files;

use std::path::Path;

use anyhow::{Context, bail};
use async_trait::async_trait;

use self::files::Owners;
use super::wiring;
use crate::blobs::inventory::Inventory;
use crate::config::Settings;
use crate::config::storage::StoreChoice;
use crate::domain::file::BlobName;
use crate::store::audit::Audit;
use crate::store::embedded;
use crate::store::redis::{self, Options};

/// What is known of the store, line by line, and whether it is well.
pub struct Report {
    pub lines: Vec<String>,
    pub is_well: bool,
}

pub fn examine(settings: &Settings) -> anyhow::Result<Report> {
    match &settings.storage.store {
        StoreChoice::Redis(choice) => {
            let options = wiring::redis_options(choice, settings, None)?;
            block_on(of_redis(&options, settings))
        }
        StoreChoice::Embedded => block_on(of_folder(settings)),
        StoreChoice::Memory => {
            bail!("a store in memory is gone with its service: there is nothing to look at")
        }
    }
}

/// Takes the loss that replicas have reported for granted. Returns how many have.
pub fn accept_state_loss(settings: &Settings) -> anyhow::Result<u64> {
    let StoreChoice::Redis(choice) = &settings.storage.store else {
        bail!(
            "only Redis can lose what it has acknowledged: name it with REDIS_URL or --redis-url"
        );
    };
    let options = wiring::redis_options(choice, settings, None)?;
    block_on(async { Ok(redis::accept_loss(&options.address, &options.prefix).await?) })
}

async fn of_folder(settings: &Settings) -> anyhow::Result<Report> {
    let data = settings.storage.data.as_deref();
    let auditor = embedded::Auditor::open(data.context("the store has no folder")?)?;
    let mut audit = Audit::default();
    auditor.run(&mut audit)?;
    let mut report = Report {
        lines: vec![auditor.path().display().to_string()],
        is_well: true,
    };
    report.compare_files(settings, &auditor, &mut audit).await?;
    report.conclude(&audit);
    Ok(report)
}

async fn of_redis(options: &Options, settings: &Settings) -> anyhow::Result<Report> {
    let found = redis::diagnose(options).await?;
    let mut lines = vec![format!("{:?}, under {:?}", options.address, options.prefix)];
    lines.push(match &found.schema {
        Some(schema) => format!("schema: {schema}"),
        None => "nothing is on record: no replica has begun, or everything is gone".to_owned(),
    });
    lines.push(match &found.fault {
        Some(fault) => format!("settings: {fault}"),
        None => format!("settings: well, durability {}", found.durability.name()),
    });
    if found.losses.is_empty() {
        lines.push("state: no replica misses anything".to_owned());
    } else {
        let replicas: Vec<_> = found.losses.keys().map(String::as_str).collect();
        lines.push(format!(
            "state: replicas miss what Redis has acknowledged to them ({}). Restore it, or accept that it is \
             gone with --accept-state-loss",
            replicas.join(", ")
        ));
    }
    let mut report = Report {
        lines,
        is_well: found.schema.is_some() && found.fault.is_none() && found.losses.is_empty(),
    };
    if let Some(auditor) = redis::Auditor::open(options).await? {
        let mut audit = Audit::default();
        auditor.run(&mut audit).await?;
        report.compare_files(settings, &auditor, &mut audit).await?;
        report.conclude(&audit);
    }
    Ok(report)
}

impl Report {
    async fn compare_files(
        &mut self,
        settings: &Settings,
        owners: &dyn Owners,
        audit: &mut Audit,
    ) -> anyhow::Result<()> {
        let folder = settings.storage.blobs.as_deref();
        let folder = folder.context("the store has no folder of files")?;
        if !folder.is_dir() {
            self.lines.push(no_folder(folder, audit));
            return Ok(());
        }
        let young = files::compare(&Inventory::of(folder), owners, audit).await;
        let young = young.with_context(|| format!("cannot look into {}", folder.display()))?;
        if young > 0 {
            self.lines.push(format!(
                "files: {young} copies are named by no record yet, or not any more; a sweep will tell"
            ));
        }
        Ok(())
    }

    fn conclude(&mut self, audit: &Audit) {
        let seen: Vec<_> = audit
            .seen()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        let seen = if seen.is_empty() {
            "nothing".to_owned()
        } else {
            seen.join(", ")
        };
        self.lines.push(format!("looked at: {seen}"));
        for what in audit.unsettled() {
            self.lines.push(format!("not settled: {what}"));
        }
        for finding in audit.findings() {
            self.lines.push(format!("wrong: {finding}"));
        }
        let more = audit.wrong() - audit.findings().len() as u64;
        if more > 0 {
            self.lines.push(format!("wrong: and {more} more"));
        }
        self.lines.push(match audit.wrong() {
            0 => "records: they agree with each other".to_owned(),
            wrong => format!("records: {wrong} contradictions"),
        });
        self.is_well &= audit.wrong() == 0;
    }
}

/// Replicas on other machines may be the ones that have it.
fn no_folder(folder: &Path, audit: &mut Audit) -> String {
    let copies = std::mem::take(&mut audit.copies).len();
    if copies > 0 {
        audit.found(&format!(
            "folder {}: it is not there, and {copies} copies of files and results are on record",
            folder.display()
        ));
    }
    format!("files: there is no {}", folder.display())
}

#[async_trait(?Send)]
impl Owners for embedded::Auditor {
    async fn owns(&self, name: &BlobName) -> anyhow::Result<bool> {
        Ok(embedded::Auditor::owns(self, name)?)
    }
}

#[async_trait(?Send)]
impl Owners for redis::Auditor {
    async fn owns(&self, name: &BlobName) -> anyhow::Result<bool> {
        Ok(redis::Auditor::owns(self, name).await?)
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(work)
}

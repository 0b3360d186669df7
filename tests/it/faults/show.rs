//! The great trial: every key is sent by every client while replicas and Redis are killed and paused, and
//! there are exactly as many tasks as keys.
//!
//! `FAULTS_KEYS` says how many keys; the short form has few.

use std::time::Duration;

use super::clients::Load;
use super::fault::{OF_PRIMARIES, OF_THE_SHOW, Plan};
use super::nemesis::Enough;
use super::seed::Seed;
use super::setting::setting;
use super::stage::Stage;
use super::trial::{Report, STALL, Trial};
use super::work::Work;

const CLIENTS: usize = 32;

/// Each content once.
pub fn every_key_by_every_client(keys: usize) -> Load {
    Load {
        clients: CLIENTS,
        submitters: CLIENTS,
        intents: Some(keys),
        work: Work::Numbered { twins: false },
        pause: Duration::ZERO,
        quitters: false,
        observers: 1,
    }
}

#[track_caller]
pub fn expect_one_task_a_key(report: &Report) {
    report.expect_sound();
    assert_eq!(report.findings.on_record, report.intents);
    assert_eq!(
        report.counts.acknowledged,
        (report.intents * CLIENTS) as u64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_tasks_as_keys_whatever_happens_to_replicas_and_redis() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "show",
        seed,
        load: every_key_by_every_client(setting("FAULTS_KEYS", 400)),
        plan: Plan::new(OF_THE_SHOW, 500..2_000, seed),
        enough: Enough::Clients,
        stall: STALL,
    };
    let stage = Stage::redis(2).await.balanced().await;
    expect_one_task_a_key(&trial.run(stage).await);
}

/// A cluster does not wait for its replicas: what it lost with a primary was acknowledged in vain, and that is
/// said before anything else is acknowledged. It may not do anything twice.
#[tokio::test(flavor = "multi_thread")]
async fn no_task_twice_whatever_happens_to_the_primaries_of_a_cluster() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "show on a cluster",
        seed,
        load: every_key_by_every_client(setting("FAULTS_KEYS", 150)),
        plan: Plan::new(OF_PRIMARIES, 1_000..4_000, seed),
        enough: Enough::Clients,
        stall: STALL,
    };
    let stage = Stage::cluster(2).await.operated().balanced().await;
    trial.run(stage).await.expect_sound_or_said();
}

//! Short trials of each way to run the service.

use std::time::Duration;

use super::clients::Load;
use super::fault::{OF_A_CLUSTER, OF_A_NETWORK, OF_ONE_PROCESS, OF_REDIS, OF_SENTINELS, Plan};
use super::nemesis::Enough;
use super::seed::Seed;
use super::stage::Stage;
use super::trial::{STALL, Trial};
use super::work::Work;

pub fn load() -> Load {
    Load {
        clients: 16,
        submitters: 4,
        intents: None,
        work: Work::Numbered { twins: true },
        pause: Duration::ZERO,
        quitters: true,
        observers: 2,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_its_promises() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "embedded",
        seed,
        load: load(),
        plan: Plan::new(OF_ONE_PROCESS, 100..700, seed),
        enough: Enough::Faults(20),
        stall: STALL,
    };
    trial.run(Stage::embedded().await).await.expect_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_over_one_redis_keep_their_promises() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "redis",
        seed,
        load: load(),
        plan: Plan::new(OF_REDIS, 100..700, seed),
        enough: Enough::Faults(30),
        stall: STALL,
    };
    trial.run(Stage::relayed(2).await).await.expect_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_over_a_cluster_keep_their_promises() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "cluster",
        seed,
        load: load(),
        plan: Plan::new(OF_A_CLUSTER, 100..700, seed),
        enough: Enough::Faults(21),
        stall: STALL,
    };
    trial.run(Stage::cluster(2).await).await.expect_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_in_a_network_that_loses_packets_keep_their_promises() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "network",
        seed,
        load: load(),
        plan: Plan::new(OF_A_NETWORK, 100..700, seed),
        enough: Enough::Faults(8),
        stall: STALL,
    };
    match Stage::networked(2).await {
        Ok(stage) => trial.run(stage).await.expect_sound(),
        Err(why) => println!("left out, as this machine has no networks of its own: {why}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_over_sentinels_keep_their_promises() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "sentinels",
        seed,
        load: load(),
        plan: Plan::new(OF_SENTINELS, 100..700, seed),
        enough: Enough::Faults(8),
        stall: STALL,
    };
    let report = trial.run(Stage::sentinels(2).await.operated()).await;
    report.expect_sound_over_copies();
}

//! The long form: one mode for as long as the environment says, through `make soak`.

use std::time::Duration;

use super::fault::{
    OF_A_CLUSTER, OF_A_NETWORK, OF_ONE_PROCESS, OF_PRIMARIES, OF_REDIS, OF_SENTINELS, Plan,
};
use super::modes::load;
use super::nemesis::Enough;
use super::seed::Seed;
use super::setting::setting;
use super::stage::Stage;
use super::trial::{STALL, Trial};

const SECONDS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "as long as FAULTS_SECONDS says, over FAULTS_MODE: see make soak"]
async fn as_long_as_asked() {
    let mode = std::env::var("FAULTS_MODE").unwrap_or_else(|_| "redis".to_owned());
    let seconds = setting("FAULTS_SECONDS", SECONDS) as u64;
    let seed = Seed::draw();
    let (classes, stage) = match mode.as_str() {
        "embedded" => (OF_ONE_PROCESS, Stage::embedded().await),
        "redis" => (OF_REDIS, Stage::relayed(3).await),
        "cluster" => (OF_A_CLUSTER, Stage::cluster(3).await),
        "network" => (OF_A_NETWORK, Stage::networked(3).await.unwrap()),
        "sentinels" => (OF_SENTINELS, Stage::sentinels(3).await.operated()),
        "primaries" => (OF_PRIMARIES, Stage::cluster(3).await.operated()),
        other => panic!("FAULTS_MODE={other}: see the Makefile"),
    };
    let trial = Trial {
        name: "soak",
        seed,
        load: load(),
        plan: Plan::new(classes, 50..700, seed),
        enough: Enough::Time(Duration::from_secs(seconds)),
        stall: STALL,
    };
    let report = trial.run(stage).await;
    match mode.as_str() {
        // A cluster does not wait for its replicas.
        "sentinels" => report.expect_sound_over_copies(),
        "primaries" => report.expect_sound_or_said(),
        _ => report.expect_sound(),
    }
}

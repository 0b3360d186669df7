//! Replies of Redis are lost, halved, late, and scripts arrive twice: there are as many tasks as keys.

use super::fault::Plan;
use super::nemesis::Enough;
use super::resp_proxy::Chances;
use super::seed::Seed;
use super::setting::setting;
use super::show::{every_key_by_every_client, expect_one_task_a_key};
use super::stage::Stage;
use super::trial::{STALL, Trial};

/// Of 1,000 scripts: 70 replies lost, 40 carried out twice, 10 replies halved, 10 never carried out, 20 late.
const CHANCES: Chances = Chances([70, 20, 20, 10, 10, 20]);

#[tokio::test(flavor = "multi_thread")]
async fn as_many_tasks_as_keys_whatever_becomes_of_replies() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "lost replies",
        seed,
        load: every_key_by_every_client(setting("FAULTS_KEYS", 350)),
        plan: Plan::new(&[], 1..2, seed),
        enough: Enough::Faults(0),
        stall: STALL,
    };
    let stage = Stage::meddled_with(2, CHANCES, seed).await;
    let report = trial.run(stage).await;
    expect_one_task_a_key(&report);
    assert!(report.meddled.iter().all(|(_, count)| *count > 0));
}

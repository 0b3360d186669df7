//! The service ends at every place of its code between which a task goes its way, one after the other, and is held up
//! there before: nothing is lost, and nothing done twice.
//!
//! `FAULTS_ROUNDS` says how often each place is walked to.

use std::collections::VecDeque;
use std::sync::Mutex;

use justonce::failpoints::{self, FailPoint};

use super::fault::{Class, Plan};
use super::modes::load;
use super::nemesis::Enough;
use super::seed::Seed;
use super::setting::setting;
use super::stage::Stage;
use super::trial::{STALL, Trial};

/// Longer than a lease.
const STALL_MS: u64 = 1_200;

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_embedded_service_ends_nothing_is_lost() {
    let not_there = [FailPoint::BeforeScript, FailPoint::AfterScript];
    walk("failpoints, embedded", false, &not_there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_replica_over_redis_ends_nothing_is_lost() {
    let not_there = [FailPoint::BeforeCommit, FailPoint::AfterCommit];
    walk("failpoints, redis", true, &not_there).await;
}

async fn walk(name: &'static str, over_redis: bool, not_there: &[FailPoint]) {
    let seed = Seed::draw();
    let mut choices = seed.choices("failpoints", 0);
    let mut orders = VecDeque::new();
    for _ in 0..setting("FAULTS_ROUNDS", 1) {
        let mut points = FailPoint::ALL.to_vec();
        points.retain(|point| !not_there.contains(point));
        choices.shuffle(&mut points);
        for point in points {
            let stalls_at = choices.u32(1..3);
            let ends_at = stalls_at + choices.u32(1..4);
            let name = point.name();
            orders.push_back(format!(
                "{name}:stall:{stalls_at}:{STALL_MS},{name}:abort:{ends_at}"
            ));
        }
    }
    let lives = orders.len();
    let orders = Mutex::new(orders);
    // One order for each life; afterwards it lives on.
    let variables = move || {
        let order = orders.lock().unwrap().pop_front();
        let order = order.map(|order| (failpoints::VARIABLE, order));
        order.into_iter().collect()
    };
    let trial = Trial {
        name,
        seed,
        load: load(),
        plan: Plan::new(&[Class::FailPoint], 1..2, seed),
        enough: Enough::Faults(lives),
        stall: STALL,
    };
    let stage = Stage::of_variables(over_redis, variables).await;
    trial.run(stage).await.expect_sound();
}

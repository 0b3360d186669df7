//! The tests are tested: each fault that can be seeded into the code makes the test fail that is named here,
//! and for the reason that is named; without a fault the same test passes. `make seeded-faults` runs it.

mod scenarios;

use std::collections::BTreeSet;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use justonce::seeded_faults::{SeededFault, VARIABLE};
use tokio::process::Command;
use tokio::time::timeout;

use super::violation::Rule;

/// A test of this binary, and what it says when it fails for the right reason.
struct Catcher {
    test: &'static str,
    says: Says,
}

enum Says {
    Violated(Rule),
    Words(&'static str),
}

const AT_ONCE: usize = 2;
const PATIENCE: Duration = Duration::from_secs(150);

fn catcher(fault: SeededFault) -> Catcher {
    use Says::{Violated, Words};
    use SeededFault as F;
    let (test, says) = match fault {
        F::ReplyBeforeCommit => (
            "faults::seeded::scenarios::a_killed_service",
            Violated(Rule::Lost),
        ),
        F::KeyNotBound => (
            "store_conformance::admission::embedded::one_key_names_one_task_however_many_ask_at_once",
            Words("not one task"),
        ),
        F::KeyExpiresWhileItRuns => (
            "store_conformance::retention::embedded::nothing_that_is_unfinished_expires",
            Words("the key of an unfinished task expired"),
        ),
        F::OtherContentTaken => (
            "store_conformance::admission::embedded::a_reused_key_changes_nothing_and_names_the_fields",
            Words("a key was used for two contents"),
        ),
        F::QueuedApart => (
            "faults::seeded::scenarios::a_killed_service",
            Violated(Rule::NotEnded),
        ),
        F::ReturnedForEver => (
            "faults::seeded::scenarios::a_task_that_ends_its_holders",
            Words("it is returned once more"),
        ),
        F::StaleTokenTaken | F::SameTokenAgain => (
            "faults::leases::late_holders_change_nothing_in_the_embedded_store",
            Words("a stale token counted"),
        ),
        F::ForgottenAndRemembered => (
            "store_conformance::ending::embedded::a_forgotten_task_leaves_a_tombstone_for_its_keys",
            Words("k: Duplicate"),
        ),
        F::LaterResultTaken => (
            "store_conformance::leases::embedded::a_completion_repeated_with_its_token_is_recorded",
            Words("result bytes changed"),
        ),
        F::QueueWithoutBound => (
            "store_conformance::a_full_queue_takes_no_more_and_still_answers_duplicates",
            Words("a full queue took more"),
        ),
        F::ForeignTaskShown => (
            "store_conformance::admission::embedded::users_never_meet",
            Words("another user's task is shown"),
        ),
        F::RedisConfirmationSkipped => (
            "redis_durability::a_promise_on_two_machines_waits_for_the_second",
            Words("right: 503"),
        ),
        F::RedisLocksExpire => (
            "faults::seeded::scenarios::killed_replicas",
            Violated(Rule::TwoIdsForAKey),
        ),
        F::RedisContentNotClaimed => (
            "faults::seeded::scenarios::killed_replicas",
            Violated(Rule::DuplicateTask),
        ),
        F::RedisAdmissionNonceIgnored => (
            "store_conformance::admission::redis::an_admission_repeated_with_its_nonce_is_answered_as_before",
            Words("a lost reply made the submission its own duplicate"),
        ),
        F::RedisUnknownMeansDone => (
            "faults::seeded::scenarios::a_silent_redis",
            Words("promised by nobody"),
        ),
        F::RedisQueuedApart => (
            "faults::seeded::scenarios::killed_replicas",
            Violated(Rule::NotEnded),
        ),
        F::RedisLeaseNonceIgnored => (
            "faults::seeded::scenarios::a_lease_that_arrives_twice",
            Words("the second lease took the other task"),
        ),
        F::RedisStaleTokenTaken | F::RedisSameTokenAgain => (
            "faults::leases::late_holders_change_nothing_in_redis",
            Words("a stale token counted"),
        ),
        F::RedisLaterResultTaken => (
            "store_conformance::leases::redis::a_completion_repeated_with_its_token_is_recorded",
            Words("result bytes changed"),
        ),
        F::RedisRememberedTooLong => (
            "replicas::what_one_replica_forgets_no_other_answers_from_memory",
            Words("another replica answers what was forgotten: Duplicate"),
        ),
        F::RedisMarkNotLookedAt | F::RedisMarkNotRaised => (
            "redis_trouble::a_redis_set_back_to_an_older_snapshot_is_noticed_by_whom_it_answered",
            Words("right: 503"),
        ),
        F::RedisMarksNotKept => (
            "redis_trouble::a_replica_remembers_over_its_restart_what_it_was_told",
            Words("right: 503"),
        ),
    };
    Catcher { test, says }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_caught() {
    let catchers: BTreeSet<_> = SeededFault::ALL.iter().map(|f| catcher(*f).test).collect();
    let failing = stream::iter(catchers).map(|test| async move {
        let run = Run::of(test, None).await;
        (!run.passed).then(|| format!("sound code fails {test}: {}", run.text))
    });
    let failing: Vec<_> = failing
        .buffered(AT_ONCE)
        .filter_map(async |f| f)
        .collect()
        .await;
    let rows = stream::iter(SeededFault::ALL).map(|&fault| async move {
        let catcher = catcher(fault);
        let run = Run::of(catcher.test, Some(fault)).await;
        (fault, catcher, run)
    });
    let rows: Vec<_> = rows.buffered(AT_ONCE).collect().await;
    println!(
        "\n| fault | breaks | what goes wrong | caught by | which says |\n|---|---|---|---|---|"
    );
    for (fault, Catcher { test, says }, run) in &rows {
        let (name, promise, wrong) = (fault.name(), fault.promise(), fault.wrong());
        let (test, says) = match run.says(says) {
            true => (*test, says.to_string()),
            false => ("nothing", String::new()),
        };
        println!("| `{name}` | {promise} | {wrong} | `{test}` | {says} |");
    }
    println!();
    let missed = rows
        .iter()
        .filter(|(_, catcher, run)| !run.says(&catcher.says));
    let missed = missed.map(|(fault, catcher, run)| {
        format!("{fault:?} was not caught by {}: {}", catcher.test, run.text)
    });
    let wrong: Vec<_> = failing.into_iter().chain(missed).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// One run of one test, in a process of its own.
struct Run {
    passed: bool,
    text: String,
}

impl Run {
    async fn of(test: &str, fault: Option<SeededFault>) -> Run {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env("FAULTS_LEASES", "100")
            .env_remove(VARIABLE)
            .envs(fault.map(|fault| (VARIABLE, fault.name())))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await;
        let Ok(Ok(output)) = output else {
            return Run {
                passed: false,
                text: "it does not end".to_owned(),
            };
        };
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said).into_owned();
        Run {
            passed: output.status.success() && text.contains("1 passed"),
            text,
        }
    }

    /// Whether it failed so.
    fn says(&self, says: &Says) -> bool {
        !self.passed
            && match says {
                // The report counts violations by their rule.
                Says::Violated(rule) => self.text.contains(&format!(" {rule:?}\n")),
                Says::Words(words) => self.text.contains(words),
            }
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Says::Violated(rule) => write!(f, "{rule:?}"),
            Says::Words(words) => write!(f, "“{words}”"),
        }
    }
}

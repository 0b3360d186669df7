//! Who completed a task, as its record and its executions tell.
//!
//! Promised is that only the holder of the newest lease records anything. Which leases there were, the executions tell:
//! each leaves its attempt and its token outside of the service. Which of them was the newest, the record tells, with the
//! attempt and the moment of its last lease; for leases are not promised, and a server that takes over may know none of
//! those that the one before it gave out last. To complete under the newest lease that it knows is right then, since what
//! the other holder says is refused; to complete under any older one is not.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::audit::Recorded;
use super::trace::Execution;
use super::violation::Rule;

/// What is wrong with a task that has succeeded, of the executions that it had.
pub fn contradiction(task: &Recorded, ran: &[&Execution]) -> Option<(Rule, String)> {
    let on_record = of_newest_lease(task, ran);
    let completed_under = task.result.as_deref().and_then(token);
    let tokens = ran.iter().map(|run| run.fencing_token);
    let newest = tokens.clone().max();
    let rule = if on_record.is_none() || completed_under != on_record {
        Rule::CompletedTwice
    } else if newest > completed_under {
        Rule::NewerLeaseGone
    } else {
        return None;
    };
    let tokens: Vec<_> = tokens.collect();
    let detail = format!(
        "completed under {completed_under:?}, {on_record:?} is on record, ran under {tokens:?}"
    );
    Some((rule, detail))
}

/// The token of the newest lease on record. An attempt may have had several: one that was handed back does not count, and
/// one that went with its server is counted anew. Redis makes tokens of the time, so that the moment tells them apart; the
/// embedded store counts them from 1, loses none, and the newest is the nearest to any moment.
fn of_newest_lease(task: &Recorded, ran: &[&Execution]) -> Option<u64> {
    let started_at = u64::try_from(task.started_at?.as_ms()).ok()?;
    let of_attempt = ran.iter().filter(|run| run.attempt == task.attempt);
    let tokens = of_attempt.map(|run| run.fencing_token);
    tokens.min_by_key(|token| token.abs_diff(started_at))
}

/// The token that a program named in its result.
fn token(result: &RawValue) -> Option<u64> {
    #[derive(Deserialize)]
    struct Named {
        token: u64,
    }
    let named = serde_json::from_str::<Named>(result.get()).ok()?;
    Some(named.token)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is said of a task whose last lease on record is of this attempt and second, and which was completed under
    /// this token. The executions: attempt and token.
    fn said(last: (u32, u32), completed_under: u64, ran: &[(u32, u64)]) -> Option<Rule> {
        let (attempt, second) = last;
        let task = json!({
            "id": "t", "type": "record", "state": "succeeded", "attempt": attempt, "tags": {},
            "started_at": format!("1970-01-01T00:00:{second:02}.000Z"), "result": {"token": completed_under},
        });
        let task: Recorded = serde_json::from_value(task).unwrap();
        let ran = ran.iter().map(|&(attempt, fencing_token)| Execution {
            id: "t".to_owned(),
            attempt,
            fencing_token,
            idempotency_key: None,
        });
        let ran: Vec<_> = ran.collect();
        contradiction(&task, &ran.iter().collect::<Vec<_>>()).map(|(rule, _)| rule)
    }

    #[test]
    fn the_holder_of_the_newest_lease_on_record_completes_and_nobody_else() {
        const FIRST: (u32, u64) = (1, 1_000);
        const SECOND: (u32, u64) = (2, 2_000);
        assert_eq!(said((1, 1), 1_000, &[FIRST]), None);
        assert_eq!(said((2, 2), 2_000, &[FIRST, SECOND]), None);
        // A late holder was believed.
        let late = said((2, 2), 1_000, &[FIRST, SECOND]);
        assert_eq!(late, Some(Rule::CompletedTwice));
        // Also when the holder's program had not begun.
        assert_eq!(said((2, 2), 1_000, &[FIRST]), Some(Rule::CompletedTwice));
        // Or when its lease is of the same attempt, since one before was handed back.
        let again = [(1, 1_000), (1, 3_000)];
        assert_eq!(said((1, 3), 3_000, &again), None);
        assert_eq!(said((1, 3), 1_000, &again), Some(Rule::CompletedTwice));
        // Nobody ran it under the token.
        assert_eq!(said((1, 1), 7, &[FIRST]), Some(Rule::CompletedTwice));
        assert_eq!(said((1, 1), 7, &[]), Some(Rule::CompletedTwice));
    }

    #[test]
    fn a_newer_lease_that_is_not_on_record_is_told_apart() {
        // The second was given out by a server that died with it.
        let gone = said((1, 1), 1_000, &[(1, 1_000), (2, 2_000)]);
        assert_eq!(gone, Some(Rule::NewerLeaseGone));
        // By one that did not know yet that another had taken over.
        let gone = said((2, 2), 2_000, &[(1, 1_000), (2, 2_000), (2, 2_500)]);
        assert_eq!(gone, Some(Rule::NewerLeaseGone));
        // Its holder was believed though another lease is on record.
        let believed = said((2, 3), 2_000, &[(1, 1_000), (2, 2_000), (2, 3_000)]);
        assert_eq!(believed, Some(Rule::CompletedTwice));
        // A token that is older than the one before it is no newer lease.
        let shrunk = said((2, 2), 900, &[(1, 1_000), (2, 900)]);
        assert_eq!(shrunk, Some(Rule::NewerLeaseGone));
    }

    #[test]
    fn tokens_that_count_from_1_are_told_apart_too() {
        assert_eq!(said((2, 9), 2, &[(1, 1), (2, 2)]), None);
        assert_eq!(said((1, 9), 2, &[(1, 1), (1, 2)]), None);
        let late = said((1, 9), 1, &[(1, 1), (1, 2)]);
        assert_eq!(late, Some(Rule::CompletedTwice));
    }
}

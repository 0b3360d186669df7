//! Submissions that are in conflict: which of them gives way, waits or is answered with another one's task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use justonce::domain::callback::Callback;
use justonce::domain::submission::Start;
use justonce::domain::task::{Priority, State, Task, TaskId};
use justonce::domain::task_type::{Debounce, DedupMode, OnOlderVersion, TaskType};
use justonce::store::{
    AdmissionAnswer, Admitted, Cancelled, Checked, Found, ListFilter, MatchedBy, Redriven,
    StoreError,
};
use serde_json::{Value, json};

use super::promises;
use crate::support::deadline::{until, within};
use crate::support::store::{
    Draft, Home, LONG, SHORT, Subject, draft, draft_of, embedded, held, memory_with, plain_type,
    recorded, redis_under, redis_with, user,
};

promises!(
    newer_params_take_the_place_of_what_waits,
    a_running_task_is_left_alone,
    the_highest_priority_wins,
    callbacks_move_on_and_fire_once_at_the_last_end,
    a_chain_takes_as_many_callbacks_as_a_task_may_have,
    callbacks_without_room_are_told_of_the_superseded_end,
    a_replay_of_a_superseded_task_tells_nobody_again,
    of_many_at_once_one_waits_and_all_others_name_what_came_after,
    debounced_tasks_wait_for_a_newer_one_up_to_the_cap,
    the_same_content_puts_a_debounced_task_off,
    a_throttled_match_gets_the_first_task_whatever_its_params,
    a_throttling_task_answers_for_its_window_from_its_admission,
    one_waits_behind_the_running_one_with_the_newest_params,
    whoever_waits_behind_starts_at_every_kind_of_end,
    whoever_waits_behind_keeps_its_start_time,
    the_same_content_is_a_duplicate_in_every_mode,
    each_key_keeps_its_own_submission,
    a_repeat_with_its_nonce_is_answered_as_before,
    a_check_tells_what_each_mode_would_do,
    what_is_not_there_is_not_null,
    types_of_one_group_and_others,
    a_batch_is_in_conflict_with_itself,
    a_batch_joins_older_versions_in_its_order,
    a_superseded_task_is_no_failure,
    a_redrive_waits_for_what_is_in_conflict,
    a_forgotten_task_is_in_conflict_with_nothing,
);

fn by_doc(mode: DedupMode, doc: u32, text: &str) -> Draft {
    by(mode, &["/doc"], json!({"doc": doc, "text": text}))
}

fn by(mode: DedupMode, pointers: &[&str], params: Value) -> Draft {
    draft(params).with(|submission| {
        submission.dedup.mode = Some(mode);
        submission.dedup.by = Some(pointers.iter().map(|&one| one.to_owned()).collect());
        if mode == DedupMode::Debounce {
            submission.dedup.debounce = Debounce::new(Duration::ZERO, None);
        }
    })
}

fn debounced(text: &str, delay: Duration, max_delay: Duration) -> Draft {
    by_doc(DedupMode::Debounce, 1, text).with(|submission| {
        submission.dedup.debounce = Debounce::new(delay, Some(max_delay));
    })
}

async fn duplicate(subject: &Subject, draft: &Draft) -> (AdmissionAnswer, MatchedBy) {
    match subject.admit(draft).await {
        Admitted::Duplicate { answer, matched_by } => (answer, matched_by),
        other => panic!("no duplicate: {other:?}"),
    }
}

async fn expect_superseded(subject: &Subject, id: &TaskId, by: &TaskId) {
    let task = subject.task(id).await;
    assert_eq!(
        (task.state, task.superseded_by.as_ref()),
        (State::Cancelled, Some(by))
    );
    assert!(task.finished_at.is_some());
}

async fn all(subject: &Subject) -> BTreeMap<TaskId, Task> {
    let filter = ListFilter {
        limit: 200,
        ..ListFilter::default()
    };
    let page = subject.store.list(&user(), filter).await.unwrap();
    let tasks = page.tasks.into_iter();
    tasks.map(|task| (task.id.clone(), task)).collect()
}

/// How often each URL was told of an end, and of which task's.
async fn told(subject: &Subject) -> BTreeMap<String, Vec<String>> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for task in all(subject).await.values() {
        if task.task_type == Callback::TASK_TYPE {
            let params: Value = serde_json::from_str(task.params.get()).unwrap();
            let text = |name: &str| params[name].as_str().unwrap().to_owned();
            told.entry(text("url")).or_default().push(text("task_id"));
        }
    }
    told
}

async fn newer_params_take_the_place_of_what_waits(subject: Subject) {
    let replace = |text: &str| by_doc(DedupMode::Replace, 1, text);
    let other = subject.new_task(&by_doc(DedupMode::Replace, 2, "a")).await;
    // Scheduled, queued, and waiting for its next attempt.
    let later = |s: &mut justonce::domain::submission::Submission| {
        s.start = Start::After(Duration::from_secs(3600));
    };
    let scheduled = subject.new_task(&replace("a").with(later)).await;
    let queued = subject.new_task(&replace("b")).await;
    expect_superseded(&subject, &scheduled.id, &queued.id).await;
    let mut leases = subject.lease_many(9, LONG).await;
    leases.sort_by_key(|lease| lease.task.id != queued.id);
    assert_eq!(leases.len(), 2, "a superseded task is leased");
    recorded(subject.fail(&leases[0], Some(LONG)).await);
    assert_eq!(subject.task(&queued.id).await.state, State::Retrying);
    let newest = subject.new_task(&replace("c")).await;
    expect_superseded(&subject, &queued.id, &newest.id).await;
    assert_eq!(newest.state, State::Queued);
    assert_eq!(subject.lease(LONG).await.task.id, newest.id);
    assert_eq!(subject.task(&other.id).await.state, State::Running);
}

async fn a_running_task_is_left_alone(subject: Subject) {
    let replace = |text: &str| by_doc(DedupMode::Replace, 1, text);
    let running = subject.new_task(&replace("a")).await;
    let lease = subject.lease(LONG).await;
    let second = subject.new_task(&replace("b")).await;
    let third = subject.new_task(&replace("c")).await;
    expect_superseded(&subject, &second.id, &third.id).await;
    let done = recorded(subject.complete(&lease, "1").await);
    assert_eq!((done.id, done.state), (running.id, State::Succeeded));
    assert_eq!(subject.lease(LONG).await.task.id, third.id);
}

async fn the_highest_priority_wins(subject: Subject) {
    let of = |text: &str, priority: u64| {
        by_doc(DedupMode::Replace, 1, text)
            .with(|submission| submission.priority = Priority::new(priority))
    };
    subject.new_task(&of("a", 6)).await;
    subject.new_task(&of("b", 2)).await;
    let last = subject.new_task(&of("c", 5)).await;
    assert_eq!(last.priority.value(), 2);
    assert_eq!(subject.task(&last.id).await.priority.value(), 2);
    // One that joins may raise it in every state that waits.
    let same = of("c", 1);
    duplicate(&subject, &same).await;
    assert_eq!(subject.task(&last.id).await.priority.value(), 1);
    let between = subject
        .new_task(&draft(json!({"between": true})).with(|s| s.priority = Priority::new(2)))
        .await;
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, last.id, "{} went first", between.id);
    recorded(subject.fail(&lease, Some(LONG)).await);
    duplicate(&subject, &of("c", 0)).await;
    let waiting = subject.task(&last.id).await;
    assert_eq!(
        (waiting.state, waiting.priority.value()),
        (State::Retrying, 0)
    );
}

async fn callbacks_move_on_and_fire_once_at_the_last_end(subject: Subject) {
    let of = |n: u32| {
        by_doc(DedupMode::Replace, 1, &n.to_string()).callback(&format!("https://{n}.example/"))
    };
    let mut last = None;
    for n in 0..4 {
        last = Some(subject.new_task(&of(n)).await.id);
    }
    // One without, and one that is known already.
    let plain = by_doc(DedupMode::Replace, 1, "plain");
    subject.new_task(&plain).await;
    let again = by_doc(DedupMode::Replace, 1, "again").callback("https://0.example/");
    let newest = subject.new_task(&again).await;
    assert!(last.is_some_and(|last| last != newest.id));
    assert_eq!(told(&subject).await.len(), 0, "a superseded end was told");
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, newest.id);
    recorded(subject.complete(&lease, "1").await);
    let told = told(&subject).await;
    assert_eq!(told.len(), 4);
    for (url, ends) in told {
        assert_eq!(ends, [newest.id.to_string()], "{url}");
    }
}

async fn a_chain_takes_as_many_callbacks_as_a_task_may_have(subject: Subject) {
    let of = |n: usize| {
        by_doc(DedupMode::Replace, 1, &n.to_string()).callback(&format!("https://{n}.example/"))
    };
    for n in 0..Callback::PER_TASK_MAX {
        let Admitted::New(answer) = subject.admit(&of(n)).await else {
            panic!("not new");
        };
        assert!(answer.ignored.is_empty(), "{n}: {:?}", answer.ignored);
    }
    let Admitted::New(answer) = subject.admit(&of(Callback::PER_TASK_MAX)).await else {
        panic!("not new");
    };
    assert_eq!(answer.ignored, ["/callback_url"]);
    recorded(subject.complete(&subject.lease(LONG).await, "1").await);
    assert_eq!(told(&subject).await.len(), Callback::PER_TASK_MAX);
}

async fn callbacks_without_room_are_told_of_the_superseded_end(subject: Subject) {
    let of = |mode, text: &str, n: usize| {
        by_doc(mode, 1, text).callback(&format!("https://{text}-{n}.example/"))
    };
    let (begun, waiting) = ("begun", "waiting");
    let first = subject.new_task(&of(DedupMode::KeepLast, begun, 0)).await;
    let lease = subject.lease(LONG).await;
    let second = subject.new_task(&of(DedupMode::KeepLast, waiting, 0)).await;
    for text in [begun, waiting] {
        for n in 1..Callback::PER_TASK_MAX {
            let (answer, _) = duplicate(&subject, &of(DedupMode::KeepLast, text, n)).await;
            assert!(answer.ignored.is_empty(), "{:?}", answer.ignored);
        }
    }
    recorded(subject.fail(&lease, Some(LONG)).await);
    let newest = subject.new_task(&by_doc(DedupMode::Replace, 1, "c")).await;
    for old in [&first, &second] {
        expect_superseded(&subject, &old.id, &newest.id).await;
    }
    let cancelled = subject.store.cancel(&user(), &newest.id).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done { .. }));
    let told = told(&subject).await;
    assert_eq!(told.len(), 2 * Callback::PER_TASK_MAX);
    for (url, ends) in told {
        let by = match url.contains(begun) {
            true => &newest.id,
            false => &second.id,
        };
        assert_eq!(ends, [by.to_string()], "{url}");
    }
}

async fn a_replay_of_a_superseded_task_tells_nobody_again(subject: Subject) {
    let url = "https://a.example/";
    let of = |text: &str| by_doc(DedupMode::Replace, 1, text);
    let first = of("a").key("a").callback(url);
    let old = subject.new_task(&first).await;
    let newer = subject.new_task(&of("b")).await;
    let newest = subject.new_task(&of("c")).await;
    let (answer, _) = duplicate(&subject, &first).await;
    assert_eq!(answer.task.id, old.id);
    assert_eq!(told(&subject).await.len(), 0, "a replay was told");
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, newest.id);
    recorded(subject.complete(&lease, "1").await);
    duplicate(&subject, &first).await;
    let of_newest = [(url.to_owned(), vec![newest.id.to_string()])];
    assert_eq!(told(&subject).await, of_newest.into());
    expect_superseded(&subject, &old.id, &newer.id).await;
}

async fn of_many_at_once_one_waits_and_all_others_name_what_came_after(subject: Subject) {
    const AT_ONCE: usize = 14;
    for (doc, mode) in [DedupMode::Replace, DedupMode::Debounce, DedupMode::KeepLast]
        .into_iter()
        .enumerate()
    {
        let doc = doc as u32;
        let of = |n: usize| {
            by_doc(mode, doc, &n.to_string()).callback(&format!("https://{doc}-{n}.example/"))
        };
        let running = match mode {
            DedupMode::KeepLast => {
                subject.new_task(&by_doc(mode, doc, "running")).await;
                Some(subject.lease(LONG).await)
            }
            _ => None,
        };
        let barrier = Arc::new(tokio::sync::Barrier::new(AT_ONCE));
        let admissions = (0..AT_ONCE).map(|n| {
            let (store, barrier, draft) = (subject.store.clone(), barrier.clone(), of(n));
            tokio::spawn(async move {
                barrier.wait().await;
                store.admit(draft.admission()).await.unwrap()
            })
        });
        let admitted = within("all admissions", futures_util::future::join_all(admissions)).await;
        let mut ids = BTreeSet::new();
        for one in admitted {
            match one.unwrap() {
                Admitted::New(answer) => assert!(ids.insert(answer.task.id.clone())),
                other => panic!("not new: {other:?}"),
            }
        }
        let tasks = all(&subject).await;
        let unfinished: Vec<_> = ids
            .iter()
            .filter(|&id| !tasks[id].state.is_ended())
            .collect();
        let [last] = unfinished[..] else {
            panic!("{mode:?}: not one waits: {unfinished:?}");
        };
        for id in &ids {
            // Whatever the way, it ends at the one that waits.
            let mut at = id;
            let mut steps = 0;
            while let Some(next) = &tasks[at].superseded_by {
                assert_eq!(tasks[at].state, State::Cancelled);
                assert!(ids.contains(next));
                at = next;
                steps += 1;
                assert!(steps < AT_ONCE, "{mode:?}: a circle");
            }
            assert_eq!(at, last, "{mode:?}");
        }
        if let Some(running) = running {
            assert!(subject.lease_many(9, LONG).await.is_empty());
            recorded(subject.complete(&running, "1").await);
        }
        let lease = subject.lease(LONG).await;
        assert_eq!(&lease.task.id, last);
        recorded(subject.complete(&lease, "1").await);
        let told = told(&subject).await;
        let of_mode = told
            .iter()
            .filter(|(url, _)| url.starts_with(&format!("https://{doc}-")));
        let of_mode: Vec<_> = of_mode.collect();
        assert_eq!(of_mode.len(), AT_ONCE, "{mode:?}");
        for (url, ends) in of_mode {
            assert_eq!(*ends, [last.to_string()], "{mode:?} {url}");
        }
    }
}

async fn debounced_tasks_wait_for_a_newer_one_up_to_the_cap(subject: Subject) {
    let hour = Duration::from_secs(3600);
    let first = subject.new_task(&debounced("a", hour, 2 * hour)).await;
    assert_eq!(first.state, State::Scheduled);
    assert_eq!(first.scheduled_at, Some(first.created_at.plus(hour)));
    let second = subject.new_task(&debounced("b", hour, 2 * hour)).await;
    expect_superseded(&subject, &first.id, &second.id).await;
    assert_eq!(second.scheduled_at, Some(second.created_at.plus(hour)));
    // The cap counts from the first of the chain, as the newest submission says it.
    let third = subject.new_task(&debounced("c", 2 * hour, 2 * hour)).await;
    assert_eq!(third.scheduled_at, Some(first.created_at.plus(2 * hour)));
    assert!(subject.lease_many(9, LONG).await.is_empty());
    let cap = Duration::from_millis(1);
    until("the cap to be over", async || {
        let text = format!("d{:?}", std::time::Instant::now());
        let next = subject
            .new_task(&debounced(&text, Duration::ZERO, cap))
            .await;
        (next.state == State::Queued).then_some(())
    })
    .await;
    let started = subject.lease(LONG).await;
    // A new chain begins once one has started.
    let next = subject.new_task(&debounced("e", hour, hour)).await;
    assert_eq!(next.scheduled_at, Some(next.created_at.plus(hour)));
    assert_eq!(subject.task(&started.task.id).await.state, State::Running);
    // A delay that is over starts the task.
    let soon = subject
        .new_task(&debounced("f", Duration::from_millis(30), 9 * hour))
        .await;
    expect_superseded(&subject, &next.id, &soon.id).await;
    assert_eq!(subject.lease(LONG).await.task.id, soon.id);
}

async fn the_same_content_puts_a_debounced_task_off(subject: Subject) {
    let hour = Duration::from_secs(3600);
    let one = debounced("a", hour, 2 * hour);
    let first = subject.new_task(&one.clone().key("k")).await;
    let start = async || {
        let task = subject.task(&first.id).await;
        assert_eq!(task.state, State::Scheduled);
        task.scheduled_at.unwrap()
    };
    let at_first = start().await;
    let (answer, matched_by) = duplicate(&subject, &debounced("a", 2 * hour, 9 * hour)).await;
    assert_eq!(
        (&answer.task.id, matched_by),
        (&first.id, MatchedBy::Fingerprint)
    );
    assert!(start().await > at_first);
    assert_eq!(answer.task.scheduled_at, Some(start().await));
    // A replay is no submission of today: it puts nothing off, and brings nothing forward.
    let moved = start().await;
    let (_, matched_by) = duplicate(&subject, &one.clone().key("k")).await;
    assert_eq!(matched_by, MatchedBy::IdempotencyKey);
    assert_eq!(start().await, moved);
    // Never beyond the cap.
    duplicate(&subject, &debounced("a", 9 * hour, 9 * hour)).await;
    assert_eq!(start().await, first.created_at.plus(9 * hour));
    let brought = debounced("a", Duration::ZERO, Duration::ZERO);
    duplicate(&subject, &brought).await;
    assert_eq!(subject.lease(LONG).await.task.id, first.id);
    duplicate(&subject, &one).await;
    assert_eq!(subject.task(&first.id).await.state, State::Running);
}

async fn a_throttled_match_gets_the_first_task_whatever_its_params(subject: Subject) {
    let throttle = |text: &str| by_doc(DedupMode::Throttle, 1, text);
    let first = subject.new_task(&throttle("a").key("a")).await;
    let expect_first = async |draft: &Draft, by: MatchedBy| {
        let (answer, matched_by) = duplicate(&subject, draft).await;
        assert_eq!((&answer.task.id, matched_by), (&first.id, by));
        *answer.task
    };
    let other = MatchedBy::DedupBy;
    expect_first(&throttle("a"), MatchedBy::Fingerprint).await;
    expect_first(&throttle("b"), other).await;
    expect_first(&throttle("c").key("c"), other).await;
    let lease = subject.lease(LONG).await;
    expect_first(&throttle("d"), other).await;
    recorded(subject.complete(&lease, "7").await);
    let done = expect_first(&throttle("e"), other).await;
    assert_eq!(done.state, State::Succeeded);
    assert_eq!(done.throttles_until, done.dedup_expires_at);
    // What is remembered of an answer is no answer for other modes.
    for _ in 0..3 {
        expect_first(&throttle("e"), other).await;
    }
    subject
        .new_task(&draft(json!({"doc": 1, "text": "e"})))
        .await;
    // A key that was throttled keeps its own submission.
    let (answer, matched_by) = duplicate(&subject, &throttle("c").key("c")).await;
    assert_eq!(
        (&answer.task.id, matched_by),
        (&first.id, MatchedBy::IdempotencyKey)
    );
    let Admitted::KeyReused { differs } = subject.admit(&throttle("a").key("c")).await else {
        panic!("the key of one submission took another");
    };
    assert_eq!(differs, ["/params/text"]);
    // Failed ones answer too, and cancelled ones do not.
    let failed = subject.new_task(&by_doc(DedupMode::Throttle, 2, "a")).await;
    until("it to fail", async || {
        let lease = subject.lease(LONG).await;
        recorded(subject.fail(&lease, None).await);
        (lease.task.id == failed.id).then_some(())
    })
    .await;
    let (answer, _) = duplicate(&subject, &by_doc(DedupMode::Throttle, 2, "b")).await;
    assert_eq!(
        (answer.task.id, answer.task.state),
        (failed.id, State::Failed)
    );
    let cancelled = subject.new_task(&by_doc(DedupMode::Throttle, 3, "a")).await;
    subject.store.cancel(&user(), &cancelled.id).await.unwrap();
    subject.new_task(&by_doc(DedupMode::Throttle, 3, "b")).await;
}

async fn a_throttling_task_answers_for_its_window_from_its_admission(subject: Subject) {
    let window = Duration::from_millis(150);
    let throttle =
        |text: &str| by_doc(DedupMode::Throttle, 1, text).with(|s| s.dedup.window = Some(window));
    let first = subject.succeeded(&throttle("a")).await;
    assert_eq!(first.dedup_expires_at, Some(first.created_at.plus(window)));
    let second = until("the window to be over", async || {
        match subject.admit(&throttle("a")).await {
            Admitted::New(answer) => Some(*answer.task),
            Admitted::Duplicate { answer, .. } => {
                assert_eq!(answer.task.id, first.id);
                None
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert!(second.created_at >= first.created_at.plus(window));
    // Unfinished work of other content is left alone.
    let third = until("the window to be over", async || {
        match subject.admit(&throttle("b")).await {
            Admitted::New(answer) => Some(*answer.task),
            Admitted::Duplicate { answer, .. } => {
                assert_eq!(answer.task.id, second.id);
                None
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert_eq!(subject.task(&second.id).await.state, State::Queued);
    assert_eq!(subject.task(&third.id).await.state, State::Queued);
}

async fn one_waits_behind_the_running_one_with_the_newest_params(subject: Subject) {
    let keep_last = |text: &str| by_doc(DedupMode::KeepLast, 1, text);
    // Nothing runs yet: the newer one takes the place of what waits.
    let early = subject.new_task(&keep_last("early")).await;
    let running = subject.new_task(&keep_last("a")).await;
    expect_superseded(&subject, &early.id, &running.id).await;
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, running.id);
    let second = subject.new_task(&keep_last("b")).await;
    let third = subject.new_task(&keep_last("c")).await;
    expect_superseded(&subject, &second.id, &third.id).await;
    assert_eq!(third.state, State::Scheduled);
    // A duplicate of it brings nothing forward.
    duplicate(&subject, &draft(json!({"doc": 1, "text": "c"}))).await;
    subject.rescue().await;
    assert!(subject.lease_many(9, LONG).await.is_empty());
    assert_eq!(subject.task(&running.id).await.state, State::Running);
    recorded(subject.complete(&lease, "1").await);
    assert_eq!(subject.lease(LONG).await.task.id, third.id);
    assert!(subject.lease_many(9, LONG).await.is_empty());
    let waiting = subject.new_task(&keep_last("d")).await;
    assert_eq!(waiting.state, State::Scheduled);
    // Whoever waits may be cancelled, and the next one waits again.
    subject.store.cancel(&user(), &waiting.id).await.unwrap();
    let next = subject.new_task(&keep_last("e")).await;
    assert_eq!(next.state, State::Scheduled);
    assert_eq!(subject.task(&waiting.id).await.superseded_by, None);
    // Other values wait for nobody.
    let other = subject.new_task(&by_doc(DedupMode::KeepLast, 2, "a")).await;
    assert_eq!(other.state, State::Queued);
}

async fn whoever_waits_behind_starts_at_every_kind_of_end(subject: Subject) {
    for (doc, end) in ["failed", "stopped", "lost", "lost after a cancel"]
        .into_iter()
        .enumerate()
    {
        let one_attempt = || {
            let mut made = plain_type();
            made.retry.max_attempts = 2;
            made
        };
        let of = |text: &str| {
            draft_of(one_attempt(), json!({"doc": doc, "text": text})).with(|submission| {
                submission.dedup.mode = Some(DedupMode::KeepLast);
                submission.dedup.by = Some(vec!["/doc".to_owned()]);
            })
        };
        let running = subject.new_task(&of("running")).await;
        let lease = subject.lease(LONG).await;
        let waiting = subject.new_task(&of("waiting")).await;
        // Neither the end of an attempt nor a lease that is handed back is an end.
        recorded(subject.store.release(held(&lease)).await.unwrap());
        let lease = subject.lease(LONG).await;
        recorded(subject.fail(&lease, Some(Duration::ZERO)).await);
        let span = if end.starts_with("lost") { SHORT } else { LONG };
        let lease = subject.lease(span).await;
        assert_eq!(lease.task.id, running.id, "{end}");
        assert_eq!(subject.task(&waiting.id).await.state, State::Scheduled);
        match end {
            "failed" => drop(recorded(subject.fail(&lease, Some(LONG)).await)),
            "lost" => {}
            _ => {
                let cancelled = subject.store.cancel(&user(), &running.id).await.unwrap();
                assert!(matches!(cancelled, Cancelled::Done { stopping: true, .. }));
                let waits = subject.task(&waiting.id).await;
                assert_eq!(waits.state, State::Scheduled, "it has not stopped yet");
                if end == "stopped" {
                    recorded(subject.fail(&lease, None).await);
                }
            }
        }
        let next = subject.lease(LONG).await;
        assert_eq!(next.task.id, waiting.id, "{end}");
        assert!(subject.task(&running.id).await.state.is_ended(), "{end}");
        recorded(subject.complete(&next, "1").await);
    }
}

async fn whoever_waits_behind_keeps_its_start_time(subject: Subject) {
    let keep_last = |text: &str| by_doc(DedupMode::KeepLast, 1, text);
    subject.new_task(&keep_last("running")).await;
    let lease = subject.lease(LONG).await;
    let later = keep_last("later").with(|s| s.start = Start::After(Duration::from_secs(3600)));
    let later = subject.new_task(&later).await;
    recorded(subject.complete(&lease, "1").await);
    subject.rescue().await;
    assert!(subject.lease_many(9, LONG).await.is_empty());
    let waits = subject.task(&later.id).await;
    assert_eq!(waits.state, State::Scheduled);
    assert_eq!(
        waits.scheduled_at,
        Some(later.created_at.plus(Duration::from_secs(3600)))
    );
    // A duplicate that may start at once starts it.
    duplicate(&subject, &draft(json!({"doc": 1, "text": "later"}))).await;
    assert_eq!(subject.lease(LONG).await.task.id, later.id);
}

async fn the_same_content_is_a_duplicate_in_every_mode(subject: Subject) {
    for (doc, mode) in [
        DedupMode::Replace,
        DedupMode::Debounce,
        DedupMode::Throttle,
        DedupMode::KeepLast,
    ]
    .into_iter()
    .enumerate()
    {
        for named in [true, false] {
            let params = json!({"doc": doc, "named": named});
            let one = by(mode, &["/doc", "/named"], params).with(|submission| {
                submission.dedup.by = submission.dedup.by.take().filter(|_| named);
            });
            let task = subject.new_task(&one).await;
            for _ in 0..2 {
                let (answer, by) = duplicate(&subject, &one).await;
                assert_eq!((&answer.task.id, by), (&task.id, MatchedBy::Fingerprint));
            }
            let lease = subject.lease(LONG).await;
            duplicate(&subject, &one).await;
            recorded(subject.complete(&lease, "1").await);
            let (answer, _) = duplicate(&subject, &one).await;
            assert_eq!(answer.task.state, State::Succeeded, "{mode:?}");
        }
    }
}

async fn each_key_keeps_its_own_submission(subject: Subject) {
    let replace = |text: &str| by_doc(DedupMode::Replace, 1, text);
    let first = subject.new_task(&replace("a").key("a")).await;
    let second = subject.new_task(&replace("b").key("b")).await;
    let (answer, by) = duplicate(&subject, &replace("a").key("a")).await;
    assert_eq!(
        (&answer.task.id, by),
        (&first.id, MatchedBy::IdempotencyKey)
    );
    assert_eq!(answer.task.state, State::Cancelled);
    assert_eq!(answer.task.superseded_by, Some(second.id.clone()));
    assert!(answer.key_expires_at.is_some());
    assert!(matches!(
        subject.admit(&replace("c").key("a")).await,
        Admitted::KeyReused { .. }
    ));
    // What was refused has taken nobody's place.
    assert_eq!(subject.task(&second.id).await.state, State::Queued);
}

async fn a_repeat_with_its_nonce_is_answered_as_before(subject: Subject) {
    let hour = Duration::from_secs(3600);
    for (doc, mode) in [
        DedupMode::Replace,
        DedupMode::Debounce,
        DedupMode::Throttle,
        DedupMode::KeepLast,
    ]
    .into_iter()
    .enumerate()
    {
        let of = |text: &str| {
            by_doc(mode, doc as u32, text).with(|submission| {
                if mode == DedupMode::Debounce {
                    submission.dedup.debounce = Debounce::new(hour, None);
                }
            })
        };
        let first = of("a").admission();
        let second = of("b").admission();
        let mut ids = Vec::new();
        for admission in [&first, &first, &second, &second, &first] {
            ids.push(
                match subject.store.admit(admission.clone()).await.unwrap() {
                    Admitted::New(answer) => answer.task.id,
                    Admitted::Duplicate { answer, .. } if mode == DedupMode::Throttle => {
                        answer.task.id
                    }
                    other => panic!("{mode:?}: {other:?}"),
                },
            );
        }
        let one = &first.task_id;
        let two = match mode {
            DedupMode::Throttle => one,
            _ => &second.task_id,
        };
        assert_eq!(ids.iter().collect::<Vec<_>>(), [one, one, two, two, one]);
        if mode != DedupMode::Throttle {
            expect_superseded(&subject, one, two).await;
        }
        let last = subject.task(two).await;
        assert!(!last.state.is_ended());
        if mode != DedupMode::Throttle {
            assert_eq!(last.duplicates, 0, "{mode:?}");
        }
    }
}

async fn a_check_tells_what_each_mode_would_do(subject: Subject) {
    let check = async |draft: &Draft| subject.store.check(draft.admission()).await.unwrap();
    for (doc, mode) in [
        DedupMode::Replace,
        DedupMode::Debounce,
        DedupMode::Throttle,
        DedupMode::KeepLast,
    ]
    .into_iter()
    .enumerate()
    {
        let of = |text: &str| by_doc(mode, doc as u32, text);
        assert!(matches!(check(&of("a")).await, Checked::New));
        let task = subject.new_task(&of("a")).await;
        let Checked::Duplicate {
            task: same,
            matched_by,
            ..
        } = check(&of("a")).await
        else {
            panic!("{mode:?}: the same content is no duplicate");
        };
        assert_eq!(
            (same.id, matched_by),
            (task.id.clone(), MatchedBy::Fingerprint)
        );
        match check(&of("b")).await {
            Checked::New => assert_ne!(mode, DedupMode::Throttle),
            Checked::Duplicate {
                task: found,
                matched_by,
                expires_at,
            } => {
                assert_eq!(mode, DedupMode::Throttle);
                assert_eq!(
                    (found.id, matched_by),
                    (task.id.clone(), MatchedBy::DedupBy)
                );
                assert_eq!(
                    expires_at,
                    Some(task.created_at.plus(Duration::from_secs(3600)))
                );
            }
            other => panic!("{mode:?}: {other:?}"),
        }
        let after = subject.task(&task.id).await;
        assert!(
            !after.state.is_ended(),
            "{mode:?}: a check changed something"
        );
    }
}

async fn what_is_not_there_is_not_null(subject: Subject) {
    let of = |params: Value| by(DedupMode::Replace, &["/doc"], params);
    let absent = subject.new_task(&of(json!({"text": 1}))).await;
    let null = subject.new_task(&of(json!({"doc": null}))).await;
    let word = subject.new_task(&of(json!({"doc": "absent"}))).await;
    for task in [&absent, &null, &word] {
        assert_eq!(subject.task(&task.id).await.state, State::Queued);
    }
    let newer = subject.new_task(&of(json!({"text": 2}))).await;
    expect_superseded(&subject, &absent.id, &newer.id).await;
    let newer = subject.new_task(&of(json!({"doc": null, "text": 2}))).await;
    expect_superseded(&subject, &null.id, &newer.id).await;
}

async fn types_of_one_group_and_others(subject: Subject) {
    let of = |name: &str, group: Option<&str>, version: u32, text: &str| {
        let mut made = TaskType {
            name: name.to_owned(),
            version,
            ..plain_type()
        };
        made.dedup.mode = DedupMode::Replace;
        made.dedup.by = vec!["/doc".to_owned()];
        made.dedup.group = group.map(str::to_owned);
        draft_of(made, json!({"doc": 1, "text": text}))
    };
    let alone = subject.new_task(&of("plain", None, 1, "a")).await;
    let other = subject.new_task(&of("other", None, 1, "a")).await;
    let stranger = subject
        .store
        .admit(of("plain", None, 1, "b").user("somebody").admission())
        .await
        .unwrap();
    assert!(matches!(stranger, Admitted::New(_)));
    let first = subject.new_task(&of("one", Some("g"), 1, "a")).await;
    let second = subject.new_task(&of("two", Some("g"), 1, "b")).await;
    expect_superseded(&subject, &first.id, &second.id).await;
    for task in [&alone, &other] {
        assert_eq!(subject.task(&task.id).await.state, State::Queued);
    }
    // Work of a newer version takes the place of older work.
    let newer = subject.new_task(&of("plain", None, 2, "a")).await;
    expect_superseded(&subject, &alone.id, &newer.id).await;
}

async fn a_batch_is_in_conflict_with_itself(subject: Subject) {
    let hour = Duration::from_secs(3600);
    let drafts = [
        by_doc(DedupMode::Replace, 1, "a").key("a"),
        draft(json!({"plain": 1})),
        by_doc(DedupMode::Replace, 1, "b"),
        by_doc(DedupMode::Replace, 1, "b"),
        by_doc(DedupMode::Replace, 1, "a").key("a"),
        by_doc(DedupMode::Throttle, 2, "a"),
        by_doc(DedupMode::Throttle, 2, "b").key("t"),
        by_doc(DedupMode::Throttle, 2, "b").key("t"),
        // On the same values as the first ones.
        debounced("x", hour, hour),
        debounced("y", hour, hour),
    ];
    let admissions: Vec<_> = drafts.iter().map(Draft::admission).collect();
    let admitted = subject.store.admit_many(admissions.clone()).await;
    let found = |one: Result<Admitted, StoreError>| match one.unwrap() {
        Admitted::New(answer) => (answer.task.id.clone(), None),
        Admitted::Duplicate { answer, matched_by } => (answer.task.id.clone(), Some(matched_by)),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = admitted.into_iter().map(found).collect();
    let new = |at: usize| (admissions[at].task_id.clone(), None);
    let of = |at: usize, by| (admissions[at].task_id.clone(), Some(by));
    assert_eq!(
        found,
        [
            new(0),
            new(1),
            new(2),
            of(2, MatchedBy::Fingerprint),
            of(0, MatchedBy::IdempotencyKey),
            new(5),
            of(5, MatchedBy::DedupBy),
            of(5, MatchedBy::IdempotencyKey),
            new(8),
            new(9),
        ]
    );
    // What made tasks is answered as before when it comes once more.
    for at in [0, 1, 2, 5, 8, 9] {
        let again = subject.store.admit(admissions[at].clone()).await.unwrap();
        let Admitted::New(answer) = again else {
            panic!("{at}: {again:?}");
        };
        assert_eq!(answer.task.id, admissions[at].task_id);
    }
    expect_superseded(&subject, &admissions[0].task_id, &admissions[2].task_id).await;
    expect_superseded(&subject, &admissions[2].task_id, &admissions[8].task_id).await;
    expect_superseded(&subject, &admissions[8].task_id, &admissions[9].task_id).await;
}

async fn a_batch_joins_older_versions_in_its_order(subject: Subject) {
    let of = |version: u32, text: &str| {
        let mut made = TaskType {
            version,
            ..plain_type()
        };
        made.dedup.mode = DedupMode::Replace;
        made.dedup.by = vec!["/doc".to_owned()];
        made.dedup.on_older_version = OnOlderVersion::Reuse;
        draft_of(made, json!({"doc": 1, "text": text}))
    };
    let old = subject.new_task(&of(1, "a")).await;
    let batch = [of(2, "a").key("a"), of(2, "b")].map(|draft| draft.admission());
    let newest = batch[1].task_id.clone();
    let admitted = subject.store.admit_many(batch.to_vec()).await;
    let [Ok(Admitted::Duplicate { answer, .. }), Ok(Admitted::New(_))] = &admitted[..] else {
        panic!("{admitted:?}");
    };
    assert_eq!(answer.task.id, old.id);
    expect_superseded(&subject, &old.id, &newest).await;
    assert_eq!(subject.task(&newest).await.state, State::Queued);
}

async fn a_superseded_task_is_no_failure(subject: Subject) {
    for text in ["a", "b", "c"] {
        subject.new_task(&by_doc(DedupMode::Replace, 1, text)).await;
    }
    duplicate(&subject, &by_doc(DedupMode::Replace, 1, "c")).await;
    let stats = subject.store.stats(Some(&user())).await.unwrap();
    let tally = &stats.windows.all;
    assert_eq!((tally.accepted, tally.failures), (3, 0));
    assert_eq!(tally.duplicates_by_fingerprint, 1);
    let throttle = |text: &str| by_doc(DedupMode::Throttle, 2, text);
    let first = subject.new_task(&throttle("a")).await;
    duplicate(&subject, &throttle("b")).await;
    let Found::Here(ledger) = subject.store.ledger(&user(), &first.id).await.unwrap() else {
        panic!("no ledger");
    };
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].matched_by, MatchedBy::DedupBy);
    let stats = subject.store.stats(Some(&user())).await.unwrap();
    assert_eq!(stats.windows.all.duplicates_by_fingerprint, 2);
}

async fn a_redrive_waits_for_what_is_in_conflict(subject: Subject) {
    let replace = |text: &str| by_doc(DedupMode::Replace, 1, text);
    let first = subject.new_task(&replace("a")).await;
    let second = subject.new_task(&replace("b")).await;
    let redrive = async || subject.store.redrive(&user(), &first.id).await.unwrap();
    let Redriven::Blocked(by) = redrive().await else {
        panic!("two of one match wait");
    };
    assert_eq!(by, second.id);
    recorded(subject.complete(&subject.lease(LONG).await, "1").await);
    let Redriven::Done(task) = redrive().await else {
        panic!("nothing blocks it");
    };
    assert_eq!((task.state, task.superseded_by), (State::Queued, None));
    let third = subject.new_task(&replace("c")).await;
    expect_superseded(&subject, &first.id, &third.id).await;
}

async fn a_forgotten_task_is_in_conflict_with_nothing(subject: Subject) {
    let throttle = |text: &str| by_doc(DedupMode::Throttle, 1, text);
    let first = subject.succeeded(&throttle("a")).await;
    duplicate(&subject, &throttle("b")).await;
    subject.store.forget(&user(), &first.id).await.unwrap();
    let second = subject.new_task(&throttle("b")).await;
    duplicate(&subject, &throttle("c")).await;
    // A superseded one may be forgotten like any other.
    let replace = |text: &str| by_doc(DedupMode::Replace, 2, text);
    let old = subject.new_task(&replace("a")).await;
    let new = subject.new_task(&replace("b")).await;
    subject.store.forget(&user(), &old.id).await.unwrap();
    assert_eq!(subject.task(&new.id).await.state, State::Queued);
    assert_eq!(subject.task(&second.id).await.state, State::Queued);
}

/// What takes a place needs no more room.
async fn a_full_queue_still_takes_what_supersedes(subject: Subject) {
    let replace = |doc: u32, text: &str| by_doc(DedupMode::Replace, doc, text);
    subject.new_task(&replace(1, "a")).await;
    let waiting = subject.new_task(&replace(2, "a")).await;
    assert!(matches!(
        subject.admit(&replace(3, "a")).await,
        Admitted::QueueFull
    ));
    let newer = subject.new_task(&replace(2, "b")).await;
    expect_superseded(&subject, &waiting.id, &newer.id).await;
    assert!(matches!(
        subject.admit(&replace(3, "a")).await,
        Admitted::QueueFull
    ));
    recorded(subject.complete(&subject.lease(LONG).await, "1").await);
    subject.new_task(&replace(3, "a")).await;
}

#[tokio::test]
async fn a_full_queue_of_an_embedded_store_still_takes_what_supersedes() {
    a_full_queue_still_takes_what_supersedes(memory_with(2).await).await;
}

#[tokio::test]
async fn a_full_queue_of_redis_still_takes_what_supersedes() {
    a_full_queue_still_takes_what_supersedes(redis_with(2).await).await;
}

/// Only of stores in a file.
#[tokio::test]
async fn conflicts_outlive_the_process() {
    let hour = Duration::from_secs(3600);
    let subject = embedded().await;
    let home = subject.home.clone();
    let keep_last = |text: &str| by_doc(DedupMode::KeepLast, 2, text);
    let running = subject.new_task(&keep_last("a")).await;
    let lease = subject.lease(LONG).await;
    let behind = subject.new_task(&keep_last("b")).await;
    let chained = subject.new_task(&debounced("a", hour, hour)).await;
    let throttling = subject.new_task(&by_doc(DedupMode::Throttle, 3, "a")).await;
    let subject = subject.reopened().await;
    let newer = subject.new_task(&debounced("b", hour, hour)).await;
    assert_eq!(newer.scheduled_at, Some(chained.created_at.plus(hour)));
    expect_superseded(&subject, &chained.id, &newer.id).await;
    let (answer, _) = duplicate(&subject, &by_doc(DedupMode::Throttle, 3, "b")).await;
    assert_eq!(answer.task.id, throttling.id);
    let newest = subject.new_task(&keep_last("c")).await;
    expect_superseded(&subject, &behind.id, &newest.id).await;
    // The lease was lost with the process: the task runs again, and is still waited for.
    assert!(lease.task.id == running.id);
    let mut left = BTreeSet::from([running.id.clone(), throttling.id, newest.id.clone()]);
    while !left.is_empty() {
        let next = subject.lease(LONG).await;
        assert!(
            next.task.id != newest.id || !left.contains(&running.id),
            "it did not wait"
        );
        recorded(subject.complete(&next, "1").await);
        assert!(left.remove(&next.task.id));
    }
    home.expect_sound().await;
}

/// Only of stores in a file. What Redis does with such records stands in redis_damage.rs.
#[tokio::test]
async fn a_row_that_cannot_be_read_holds_up_nobody_in_conflict_with_it() {
    let subject = embedded().await;
    let Home::Folder(folder) = subject.home.clone() else {
        panic!("not a store in a file");
    };
    let mut leases = Vec::new();
    let mut waiting = Vec::new();
    for doc in 1..=2 {
        let keep_last = |text: &str| by_doc(DedupMode::KeepLast, doc, text);
        subject.new_task(&keep_last("a")).await;
        let span = if doc == 1 { LONG } else { SHORT };
        leases.push(subject.lease(span).await);
        waiting.push(subject.new_task(&keep_last("b")).await.id);
    }
    let throttle = |text: &str| by_doc(DedupMode::Throttle, 3, text);
    waiting.push(subject.new_task(&throttle("a")).await.id);
    let conn = rusqlite::Connection::open(folder.path().join("justonce.db")).unwrap();
    for id in &waiting {
        let damage = "UPDATE task SET submission = '{' WHERE id = ?1";
        assert_eq!(conn.execute(damage, [id.as_str()]).unwrap(), 1);
    }
    drop(conn);
    let newest = subject.new_task(&by_doc(DedupMode::KeepLast, 1, "c")).await;
    recorded(subject.complete(&leases[0], "1").await);
    assert_eq!(subject.task(&newest.id).await.state, State::Queued);
    subject.new_task(&throttle("b")).await;
    // The other one is cancelled while its worker is silent.
    let holder = &leases[1].task.id;
    subject.store.cancel(&user(), holder).await.unwrap();
    until("the lease to end", async || {
        subject.rescue().await;
        match subject.store.cancel(&user(), holder).await.unwrap() {
            Cancelled::Done { stopping, .. } => (!stopping).then_some(()),
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_agree_on_what_is_in_conflict() {
    let prefix = crate::support::redis::prefix();
    let (one, two) = (redis_under(&prefix).await, redis_under(&prefix).await);
    let mut last = None;
    for n in 0..20 {
        let subject = if n % 2 == 0 { &one } else { &two };
        let task = subject
            .new_task(&by_doc(DedupMode::Replace, 1, &n.to_string()))
            .await;
        if let Some(before) = last.replace(task.id.clone()) {
            expect_superseded(subject, &before, &task.id).await;
        }
    }
    let throttle = |text: &str| by_doc(DedupMode::Throttle, 2, text);
    let first = one.new_task(&throttle("a")).await.id;
    for _ in 0..3 {
        for subject in [&one, &two] {
            let (answer, _) = duplicate(subject, &throttle("b")).await;
            assert_eq!(answer.task.id, first);
        }
    }
    one.home.expect_sound().await;
}

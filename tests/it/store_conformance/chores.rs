//! What chores look at: what happened in a period, and files that nobody needs.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use justonce::domain::digest::Sha256Digest;
use justonce::domain::file::{BlobName, File, Generation};
use justonce::domain::principal::UserId;
use justonce::domain::stats::Tally;
use justonce::domain::timestamp::Timestamp;
use justonce::store::Found;
use serde_json::json;

use super::promises;
use crate::support::store::{LONG, Subject, draft, recorded, user};

promises!(
    a_history_adds_up_to_what_was_counted,
    unreferenced_files_go_and_others_stay,
    files_are_listed_to_the_last,
);

const HOUR: Duration = Duration::from_secs(3600);

/// By this machine's clock, which is the stores' too.
fn now() -> Timestamp {
    Timestamp::from_ms(jiff::Timestamp::now().as_millisecond())
}

fn ago(span: Duration) -> Timestamp {
    Timestamp::from_ms(now().as_ms() - i64::try_from(span.as_millis()).unwrap())
}

async fn sum(subject: &Subject, user: &UserId, from: Timestamp, to: Timestamp) -> Tally {
    let history = subject.store.history(user, from, to).await.unwrap();
    assert!(history.buckets.is_sorted_by_key(|(at, _)| *at));
    let mut sums = Tally::default().to_array();
    for (at, tally) in &history.buckets {
        assert!((history.span.from..history.span.to).contains(at), "{at}");
        for (sum, count) in sums.iter_mut().zip(tally.to_array()) {
            *sum += count;
        }
    }
    Tally::from_array(sums)
}

async fn a_history_adds_up_to_what_was_counted(subject: Subject) {
    let once = draft(json!({"n": 1})).key("a");
    subject.succeeded(&once).await;
    for _ in 0..3 {
        subject.admit(&once).await;
    }
    subject.admit(&draft(json!({"n": 1})).key("b")).await;
    subject.failed(&draft(json!({"n": 2}))).await;
    subject
        .new_task(&draft(json!({"n": 1})).user("other"))
        .await;
    let counted = subject.store.stats(Some(&user())).await.unwrap();
    assert_eq!(
        (
            counted.windows.all.accepted,
            counted.windows.all.duplicates_by_key,
            counted.windows.all.duplicates_by_fingerprint,
            counted.windows.all.failures
        ),
        (2, 3, 1, 1)
    );
    for (from, to) in [
        (ago(HOUR / 2), now().plus(HOUR)),
        (ago(24 * HOUR), now().plus(HOUR)),
        (ago(1000 * HOUR), now()),
    ] {
        assert_eq!(sum(&subject, &user(), from, to).await, counted.windows.all);
    }
    let before = sum(&subject, &user(), ago(48 * HOUR), ago(24 * HOUR)).await;
    assert_eq!(before, Tally::default());
    let nobody = UserId::parse("nobody").unwrap();
    assert_eq!(
        sum(&subject, &nobody, ago(HOUR), now()).await,
        Tally::default()
    );
}

fn copy(bytes: &[u8]) -> File {
    File {
        part: None,
        sha256: Sha256Digest::of(bytes),
        size: bytes.len() as u64,
        name: None,
        media_type: None,
        generation: Some(Generation::random()),
    }
}

async fn unreferenced(subject: &Subject, before: Timestamp) -> BTreeSet<BlobName> {
    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let part = subject.store.unreferenced(&user(), before, after).await;
        let part = part.unwrap();
        found.extend(part.files.iter().filter_map(File::blob));
        after = part.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn unreferenced_files_go_and_others_stay(subject: Subject) {
    let (spare, used) = (copy(b"spare"), copy(b"used"));
    for file in [&spare, &used] {
        let kept = subject.store.keep_file(&user(), file.clone()).await;
        kept.unwrap().unwrap();
    }
    let foreign = copy(b"spare");
    let other = UserId::parse("other").unwrap();
    subject
        .store
        .keep_file(&other, foreign.clone())
        .await
        .unwrap();
    let task = subject.new_task(&draft(json!({})).file(&used)).await;
    let (spare, used) = (spare.blob().unwrap(), used.blob().unwrap());
    let soon = now().plus(HOUR);

    assert_eq!(unreferenced(&subject, soon).await, [spare.clone()].into());
    assert_eq!(unreferenced(&subject, ago(HOUR)).await, BTreeSet::new());
    let forget =
        async |name: &BlobName, before| subject.store.forget_file(&user(), name, before).await;
    assert_eq!(forget(&spare, ago(HOUR)).await, Ok(false));
    assert_eq!(forget(&used, soon).await, Ok(false));
    let foreign = foreign.blob().unwrap();
    // Said of the user's own record: the other one's stays.
    assert_eq!(forget(&foreign, soon).await, Ok(true));
    for _ in 0..2 {
        assert_eq!(forget(&spare, soon).await, Ok(true));
    }
    let found = subject.store.file(&user(), &spare.sha256).await.unwrap();
    assert!(found.is_none(), "{found:?}");
    let names = vec![spare.clone(), used.clone(), foreign.clone()];
    assert_eq!(subject.store.unowned(names).await, Ok(vec![spare.clone()]));

    // As soon as the task has ended nobody reads its file any more.
    let lease = subject.lease(LONG).await;
    assert_eq!(lease.task.id, task.id);
    recorded(subject.complete(&lease, "1").await);
    assert_eq!(unreferenced(&subject, soon).await, [used.clone()].into());
    assert_eq!(forget(&used, soon).await, Ok(true));
    assert_eq!(unreferenced(&subject, soon).await, BTreeSet::new());
    let found = subject.store.get(&user(), &task.id).await.unwrap();
    assert!(matches!(found, Found::Here(_)), "{found:?}");
}

async fn files_are_listed_to_the_last(subject: Subject) {
    let files: Vec<File> = (0..1203_u32).map(|n| copy(&n.to_le_bytes())).collect();
    let user = user();
    for some in files.chunks(100) {
        let kept = some
            .iter()
            .map(|file| subject.store.keep_file(&user, file.clone()));
        for kept in join_all(kept).await {
            kept.unwrap().unwrap();
        }
    }
    let all: BTreeSet<BlobName> = files.iter().filter_map(File::blob).collect();
    assert_eq!(unreferenced(&subject, now().plus(HOUR)).await, all);
}

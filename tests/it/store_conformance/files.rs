//! Files: whose they are, which copy counts, and when their bytes may go.

use justonce::domain::digest::Sha256Digest;
use justonce::domain::file::{File, Generation};
use justonce::store::{Admitted, Forgotten};
use serde_json::json;

use super::promises;
use crate::support::store::{Subject, draft, user};

promises!(
    a_kept_file_is_its_users_alone,
    the_older_copy_wins,
    a_reference_needs_an_upload,
    a_copy_is_owned_while_something_names_it,
    a_duplicate_does_not_take_its_copy,
);

/// An uploaded copy.
fn copy(bytes: &[u8]) -> File {
    File {
        generation: Some(Generation::random()),
        ..reference(bytes)
    }
}

fn reference(bytes: &[u8]) -> File {
    File {
        part: None,
        sha256: Sha256Digest::of(bytes),
        size: bytes.len() as u64,
        name: None,
        media_type: None,
        generation: None,
    }
}

async fn a_kept_file_is_its_users_alone(subject: Subject) {
    let file = copy(b"x");
    assert!(
        subject
            .store
            .file(&user(), &file.sha256)
            .await
            .unwrap()
            .is_none()
    );
    let kept = subject
        .store
        .keep_file(&user(), file.clone())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.generation, file.generation);
    let found = subject
        .store
        .file(&user(), &file.sha256)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.generation, found.size), (file.generation.clone(), 1));
    let other = draft(json!({})).user("other").file(&reference(b"x"));
    let refused = subject.admit(&other).await;
    assert!(
        matches!(refused, Admitted::FileUnknown(sha256) if sha256 == file.sha256),
        "{refused:?}"
    );
}

async fn the_older_copy_wins(subject: Subject) {
    let (older, newer) = (copy(b"x"), copy(b"x"));
    subject
        .store
        .keep_file(&user(), older.clone())
        .await
        .unwrap();
    let kept = subject
        .store
        .keep_file(&user(), newer.clone())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.generation, older.generation);
    let without_copy = reference(b"x");
    let renewed = subject
        .store
        .keep_file(&user(), without_copy)
        .await
        .unwrap();
    assert_eq!(renewed.unwrap().generation, older.generation);
    let unknown = subject
        .store
        .keep_file(&user(), reference(b"y"))
        .await
        .unwrap();
    assert_eq!(unknown, None);
    let names = vec![older.blob().unwrap(), newer.blob().unwrap()];
    let unowned = subject.store.unowned(names).await.unwrap();
    assert_eq!(unowned, [newer.blob().unwrap()]);
    let Admitted::New(answer) = subject.admit(&draft(json!({})).file(&copy(b"x"))).await else {
        panic!("not new");
    };
    assert_eq!(answer.disowned.len(), 1);
    assert_eq!(answer.task.files[0].generation, older.generation);
}

async fn a_reference_needs_an_upload(subject: Subject) {
    let named = draft(json!({})).key("k").file(&reference(b"x"));
    let refused = subject.admit(&named).await;
    assert!(matches!(refused, Admitted::FileUnknown(_)), "{refused:?}");
    let file = copy(b"x");
    subject
        .store
        .keep_file(&user(), file.clone())
        .await
        .unwrap();
    let task = subject.new_task(&named).await;
    assert_eq!(task.files[0].generation, file.generation);
}

async fn a_copy_is_owned_while_something_names_it(subject: Subject) {
    let file = copy(b"x");
    let name = file.blob().unwrap();
    let owned = async || {
        subject
            .store
            .unowned(vec![name.clone()])
            .await
            .unwrap()
            .is_empty()
    };
    assert!(!owned().await, "nothing names it yet");
    let task = subject.succeeded(&draft(json!({})).file(&file)).await;
    assert!(owned().await);
    subject.rescue().await;
    assert!(owned().await, "a rescue took a file from under its task");
    let forgotten = subject.store.forget(&user(), &task.id).await.unwrap();
    assert_eq!(forgotten, Forgotten::Done { disowned: None });
    // The file is kept for a day after its last reference, for those who refer to it.
    assert!(owned().await);
    assert!(
        subject
            .store
            .file(&user(), &file.sha256)
            .await
            .unwrap()
            .is_some()
    );
}

async fn a_duplicate_does_not_take_its_copy(subject: Subject) {
    let (first, second) = (copy(b"x"), copy(b"x"));
    let task = subject.new_task(&draft(json!({})).file(&first)).await;
    let Admitted::Duplicate { answer, .. } = subject.admit(&draft(json!({})).file(&second)).await
    else {
        panic!("the same bytes were new");
    };
    assert_eq!(answer.task.id, task.id);
    assert_eq!(answer.disowned, [second.blob().unwrap()]);
    let names = vec![first.blob().unwrap(), second.blob().unwrap()];
    assert_eq!(
        subject.store.unowned(names).await.unwrap(),
        [second.blob().unwrap()]
    );
}

//! API keys.

use justonce::domain::digest::Sha256Digest;
use justonce::domain::principal::{Scope, Scopes};
use justonce::domain::timestamp::Timestamp;
use justonce::store::ApiKey;

use super::promises;
use crate::support::store::{Subject, user};

promises!(
    api_keys_are_kept_listed_and_revoked_once,
    one_key_is_the_first,
);

fn key(id: &str) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        secret_hash: Sha256Digest::of(id.as_bytes()),
        user: user(),
        scopes: Scopes::NONE.with(Scope::Read).with(Scope::Submit),
        created_at: Timestamp::from_ms(1_000),
        expires_at: Some(Timestamp::MAX),
        revoked_at: None,
    }
}

async fn one_key_is_the_first(subject: Subject) {
    let store = &subject.store;
    let first = |id: &str| store.create_first_api_key(key(id));
    let (one, two) = tokio::join!(first("one"), first("two"));
    assert!(one.clone().unwrap() != two.unwrap());
    let (won, lost) = if one.unwrap() {
        ("one", "two")
    } else {
        ("two", "one")
    };
    // The same once more is no other key.
    assert!(first(won).await.unwrap());
    assert!(!first(lost).await.unwrap());
    assert_eq!(store.api_keys().await.unwrap(), [key(won)]);
}

async fn api_keys_are_kept_listed_and_revoked_once(subject: Subject) {
    let store = &subject.store;
    assert_eq!(store.api_key("one").await.unwrap(), None);
    for id in ["one", "two"] {
        store.create_api_key(key(id)).await.unwrap();
    }
    assert_eq!(store.api_key("one").await.unwrap(), Some(key("one")));
    assert_eq!(store.api_keys().await.unwrap().len(), 2);
    assert!(store.revoke_api_key("one").await.unwrap());
    assert!(!store.revoke_api_key("none").await.unwrap());
    let revoked = store.api_key("one").await.unwrap().unwrap();
    let at = revoked.revoked_at.expect("the time of the revocation");
    let _ = store.revoke_api_key("one").await.unwrap();
    let again = store.api_key("one").await.unwrap().unwrap();
    assert_eq!(
        again.revoked_at,
        Some(at),
        "a second revocation moved the time of the first"
    );
    assert_eq!(store.api_key("two").await.unwrap(), Some(key("two")));
}

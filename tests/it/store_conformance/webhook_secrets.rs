//! What users' webhooks are signed with.

use std::time::Duration;

use justonce::domain::principal::UserId;
use justonce::domain::webhook::{OwnSecret, WebhookSecret};

use super::promises;
use crate::support::store::{Subject, user};

promises!(a_secret_is_set_and_the_one_before_stays_for_a_while);

const HOUR: Duration = Duration::from_secs(3600);

fn secret(byte: u8) -> WebhookSecret {
    WebhookSecret::new([byte; 32])
}

async fn a_secret_is_set_and_the_one_before_stays_for_a_while(subject: Subject) {
    let store = &subject.store;
    let known = async || store.webhook_secret(&user()).await.unwrap();
    let set = async |byte, overlap| -> OwnSecret {
        let (user, secret) = (user(), secret(byte));
        let set = store.set_webhook_secret(&user, &secret, overlap);
        set.await.unwrap()
    };
    assert_eq!(known().await, None);
    let first = set(1, HOUR).await;
    assert_eq!((&first.secret, &first.previous), (&secret(1), &None));
    assert_eq!(first.previous_until, first.set_at.plus(HOUR));
    assert_eq!(known().await, Some(first.clone()));
    // The same once more is the same.
    assert_eq!(set(1, Duration::ZERO).await, first);
    let second = set(2, HOUR).await;
    assert_eq!(second.previous, Some(secret(1)));
    let third = set(3, Duration::ZERO).await;
    assert_eq!(third.previous, Some(secret(2)));
    assert_eq!(third.previous_until, third.set_at);
    assert_eq!(known().await, Some(third.clone()));
    let installation = secret(9);
    let valid = |own: &OwnSecret, after| {
        let at = own.set_at.plus(after);
        let valid = own.valid(&installation, at).into_iter().cloned();
        valid.collect::<Vec<_>>()
    };
    let soon = Duration::from_secs(1);
    assert_eq!(valid(&first, soon), [secret(1), secret(9)]);
    assert_eq!(valid(&second, soon), [secret(2), secret(1)]);
    assert_eq!(valid(&second, HOUR), [secret(2)]);
    assert_eq!(valid(&third, soon), [secret(3)]);
    let other = UserId::parse("other").unwrap();
    assert_eq!(store.webhook_secret(&other).await.unwrap(), None);
}

//! Messages to webhooks, signed as Standard Webhooks 1.0.0 says.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};

use super::outgoing;
use super::silent_targets::SilentTargets;
use crate::domain::principal::UserId;
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::WebhookSecret;
use crate::egress::error::EgressError;
use crate::egress::{Egress, Request};
use crate::runner::AttemptError;
use crate::store::Store;

/// Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    egress: Egress,
    /// Knows the secrets of users who have set one.
    store: Arc<dyn Store>,
    /// Of all others.
    installation: WebhookSecret,
    silent: SilentTargets,
}

/// The whole answer must be there by then.
const TIMEOUT: Duration = Duration::from_secs(20);
const GONE: u16 = 410;

impl Webhooks {
    pub fn new(egress: Egress, store: Arc<dyn Store>, installation: WebhookSecret) -> Self {
        Webhooks {
            egress,
            store,
            installation,
            silent: SilentTargets::default(),
        }
    }

    /// `id` names the message to its recipient: the same for every attempt.
    pub async fn send(
        &self,
        user: &UserId,
        to: &str,
        id: &str,
        body: Vec<u8>,
    ) -> Result<(), AttemptError> {
        let url = self.egress.rules().url(to);
        let url = url.map_err(|refusal| outgoing::attempt_error(refusal.into()))?;
        let now = jiff::Timestamp::now();
        let at = Timestamp::from_ms(now.as_millisecond());
        let signatures = self.signatures(user, at, id, &body).await?;
        let fields = [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", now.as_second().to_string()),
            ("webhook-signature", signatures),
        ];
        let mut request = Request::post_json(url, body, outgoing::deadline(TIMEOUT));
        for (name, value) in fields {
            let value = HeaderValue::try_from(value).ok();
            let name = HeaderName::from_static(name);
            request.headers.extend(value.map(|value| (name, value)));
        }
        let Some(wait) = self.silent.wait(user, &request.url) else {
            let message = "it does not answer, and enough messages wait for it already";
            return Err(AttemptError::retryable("target-silent", message));
        };
        let answer = self.egress.send(request).await;
        wait.over(matches!(answer, Err(EgressError::TimedOut)));
        let answer = answer.map_err(outgoing::attempt_error)?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            // Whoever is there wants no more; all other refusals may be mended until the next attempt.
            status => Err(AttemptError {
                permanent: status == GONE || (300..=399).contains(&status),
                ..outgoing::refused(&answer)
            }),
        }
    }

    /// One for each secret that is valid now, with blanks between.
    async fn signatures(
        &self,
        user: &UserId,
        now: Timestamp,
        id: &str,
        body: &[u8],
    ) -> Result<String, AttemptError> {
        let own = self.store.webhook_secret(user).await;
        let own = own.map_err(outgoing::store_error)?;
        let valid = match &own {
            Some(own) => own.valid(&self.installation, now),
            None => vec![&self.installation],
        };
        let seconds = now.as_ms().div_euclid(1000);
        let signatures = valid.iter().map(|secret| secret.sign(id, seconds, body));
        Ok(signatures.collect::<Vec<_>>().join(" "))
    }
}

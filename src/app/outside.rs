//! What reaches out of this process: requests, webhooks and e-mail.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::bootstrap::keep;
use super::folder::Folders;
use crate::config::Settings;
use crate::domain::webhook::WebhookSecret;
use crate::egress::Egress;
use crate::egress::resolver::SystemLookup;
use crate::runners::notify::Notify;
use crate::runners::notify::email::Mailer;
use crate::runners::scrape::pages::{Bounds, Pages};
use crate::runners::webhooks::Webhooks;
use crate::store::Store;

pub struct Outside {
    pub egress: Egress,
    pub webhooks: Webhooks,
    pub notify: Notify,
    pub pages: Pages,
}

/// In the data folder, readable by its owner only: for those who check the signatures of webhooks.
const SECRET_FILE: &str = "webhook-secret";

impl Outside {
    pub async fn open(
        settings: &Settings,
        folders: &Folders,
        store: &Arc<dyn Store>,
    ) -> anyhow::Result<Self> {
        let egress = Egress::new(settings.egress.clone(), Arc::new(SystemLookup))
            .context("requests cannot go out")?;
        let secret = match &settings.webhook_secret {
            Some(secret) => secret.clone(),
            None => agreed_secret(folders.data(), &**store).await?,
        };
        let mailer = settings.mail.as_ref().map(|mail| {
            Mailer::new(&mail.url, mail.from.clone())
                .map_err(|_| anyhow!("JUSTONCE_SMTP_URL cannot be used"))
        });
        let pages = folders.pages();
        let webhooks = Webhooks::new(egress.clone(), store.clone(), secret);
        Ok(Outside {
            notify: Notify::new(webhooks.clone(), mailer.transpose()?),
            webhooks,
            egress,
            pages: Pages::open(pages.clone(), Bounds::default())
                .with_context(|| format!("cannot keep pages in {}", pages.display()))?,
        })
    }
}

/// The one that is kept, or a new one. Replicas of one store sign with the same.
async fn agreed_secret(data: Option<&Path>, store: &dyn Store) -> anyhow::Result<WebhookSecret> {
    let path = data.map(|folder| folder.join(SECRET_FILE));
    let found = path
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok());
    let found = found
        .as_deref()
        .map(str::trim)
        .and_then(WebhookSecret::parse);
    let proposed = match &found {
        Some(secret) => secret.clone(),
        None => random()?,
    };
    let agreed = match store.agree(SECRET_FILE, &proposed.reveal()).await {
        Ok(agreed) => {
            WebhookSecret::parse(&agreed).context("the store keeps no secret of webhooks")?
        }
        // The next start will find out; usually it is the one that was kept.
        Err(error) => {
            tracing::warn!(%error, "replicas have not agreed on the secret of webhooks");
            return Ok(proposed);
        }
    };
    if let Some(path) = path.filter(|_| found.as_ref() != Some(&agreed)) {
        keep(&agreed.reveal(), &path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(agreed)
}

fn random() -> anyhow::Result<WebhookSecret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| anyhow!("no random numbers"))?;
    Ok(WebhookSecret::new(bytes))
}

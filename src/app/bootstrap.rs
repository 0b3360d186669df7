//! The first admin API key: without one, nobody could make the others.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::greeting::say;
use crate::config::Settings;
use crate::domain::principal::{Scope, Scopes, UserId};
use crate::domain::timestamp::Timestamp;
use crate::http::api::AuthMode;
use crate::http::api_key::PresentedKey;
use crate::store::Store;

/// In the data folder, readable by its owner only.
const FILE_NAME: &str = "bootstrap-key";
const USER: &str = "admin";

pub async fn ensure_admin_key(
    store: &dyn Store,
    settings: &Settings,
    data: Option<&Path>,
) -> anyhow::Result<()> {
    match (settings.edge.auth, &settings.bootstrap_key) {
        (AuthMode::Off, _) => Ok(()),
        (AuthMode::Keys, Some(text)) => take(store, text).await,
        (AuthMode::Keys, None) if store.api_keys().await?.is_empty() => make(store, data).await,
        (AuthMode::Keys, None) => Ok(()),
    }
}

/// The key that the operator has chosen. One that was revoked stays so.
async fn take(store: &dyn Store, text: &str) -> anyhow::Result<()> {
    let key = PresentedKey::parse(text).context("JUSTONCE_BOOTSTRAP_KEY is no key")?;
    match store.api_key(key.id()).await? {
        None => record(store, key).await,
        Some(known) if !key.matches(Some(&known)) => {
            bail!(
                "JUSTONCE_BOOTSTRAP_KEY has the id of another key, {}",
                known.id
            )
        }
        Some(known) => {
            if known.revoked_at.is_some() {
                tracing::warn!(id = known.id, "the bootstrap key is revoked");
            }
            Ok(())
        }
    }
}

/// The file comes first, so that a crash between the two leaves no key that nobody has seen; the next
/// start takes the key that it finds there.
async fn make(store: &dyn Store, data: Option<&Path>) -> anyhow::Result<()> {
    let path = data.map(|folder| folder.join(FILE_NAME));
    let found = path
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok());
    if let Some(key) = found
        .as_deref()
        .and_then(|text| PresentedKey::parse(text.trim()))
    {
        return record(store, key).await;
    }
    let (text, key) = PresentedKey::random().context("no random numbers")?;
    if let Some(path) = &path {
        keep(&text, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    record(store, key).await?;
    say(&format!("The first admin API key, shown once: {text}\n"));
    if let Some(path) = &path {
        say(&format!(
            "It is kept in {}; delete the file when you have it.\n",
            path.display()
        ));
    }
    Ok(())
}

/// A temporary file can be read by its owner only, and takes the name when it is whole.
fn keep(text: &str, path: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

async fn record(store: &dyn Store, key: PresentedKey) -> anyhow::Result<()> {
    let user = UserId::parse(USER).unwrap_or_else(UserId::anonymous);
    let scopes = Scopes::NONE.with(Scope::Admin);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    let now = Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX));
    store
        .create_api_key(key.into_record(user, scopes, now, None))
        .await?;
    Ok(())
}

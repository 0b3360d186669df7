//! The first admin API key: without one, nobody could make the others.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use crate::config::Settings;
use crate::domain::principal::{Scope, Scopes, UserId};
use crate::domain::timestamp::Timestamp;
use crate::http::api::AuthMode;
use crate::http::api_key::PresentedKey;
use crate::store::{ApiKey, Store, StoreError};

/// In the data folder, readable by its owner only.
const FILE_NAME: &str = "bootstrap-key";
const USER: &str = "admin";

/// Returns what the operator must be told, once.
pub async fn ensure_admin_key(
    store: &dyn Store,
    settings: &Settings,
    data: Option<&Path>,
) -> anyhow::Result<Option<String>> {
    if settings.edge.auth == AuthMode::Off {
        return Ok(None);
    }
    let known = match store.api_keys().await {
        Ok(known) => known,
        // Nothing can be made until somebody has looked at it; the next start will.
        Err(StoreError::StateLost) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match &settings.bootstrap_key {
        Some(text) => take(store, text).await.map(|()| None),
        None if known.is_empty() => make(store, data).await,
        None => Ok(None),
    }
}

/// The key that the operator has chosen. One that was revoked stays so.
async fn take(store: &dyn Store, text: &str) -> anyhow::Result<()> {
    let key = PresentedKey::parse(text).context("JUSTONCE_BOOTSTRAP_KEY is no key")?;
    match store.api_key(key.id()).await? {
        None => Ok(store.create_api_key(of_admin(key)).await?),
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
async fn make(store: &dyn Store, data: Option<&Path>) -> anyhow::Result<Option<String>> {
    let path = data.map(|folder| folder.join(FILE_NAME));
    let found = path
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok());
    let found = found.as_deref().map(str::trim);
    if let Some(key) = found.and_then(PresentedKey::parse) {
        store.create_first_api_key(of_admin(key)).await?;
        return Ok(None);
    }
    let (text, key) = PresentedKey::random().context("no random numbers")?;
    let mut news = format!("The first admin API key, shown once: {text}\n");
    if let Some(path) = &path {
        keep(&text, path).with_context(|| format!("cannot write {}", path.display()))?;
        news += &format!(
            "It is kept in {}; delete the file when you have it.\n",
            path.display()
        );
    }
    if store.create_first_api_key(of_admin(key)).await? {
        return Ok(Some(news));
    }
    // Another replica was quicker: its key is the one.
    if let Some(path) = &path {
        std::fs::remove_file(path).with_context(|| format!("cannot delete {}", path.display()))?;
    }
    Ok(None)
}

/// A temporary file can be read by its owner only, and takes the name when it is whole. The name is on disk too before
/// this returns.
pub fn keep(text: &str, path: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}

fn of_admin(key: PresentedKey) -> ApiKey {
    let user = UserId::parse(USER).unwrap_or_else(UserId::anonymous);
    let scopes = Scopes::NONE.with(Scope::Admin);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    let now = Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX));
    key.into_record(user, scopes, now, None)
}

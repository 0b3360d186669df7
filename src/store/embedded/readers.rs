//! Connections that only read, beside the one that writes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::schema::open_reader;
use super::step::Sql;
use super::writer::store_error;
use crate::store::StoreError;

/// Reads at a time.
const READERS_MAX: usize = 4;

pub struct Readers {
    path: PathBuf,
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Self {
        Readers {
            path,
            free: Arc::new(Semaphore::new(READERS_MAX)),
            idle: Arc::default(),
        }
    }

    /// Runs a read in a transaction of its own, so that all of it sees one state.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Sql<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let closed = |_| StoreError::Unavailable("the store is closed".into());
        let permit = self.free.clone().acquire_owned().await.map_err(closed)?;
        let free = self.free.clone();
        let idle = self.idle.clone();
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = kept
                .map_or_else(|| open_reader(&path), Ok)
                .map_err(|error| store_error(&error))?;
            let value = in_transaction(&conn, query).map_err(|error| store_error(&error))?;
            // A read that nobody waits for any more still counts until it is over.
            drop(permit);
            if !free.is_closed() {
                idle.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(conn);
            }
            Ok(value)
        });
        read.await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    pub fn close(&self) {
        self.free.close();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

fn in_transaction<T>(
    conn: &Connection,
    query: impl FnOnce(&Sql<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = conn.unchecked_transaction()?;
    let value = query(&Sql::new(&transaction))?;
    transaction.commit()?;
    Ok(value)
}

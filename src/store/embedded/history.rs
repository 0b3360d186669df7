//! What happened to one user's tasks in a period.

use rusqlite::params;

use super::step::Sql;
use crate::domain::history::{History, Span};
use crate::domain::principal::UserId;
use crate::domain::stats::Tally;
use crate::domain::timestamp::Timestamp;

pub fn history(
    sql: &Sql<'_>,
    user: &UserId,
    from: Timestamp,
    to: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<History> {
    let span = Span::of(from, to, now);
    let text = format!(
        "SELECT at, {} FROM tally WHERE user = ?1 AND span = ?2 AND at >= ?3 AND at < ?4 ORDER BY at",
        Tally::NAMES.join(", ")
    );
    let mut statement = sql.prepare_cached(&text)?;
    let period = params![
        user.as_str(),
        span.bucket_ms(),
        span.from.as_ms(),
        span.to.as_ms()
    ];
    let buckets = statement.query_map(period, |row| {
        let mut counts = [0; Tally::NAMES.len()];
        for (index, count) in counts.iter_mut().enumerate() {
            *count = row.get(index + 1)?;
        }
        Ok((Timestamp::from_ms(row.get(0)?), Tally::from_array(counts)))
    })?;
    Ok(History {
        span,
        buckets: buckets.collect::<rusqlite::Result<_>>()?,
    })
}

//! What no two records may say. Each is a query for those that do, and its first column says which.
//!
//! States are numbered as in the schema: 0 scheduled, 1 queued, 2 running, 3 retrying, 4 succeeded, 5 failed,
//! 6 cancelled, 7 a tombstone.

pub struct Contradiction {
    pub says: &'static str,
    sql: &'static str,
}

impl Contradiction {
    /// A submission that is no JSON is found when its row is read, and is nothing here.
    pub fn sql(&self) -> String {
        let submission = "CASE WHEN json_valid(t.submission) THEN t.submission ELSE '{}' END";
        self.sql.replace("$SUBMISSION", submission)
    }
}

const fn found(says: &'static str, sql: &'static str) -> Contradiction {
    Contradiction { says, sql }
}

/// ?1 and ?2: between which numbers of tasks; ?3: the time, in ms.
pub const OF_TASKS: &[Contradiction] = &[
    found(
        "it is in no known state",
        "SELECT 'task ' || id FROM task WHERE seq > ?1 AND seq <= ?2 AND state NOT BETWEEN 0 AND 7",
    ),
    found(
        "it is queued, and has no place in the queue",
        "SELECT 'task ' || id FROM task WHERE seq > ?1 AND seq <= ?2 AND state = 1 \
         AND (ready_at IS NULL OR due_at IS NOT NULL OR held <> 0 OR finished_at IS NOT NULL)",
    ),
    found(
        "it is queued, and its user has no turn",
        "SELECT 'task ' || id FROM task t WHERE seq > ?1 AND seq <= ?2 AND state = 1 AND aside = 0 \
         AND NOT EXISTS (SELECT 1 FROM turn WHERE turn.type = t.type AND turn.user = t.user)",
    ),
    found(
        "it waits for its concurrency key, and nobody calls it",
        "SELECT 'task ' || id FROM task t WHERE seq > ?1 AND seq <= ?2 AND aside <> 0 AND (state <> 1 OR slot IS NULL \
         OR NOT EXISTS (SELECT 1 FROM task o WHERE o.type = t.type AND o.user = t.user AND o.slot = t.slot AND o.held = 1) \
         AND NOT EXISTS (SELECT 1 FROM task o WHERE o.state = 1 AND o.aside = 0 AND o.type = t.type AND o.user = t.user \
         AND o.slot = t.slot))",
    ),
    found(
        "it may run, and another one holds its concurrency key",
        "SELECT 'task ' || id FROM task t WHERE seq > ?1 AND seq <= ?2 AND held = 1 AND slot IS NOT NULL \
         AND EXISTS (SELECT 1 FROM task o WHERE o.held = 1 AND o.type = t.type AND o.user = t.user AND o.slot = t.slot \
         AND o.seq <> t.seq)",
    ),
    found(
        "it waits for its time, and has none",
        "SELECT 'task ' || id FROM task WHERE seq > ?1 AND seq <= ?2 AND state IN (0, 3) \
         AND (due_at IS NULL OR held <> 0 OR finished_at IS NOT NULL)",
    ),
    found(
        "it is running without a lease that ends",
        "SELECT 'task ' || id FROM task WHERE seq > ?1 AND seq <= ?2 AND state = 2 \
         AND (held <> 1 OR due_at IS NULL OR token < 1 OR started_at IS NULL OR finished_at IS NOT NULL)",
    ),
    found(
        "it has ended, and nothing says when it expires",
        "SELECT 'task ' || id FROM task WHERE seq > ?1 AND seq <= ?2 AND state >= 4 \
         AND (finished_at IS NULL OR due_at IS NULL OR kept_until IS NULL OR held <> 0 AND state <> 6)",
    ),
    found(
        "it has succeeded, and has no result",
        "SELECT 'task ' || id FROM task WHERE seq > ?1 AND seq <= ?2 AND state = 4 \
         AND (result_kind NOT IN (1, 2, 3) OR result_kind <> 3 AND result IS NULL)",
    ),
    found(
        "it has a result, and has not succeeded",
        "SELECT 'task ' || id FROM task WHERE seq > ?1 AND seq <= ?2 AND state <> 4 AND result_kind <> 0",
    ),
    // A redrive finds the keys gone whose retention was over by then; no key is gone before.
    found(
        "the key that it was submitted with does not name it",
        "SELECT 'task ' || id FROM (SELECT t.*, $SUBMISSION AS s FROM task t WHERE seq > ?1 AND seq <= ?2) t \
         WHERE state < 7 AND s ->> '$.key' IS NOT NULL \
         AND (?3 < created_at + 1000 * (s ->> '$.retention.key') \
              OR state = 0 \
              OR state < 4 AND max_attempts = s ->> '$.budget' AND ready_at < created_at + 1000 * (s ->> '$.retention.key')) \
         AND NOT EXISTS (SELECT 1 FROM key k WHERE k.task = t.seq AND k.user = t.user AND k.key = s ->> '$.key')",
    ),
    found(
        "it is unfinished, and another task answers for its content",
        "SELECT 'task ' || t.id FROM task t WHERE t.seq > ?1 AND t.seq <= ?2 AND t.state < 4 \
         AND t.fingerprint_hash IS NOT NULL AND EXISTS (SELECT 1 FROM task o WHERE \
         o.fingerprint_hash = t.fingerprint_hash AND o.claim >= t.claim AND o.seq <> t.seq \
         AND o.fingerprint = t.fingerprint AND o.user = t.user)",
    ),
    found(
        "it waits behind another, and there is none",
        "SELECT 'task ' || t.id FROM task t WHERE t.seq > ?1 AND t.seq <= ?2 AND t.behind = 1 \
         AND (t.state <> 0 OR NOT EXISTS (SELECT 1 FROM task o WHERE o.matching_hash = t.matching_hash \
         AND (o.finished_at IS NULL OR o.held = 1) AND o.behind = 0 AND o.matching = t.matching AND o.user = t.user))",
    ),
    found(
        "a tag of it is not on record",
        "SELECT 'task ' || t.id FROM task t WHERE t.seq > ?1 AND t.seq <= ?2 AND t.state < 7 \
         AND EXISTS (SELECT 1 FROM json_each($SUBMISSION, '$.tags') j WHERE NOT EXISTS \
         (SELECT 1 FROM tag WHERE tag.user = t.user AND tag.name = j.key AND tag.task = t.seq AND tag.value = j.value))",
    ),
    found(
        "it may run, and a file of it is not on record",
        "SELECT 'task ' || t.id FROM task t WHERE t.seq > ?1 AND t.seq <= ?2 AND t.state NOT IN (4, 7) \
         AND EXISTS (SELECT 1 FROM json_each($SUBMISSION, '$.files') j WHERE NOT EXISTS \
         (SELECT 1 FROM file f WHERE f.user = t.user AND f.sha256 = unhex(j.value ->> '$.sha256') \
         AND f.generation = j.value ->> '$.generation'))",
    ),
    found(
        "nobody owns the copy that holds its result",
        "SELECT 'task ' || t.id FROM task t WHERE t.seq > ?1 AND t.seq <= ?2 AND t.result_kind = 2 \
         AND json_valid(t.result) AND NOT EXISTS (SELECT 1 FROM blob WHERE \
         name = (t.result ->> '$.name.sha256') || '-' || (t.result ->> '$.name.generation'))",
    ),
];

/// ?1 and ?2: between which rows of keys; ?3: the time, in ms.
pub const OF_KEYS: &[Contradiction] = &[
    found(
        "it names no task",
        "SELECT 'key ' || k.key || ' of ' || k.user FROM key k LEFT JOIN task t ON t.seq = k.task \
         WHERE k.rowid > ?1 AND k.rowid <= ?2 AND (t.seq IS NULL OR t.user <> k.user)",
    ),
    found(
        "its task is unfinished, and it expires",
        "SELECT 'key ' || k.key || ' of ' || k.user FROM key k JOIN task t ON t.seq = k.task \
         WHERE k.rowid > ?1 AND k.rowid <= ?2 AND t.state < 4 AND k.expires_at > ?3",
    ),
    found(
        "its task has ended, and it never expires",
        "SELECT 'key ' || k.key || ' of ' || k.user FROM key k JOIN task t ON t.seq = k.task \
         WHERE k.rowid > ?1 AND k.rowid <= ?2 AND t.state >= 4 AND k.expires_at IS NULL",
    ),
    found(
        "it and its task disagree on whether that was forgotten",
        "SELECT 'key ' || k.key || ' of ' || k.user FROM key k JOIN task t ON t.seq = k.task \
         WHERE k.rowid > ?1 AND k.rowid <= ?2 AND (t.state = 7) <> (k.forgotten = 1)",
    ),
];

pub const ANYWHERE: &[Contradiction] = &[
    found(
        "its plan is one of another type, or none",
        "SELECT 'schedule ' || name || ' of ' || user FROM schedule \
         WHERE type IS NOT CASE WHEN json_valid(plan) THEN plan ->> '$.type' END",
    ),
    found(
        "nothing says when it is due",
        "SELECT 'schedule ' || name || ' of ' || user FROM schedule \
         WHERE (due_at IS NULL) <> (next_fire_at IS NULL)",
    ),
    found(
        "no task has it",
        "SELECT 'tag ' || g.name || ' of ' || g.user FROM tag g LEFT JOIN task t ON t.seq = g.task \
         WHERE t.seq IS NULL OR t.state > 6 OR NOT EXISTS \
         (SELECT 1 FROM json_each($SUBMISSION, '$.tags') j WHERE j.key = g.name AND j.value = g.value)",
    ),
    found(
        "duplicates are noted of it, and there is no such task",
        "SELECT 'task number ' || l.task FROM (SELECT DISTINCT task FROM ledger) l LEFT JOIN task t ON t.seq = l.task \
         WHERE t.seq IS NULL OR t.state > 6",
    ),
    found(
        "it does not count the tasks that need it",
        "WITH need AS (SELECT t.user, unhex(j.value ->> '$.sha256') AS sha256, count(*) AS n \
             FROM task t, json_each($SUBMISSION, '$.files') j WHERE t.state NOT IN (4, 7) GROUP BY 1, 2) \
         SELECT 'file ' || lower(hex(f.sha256)) || ' of ' || f.user FROM file f LEFT JOIN need USING (user, sha256) \
         WHERE f.refs <> ifnull(need.n, 0)",
    ),
    found(
        "whether it expires contradicts whether it is needed",
        "SELECT 'file ' || lower(hex(sha256)) || ' of ' || user FROM file WHERE (refs > 0) <> (expires_at IS NULL)",
    ),
    found(
        "nobody owns the copy that holds it",
        "SELECT 'file ' || lower(hex(f.sha256)) || ' of ' || f.user FROM file f \
         WHERE NOT EXISTS (SELECT 1 FROM blob WHERE name = lower(hex(f.sha256)) || '-' || f.generation)",
    ),
    found(
        "no file and no result is in it",
        "SELECT 'copy ' || name FROM blob WHERE name NOT IN ( \
             SELECT lower(hex(sha256)) || '-' || generation FROM file UNION ALL \
             SELECT (result ->> '$.name.sha256') || '-' || (result ->> '$.name.generation') FROM task \
             WHERE result_kind = 2 AND json_valid(result) AND result ->> '$.name.generation' IS NOT NULL)",
    ),
    found(
        "the counter does not agree with what is counted",
        "WITH counted AS (SELECT user, type, state, count(*) AS n FROM task WHERE state < 7 GROUP BY 1, 2, 3 \
             UNION ALL SELECT '', type, state, count(*) FROM task WHERE state < 7 GROUP BY 2, 3) \
         SELECT 'tasks of ' || iif(user = '', 'everyone', user) || ', type ' || type || ', state ' || state \
             || ' (' || ifnull(gauge.count, 0) || ' for ' || ifnull(counted.n, 0) || ')' \
         FROM counted FULL JOIN gauge USING (user, type, state) WHERE ifnull(gauge.count, 0) <> ifnull(counted.n, 0)",
    ),
];

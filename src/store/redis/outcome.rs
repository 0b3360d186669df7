//! What a failed command means: whether it was executed, and so whether it may be repeated.

use redis::{ErrorKind, RedisError, ServerErrorKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is here.
    Done,
    /// Redis has refused it whole: safe to repeat.
    NotExecuted(Refusal),
    /// Nobody knows: only what carries a nonce may be repeated.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not now, or not there: another time, or another server, may take it.
    Later,
    /// Redis does not know the script yet.
    NoScript,
    /// There is no memory left.
    Full,
    /// What was acknowledged is not there any more (`lua/parts/mark.lua`).
    StateLost,
    /// Repeating it would not help: rights, or a defect of ours.
    Never,
}

pub fn classify<T>(result: &Result<T, RedisError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(error) => of_error(error),
    }
}

fn of_error(error: &RedisError) -> Outcome {
    match error.kind() {
        ErrorKind::Server(kind) => of_server(kind, error),
        ErrorKind::Extension => of_code(error.code().unwrap_or_default()),
        // A connection that was never made has carried nothing.
        ErrorKind::Io if error.is_connection_refusal() => Outcome::NotExecuted(Refusal::Later),
        ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel => Outcome::NotExecuted(Refusal::Later),
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::EmptySentinelList
        | ErrorKind::RESP3NotSupported => Outcome::NotExecuted(Refusal::Never),
        // Cut connections, time-outs, and answers that make no sense.
        _ => Outcome::Unknown,
    }
}

fn of_server(kind: ServerErrorKind, error: &RedisError) -> Outcome {
    match kind {
        ServerErrorKind::NoScript => Outcome::NotExecuted(Refusal::NoScript),
        ServerErrorKind::BusyLoading
        | ServerErrorKind::Moved
        | ServerErrorKind::Ask
        | ServerErrorKind::TryAgain
        | ServerErrorKind::ClusterDown
        | ServerErrorKind::MasterDown
        | ServerErrorKind::ReadOnly => Outcome::NotExecuted(Refusal::Later),
        ServerErrorKind::CrossSlot | ServerErrorKind::NoPerm | ServerErrorKind::ExecAbort => {
            Outcome::NotExecuted(Refusal::Never)
        }
        // An error inside a script comes as ERR too: it may have written before.
        ServerErrorKind::ResponseError => of_text(error.detail().unwrap_or_default()),
        _ => Outcome::Unknown,
    }
}

fn of_code(code: &str) -> Outcome {
    match code {
        "STATELOST" => Outcome::NotExecuted(Refusal::StateLost),
        "OOM" => Outcome::NotExecuted(Refusal::Full),
        "BUSY" | "MISCONF" | "NOREPLICAS" => Outcome::NotExecuted(Refusal::Later),
        "NOAUTH" | "WRONGPASS" | "DENIED" => Outcome::NotExecuted(Refusal::Never),
        _ => Outcome::Unknown,
    }
}

fn of_text(text: &str) -> Outcome {
    if text.starts_with("max number of clients") {
        Outcome::NotExecuted(Refusal::Later)
    } else if text.starts_with("unknown command") || text.starts_with("wrong number of arguments") {
        Outcome::NotExecuted(Refusal::Never)
    } else {
        Outcome::Unknown
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use redis::{Value, parse_redis_value};

    use super::*;

    fn answered(line: &str) -> Outcome {
        let parsed = parse_redis_value(format!("-{line}\r\n").as_bytes());
        let result = parsed.and_then(Value::extract_error);
        classify(&result)
    }

    #[test]
    fn every_answer_of_a_server_has_its_meaning() {
        use Outcome::{NotExecuted, Unknown};
        use Refusal::{Full, Later, Never, NoScript, StateLost};
        let table = [
            ("NOSCRIPT No matching script.", NotExecuted(NoScript)),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                NotExecuted(Full),
            ),
            ("STATELOST mark 1 where 2 was told", NotExecuted(StateLost)),
            (
                "LOADING Redis is loading the dataset in memory",
                NotExecuted(Later),
            ),
            ("BUSY Redis is busy running a script.", NotExecuted(Later)),
            (
                "READONLY You can't write against a read only replica.",
                NotExecuted(Later),
            ),
            ("MISCONF Errors writing to the AOF file", NotExecuted(Later)),
            (
                "NOREPLICAS Not enough good replicas to write.",
                NotExecuted(Later),
            ),
            ("MOVED 3999 127.0.0.1:6381", NotExecuted(Later)),
            ("ASK 3999 127.0.0.1:6381", NotExecuted(Later)),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                NotExecuted(Later),
            ),
            ("CLUSTERDOWN The cluster is down", NotExecuted(Later)),
            ("MASTERDOWN Link with MASTER is down", NotExecuted(Later)),
            ("ERR max number of clients reached", NotExecuted(Later)),
            (
                "CROSSSLOT Keys in request don't hash to the same slot",
                NotExecuted(Never),
            ),
            ("NOPERM this user has no permissions", NotExecuted(Never)),
            ("NOAUTH Authentication required.", NotExecuted(Never)),
            (
                "WRONGPASS invalid username-password pair",
                NotExecuted(Never),
            ),
            ("ERR unknown command 'EVALSHA'", NotExecuted(Never)),
            ("ERR user_script:12: attempt to index a nil value", Unknown),
            ("WRONGTYPE Operation against a key", Unknown),
            ("ERR something new", Unknown),
            ("SOMETHING new", Unknown),
        ];
        for (line, meaning) in table {
            assert_eq!(answered(line), meaning, "{line}");
        }
        assert_eq!(classify(&Ok(())), Outcome::Done);
    }

    #[test]
    fn only_a_connection_that_was_never_made_has_certainly_carried_nothing() {
        let broken = |kind: io::ErrorKind| classify::<()>(&Err(io::Error::from(kind).into()));
        let refused = broken(io::ErrorKind::ConnectionRefused);
        assert_eq!(refused, Outcome::NotExecuted(Refusal::Later));
        for kind in [
            io::ErrorKind::TimedOut,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::UnexpectedEof,
        ] {
            assert_eq!(broken(kind), Outcome::Unknown, "{kind:?}");
        }
    }
}

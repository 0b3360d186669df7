//! Which server has answered: one process, from its start to its end.
//!
//! A promise, and the confirmation of it, have a connection each. Where another server takes over, one of them may lead
//! there before the other does; and the mark of the promise may have been raised to the same number on both.

use std::sync::Arc;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Value, from_redis_value};

/// Not known of clusters, whose connections are made elsewhere, and of servers that do not say.
#[derive(Clone, Debug, Default)]
pub struct Server(Option<Arc<str>>);

impl Server {
    #[cfg(test)]
    pub fn named(name: &str) -> Self {
        Server(Some(name.into()))
    }

    /// The one at the end of a connection.
    pub async fn of(connection: &mut MultiplexedConnection) -> Self {
        let mut info = redis::cmd("INFO");
        info.arg("server");
        // One that may not be asked is not known.
        let shown = connection.req_packed_command(&info).await;
        let shown = shown.and_then(Value::extract_error);
        let shown = shown.ok().and_then(|shown| from_redis_value(shown).ok());
        Server(shown.and_then(|shown: String| run_id(&shown)))
    }

    /// Whether both may be the same.
    pub fn may_be(&self, other: &Server) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        }
    }
}

fn run_id(info: &str) -> Option<Arc<str>> {
    let mut ids = info.lines().filter_map(|line| line.strip_prefix("run_id:"));
    ids.next().map(|id| id.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart_where_both_are_known() {
        let (one, other) = (Server::named("a"), Server::named("b"));
        assert!(one.may_be(&one.clone()) && !one.may_be(&other));
        assert!(one.may_be(&Server::default()) && Server::default().may_be(&one));
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:0f3a\r\ntcp_port:6379\r\n";
        assert_eq!(run_id(info).as_deref(), Some("0f3a"));
        assert_eq!(run_id("# Server\r\n"), None);
    }
}

//! The name of a lease, as holders outside of this process know it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::principal::UserId;
use super::task::{FencingToken, TaskId};

/// Opaque to clients: any replica finds the task in it, and to whom it belongs. It is no secret beyond the
/// task's id, and proves nothing: what a holder may do is decided by its fencing token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseId {
    pub task: TaskId,
    pub user: UserId,
    /// The token that the lease was given out with.
    pub token: FencingToken,
}

impl LeaseId {
    /// More than the longest one takes.
    const LENGTH_MAX: usize = 300;

    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > Self::LENGTH_MAX {
            return None;
        }
        let plain = URL_SAFE_NO_PAD.decode(text).ok()?;
        let plain = String::from_utf8(plain).ok()?;
        let mut parts = plain.splitn(3, ' ');
        let (task, token, user) = (parts.next()?, parts.next()?, parts.next()?);
        let id = LeaseId {
            task: TaskId::parse(task)?,
            user: UserId::parse(user)?,
            token: FencingToken(token.parse().ok()?),
        };
        // One lease has one name.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = format!("{} {} {}", self.task, self.token.0, self.user);
        f.write_str(&URL_SAFE_NO_PAD.encode(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_found_by_its_name_and_by_no_other() {
        let user = UserId::parse("a@b.example/x|y").unwrap();
        let id = LeaseId {
            task: TaskId::random(&user),
            user,
            token: FencingToken(1_763_000_000_000),
        };
        let text = id.to_string();
        assert!(
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        );
        assert_eq!(LeaseId::parse(&text), Some(id.clone()));
        let padded = URL_SAFE_NO_PAD.encode(format!("{} 007 {}", id.task, id.user));
        for other in [
            "",
            "x",
            id.task.as_str(),
            &padded,
            &format!("{text}A"),
            &"A".repeat(400),
        ] {
            assert_eq!(LeaseId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_longest_name_is_within_the_bound() {
        let user = UserId::parse(&"u".repeat(UserId::LENGTH_MAX)).unwrap();
        let id = LeaseId {
            task: TaskId::random(&user),
            user,
            token: FencingToken(u64::MAX),
        };
        assert_eq!(LeaseId::parse(&id.to_string()), Some(id));
    }
}

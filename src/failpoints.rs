//! Places between which a task goes its way, at each of which a process can be held up or killed: for the tests.
//! Only a build with the feature `failpoints` looks whether it is to happen; in any other there is nothing to look at.
//!
//! `JUSTONCE_FAILPOINT` names one, what happens and when: `BeforeCommit:abort:3` ends the process when it comes there
//! for the third time, as a kill would, and `BeforeCommit:stall:3:1500` lets the thread that comes there for the third
//! time wait for 1,500 ms. Several stand behind each other, with commas.

/// One line a place: its name, and where it is.
macro_rules! failpoints {
    ($($point:ident $where:literal)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FailPoint {
            $(#[doc = concat!("Comes ", $where, ".")] $point,)+
        }

        #[cfg(feature = "failpoints")]
        impl FailPoint {
            pub const ALL: &[FailPoint] = &[$(FailPoint::$point),+];
        }
    };
}

failpoints! {
    BeforeParsing    "before anything of a submission is read"
    BeforeAdmission  "before the store decides on a submission"
    AfterAdmission   "after the store has decided on a submission, before the answer"
    BeforeWake       "after an admission, before anybody is told that there is work"
    AfterLease       "after a lease, before anybody is told of it"
    BeforeRun        "before the runner of a leased task begins"
    BeforeCompletion "after a runner has succeeded, before that is recorded"
    AfterCompletion  "after a success was recorded"
    BeforeFailure    "after a runner has failed, before that is recorded"
    AfterFailure     "after a failed attempt was recorded"
    BeforeHeartbeat  "before a lease is extended"
    AfterRescue      "after expired leases were returned and waiting tasks made ready"
    BeforeCommit     "in the embedded store, before a transaction is committed"
    AfterCommit      "in the embedded store, after a transaction was committed, before its callers are told"
    BeforeScript     "before a script is sent to Redis"
    AfterScript      "after Redis has answered a script, before the answer is used"
}

#[cfg(not(feature = "failpoints"))]
impl FailPoint {
    /// Does nothing.
    #[inline(always)]
    pub const fn reached(self) {}
}

#[cfg(feature = "failpoints")]
impl FailPoint {
    /// Does what was asked for here.
    pub fn reached(self) {
        armed::reached(self);
    }

    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// What is to happen.
#[cfg(feature = "failpoints")]
pub const VARIABLE: &str = "JUSTONCE_FAILPOINT";

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::{FailPoint, VARIABLE};

    struct Order {
        point: FailPoint,
        action: Action,
        /// From 1.
        at: u64,
        /// How often somebody came by.
        seen: AtomicU64,
    }

    enum Action {
        Abort,
        Stall(Duration),
    }

    static ORDERS: LazyLock<Vec<Order>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let orders = text.split(',').filter(|order| !order.is_empty());
        orders
            .map(|order| parse(order).unwrap_or_else(|| panic!("{VARIABLE}: what is {order}?")))
            .collect()
    });

    fn parse(order: &str) -> Option<Order> {
        let words: Vec<_> = order.split(':').collect();
        let (name, action, at) = (words.first()?, words.get(1)?, words.get(2)?);
        let all = FailPoint::ALL.iter();
        let point = *all.clone().find(|point| point.name() == *name)?;
        let action = match *action {
            "abort" => Action::Abort,
            "stall" => Action::Stall(Duration::from_millis(words.get(3)?.parse().ok()?)),
            _ => return None,
        };
        Some(Order {
            point,
            action,
            at: at.parse().ok()?,
            seen: AtomicU64::new(0),
        })
    }

    pub fn reached(point: FailPoint) {
        for order in ORDERS.iter().filter(|order| order.point == point) {
            if order.seen.fetch_add(1, Ordering::Relaxed) + 1 != order.at {
                continue;
            }
            match order.action {
                Action::Abort => {
                    eprintln!("failpoint {point:?}: aborted");
                    std::process::abort();
                }
                Action::Stall(span) => {
                    eprintln!("failpoint {point:?}: stalled");
                    std::thread::sleep(span);
                }
            }
        }
    }
}

//! Faults put into the code on purpose, to see that the tests find them. Only a build with the feature
//! `seeded-faults` has any, and of them the one that `JUSTONCE_SEEDED_FAULT` names; in any other build none
//! can be on, and the compiler drops them.
//!
//! The promises are numbered as in `docs/reliability.md`.

/// One line a fault: its name, the promise that it breaks, and what goes wrong.
macro_rules! seeded_faults {
    ($($fault:ident $promise:ident $wrong:literal)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum SeededFault {
            $(#[doc = concat!("Breaks ", stringify!($promise), ": ", $wrong, ".")] $fault,)+
        }

        #[cfg(feature = "seeded-faults")]
        impl SeededFault {
            pub const ALL: &[SeededFault] = &[$(SeededFault::$fault),+];

            /// The promise that it breaks.
            pub fn promise(self) -> &'static str {
                match self { $(SeededFault::$fault => stringify!($promise),)+ }
            }

            /// What goes wrong.
            pub fn wrong(self) -> &'static str {
                match self { $(SeededFault::$fault => $wrong,)+ }
            }
        }
    };
}

seeded_faults! {
    ReplyBeforeCommit          P1  "a step is answered before it is committed, on a slow disk"
    KeyNotBound                P3  "a new task's key is not written"
    KeyExpiresWhileItRuns      P3  "a key's retention begins with its admission"
    OtherContentTaken          P4  "a key answers whatever comes with it"
    QueuedApart                P7  "a task is recorded in one step and queued in the next"
    ReturnedForEver            P7  "a task whose holders vanish is returned however often that was"
    StaleTokenTaken            P8  "any token counts as the holder's"
    SameTokenAgain             P8  "a lease gets the token of the lease before it"
    ForgottenAndRemembered     P9  "duplicates of a forgotten task are answered from memory"
    LaterResultTaken           P9  "a completion that comes once more replaces the result"
    QueueWithoutBound          P11 "the bound of the queue is not looked at"
    ForeignTaskShown           P14 "a task is found by its id, whoever asks"
    RedisConfirmationSkipped   P2  "nobody waits until the append-only files are fsynced"
    RedisLocksExpire           P3  "key and content of an unfinished task expire by time"
    RedisContentNotClaimed     P5  "a new task does not claim its content"
    RedisAdmissionNonceIgnored P6  "an admission that comes once more is taken for another"
    RedisUnknownMeansDone      P6  "a step whose outcome is unknown is answered as done"
    RedisQueuedApart           P7  "a task is recorded in one script and queued in the next"
    RedisLeaseNonceIgnored     P7  "a lease that comes once more takes other tasks"
    RedisStaleTokenTaken       P8  "a completion is recorded under any token"
    RedisSameTokenAgain        P8  "a lease gets the token of the lease before it"
    RedisLaterResultTaken      P9  "a completion that comes once more replaces the result"
    RedisRememberedTooLong     P9  "what a replica remembers holds beyond a quarter of a second"
    RedisMarkNotLookedAt       P12 "an admission does not look whether state was lost"
    RedisMarkNotRaised         P12 "an admission leaves no mark by which its loss is noticed"
    RedisMarksNotKept          P12 "a replica that starts again knows nothing of what it was told"
}

#[cfg(not(feature = "seeded-faults"))]
impl SeededFault {
    pub const fn is_on(self) -> bool {
        false
    }
}

#[cfg(feature = "seeded-faults")]
impl SeededFault {
    pub fn is_on(self) -> bool {
        Self::chosen() == Some(self)
    }

    /// The one that is on.
    pub fn chosen() -> Option<SeededFault> {
        static CHOSEN: std::sync::LazyLock<Option<SeededFault>> = std::sync::LazyLock::new(|| {
            let name = std::env::var(VARIABLE).ok()?;
            let fault = SeededFault::ALL
                .iter()
                .copied()
                .find(|fault| fault.name() == name);
            Some(fault.unwrap_or_else(|| panic!("{VARIABLE}: there is no fault {name}")))
        });
        *CHOSEN
    }

    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Names the fault that is to be on.
#[cfg(feature = "seeded-faults")]
pub const VARIABLE: &str = "JUSTONCE_SEEDED_FAULT";

//! The wall clock, for what is told to clients only: the store decides by its own.

use crate::domain::timestamp::Timestamp;

pub fn now() -> Timestamp {
    Timestamp::from_ms(jiff::Timestamp::now().as_millisecond())
}

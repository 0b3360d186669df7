//! The wall clock, for the little that the store does not judge: when API keys are made and expire.

use crate::domain::timestamp::Timestamp;

pub fn now() -> Timestamp {
    Timestamp::from_ms(jiff::Timestamp::now().as_millisecond())
}

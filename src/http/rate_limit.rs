//! How many requests a user may send, and what each answer says of it: problem type and fields of the IETF draft
//! "RateLimit header fields for HTTP" (-11).

use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use super::api::Api;
use super::code::Code;
use super::problem::Problem;
use crate::domain::principal::UserId;
use crate::domain::quota::{Quota, Spent};
use crate::store::StoreError;

/// The names of the policies, in fields and problems.
const REQUESTS: &str = "requests";
const UNFINISHED_TASKS: &str = "unfinished-tasks";

/// The problem type that IANA has registered for all of them.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A store that cannot count says so within this time, if it can still be read; what takes longer has no answer.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

/// How many requests a limited user has left.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    max: u32,
    spent: Spent,
}

/// Counts a request before anything of it is read. None where nothing limits the user.
pub async fn spend(api: &Api, user: &UserId) -> Result<Option<Standing>, Problem> {
    let Some(max) = api.limits.quotas.of(user).requests_per_minute else {
        return Ok(None);
    };
    let began = Instant::now();
    let spent = match api.store.spend_request(user, max).await {
        Ok(spent) => spent,
        // It takes no writes, and may still be read: whoever writes is told by the verb itself.
        Err(StoreError::Full) => return Ok(None),
        Err(StoreError::Unavailable(_)) if began.elapsed() < REFUSED_WITHIN => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let standing = Standing { max, spent };
    match spent.is_taken {
        true => Ok(Some(standing)),
        false => Err(standing.refusal()),
    }
}

impl Standing {
    pub fn used(&self) -> u64 {
        u64::from(self.max - self.spent.left.min(self.max))
    }

    /// Tells the client, whatever else the answer says.
    pub fn show(&self, response: &mut Response) {
        for (name, value) in self.fields() {
            match response.extensions_mut().get_mut::<Problem>() {
                Some(problem) => problem.add_header(name, value),
                None => {
                    response.headers_mut().append(name, value);
                }
            }
        }
    }

    fn refusal(&self) -> Problem {
        let seconds = self.resets_in_seconds();
        let detail = format!(
            "All {} requests of this minute are used up; the next are there in {seconds} s.",
            self.max
        );
        let mut problem = exceeded(REQUESTS, detail).with_retry_after(seconds);
        for (name, value) in self.fields() {
            problem.add_header(name, value);
        }
        problem
    }

    fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        let (left, seconds) = (self.spent.left, self.resets_in_seconds());
        let window = Quota::WINDOW.as_secs();
        fields(
            format!("\"{REQUESTS}\";r={left};t={seconds}"),
            format!("\"{REQUESTS}\";q={};w={window}", self.max),
        )
    }

    /// Rounded up: who comes back then finds the window over.
    fn resets_in_seconds(&self) -> u64 {
        let ms = self.spent.resets_in.as_millis();
        u64::try_from(ms.div_ceil(1000)).unwrap_or(u64::MAX).max(1)
    }
}

/// The user has as many unfinished tasks as they may have. Nobody knows when one of them will end.
pub fn too_many_unfinished(max: u64) -> Problem {
    let detail = format!("{max} tasks of this user are unfinished, and more are not taken.");
    let mut problem = exceeded(UNFINISHED_TASKS, detail);
    let left = format!("\"{UNFINISHED_TASKS}\";r=0");
    for (name, value) in fields(left, format!("\"{UNFINISHED_TASKS}\";q={max}")) {
        problem.add_header(name, value);
    }
    problem
}

fn exceeded(policy: &str, detail: String) -> Problem {
    Problem::new(Code::QuotaExceeded, detail)
        .with_registered_type(QUOTA_EXCEEDED)
        .with("violated-policies", vec![policy])
}

fn fields(limit: String, policy: String) -> Vec<(HeaderName, HeaderValue)> {
    let named = [(RATE_LIMIT, limit), (RATE_LIMIT_POLICY, policy)];
    let field = |(name, text)| Some((name, HeaderValue::try_from(text).ok()?));
    named.into_iter().filter_map(field).collect()
}

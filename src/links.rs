//! Links to what this service serves, as clients find it.

use std::fmt::{self, Display};

use serde::{Serialize, Serializer};
use url::Url;

use crate::domain::task::TaskId;

/// What all links begin with.
#[derive(Clone, Debug, Default)]
pub struct Links(String);

/// Where a task, or a part of it, can be found.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    base: &'a str,
    id: &'a TaskId,
    part: &'static str,
}

impl Links {
    /// Absolute ones with a public URL, else relative to the host.
    pub fn new(base_path: &str, public_url: Option<&Url>) -> Self {
        let base = public_url.map_or(base_path, |url| url.as_str().trim_end_matches('/'));
        Links(base.to_owned())
    }

    /// A link to a path such as `/v1/tasks/…`.
    pub fn to(&self, path: impl Display) -> String {
        format!("{}{path}", self.0)
    }
}

impl<'a> Link<'a> {
    pub fn of_task(links: &'a impl AsRef<Links>, id: &'a TaskId) -> Self {
        Link::of_part(links, id, "")
    }

    pub fn of_part(links: &'a impl AsRef<Links>, id: &'a TaskId, part: &'static str) -> Self {
        let base = &links.as_ref().0;
        Link { base, id, part }
    }
}

impl Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Link { base, id, part } = self;
        write!(f, "{base}/v1/tasks/{id}{part}")
    }
}

impl Serialize for Link<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl AsRef<Links> for Links {
    fn as_ref(&self) -> &Links {
        self
    }
}

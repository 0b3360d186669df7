use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ProcessFile,
    ProcessDocument,
    ScrapeWebsite,
}

impl Kind {
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "process_file" => Some(Self::ProcessFile),
            "process_document" => Some(Self::ProcessDocument),
            "scrape_website" => Some(Self::ScrapeWebsite),
            _ => None,
        }
    }

    /// The task type's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcessFile => "process_file",
            Self::ProcessDocument => "process_document",
            Self::ScrapeWebsite => "scrape_website",
        }
    }
}

/// A task, as far as a parser needs to know it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Request {
    #[serde(default)]
    pub params: Value,
    #[serde(default)]
    pub file: Option<FileRef>,
}

/// The task's file. `name` is never used to tell the type, `size` never to allocate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileRef {
    pub path: PathBuf,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub media_type: Option<String>,
    #[serde(default)]
    pub size: Option<u64>,
}

impl Request {
    /// The named param as text; `null` and absent are the same.
    pub fn text_param(&self, name: &str) -> Result<Option<&str>, Failure> {
        match self.params.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Failure::params(format!("{name} must be a string"))),
        }
    }

    /// The named param as a whole number, or `default`.
    pub fn count_param(&self, name: &str, default: usize) -> Result<usize, Failure> {
        match self.params.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .ok_or_else(|| {
                    Failure::params(format!("{name} must be a whole number, 0 or more"))
                }),
        }
    }

    /// The named param as a truth value, if given.
    pub fn flag_param(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.params.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(Failure::params(format!("{name} must be true or false"))),
        }
    }

    /// The declared media type in lower case, without parameters; `application/octet-stream` declares nothing.
    pub fn media_type(&self) -> Option<String> {
        let declared = self.file.as_ref()?.media_type.as_deref()?;
        let essence = declared
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        (!essence.is_empty() && essence != "application/octet-stream").then_some(essence)
    }

    /// The `charset` parameter of the declared media type.
    pub fn charset(&self) -> Option<&str> {
        let declared = self.file.as_ref()?.media_type.as_deref()?;
        declared.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("charset")
                .then(|| value.trim().trim_matches('"'))
        })
    }
}

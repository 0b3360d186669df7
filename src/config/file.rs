//! `justonce.toml`: the settings of the table at its top level, and some kinds of tables.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::error::{ConfigError, with_suggestion};
use super::layer::{Given, Layer};
use super::limits_table::LimitsTable;
use super::outside::{EgressTable, SmtpTable};
use super::quotas::{self, UserTable};
use super::retention_table::RetentionTable;
use super::setting::{SETTINGS, Setting};
use super::type_table::TypeTable;

#[derive(Debug, Default)]
pub struct File {
    /// Paths in the file are relative to this.
    pub folder: PathBuf,
    pub settings: Layer,
    pub limits: LimitsTable,
    pub retention: RetentionTable,
    pub task_types: BTreeMap<String, TypeTable>,
    pub egress: EgressTable,
    pub users: BTreeMap<String, UserTable>,
    /// Where each member was written, by its dotted path.
    places: BTreeMap<String, String>,
}

/// Where the file is when nobody says.
pub const USUAL_PATH: &str = "justonce.toml";

const TABLES: [&str; 6] = [
    "egress",
    "limits",
    "retention",
    "smtp",
    "task_types",
    "users",
];

impl File {
    /// Reads the named file, or the usual one if it is there.
    pub fn open(path: Option<&Path>) -> Result<File, ConfigError> {
        let usual = Path::new(USUAL_PATH);
        let name = path.unwrap_or(usual);
        let folder = name.parent().unwrap_or(Path::new("")).to_owned();
        match std::fs::read_to_string(name) {
            Ok(text) => File::parse(&text, name, folder),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(File::default())
            }
            Err(error) => Err(ConfigError::new(format!("{}: {error}", name.display()))),
        }
    }

    fn parse(text: &str, name: &Path, folder: PathBuf) -> Result<File, ConfigError> {
        let text = Text { text, name };
        let document = DeTable::parse(text.text).map_err(|error| text.refuse(error))?;
        let mut smtp = SmtpTable::default();
        let mut file = File {
            folder,
            ..File::default()
        };
        for (key, value) in document.into_inner() {
            text.find_places("", &key, &value, &mut file.places);
            match key.get_ref().as_ref() {
                "egress" => file.egress = text.table(value)?,
                "smtp" => smtp = text.table(value)?,
                "limits" => file.limits = text.table(value)?,
                "retention" => file.retention = text.table(value)?,
                "task_types" => file.task_types = text.table(value)?,
                "users" => file.users = text.table(value)?,
                key_text => {
                    let Some(setting) = Setting::named(key_text) else {
                        return Err(text.unknown_key(&key));
                    };
                    file.settings.insert(setting.key, text.given(value)?);
                }
            }
        }
        smtp.join(&mut file.settings)?;
        for (key, max) in quotas::SETTINGS.into_iter().zip(file.limits.of_users()) {
            let origin = file.place_of(&format!("limits.{key}"));
            quotas::join(&mut file.settings, key, max, origin)?;
        }
        Ok(file)
    }

    fn place_of(&self, path: &str) -> String {
        self.places.get(path).cloned().unwrap_or_default()
    }

    /// Says in which line of the `table` its mistake is: that of the member that it is about, or of the table.
    pub fn locate(&self, table: &str, error: ConfigError) -> ConfigError {
        let mut path = match error.member() {
            Some(member) => format!("{table}.{member}"),
            None => table.to_owned(),
        };
        loop {
            if let Some(place) = self.places.get(&path) {
                return error.at(place);
            }
            match path.rfind('.') {
                Some(end) => path.truncate(end),
                None => return error,
            }
        }
    }
}

/// The file as it stands, to say where in it something is wrong.
struct Text<'a> {
    text: &'a str,
    name: &'a Path,
}

/// What a setting may be written as.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<String>),
}

impl Text<'_> {
    fn table<T: DeserializeOwned>(&self, value: Spanned<DeValue<'_>>) -> Result<T, ConfigError> {
        T::deserialize(ValueDeserializer::from(value)).map_err(|error| self.refuse(error))
    }

    fn given(&self, value: Spanned<DeValue<'_>>) -> Result<Given, ConfigError> {
        let origin = self.place(value.span().start);
        let scalar = Scalar::deserialize(ValueDeserializer::from(value)).map_err(|_| {
            ConfigError::new("a text, a number, true, false or a list of texts belongs here")
                .at(&origin)
        })?;
        let text = match scalar {
            Scalar::Bool(value) => value.to_string(),
            Scalar::Integer(value) => value.to_string(),
            Scalar::Float(value) => value.to_string(),
            Scalar::Text(text) => text,
            Scalar::List(items) => items.join(","),
        };
        Ok(Given { text, origin })
    }

    /// Notes where a member and all below it were written.
    fn find_places(
        &self,
        above: &str,
        key: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        places: &mut BTreeMap<String, String>,
    ) {
        let path = match above {
            "" => key.get_ref().to_string(),
            above => format!("{above}.{}", key.get_ref()),
        };
        if let DeValue::Table(members) = value.get_ref() {
            for (key, value) in members {
                self.find_places(&path, key, value, places);
            }
        }
        places.insert(path, self.place(key.span().start));
    }

    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        format!("{}, line {line}, column {column}", self.name.display())
    }

    fn unknown_key(&self, key: &Spanned<Cow<'_, str>>) -> ConfigError {
        let name = key.get_ref();
        let known = SETTINGS.iter().map(|setting| setting.key).chain(TABLES);
        with_suggestion(format!("`{name}` is no setting"), name, known)
            .at(&self.place(key.span().start))
    }

    fn refuse(&self, error: toml::de::Error) -> ConfigError {
        let message = suggest(error.message());
        match error.span() {
            Some(span) => message.at(&self.place(span.start)),
            None => message.at(&self.name.display().to_string()),
        }
    }
}

/// Shortens serde's "unknown field `x`, expected one of `a`, `b`…" to the nearest one.
fn suggest(message: &str) -> ConfigError {
    let mut words = message.split('`').skip(1).step_by(2);
    match (message.strip_prefix("unknown field `"), words.next()) {
        (Some(_), Some(name)) => {
            with_suggestion(format!("`{name}` is not known here"), name, words)
        }
        _ => ConfigError::new(message.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, ConfigError> {
        File::parse(text, Path::new("justonce.toml"), PathBuf::new())
    }

    #[test]
    fn settings_know_where_they_were_written() {
        let file = parse("workers = 2\n\ncors_origins = [\"http://a\", \"http://b\"]\n").unwrap();
        assert_eq!(file.settings["workers"].text, "2");
        assert_eq!(file.settings["cors_origins"].text, "http://a,http://b");
        let origin = &file.settings["cors_origins"].origin;
        assert_eq!(origin, "justonce.toml, line 3, column 16");
    }

    #[test]
    fn mistakes_are_shown_with_line_and_column_and_the_nearest_name() {
        for (text, expected) in [
            (
                "\nlisten_ = \"x\"",
                "justonce.toml, line 2, column 1: `listen_` is no setting; did you mean `listen`?",
            ),
            (
                "[limits]\nfile_byte_max = 1",
                "justonce.toml, line 2, column 1: `file_byte_max` is not known here; did you mean `file_bytes_max`?",
            ),
            (
                "[task_types.t]\ntimeout_second = 1",
                "justonce.toml, line 2, column 1: `timeout_second` is not known here; did you mean `timeout_seconds`?",
            ),
            (
                "[task_types.t.dedup]\nmodes = \"return\"",
                "justonce.toml, line 2, column 1: `modes` is not known here; did you mean `mode`?",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
        assert!(
            parse("a = = 1")
                .unwrap_err()
                .to_string()
                .contains("line 1, column 5")
        );
        assert!(parse("workers = {}").is_err());
    }
}

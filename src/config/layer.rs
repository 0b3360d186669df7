//! Settings as they were written, before anyone has asked what they mean.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::error::{ConfigError, with_suggestion};
use super::setting::{OTHER_VARIABLES, SETTINGS, Setting};

/// The settings of one source, by key.
pub type Layer = BTreeMap<&'static str, Given>;

/// A value as it was written, and where: `JUSTONCE_WORKERS`, `--workers`, `justonce.toml, line 3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub text: String,
    pub origin: String,
}

impl Given {
    /// Reads the value; `expected` says in the error what it should have been.
    pub fn read<T>(
        &self,
        expected: &str,
        reader: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        reader(self.text.trim())
            .ok_or_else(|| self.refuse(&format!("{:?} is not {expected}", self.text)))
    }

    pub fn refuse(&self, why: &str) -> ConfigError {
        ConfigError::new(format!("{}: {why}", self.origin))
    }
}

/// All sources, the one that wins first: command line, environment, file.
#[derive(Clone, Debug, Default)]
pub struct Layers(pub Vec<Layer>);

impl Layers {
    pub fn get(&self, key: &'static str) -> Option<&Given> {
        debug_assert!(Setting::named(key).is_some(), "{key} is not in the table");
        self.0.iter().find_map(|layer| layer.get(key))
    }
}

/// The settings among the variables of the environment. An empty variable is as good as none.
pub fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (name, text) in variables {
        let Some(name) = name.to_str() else { continue };
        if text.is_empty() {
            continue;
        }
        let Some(setting) = Setting::of_variable(name) else {
            refuse_unknown(name)?;
            continue;
        };
        let origin = name.to_owned();
        let text = text
            .into_string()
            .map_err(|_| ConfigError::new(format!("{name}: not UTF-8")))?;
        layer.insert(setting.key, Given { text, origin });
    }
    Ok(layer)
}

fn refuse_unknown(name: &str) -> Result<(), ConfigError> {
    if !name.starts_with("JUSTONCE_") || OTHER_VARIABLES.contains(&name) || is_service_link(name) {
        return Ok(());
    }
    let known = SETTINGS.iter().map(|setting| setting.variable);
    Err(with_suggestion(
        format!("{name} is not a variable of JustOnce"),
        name,
        known.chain(OTHER_VARIABLES.iter().copied()),
    ))
}

/// Kubernetes gives these to every pod beside a service that is called "justonce"; they configure nothing.
fn is_service_link(name: &str) -> bool {
    name == "JUSTONCE_PORT"
        || name.starts_with("JUSTONCE_PORT_")
        || name.starts_with("JUSTONCE_SERVICE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Layer, ConfigError> {
        environment([(name.into(), text.into())])
    }

    #[test]
    fn unknown_variables_are_refused_and_the_nearest_is_named() {
        let error = read("JUSTONCE_WORKER", "2").unwrap_err().to_string();
        assert_eq!(
            error,
            "JUSTONCE_WORKER is not a variable of JustOnce; did you mean `JUSTONCE_WORKERS`?"
        );
        for fine in [
            "JUSTONCE_SERVICE_HOST",
            "JUSTONCE_PORT",
            "JUSTONCE_URL",
            "HOME",
        ] {
            assert_eq!(read(fine, "x").unwrap(), Layer::new(), "{fine}");
        }
        assert_eq!(read("JUSTONCE_WORKERS", "").unwrap(), Layer::new());
        assert_eq!(read("JUSTONCE_WORKERS", "2").unwrap()["workers"].text, "2");
    }
}

//! The settings as a person reads them: in `check-config`, and in `--help`.

use serde::Serialize;

use super::environment::{Environment, others};
use super::error::without_any_secrets;
use super::table::{TABLE, Unset};
use super::{Config, ConfigError};

/// One variable and its value, as `check-config --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    /// The name of the variable.
    #[serde(skip)]
    pub(crate) name: &'static str,
    /// Its value on one line, without secrets. `None` if it is not set and no value can express what then applies.
    pub(crate) value: Option<String>,
    /// The value while the variable is not set. `None` if no value can express that.
    pub(crate) default: Option<&'static str>,
    /// Where the value comes from.
    #[serde(rename = "source")]
    pub(crate) origin: Origin,
    /// What applies if there is no value.
    #[serde(skip)]
    pub(crate) remark: &'static str,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// The variable is set.
    Environment,
    /// The variable is not set, and this is its default.
    Default,
    /// The variable is not set and has no default.
    #[serde(rename = "unset")]
    NotSet,
}

impl Config {
    /// All settings, and the variables of proxies that are set, as the environment of this process has them.
    pub(crate) fn describe_environment() -> Result<Vec<Setting>, ConfigError> {
        Ok(describe(&Environment::of_process()?))
    }

    /// Like [`Config::describe_environment`], for these pairs.
    #[cfg(test)]
    pub(crate) fn describe_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<Setting> {
        describe(&Environment::from_pairs(pairs))
    }
}

/// All settings for `--help`: two lines each.
pub(crate) fn settings_help() -> String {
    let mut help = String::new();
    for variable in TABLE {
        let unset = match variable.unset {
            Unset::Default(value) => format!("default: {value}"),
            Unset::Means(remark) => format!("not set: {remark}"),
        };
        help += &format!(
            "  {}\n      {} [{unset}]\n",
            variable.name, variable.meaning
        );
    }
    help
}

fn describe(environment: &Environment) -> Vec<Setting> {
    let settings = TABLE.iter().map(|variable| {
        let value = environment.get(variable.name).map(without_any_secrets);
        let (origin, default, remark) = match (&value, variable.unset) {
            (Some(_), Unset::Default(default)) => (Origin::Environment, Some(default), ""),
            (Some(_), Unset::Means(_)) => (Origin::Environment, None, ""),
            (None, Unset::Default(default)) => (Origin::Default, Some(default), ""),
            (None, Unset::Means(remark)) => (Origin::NotSet, None, remark),
        };
        Setting {
            name: variable.name,
            value: value.or_else(|| default.map(str::to_owned)),
            default,
            origin,
            remark,
        }
    });
    let others = others().filter_map(|name| {
        Some(Setting {
            name,
            value: Some(without_any_secrets(environment.get(name)?)),
            default: None,
            origin: Origin::Environment,
            remark: "",
        })
    });
    settings.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VARIABLES;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_setting_that_is_set_to_its_default_changes_nothing() {
        let untouched = format!("{:?}", Config::from_pairs(pairs(&[])).unwrap());
        for variable in TABLE {
            if let Unset::Default(value) = variable.unset {
                let config = Config::from_pairs(pairs(&[(variable.name, value)])).unwrap();
                assert_eq!(format!("{config:?}"), untouched, "{}", variable.name);
            }
        }
    }

    #[test]
    fn a_setting_that_is_set_differs_from_one_that_is_not() {
        let settings = Config::describe_pairs(pairs(&[("PORT", "8080"), ("CONTACT", "")]));
        let of = |name: &str| {
            settings
                .iter()
                .find(|setting| setting.name == name)
                .unwrap()
        };
        assert_eq!(of("PORT").origin, Origin::Environment);
        assert_eq!(of("BIND_ADDRESS").origin, Origin::Default);
        assert_eq!(of("CONTACT").origin, Origin::NotSet);
        assert_eq!(settings.len(), VARIABLES.len());
    }

    #[test]
    fn no_secret_of_any_variable_is_shown() {
        for name in VARIABLES {
            for value in [
                "https://b0b:s3cret@h.example/i",
                "https://h.example/a?token=s3cret",
                "https://h.example/a https://h.example/b?token=s3cret@h",
                "s3cret@h.example:path",
            ] {
                let settings = Config::describe_pairs(pairs(&[(name, value)]));
                let shown = format!("{settings:?}");
                assert!(!shown.contains("s3cret") && shown.contains("h"), "{shown}");
            }
        }
    }
}

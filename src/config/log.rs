//! The settings of the log.

use tracing_subscriber::filter::EnvFilter;

use super::{ConfigError, value};
use crate::observability::LogFormat;

/// `LOG_FORMAT`.
pub(super) fn format(text: &str) -> Result<LogFormat, ConfigError> {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    value::choice("LOG_FORMAT", text, "`text` or `json`", &formats)
}

/// `RUST_LOG`.
pub(super) fn filter(text: String) -> Result<String, ConfigError> {
    match EnvFilter::try_new(&text) {
        Ok(_filter) => Ok(text),
        Err(_unparsable) => Err(ConfigError::new(
            "RUST_LOG",
            &text,
            "a filter like `info` or `crates_io_mirror=debug`",
        )),
    }
}

//! The settings of the log.

use tracing_subscriber::filter::EnvFilter;

use super::ConfigError;
use crate::observability::LogFormat;

/// `LOG_FORMAT`.
pub(super) fn format(text: &str) -> Result<LogFormat, ConfigError> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(ConfigError::new("LOG_FORMAT", other, "`text` or `json`")),
    }
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

//! Where traces go: the standard variables of OpenTelemetry.
//!
//! They are no rows of the table, because only builds with the feature `otlp` know them. The library reads some others
//! itself, such as `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_TRACES_SAMPLER` (`docs/logs.md`).

use url::Url;

use super::ConfigError;
use crate::observability::traces::TraceSettings;

/// The base URL of a collector.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The full URL for traces. It takes the place of [`ENDPOINT`].
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// What the mirror is called in traces.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// `true` turns traces off.
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// The variables that this file reads.
pub(super) const VARIABLES: [&str; 4] = [ENDPOINT, TRACES_ENDPOINT, SERVICE_NAME, DISABLED];

/// Where a collector takes traces, below its base URL.
const TRACES_PATH: &str = "/v1/traces";

/// Reads the variables through `value`. `None` if no endpoint is set: then the mirror makes no traces.
pub(super) fn settings<'v>(
    value: impl Fn(&str) -> Option<&'v str>,
) -> Result<Option<TraceSettings>, ConfigError> {
    if value(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let endpoint = match (value(TRACES_ENDPOINT), value(ENDPOINT)) {
        (Some(text), _) => endpoint(TRACES_ENDPOINT, text)?,
        (None, Some(text)) => {
            let mut url = endpoint(ENDPOINT, text)?;
            let path = url.path().trim_end_matches('/').to_owned() + TRACES_PATH;
            url.set_path(&path);
            url
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(TraceSettings {
        endpoint,
        service_name: value(SERVICE_NAME).map(str::to_owned),
    }))
}

/// Libraries write the URL to the log at some levels, so it must have no place for a secret.
fn endpoint(variable: &'static str, text: &str) -> Result<Url, ConfigError> {
    let remedy = "a URL like http://collector:4318 without credentials and query; credentials go into OTEL_EXPORTER_OTLP_HEADERS";
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    url.ok_or_else(|| ConfigError::new(variable, text, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<TraceSettings>, ConfigError> {
        settings(|wanted| {
            let mut found = pairs.iter().filter(|(name, _)| *name == wanted);
            found.next().map(|(_, value)| *value)
        })
    }

    #[test]
    fn the_endpoint_is_a_base_url_or_the_full_one_and_without_it_there_are_no_traces() {
        for (pairs, expected) in [
            (&[][..], None),
            (&[(SERVICE_NAME, "m")], None),
            (
                &[(ENDPOINT, "http://c:4318")],
                Some("http://c:4318/v1/traces"),
            ),
            (
                &[(ENDPOINT, "https://c/otlp/")],
                Some("https://c/otlp/v1/traces"),
            ),
            (
                &[(ENDPOINT, "http://c:4318"), (TRACES_ENDPOINT, "http://d/t")],
                Some("http://d/t"),
            ),
            (&[(ENDPOINT, "http://c:4318"), (DISABLED, "TRUE")], None),
        ] {
            let endpoint = read(pairs).unwrap().map(|settings| settings.endpoint);
            assert_eq!(endpoint.as_ref().map(Url::as_str), expected, "{pairs:?}");
        }
    }

    #[test]
    fn an_endpoint_with_a_place_for_a_secret_is_refused_without_showing_it() {
        for bad in [
            "collector:4318",
            "ftp://c",
            "http://b0b:s3cret@c:4318",
            "http://s3cret@c",
            "http://c/?token=s3cret",
            "http://c/#s3cret",
        ] {
            let error = read(&[(ENDPOINT, bad)]).unwrap_err().to_string();
            assert!(error.starts_with(ENDPOINT), "{error}");
            assert!(
                !error.contains("s3cret") && !error.contains('\n'),
                "{error}"
            );
        }
    }
}

//! The configuration of a registry, as cargo reads it.

use serde_json::json;

/// The content of `config.json`, the file at the root of an index, for a registry at this base URL (without a trailing
/// slash). The sparse index and the git index serve the same bytes.
///
/// `dl` has no placeholders, so that every cargo understands it; cargo then appends `/{crate}/{version}/download`
/// (<https://doc.rust-lang.org/cargo/reference/registry-index.html#index-configuration>).
pub(crate) fn registry_config(base_url: &str) -> String {
    json!({ "api": base_url, "dl": format!("{base_url}/api/v1/crates") }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_config_names_the_download_url_and_the_api() {
        assert_eq!(
            registry_config("https://mirror.example/at"),
            r#"{"api":"https://mirror.example/at","dl":"https://mirror.example/at/api/v1/crates"}"#
        );
    }
}

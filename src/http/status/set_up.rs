//! How to point cargo at this mirror: the texts on the page, and `GET /config.toml`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::http::error::ApiError;
use crate::http::semantics::base_url::{BASE_URL_VARIES, base_url};
use crate::http::state::AppState;
use crate::package::registry_config;

/// The set-up for a mirror at one base URL.
pub(super) struct SetUp {
    base: String,
    /// Whether there is a git index: it needs `PUBLIC_URL`.
    pub(super) serves_git: bool,
}

impl SetUp {
    /// The set-up for the base URL of a request.
    ///
    /// # Errors
    /// As [`base_url`].
    pub(super) fn of(state: &AppState, uri: &Uri, headers: &HeaderMap) -> Result<Self, ApiError> {
        Ok(Self {
            base: base_url(&state.settings, uri, headers)?,
            serves_git: state.settings.public_url.is_some(),
        })
    }

    /// `config.toml` for the sparse index.
    pub(super) fn sparse(&self) -> String {
        config_toml(&format!("sparse+{}/index/", self.base))
    }

    /// `config.toml` for the git index.
    pub(super) fn git(&self) -> String {
        config_toml(&format!("{}/git/index", self.base))
    }

    /// The set-up without a file, by a variable and an option.
    pub(super) fn without_file(&self) -> String {
        format!(
            "export CARGO_REGISTRIES_MIRROR_INDEX=sparse+{}/index/\n\
             cargo --config 'source.crates-io.replace-with=\"mirror\"' fetch",
            self.base
        )
    }

    /// `config.json` for an index of one's own whose crates come from this mirror.
    pub(super) fn index_config(&self) -> String {
        registry_config(&self.base)
    }
}

/// The set-up for an index at this URL, without a line break at the end.
fn config_toml(index: &str) -> String {
    format!(
        "[source.crates-io]\n\
         replace-with = \"mirror\"\n\
         [source.mirror]\n\
         registry = \"{index}\"\n\
         [registries.mirror]\n\
         index = \"{index}\""
    )
}

/// The set-up as text: for the sparse index, and as a comment for the git index.
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let set_up = SetUp::of(&state, &uri, &headers)?;
    let mut text = format!(
        "# Cargo uses this mirror of crates.io with these lines in ~/.cargo/config.toml.\n{}\n\n",
        set_up.sparse()
    );
    if set_up.serves_git {
        let git = set_up.git().replace('\n', "\n# ");
        text += "# The same with the git index, for cargo before 1.68:\n";
        text += &format!("# {git}\n");
    } else {
        text.push_str("# The git index is off: the mirror's PUBLIC_URL is not set.\n");
    }
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, BASE_URL_VARIES),
    ];
    Ok((headers, text).into_response())
}

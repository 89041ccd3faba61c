//! Single requests by the rules for redirects of crate files: finding where a git repository has moved to, and whether a
//! host of crate files answers.

use reqwest::{Response, StatusCode};
use tokio::time::timeout;
use url::Url;

use super::addresses::Upstreams;
use super::client::{ClientSettings, is_inside};
use super::template::DownloadTemplate;
use crate::outgoing::first_cause;

/// The first request of every fetch over HTTP: what libgit2 gets redirected.
const FIRST_REQUEST: (&str, &str) = ("/info/refs", "service=git-upload-pack");

/// The URL of a repository after all redirects.
///
/// libgit2 looks up the host again when it connects. A name server that changes its answer in between can still lead it to
/// a private address.
///
/// # Errors
/// Why the redirect is refused, without URLs.
pub(crate) async fn find_redirect(
    settings: &ClientSettings,
    repository: &str,
) -> Result<String, String> {
    let (path, query) = FIRST_REQUEST;
    let first = format!("{}{path}?{query}", repository.trim_end_matches('/'));
    let first = Url::parse(&first).map_err(|error| error.to_string())?;
    let answer = first_answer(settings, first).await?;
    let mut moved = answer.url().clone();
    let repository = moved
        .path()
        .strip_suffix(path)
        .unwrap_or_else(|| moved.path());
    let repository = repository.to_owned();
    moved.set_path(&repository);
    moved.set_query(None);
    moved.set_fragment(None);
    Ok(moved.into())
}

/// Asks the host of a download template for a file that probably does not exist. Any answer shows that the host is
/// there, unless it is that of a broken server, or a demand for credentials.
///
/// # Errors
/// What is wrong, without URLs.
pub(crate) async fn check_answers(
    settings: &ClientSettings,
    template: &DownloadTemplate,
) -> Result<(), String> {
    let sample = Url::parse(&template.sample()).map_err(|error| error.to_string())?;
    let status = first_answer(settings, sample).await?.status();
    let asks_for_credentials = matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    );
    if status.is_server_error() || asks_for_credentials {
        return Err(format!("it answers {status}"));
    }
    Ok(())
}

/// The head of the answer to one request, after all redirects.
async fn first_answer(settings: &ClientSettings, url: Url) -> Result<Response, String> {
    // A host that this machine cannot look up may be known to a proxy. It counts as public.
    let upstreams = match is_inside(&settings.resolver, &url).await {
        Ok(true) => Upstreams::Inside,
        Ok(false) | Err(_) => Upstreams::Public,
    };
    // Such requests are rare: a permanent client would cost every mirror memory.
    let client = settings.build(upstreams);
    let client = client.map_err(|error| error.to_string())?;
    let answer = timeout(settings.limits.head_timeout, client.get(url).send()).await;
    answer
        .map_err(|_elapsed| "it did not answer in time".to_owned())?
        .map_err(|error| first_cause(&error.without_url()))
}

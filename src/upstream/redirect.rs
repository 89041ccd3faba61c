//! Finding where a git repository has moved to, by the rules for redirects of crate files.

use std::error::Error;

use tokio::time::timeout;
use url::Url;

use super::addresses::{Names, Reach, Resolver};
use super::client::{self, is_inside};
use super::fetch::FetchLimits;
use crate::outgoing::Proxies;

/// The first request of every fetch over HTTP: what libgit2 gets redirected.
const FIRST_REQUEST: (&str, &str) = ("/info/refs", "service=git-upload-pack");

/// What following a redirect needs to know.
#[derive(Clone, Debug)]
pub(crate) struct RedirectSettings {
    /// What upstreams see as `User-Agent`.
    pub(crate) user_agent: String,
    /// How long to wait.
    pub(crate) limits: FetchLimits,
    /// Tells the addresses of upstreams.
    pub(crate) resolver: Resolver,
    /// How other machines are reached. The hosts of proxies may have private addresses.
    pub(crate) proxies: Proxies,
}

/// The URL of a repository after all redirects.
///
/// libgit2 looks the host up once more when it connects. A name server that answers differently by then can still lead it
/// to a private address.
///
/// # Errors
/// Why a redirect is not followed, without URLs.
pub(crate) async fn find_redirect(
    settings: &RedirectSettings,
    repository: &str,
) -> Result<String, String> {
    let (path, query) = FIRST_REQUEST;
    let first = format!("{}{path}?{query}", repository.trim_end_matches('/'));
    let first = Url::parse(&first).map_err(|error| error.to_string())?;
    let resolver = settings.resolver.clone();
    // A host that is not known here may be known to a proxy. It counts as public.
    let reach = if is_inside(&resolver, &first).await.unwrap_or(false) {
        Reach::Everywhere
    } else {
        Reach::Public {
            except: settings.proxies.hosts().into(),
        }
    };
    // Redirects are rare: a client that is always there would cost every mirror memory.
    let client = client::build(
        &settings.user_agent,
        &settings.limits,
        &settings.proxies,
        Names { resolver, reach },
    )
    .map_err(|error| error.to_string())?;
    let answer = timeout(settings.limits.head_timeout, client.get(first).send()).await;
    let answer = answer
        .map_err(|_elapsed| "it did not answer in time".to_owned())?
        .map_err(|error| cause(&error.without_url()))?;
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

/// What is at the bottom of an error: the rule that was broken, or what the system said.
fn cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

//! Settings that work, but are probably not what the operator meant.

use super::{Config, DownloadMode};
use crate::policy::{HeldDownloads, UnknownAge};

impl Config {
    /// What to warn of, one line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let policy = &self.policy.settings;
        let has_ages = !policy.min_age.is_zero() || self.policy.file.can_hold();
        let public_url = self.public_url.as_ref().map(ToString::to_string);
        let is_plain = |url: &String| url.starts_with("http://");
        let cases = [
            (
                self.ignores_http_proxy,
                "HTTP_PROXY is ignored, as by curl: http_proxy, in lower case, is the proxy for http URLs",
            ),
            (
                self.is_always_stale(),
                "MAX_STALENESS_SECS is not longer than REFRESH_INTERVAL_SECS: /readyz will fail between fetches",
            ),
            (
                self.tls.is_some() && public_url.as_ref().is_some_and(is_plain),
                "PUBLIC_URL begins with http://, and TLS_CERT turns TLS on: cargo will not be answered there",
            ),
            (
                self.download_mode == DownloadMode::Redirect && self.downloads.first.has_query,
                "DOWNLOAD_URL has a query string or a fragment, and DOWNLOAD_MODE is redirect: every client sees it",
            ),
            (
                has_ages && self.refresh_interval.is_none(),
                "REFRESH_INTERVAL_SECS is 0, so policy time stands still: held versions stay held",
            ),
            (
                policy.unknown_age == UnknownAge::Hold && !has_ages,
                "MIN_PUBLISH_AGE_UNKNOWN is hold, and MIN_PUBLISH_AGE is 0: nothing is held",
            ),
            (
                policy.held_downloads == HeldDownloads::Deny
                    && !has_ages
                    && policy.yank_guard.is_zero(),
                "HELD_DOWNLOADS is deny, and MIN_PUBLISH_AGE and YANK_GUARD are 0: nothing is held",
            ),
            (
                self.advisory_db_url.is_some() && !self.follows_advisories(),
                "DOWNLOAD_MODE is offline, and ADVISORY_DB_URL is no path on this machine: a copy of the advisory database \
                 that lies in DATA_DIR is used, and none is fetched",
            ),
        ];
        let applying = cases.into_iter().filter(|(applies, _)| *applies);
        let misspelt = self.misspelt.iter().map(|(name, meant)| {
            format!("{name} is set and is no setting of the mirror: perhaps {meant} is meant")
        });
        let applying = applying.map(|(_, warning)| warning.to_owned());
        // Which exemptions have expired depends on policy time, which is unknown here.
        let of_file = self.policy.file.warnings(i64::MIN).into_iter();
        let of_file = of_file.map(|warning| format!("POLICY_FILE: {warning}"));
        applying.chain(misspelt).chain(of_file).collect()
    }

    /// Whether the index gets too old before the next fetch, so that the mirror is unready between fetches.
    fn is_always_stale(&self) -> bool {
        let mut interval = self.refresh_interval.iter();
        self.follows_the_index() && interval.any(|interval| *interval >= self.max_staleness)
    }
}

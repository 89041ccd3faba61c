//! The choice of a version.

use semver::VersionReq;

use crate::index::ServedFile;
use crate::package::{CrateFile, CrateHistory, CrateVersion, Release};
use crate::prefetch::crate_spec::VersionWanted;

/// Why no version can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoChoice {
    #[error("there is no such crate in the index")]
    NoCrate,
    #[error("no version of the crate matches")]
    NoVersion,
    #[error("every version that matches was yanked; name an exact version to have it all the same")]
    AllYanked,
    #[error(
        "every version that matches was yanked, or the policy holds or denies it; `crates-io-mirror explain` says why"
    )]
    NoneServed,
    #[error("the policy denies it: {0}")]
    Denied(String),
    #[error("only pre-releases match; name one to have it")]
    OnlyPreReleases,
    #[error("the index has no checksum of it")]
    NoChecksum,
}

/// Chooses the wanted version.
pub(crate) fn choose<'h, 'f>(
    history: &'h CrateHistory<'f>,
    wanted: &VersionWanted,
) -> Result<&'h Release<'f>, NoChoice> {
    match wanted {
        VersionWanted::Exactly(version) => find(history, version).ok_or(NoChoice::NoVersion),
        VersionWanted::Highest(requirement) => highest(history, requirement),
    }
}

/// The file of a release, unless the policy denies it.
pub(crate) fn crate_file(
    release: &Release<'_>,
    served: &ServedFile<'_>,
) -> Result<CrateFile, NoChoice> {
    if let Some(why) = served.denial(release.version()) {
        return Err(NoChoice::Denied(why));
    }
    Ok(CrateFile {
        name: release.line.name.clone(),
        version: release.version().clone(),
        checksum: release.line.checksum().ok_or(NoChoice::NoChecksum)?,
    })
}

/// People rarely type build metadata. So a version without it also matches one that differs only in that.
fn find<'h, 'f>(history: &'h CrateHistory<'f>, version: &CrateVersion) -> Option<&'h Release<'f>> {
    history.find(version).or_else(|| {
        let bare = version.semver().build.is_empty();
        let is_it = |release: &&Release<'_>| {
            let order = release.version().semver().cmp_precedence(version.semver());
            bare && order.is_eq()
        };
        history.releases().iter().rfind(is_it)
    })
}

fn highest<'h, 'f>(
    history: &'h CrateHistory<'f>,
    requirement: &VersionReq,
) -> Result<&'h Release<'f>, NoChoice> {
    let matching = |release: &&Release<'_>| requirement.matches(release.version().semver());
    let visible = history.visible().filter(matching);
    visible
        .max_by_key(|release| release.version().semver())
        .ok_or_else(|| match history.releases().iter().any(|it| matching(&it)) {
            true => NoChoice::AllYanked,
            false if *requirement == VersionReq::STAR => NoChoice::OnlyPreReleases,
            false => NoChoice::NoVersion,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::CrateName;
    use crate::prefetch::testing::IndexFiles;

    fn chosen(index: &IndexFiles, name: &str, wanted: &str) -> Result<String, NoChoice> {
        let crate_name = CrateName::try_from(name.to_owned()).unwrap();
        let history = CrateHistory::parse(index.0[name].as_bytes(), &crate_name).unwrap();
        let release = choose(&history, &wanted.parse().unwrap())?;
        Ok(release.version().to_string())
    }

    #[test]
    fn the_version_that_cargo_would_pick_is_chosen() {
        let mut index = IndexFiles::default();
        for version in [
            "0.9.0",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2.0",
            "1.10.0",
            "1.10.1",
            "2.0.0-beta.1",
            "2.0.0-beta.2",
            "3.0.0+a",
            "3.0.0+b",
        ] {
            index = index.publish("a", version, &[]);
        }
        let index = index.yank("a", "1.10.1");
        for (wanted, expected) in [
            ("*", Ok("3.0.0+b")),
            ("1", Ok("1.10.0")),
            ("^1.2", Ok("1.10.0")),
            ("~1.2", Ok("1.2.0")),
            (">=0.9, <1.10", Ok("1.2.0")),
            ("0.9", Ok("0.9.0")),
            ("2", Err(NoChoice::NoVersion)),
            ("2.0.0-beta.1", Ok("2.0.0-beta.1")),
            ("^2.0.0-beta.1", Ok("2.0.0-beta.2")),
            ("1.10.1", Ok("1.10.1")),
            ("^1.10.1", Err(NoChoice::AllYanked)),
            ("3.0.0+a", Ok("3.0.0+a")),
            ("3.0.0", Ok("3.0.0+b")),
            ("3.0.0+c", Err(NoChoice::NoVersion)),
            ("9", Err(NoChoice::NoVersion)),
        ] {
            let chosen = chosen(&index, "a", wanted);
            assert_eq!(chosen.as_deref(), expected.as_ref().copied(), "{wanted}");
        }
    }

    #[test]
    fn a_crate_of_pre_releases_must_be_asked_for_by_name() {
        let index = IndexFiles::default().publish("a", "1.0.0-alpha", &[]);
        assert_eq!(chosen(&index, "a", "*"), Err(NoChoice::OnlyPreReleases));
        assert!(chosen(&index, "a", "1.0.0-alpha").is_ok());
    }

    #[test]
    fn real_histories_are_read() {
        let index = IndexFiles::default().with_real_crates(&["anyhow", "rand_core"]);
        assert_eq!(chosen(&index, "anyhow", "=1.0.0").as_deref(), Ok("1.0.0"));
        assert!(
            chosen(&index, "rand_core", "0.6")
                .unwrap()
                .starts_with("0.6.")
        );
    }
}

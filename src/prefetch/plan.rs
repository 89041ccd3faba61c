//! What shall be fetched: named files, and what could not be named.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::choose::crate_file;
use super::closure::{Dependencies, add_closure};
use super::crate_spec::CrateSpec;
use super::findings::{Finding, Severity};
use super::index_reader::{IndexReader, IndexUnreadable};
use super::lockfile::{LockedPackage, Registry};
use crate::package::{CrateFile, CrateHistory, CrateName};

/// What is wanted by name, read from arguments and files.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The packages of all lock files.
    pub(crate) locked: Vec<LockedPackage>,
    /// The crates of the command line and of all lists.
    pub(crate) crates: Vec<CrateSpec>,
    /// Which dependencies of those crates are followed.
    pub(crate) dependencies: Dependencies,
}

/// What shall be fetched, each file once, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    files: BTreeMap<(String, String), CrateFile>,
    /// What was wanted and cannot be had.
    pub(crate) findings: Vec<Finding>,
    /// How many dependencies on crates of other registries were passed over.
    pub(crate) elsewhere: usize,
    /// How many packages of lock files were passed over because another registry has them.
    pub(crate) locked_elsewhere: usize,
}

impl Plan {
    /// Looks up all that is wanted. Blocking.
    pub(crate) fn make(
        wanted: &Wanted,
        index: &impl IndexReader,
        stop: &CancellationToken,
    ) -> Result<Self, IndexUnreadable> {
        let mut plan = Self::default();
        plan.add_locked(&wanted.locked, index, stop)?;
        add_closure(&mut plan, index, &wanted.crates, wanted.dependencies, stop)?;
        Ok(plan)
    }

    /// Takes a file into the plan.
    pub(crate) fn add(&mut self, file: CrateFile) {
        let key = (file.name.to_lowercase(), file.version.to_string());
        self.files.insert(key, file);
    }

    /// The files, in the order of their names.
    #[cfg(test)]
    pub(crate) fn files(&self) -> impl Iterator<Item = &CrateFile> {
        self.files.values()
    }

    /// Gives the files away.
    pub(crate) fn into_files(self) -> Vec<CrateFile> {
        self.files.into_values().collect()
    }

    /// Whether a build that needs all that was asked for is sure to fail.
    pub(crate) fn has_problems(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.severity == Severity::Problem)
    }

    fn add_locked(
        &mut self,
        packages: &[LockedPackage],
        index: &impl IndexReader,
        stop: &CancellationToken,
    ) -> Result<(), IndexUnreadable> {
        let mut by_crate: BTreeMap<String, Vec<&LockedPackage>> = BTreeMap::new();
        for package in packages {
            let of_crate = by_crate.entry(package.name.to_lowercase()).or_default();
            if !of_crate.contains(&package) {
                of_crate.push(package);
            }
        }
        for packages in by_crate.values() {
            if stop.is_cancelled() {
                break;
            }
            self.add_locked_of_crate(packages, index)?;
        }
        Ok(())
    }

    fn add_locked_of_crate(
        &mut self,
        packages: &[&LockedPackage],
        index: &impl IndexReader,
    ) -> Result<(), IndexUnreadable> {
        let Some(first) = packages.first() else {
            return Ok(());
        };
        let file = index.index_file(&first.name)?;
        let history = file
            .as_deref()
            .and_then(|file| CrateHistory::parse(file, &first.name));
        for package in packages {
            match locked_file(package, history.as_ref()) {
                Ok(Some(file)) => self.add(file),
                Ok(None) => self.locked_elsewhere += 1,
                Err(finding) => self.findings.push(finding),
            }
        }
        Ok(())
    }
}

/// The file that a lock file means, if cargo would take what the index says of it. `None` if it is of another registry: a
/// crate of crates.io with the same name is not what was asked for.
fn locked_file(
    package: &LockedPackage,
    history: Option<&CrateHistory<'_>>,
) -> Result<Option<CrateFile>, Finding> {
    let (name, version) = (&package.name, &package.version);
    let release = history.and_then(|history| history.find(version));
    if package.registry == Registry::Unknown {
        let file = release.and_then(|release| crate_file(release).ok());
        return Ok(file.filter(|file| package.checksum == Some(file.checksum)));
    }
    let release = release.ok_or_else(|| Finding::not_in_index(name, version))?;
    let file = crate_file(release).map_err(|_why| Finding::no_checksum(name, version))?;
    match package.checksum {
        // Nothing but what the index says could be fetched and verified, and cargo would refuse that.
        Some(locked) if locked != file.checksum => {
            let in_index = file.checksum;
            Err(Finding::other_checksum(name, version, locked, in_index))
        }
        _ => Ok(Some(file)),
    }
}

/// One crate's files, for a plan that is made for every crate in turn.
pub(crate) fn files_of_crate(name: &CrateName, file: &[u8]) -> (Vec<CrateFile>, Vec<Finding>) {
    let mut found = (Vec::new(), Vec::new());
    let history = CrateHistory::parse(file, name);
    for release in history.iter().flat_map(|history| history.releases()) {
        match crate_file(release) {
            Ok(file) => found.0.push(file),
            Err(_why) => {
                let finding = Finding::no_checksum(&release.line.name, release.version());
                found.1.push(finding);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefetch::index_reader::testing::{MapIndex, checksum_of};
    use crate::prefetch::lockfile::{OwnSources, parse_lockfile};

    fn locked(name: &str, version: &str, checksum: &str) -> LockedPackage {
        LockedPackage {
            name: CrateName::try_from(name.to_owned()).unwrap(),
            version: version.to_owned().try_into().unwrap(),
            checksum: checksum.parse().ok(),
            registry: Registry::Own,
        }
    }

    fn made(locked: Vec<LockedPackage>, index: &MapIndex) -> (Plan, Vec<String>, Vec<String>) {
        let wanted = Wanted {
            locked,
            crates: Vec::new(),
            dependencies: Dependencies::ToBuild,
        };
        let plan = Plan::make(&wanted, index, &CancellationToken::new()).unwrap();
        let files = plan.files().map(ToString::to_string).collect();
        let findings = plan.findings.iter().map(ToString::to_string).collect();
        (plan, files, findings)
    }

    #[test]
    fn a_lock_file_gets_the_versions_that_it_names_yanked_ones_included() {
        let index = MapIndex::default()
            .publish(
                "a",
                "1.0.0",
                &[&crate::prefetch::index_reader::testing::dependency(
                    "b", "*", "",
                )],
            )
            .publish("a", "1.1.0", &[])
            .publish("b", "1.0.0", &[])
            .yank("a", "1.0.0");
        let twice = vec![
            locked("a", "1.0.0", &checksum_of("a", "1.0.0")),
            locked("a", "1.0.0", &checksum_of("a", "1.0.0")),
            locked("a", "1.1.0", "unknown"),
        ];
        let (plan, files, findings) = made(twice, &index);
        assert_eq!(
            (files, findings),
            (vec!["a 1.0.0".into(), "a 1.1.0".into()], vec![])
        );
        assert!(!plan.has_problems());
    }

    #[test]
    fn what_cargo_would_refuse_is_a_problem_and_not_fetched() {
        let index = MapIndex::default()
            .publish("a", "1.0.0", &[])
            .publish("b", "1.0.0", &[]);
        let packages = vec![
            locked("a", "1.0.0", &"f".repeat(64)),
            locked("a", "2.0.0", "unknown"),
            locked("b", "1.0.0", "unknown"),
            locked("c", "1.0.0", "unknown"),
        ];
        let (plan, files, findings) = made(packages, &index);
        assert_eq!(files, ["b 1.0.0"]);
        let begin = [
            "problem: a@1.0.0: the lock file has the checksum ffff",
            "problem: a@2.0.0: it is not in the index",
            "problem: c@1.0.0: it is not in the index",
        ];
        assert_eq!(findings.len(), begin.len());
        for (finding, begin) in findings.iter().zip(begin) {
            assert!(finding.starts_with(begin), "{finding}");
        }
        assert!(plan.has_problems());
    }

    #[test]
    fn packages_of_other_registries_are_passed_over_and_only_the_same_file_is_taken_for_ours() {
        let index = MapIndex::default()
            .publish("a", "1.0.0", &[])
            .publish("b", "1.0.0", &[])
            .publish("c", "1.0.0", &[]);
        let mut packages = vec![
            locked("a", "1.0.0", &"f".repeat(64)),
            locked("b", "1.0.0", "unknown"),
            locked("c", "1.0.0", &checksum_of("c", "1.0.0")),
            locked("private", "1.0.0", &"f".repeat(64)),
        ];
        for package in &mut packages {
            package.registry = Registry::Unknown;
        }
        let (plan, files, findings) = made(packages, &index);
        assert_eq!((files, findings), (vec!["c 1.0.0".to_owned()], vec![]));
        assert_eq!(plan.locked_elsewhere, 3);
        assert!(!plan.has_problems());
    }

    #[test]
    fn the_lock_file_of_this_project_agrees_with_the_real_index() {
        let real = [
            "adler2", "anyhow", "cfg-if", "either", "fnv", "hex", "itoa", "shlex",
        ];
        let index = MapIndex::default().with_real_crates(&real);
        let packages =
            parse_lockfile(include_str!("../../Cargo.lock"), &OwnSources::default()).unwrap();
        let packages: Vec<LockedPackage> = packages
            .into_iter()
            .filter(|package| real.contains(&package.name.as_str()))
            .collect();
        assert!(!packages.is_empty());
        let expected = packages.len();
        let (_, files, findings) = made(packages, &index);
        assert_eq!(files.len() + findings.len(), expected);
        // The fixtures are as old as they are; what they have must agree.
        let disagrees = findings.iter().find(|finding| finding.contains("checksum"));
        assert_eq!(disagrees, None);
        assert!(!files.is_empty());
    }

    #[test]
    fn every_version_of_a_crate_is_listed_yanked_ones_included() {
        let index = MapIndex::default().with_real_crates(&["itoa"]);
        let name = CrateName::try_from("itoa".to_owned()).unwrap();
        let file = &index.0["itoa"];
        let (files, findings) = files_of_crate(&name, file.as_bytes());
        assert_eq!((files.len(), findings.len()), (file.lines().count(), 0));
        let junk = format!(
            "{file}\njunk\n{{\"name\":\"itoa\",\"vers\":\"99.0.0\",\"deps\":[],\"cksum\":\"\"}}"
        );
        let (more, findings) = files_of_crate(&name, junk.as_bytes());
        assert_eq!((more.len(), findings.len()), (files.len(), 1));
    }
}

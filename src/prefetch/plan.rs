//! The plan: which crate files are wanted, by the arguments, lock files and crate lists that name them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::closure::choose::{NoChoice, crate_file};
use super::closure::{Dependencies, resolve};
use super::crate_spec::{CrateListError, CrateSpec, parse_crate_list};
use super::finding::{Finding, Severity};
use super::lockfile::{LockedPackage, LockfileError, OwnSources, Registry, parse_lockfile};
use crate::index::{ReadError, ServedFile, ServedIndex};
use crate::package::{CrateFile, CrateHistory, CrateName};

/// The largest input file. The lock file of a very large workspace has one megabyte.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The name of a lock file in a directory.
const LOCKFILE_NAME: &str = "Cargo.lock";

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// What is wanted by name.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The packages of all lock files.
    pub(crate) locked: Vec<LockedPackage>,
    /// The crates of the command line and of all lists.
    pub(crate) crates: Vec<CrateSpec>,
    /// Which dependencies of those crates are followed.
    pub(crate) dependencies: Dependencies,
}

/// A bad input. The text is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: {why}", path.display())]
    Lockfile {
        path: PathBuf,
        #[source]
        why: LockfileError,
    },
    #[error("{}: {why}", path.display())]
    CrateList {
        path: PathBuf,
        #[source]
        why: CrateListError,
    },
}

impl Wanted {
    /// Adds the packages of a lock file, or of that in a directory. `own` has the names of this mirror's registry. Blocking.
    pub(crate) fn add_lockfile(
        &mut self,
        path: PathBuf,
        own: &OwnSources,
    ) -> Result<(), InputError> {
        // People name the directory of a project as often as its lock file.
        let path = match path.is_dir() {
            true => path.join(LOCKFILE_NAME),
            false => path,
        };
        let packages = parse_lockfile(&read_text(&path)?, own);
        self.locked
            .extend(packages.map_err(|why| InputError::Lockfile { path, why })?);
        Ok(())
    }

    /// Adds the crates of a crate list; `-` is standard input. Blocking.
    pub(crate) fn add_list(&mut self, path: PathBuf) -> Result<(), InputError> {
        let specs = parse_crate_list(&read_text(&path)?);
        self.crates
            .extend(specs.map_err(|why| InputError::CrateList { path, why })?);
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<String, InputError> {
    let read = if path == Path::new(STANDARD_INPUT) {
        read_all(io::stdin().lock())
    } else {
        File::open(path).and_then(read_all)
    };
    read.map_err(|source| InputError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn read_all(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let read = from.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > INPUT_BYTES_MAX {
        return Err(io::Error::other("it is too large"));
    }
    Ok(text)
}

/// The files to fetch, each once, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    files: BTreeMap<(String, String), CrateFile>,
    /// What is wanted and cannot be had.
    pub(crate) findings: Vec<Finding>,
    /// How many dependencies were left out because they belong to other registries.
    pub(crate) elsewhere: usize,
    /// How many packages of lock files were left out because they belong to other registries.
    pub(crate) locked_elsewhere: usize,
}

impl Plan {
    /// Looks up everything in the index. Blocking.
    pub(crate) fn make(
        wanted: &Wanted,
        index: &ServedIndex,
        stop: &CancellationToken,
    ) -> Result<Self, ReadError> {
        let mut plan = Self::default();
        plan.add_locked(&wanted.locked, index, stop)?;
        let resolved = resolve(index, &wanted.crates, wanted.dependencies, stop)?;
        resolved.files.into_iter().for_each(|file| plan.add(file));
        plan.findings.extend(resolved.unresolved.into_values());
        plan.elsewhere = resolved.elsewhere.len();
        Ok(plan)
    }

    fn add(&mut self, file: CrateFile) {
        let key = (file.name.to_lowercase(), file.version.to_string());
        self.files.insert(key, file);
    }

    /// The files, in the order of their names.
    #[cfg(test)]
    pub(crate) fn files(&self) -> impl Iterator<Item = &CrateFile> {
        self.files.values()
    }

    /// The files, in the order of their names.
    pub(crate) fn into_files(self) -> Vec<CrateFile> {
        self.files.into_values().collect()
    }

    /// Whether a build that needs everything is sure to fail.
    pub(crate) fn has_problems(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.severity == Severity::Problem)
    }

    fn add_locked(
        &mut self,
        packages: &[LockedPackage],
        index: &ServedIndex,
        stop: &CancellationToken,
    ) -> Result<(), ReadError> {
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
            let Some(first) = packages.first() else {
                continue;
            };
            index.index_file(&first.name, |file| {
                let listed = file.and_then(|file| {
                    Some((CrateHistory::parse(&file.content, &first.name)?, file))
                });
                for package in packages {
                    match locked_file(package, listed.as_ref()) {
                        Ok(Some(file)) => self.add(file),
                        Ok(None) => self.locked_elsewhere += 1,
                        Err(finding) => self.findings.push(finding),
                    }
                }
            })?;
        }
        Ok(())
    }
}

/// The file of a locked package, if cargo would accept what the index says of it. `None` if the package belongs to another
/// registry: a crate of crates.io with the same name is not what is wanted.
fn locked_file(
    package: &LockedPackage,
    listed: Option<&(CrateHistory<'_>, &ServedFile<'_>)>,
) -> Result<Option<CrateFile>, Finding> {
    let (name, version) = (&package.name, &package.version);
    let listed = listed.and_then(|(history, file)| Some((history.find(version)?, file)));
    if package.registry == Registry::Unknown {
        let checksum = listed.and_then(|(release, _file)| release.line.checksum());
        if checksum.is_none() || checksum != package.checksum {
            return Ok(None);
        }
    }
    let problem = |why: &str| Finding::of_version(name, version, why);
    let (release, file) = listed.ok_or_else(|| problem("it is not in the index"))?;
    let file = crate_file(release, file).map_err(|why| problem(&why.to_string()))?;
    match package.checksum {
        // Only the file with the index's checksum could be fetched and verified, and cargo would refuse that file.
        Some(locked) if locked != file.checksum => Err(problem(&format!(
            "the lock file has the checksum {locked}, the index {}; cargo will refuse the file",
            file.checksum
        ))),
        _ => Ok(Some(file)),
    }
}

/// Gives every version of every crate to `take`, one crate in memory at a time, until `take` breaks off. Returns how many
/// versions were passed over because the policy denies them. Blocking.
pub(crate) fn every_file(
    index: &ServedIndex,
    mut take: impl FnMut(Result<CrateFile, Finding>) -> ControlFlow<()> + Send,
) -> Result<u64, ReadError> {
    let mut denied = 0;
    index.for_each_file(|name, file| {
        let (files, denied_of_crate) = files_of_crate(name, file);
        denied += denied_of_crate;
        files.into_iter().try_for_each(&mut take)
    })?;
    Ok(denied)
}

/// The files of a crate, and the number of those that the policy denies.
fn files_of_crate(
    name: &CrateName,
    file: &ServedFile<'_>,
) -> (Vec<Result<CrateFile, Finding>>, u64) {
    let history = CrateHistory::parse(&file.content, name);
    let (mut files, mut denied) = (Vec::new(), 0);
    for release in history.iter().flat_map(CrateHistory::releases) {
        match crate_file(release, file) {
            Err(NoChoice::Denied(_)) => denied += 1,
            file => files.push(
                file.map_err(|why| Finding::of_version(&release.line.name, release.version(), why)),
            ),
        }
    }
    (files, denied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefetch::testing::{IndexFiles, checksum_of, dependency};

    fn read(lockfiles: &[&Path], lists: &[&Path]) -> Result<Wanted, InputError> {
        let mut wanted = Wanted {
            locked: Vec::new(),
            crates: vec!["anyhow".parse().unwrap()],
            dependencies: Dependencies::ToBuild,
        };
        for path in lockfiles {
            wanted.add_lockfile(path.to_path_buf(), &OwnSources::default())?;
        }
        for path in lists {
            wanted.add_list(path.to_path_buf())?;
        }
        Ok(wanted)
    }

    #[test]
    fn all_inputs_are_combined_and_a_directory_means_its_lock_file() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lockfile = project.join("Cargo.lock");
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("list");
        std::fs::write(&list, "serde # all of us\ntokio@1\n").unwrap();
        let wanted = read(&[project, &lockfile], &[&list]).unwrap();
        let crates: Vec<String> = wanted.crates.iter().map(ToString::to_string).collect();
        assert_eq!(crates, ["anyhow", "serde", "tokio@^1"]);
        let (once, twice) = wanted.locked.split_at(wanted.locked.len() / 2);
        assert!(!once.is_empty() && once == twice);
    }

    #[test]
    fn a_bad_input_is_one_line_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let bad = directory.path().join("bad");
        std::fs::write(&bad, "not a crate, and no TOML").unwrap();
        let absent = directory.path().join("absent");
        for bad in [
            read(&[&bad], &[]),
            read(&[], &[&bad]),
            read(&[&absent], &[]),
            read(&[], &[&absent]),
            read(&[directory.path()], &[]),
        ] {
            let error = bad.unwrap_err().to_string();
            let path = directory.path().to_str().unwrap();
            assert!(error.contains(path), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    fn locked(name: &str, version: &str, checksum: &str) -> LockedPackage {
        LockedPackage {
            name: CrateName::try_from(name.to_owned()).unwrap(),
            version: version.to_owned().try_into().unwrap(),
            checksum: checksum.parse().ok(),
            registry: Registry::Own,
        }
    }

    fn made(locked: Vec<LockedPackage>, index: &IndexFiles) -> (Plan, Vec<String>, Vec<String>) {
        let wanted = Wanted {
            locked,
            crates: Vec::new(),
            dependencies: Dependencies::ToBuild,
        };
        let plan =
            Plan::make(&wanted, &index.cloned().snapshot, &CancellationToken::new()).unwrap();
        let files = plan.files().map(ToString::to_string).collect();
        let findings = plan.findings.iter().map(ToString::to_string).collect();
        (plan, files, findings)
    }

    #[test]
    fn a_lock_file_gets_exactly_its_versions_yanked_ones_included() {
        let index = IndexFiles::default()
            .publish("a", "1.0.0", &[&dependency("b", "*", "")])
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
    fn packages_that_cargo_would_refuse_are_problems_and_not_fetched() {
        let index = IndexFiles::default()
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
    fn packages_of_other_registries_are_left_out_unless_the_checksum_is_ours() {
        let index = IndexFiles::default()
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
        let index = IndexFiles::default().with_real_crates(&real);
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
        // The fixtures are older than the lock file. The versions that they have must match.
        let disagrees = findings.iter().find(|finding| finding.contains("checksum"));
        assert_eq!(disagrees, None);
        assert!(!files.is_empty());
    }

    #[test]
    fn every_version_of_a_crate_is_listed_yanked_ones_included() {
        let index = IndexFiles::default().with_real_crates(&["itoa"]);
        let name = CrateName::try_from("itoa".to_owned()).unwrap();
        let content = &index.0["itoa"];
        let files = |content: &str| {
            let file = ServedFile::from(content.as_bytes());
            files_of_crate(&name, &file).0
        };
        let junk = format!(
            "{content}\njunk\n{{\"name\":\"itoa\",\"vers\":\"99.0.0\",\"deps\":[],\"cksum\":\"\"}}"
        );
        let (files, more) = (files(content), files(&junk));
        assert!(files.len() == content.lines().count() && files.iter().all(Result::is_ok));
        let findings = more.iter().filter(|file| file.is_err());
        assert_eq!((more.len(), findings.count()), (files.len() + 1, 1));
    }
}

//! Crates with all their dependencies, as a new project would resolve them.
//!
//! Each distinct requirement is resolved on its own, to the highest version that matches. cargo's resolver does the same
//! where it can, and takes a lower version only if versions exclude each other. A crate's index file is read once for all
//! requirements known by then and not kept, so memory grows with the chosen versions and not with the files read.

pub(super) mod choose;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use semver::VersionReq;
use tokio_util::sync::CancellationToken;

use super::crate_spec::{CrateSpec, VersionWanted};
use super::finding::{Finding, Severity};
use crate::index::{ReadError, ServedFile, ServedIndex};
use crate::package::{CrateFile, CrateHistory, CrateName, IndexDependency, Release};
use choose::{NoChoice, choose, crate_file};

/// Which dependencies are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependencies {
    /// None.
    Ignored,
    /// Normal and build dependencies, optional ones and those of all targets included.
    ToBuild,
    /// Those, and the dev-dependencies of the crates that were named.
    ToBuildAndTest,
}

/// The result of [`resolve`].
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// The chosen files. One may be in it twice.
    pub(super) files: Vec<CrateFile>,
    /// One finding for each requirement that nothing matches.
    pub(super) unresolved: BTreeMap<(String, String), Finding>,
    /// Dependencies on crates of other registries.
    pub(super) elsewhere: BTreeSet<(String, String)>,
}

/// Finds crates with their dependencies. Ends early without an error when stopped. Blocking.
pub(super) fn resolve(
    index: &ServedIndex,
    roots: &[CrateSpec],
    dependencies: Dependencies,
    stop: &CancellationToken,
) -> Result<Resolved, ReadError> {
    let mut closure = Closure {
        resolved: Resolved::default(),
        dependencies,
        waiting: BTreeMap::new(),
        asked: HashMap::new(),
        chosen: HashMap::new(),
    };
    for root in roots {
        let by = Asker::Person(root.to_string());
        closure.wait_for(&root.name, root.version.clone(), Severity::Problem, by);
    }
    while !closure.waiting.is_empty() {
        for (name, requests) in mem::take(&mut closure.waiting) {
            if stop.is_cancelled() {
                return Ok(Resolved::default());
            }
            // The text came from a valid name.
            if let Ok(name) = CrateName::try_from(name) {
                index.index_file(&name, |file| closure.resolve(file, &name, &requests))?;
            }
        }
    }
    Ok(closure.resolved)
}

/// Where a request comes from.
#[derive(Clone)]
enum Asker {
    /// A person, who wrote this.
    Person(String),
    /// This version, as a dependency.
    Crate(String),
}

struct Request {
    wanted: VersionWanted,
    /// How bad it is if nothing matches.
    severity: Severity,
    by: Asker,
}

struct Closure {
    resolved: Resolved,
    dependencies: Dependencies,
    /// The requests to resolve next, by crate.
    waiting: BTreeMap<String, Vec<Request>>,
    /// The requests so far, and how urgent each was.
    asked: HashMap<(String, String), Severity>,
    /// The versions that were followed, and how urgently.
    chosen: HashMap<(String, String), Severity>,
}

impl Closure {
    /// Requests a version, unless that was done before with the same urgency.
    fn wait_for(&mut self, name: &CrateName, wanted: VersionWanted, severity: Severity, by: Asker) {
        let key = (name.to_lowercase(), wanted.to_string());
        // The roots come first, so a request of a person is never dropped for the same request of a crate.
        if self
            .asked
            .get(&key)
            .is_some_and(|before| *before >= severity)
        {
            return;
        }
        self.asked.insert(key, severity);
        let request = Request {
            wanted,
            severity,
            by,
        };
        let waiting = self.waiting.entry(name.to_lowercase()).or_default();
        waiting.push(request);
    }

    /// Resolves all requests for one crate.
    fn resolve(&mut self, file: Option<&ServedFile<'_>>, name: &CrateName, requests: &[Request]) {
        let parsed = file.and_then(|file| Some((file, CrateHistory::parse(&file.content, name)?)));
        for request in requests {
            let choice = parsed.as_ref().ok_or(NoChoice::NoCrate);
            let choice = choice.and_then(|(file, history)| {
                let release = choose(history, &request.wanted).map_err(|why| match why {
                    NoChoice::AllYanked if file.is_affected() => NoChoice::NoneServed,
                    why => why,
                })?;
                Ok((release, crate_file(release, file)?))
            });
            match choice {
                Ok((release, file)) => self.follow(release, file, request),
                Err(why) => self.give_up(name.as_str(), request, why),
            }
        }
    }

    fn give_up(&mut self, name: &str, request: &Request, why: NoChoice) {
        let finding = match &request.by {
            Asker::Person(spec) => Finding::of_spec(spec, why),
            Asker::Crate(dependent) => {
                let requirement = format!("{name}@{}", request.wanted);
                Finding::of_dependency(request.severity, dependent, &requirement, why)
            }
        };
        // A later finding for the same requirement is more urgent.
        let key = (name.to_owned(), request.wanted.to_string());
        self.resolved.unresolved.insert(key, finding);
    }

    /// Takes a version, and requests its dependencies.
    fn follow(&mut self, release: &Release<'_>, file: CrateFile, request: &Request) {
        let key = (file.name.to_lowercase(), file.version.to_string());
        let before = self.chosen.get(&key).copied();
        if before.is_some_and(|before| before >= request.severity) {
            return;
        }
        self.chosen.insert(key, request.severity);
        let dependent = format!("{}@{}", file.name, file.version);
        self.resolved.files.push(file);
        for dependency in &release.line.dependencies {
            if self.is_followed(dependency, &request.by) {
                self.ask_for(dependency, &dependent, request.severity);
            }
        }
    }

    fn is_followed(&self, dependency: &IndexDependency, by: &Asker) -> bool {
        let of_named_crate = matches!(by, Asker::Person(_));
        match self.dependencies {
            Dependencies::Ignored => false,
            Dependencies::ToBuild => dependency.kind() != "dev",
            Dependencies::ToBuildAndTest => dependency.kind() != "dev" || of_named_crate,
        }
    }

    fn ask_for(&mut self, dependency: &IndexDependency, dependent: &str, severity: Severity) {
        // Optional dependencies are followed, because a feature can turn them on. But hardly any build needs all of them.
        let severity = match dependency.optional {
            true => Severity::Warning,
            false => severity,
        };
        let (name, req) = (dependency.crate_name().to_owned(), dependency.req.clone());
        if dependency.registry.is_some() {
            self.resolved.elsewhere.insert((name, req));
            return;
        }
        let requirement = format!("{name}@{req}");
        let parsed = CrateName::try_from(name.clone())
            .map_err(|error| error.to_string())
            .and_then(|name| {
                let requirement = VersionReq::parse(&req).map_err(|error| error.to_string())?;
                Ok((name, requirement))
            });
        match parsed {
            Ok((name, requirement)) => {
                let by = Asker::Crate(dependent.to_owned());
                self.wait_for(&name, VersionWanted::Highest(requirement), severity, by);
            }
            Err(why) => {
                let finding = Finding::of_dependency(severity, dependent, &requirement, why);
                let before = self.resolved.unresolved.entry((name, req));
                let before = before.or_insert_with(|| finding.clone());
                if before.severity == Severity::Warning {
                    *before = finding;
                }
            }
        }
    }
}

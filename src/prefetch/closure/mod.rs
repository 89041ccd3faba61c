//! Crates with all that they depend on, as a new project would resolve them.
//!
//! Every distinct requirement is resolved for itself, to the highest version that matches. cargo's resolver does the
//! same wherever it can; it settles for less only where versions exclude each other. A crate's index file is read once
//! for all requirements known by then and not kept, so memory grows with what is chosen and not with what is read.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use semver::VersionReq;
use tokio_util::sync::CancellationToken;

use super::choose::{NoChoice, choose, crate_file};
use super::crate_spec::{CrateSpec, VersionWanted};
use super::findings::{Finding, Severity};
use super::index_reader::{IndexReader, IndexUnreadable};
use super::plan::Plan;
use crate::package::{CrateFile, CrateHistory, CrateName, IndexDependency, Release};

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

/// Adds crates with their dependencies to the plan. Ends early, and says nothing, when told to stop. Blocking.
pub(crate) fn add_closure(
    plan: &mut Plan,
    index: &impl IndexReader,
    roots: &[CrateSpec],
    dependencies: Dependencies,
    stop: &CancellationToken,
) -> Result<(), IndexUnreadable> {
    let mut closure = Closure {
        plan,
        dependencies,
        waiting: BTreeMap::new(),
        asked: HashMap::new(),
        chosen: HashMap::new(),
        unresolved: BTreeMap::new(),
        elsewhere: BTreeSet::new(),
    };
    for root in roots {
        let by = Asker::Person(root.to_string());
        closure.wait_for(&root.name, root.version.clone(), Need::Sure, by);
    }
    while !closure.waiting.is_empty() {
        for (name, requests) in mem::take(&mut closure.waiting) {
            if stop.is_cancelled() {
                return Ok(());
            }
            closure.resolve(index, &name, requests)?;
        }
    }
    let Closure {
        unresolved,
        elsewhere,
        ..
    } = closure;
    plan.findings.extend(unresolved.into_values());
    plan.elsewhere += elsewhere.len();
    Ok(())
}

/// Whether a build is sure to need something, or may: optional dependencies are followed because a feature may turn
/// them on, but seldom all of them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Perhaps,
    Sure,
}

/// Who wants a version.
#[derive(Clone)]
enum Asker {
    /// Whoever typed this.
    Person(String),
    /// This version.
    Crate(String),
}

struct Request {
    wanted: VersionWanted,
    need: Need,
    by: Asker,
}

struct Closure<'p> {
    plan: &'p mut Plan,
    dependencies: Dependencies,
    /// What is to be resolved next, by crate.
    waiting: BTreeMap<String, Vec<Request>>,
    /// What was asked for already, and how urgently.
    asked: HashMap<(String, String), Need>,
    /// Which versions have been followed already, and how urgently.
    chosen: HashMap<(String, String), Need>,
    /// One finding for each requirement that nothing matches.
    unresolved: BTreeMap<(String, String), Finding>,
    /// Dependencies on crates of other registries.
    elsewhere: BTreeSet<(String, String)>,
}

impl Closure<'_> {
    /// Asks for a version, unless that was done already with as much urgency.
    fn wait_for(&mut self, name: &CrateName, wanted: VersionWanted, need: Need, by: Asker) {
        let key = (name.to_lowercase(), wanted.to_string());
        // Roots come first, so nothing that a person asked for is taken for done because a crate asks for it, too.
        if self.asked.get(&key).is_some_and(|before| *before >= need) {
            return;
        }
        self.asked.insert(key, need);
        let request = Request { wanted, need, by };
        let waiting = self.waiting.entry(name.to_lowercase()).or_default();
        waiting.push(request);
    }

    /// Resolves all that is asked of one crate.
    fn resolve(
        &mut self,
        index: &impl IndexReader,
        name: &str,
        requests: Vec<Request>,
    ) -> Result<(), IndexUnreadable> {
        // It was made from a name.
        let Ok(crate_name) = CrateName::try_from(name.to_owned()) else {
            return Ok(());
        };
        let file = index.index_file(&crate_name)?;
        let history = file
            .as_deref()
            .and_then(|file| CrateHistory::parse(file, &crate_name));
        for request in requests {
            let choice = history.as_ref().ok_or(NoChoice::NoCrate);
            let choice = choice.and_then(|history| choose(history, &request.wanted));
            let file = choice.and_then(|release| Ok((release, crate_file(release)?)));
            match file {
                Ok((release, file)) => self.follow(release, file, &request),
                Err(why) => self.give_up(name, &request, why),
            }
        }
        Ok(())
    }

    fn give_up(&mut self, name: &str, request: &Request, why: NoChoice) {
        let finding = match &request.by {
            Asker::Person(spec) => Finding::of_spec(spec.clone(), why),
            Asker::Crate(dependent) => {
                let requirement = format!("{name}@{}", request.wanted);
                Finding::of_dependency(severity(request.need), dependent, requirement, why)
            }
        };
        // A later finding for the same requirement is a more urgent one.
        let key = (name.to_owned(), request.wanted.to_string());
        self.unresolved.insert(key, finding);
    }

    /// Takes a version into the plan, and asks for what it depends on.
    fn follow(&mut self, release: &Release<'_>, file: CrateFile, request: &Request) {
        let key = (file.name.to_lowercase(), file.version.to_string());
        let before = self.chosen.get(&key).copied();
        if before.is_some_and(|before| before >= request.need) {
            return;
        }
        self.chosen.insert(key, request.need);
        let dependent = format!("{}@{}", file.name, file.version);
        self.plan.add(file);
        for dependency in &release.line.dependencies {
            if self.is_followed(dependency, &request.by) {
                self.ask_for(dependency, &dependent, request.need);
            }
        }
    }

    fn is_followed(&self, dependency: &IndexDependency, by: &Asker) -> bool {
        let of_named_crate = matches!(by, Asker::Person(_));
        match self.dependencies {
            Dependencies::Ignored => false,
            Dependencies::ToBuild => dependency.kind != "dev",
            Dependencies::ToBuildAndTest => dependency.kind != "dev" || of_named_crate,
        }
    }

    fn ask_for(&mut self, dependency: &IndexDependency, dependent: &str, need: Need) {
        let need = if dependency.optional {
            Need::Perhaps
        } else {
            need
        };
        let (name, req) = (dependency.crate_name.clone(), dependency.req.clone());
        if dependency.registry.is_some() {
            self.elsewhere.insert((name, req));
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
                self.wait_for(&name, VersionWanted::Highest(requirement), need, by);
            }
            Err(why) => {
                let finding = Finding::of_dependency(severity(need), dependent, requirement, why);
                let before = self.unresolved.entry((name, req));
                let before = before.or_insert_with(|| finding.clone());
                if before.severity == Severity::Warning {
                    *before = finding;
                }
            }
        }
    }
}

fn severity(need: Need) -> Severity {
    match need {
        Need::Perhaps => Severity::Warning,
        Need::Sure => Severity::Problem,
    }
}

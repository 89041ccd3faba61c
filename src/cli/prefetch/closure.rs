//! Crates with all that they depend on, as a new project would resolve them.
//!
//! Every distinct requirement is resolved for itself, to the highest version that matches. cargo's resolver does the
//! same wherever it can; it settles for less only where versions exclude each other. A crate's index file is read once
//! for all requirements known by then and not kept, so memory grows with what is chosen and not with what is read.

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
pub(super) fn add_closure(
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
                self.unresolved.insert((name, req), finding);
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

#[cfg(test)]
mod tests {
    use super::super::index_reader::testing::{MapIndex, dependency};
    use super::*;

    fn closed(index: &MapIndex, roots: &[&str], dependencies: Dependencies) -> Plan {
        let roots: Vec<CrateSpec> = roots.iter().map(|root| root.parse().unwrap()).collect();
        let mut plan = Plan::default();
        let stop = CancellationToken::new();
        add_closure(&mut plan, index, &roots, dependencies, &stop).unwrap();
        plan
    }

    fn files(plan: &Plan) -> Vec<String> {
        let files = plan.files();
        files.map(|file| file.to_string()).collect()
    }

    fn findings(plan: &Plan) -> Vec<String> {
        plan.findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn follows_normal_build_and_optional_dependencies_of_all_targets_through_cycles() {
        let index = MapIndex::default()
            .publish(
                "root",
                "1.0.0",
                &[
                    &dependency("normal", "^1", ""),
                    &dependency("builder", "^1", r#","kind":"build""#),
                    &dependency("option", "^1", r#","optional":true"#),
                    &dependency("windows-only", "^1", r#","target":"cfg(windows)""#),
                    &dependency("alias", "^1", r#","package":"Real""#),
                    &dependency("tester", "^1", r#","kind":"dev""#),
                    &dependency("private", "^1", r#","registry":"https://x.example""#),
                ],
            )
            .publish("normal", "1.0.0", &[])
            .publish(
                "normal",
                "1.1.0",
                &[
                    &dependency("root", "^1", ""),
                    &dependency("tester", "^1", r#","kind":"dev""#),
                ],
            )
            .publish("normal", "2.0.0", &[])
            .publish("builder", "1.0.0", &[&dependency("normal", "^2", "")])
            .publish("option", "1.0.0", &[])
            .publish("windows-only", "1.0.0", &[])
            .publish("Real", "1.0.0", &[])
            .publish("tester", "1.0.0", &[&dependency("harness", "*", "")])
            .publish("harness", "1.0.0", &[]);
        let mut expected = vec![
            "builder 1.0.0",
            "normal 1.1.0",
            "normal 2.0.0",
            "option 1.0.0",
            "Real 1.0.0",
            "root 1.0.0",
            "windows-only 1.0.0",
        ];
        let plan = closed(&index, &["root"], Dependencies::ToBuild);
        assert_eq!(files(&plan), expected);
        assert_eq!((findings(&plan), plan.elsewhere), (Vec::new(), 1));
        let plan = closed(&index, &["root"], Dependencies::ToBuildAndTest);
        expected.splice(0..1, ["builder 1.0.0", "harness 1.0.0"]);
        expected.splice(6..7, ["root 1.0.0", "tester 1.0.0"]);
        assert_eq!(files(&plan), expected);
        let plan = closed(&index, &["root"], Dependencies::Ignored);
        assert_eq!(
            (files(&plan), plan.elsewhere),
            (vec!["root 1.0.0".to_owned()], 0)
        );
    }

    #[test]
    fn what_only_optional_dependencies_lead_to_is_a_warning_and_all_else_a_problem() {
        let index = MapIndex::default()
            .publish(
                "root",
                "1.0.0",
                &[
                    &dependency("option", "^1", r#","optional":true"#),
                    &dependency("gone", "^3", r#","optional":true"#),
                ],
            )
            .publish(
                "option",
                "1.0.0",
                &[
                    &dependency("lost", "^1", ""),
                    &dependency("yanked", "^1", ""),
                    &dependency("option", "nonsense", ""),
                ],
            )
            .publish("yanked", "1.0.0", &[])
            .yank("yanked", "1.0.0");
        let plan = closed(&index, &["root"], Dependencies::ToBuild);
        let found = findings(&plan);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(
            found.iter().all(|line| line.starts_with("warning: ")),
            "{found:?}"
        );
        // The same is a problem as soon as something on a way without options needs it.
        let index = index.publish("direct", "1.0.0", &[&dependency("option", "^1", "")]);
        for roots in [["direct", "root"], ["root", "direct"]] {
            let plan = closed(&index, &roots, Dependencies::ToBuild);
            let found = findings(&plan);
            let problem = "problem: lost@^1, a dependency of option@1.0.0: there is no such crate";
            assert!(
                found.iter().any(|line| line.starts_with(problem)),
                "{found:?}"
            );
            let problems = found.iter().filter(|line| line.starts_with("problem"));
            assert_eq!((problems.count(), found.len()), (3, 4), "{found:?}");
        }
    }

    #[test]
    fn a_crate_that_was_named_and_is_not_there_is_a_problem_and_the_others_go_on() {
        let index = MapIndex::default().publish("there", "1.0.0", &[]);
        let plan = closed(
            &index,
            &["there", "there@2", "missing"],
            Dependencies::ToBuild,
        );
        assert_eq!(files(&plan), ["there 1.0.0"]);
        assert_eq!(
            findings(&plan),
            [
                "problem: missing: there is no such crate in the index",
                "problem: there@^2: no version of the crate matches",
            ]
        );
    }

    #[test]
    fn an_index_that_cannot_be_read_is_an_error_and_no_finding() {
        let roots = ["broken".parse().unwrap()];
        let stop = CancellationToken::new();
        let index = MapIndex::default();
        let mut plan = Plan::default();
        let refused = add_closure(&mut plan, &index, &roots, Dependencies::ToBuild, &stop);
        assert!(refused.unwrap_err().to_string().contains("a bad block"));
    }

    #[test]
    fn real_crates_are_followed() {
        let real = ["serde_core", "rand_core", "either", "anyhow", "lazy_static"];
        let index = MapIndex::default().with_real_crates(&real);
        let plan = closed(&index, &["either", "rand_core@0.6"], Dependencies::ToBuild);
        let files = files(&plan);
        assert!(
            files.iter().any(|file| file.starts_with("rand_core 0.6.")),
            "{files:?}"
        );
        // The other crates that they depend on are not in the fixtures.
        assert!(!plan.findings.is_empty());
    }
}

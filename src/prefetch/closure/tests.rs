//! Closures over small indexes, and over real index files.

use super::*;
use crate::prefetch::plan::{Plan, Wanted};
use crate::prefetch::testing::{IndexFiles, damaged, dependency};

fn plan(
    index: &ServedIndex,
    roots: &[&str],
    dependencies: Dependencies,
) -> Result<Plan, ReadError> {
    let wanted = Wanted {
        locked: Vec::new(),
        crates: roots.iter().map(|root| root.parse().unwrap()).collect(),
        dependencies,
    };
    Plan::make(&wanted, index, &CancellationToken::new())
}

fn closed(index: &IndexFiles, roots: &[&str], dependencies: Dependencies) -> Plan {
    plan(&index.cloned().snapshot, roots, dependencies).unwrap()
}

fn files(plan: &Plan) -> Vec<String> {
    let files = plan.files();
    files.map(|file| file.to_string()).collect()
}

fn findings(plan: &Plan) -> Vec<String> {
    plan.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_closure_follows_normal_build_and_optional_dependencies_of_all_targets_through_cycles() {
    let index = IndexFiles::default()
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
fn a_missing_optional_dependency_is_a_warning_and_any_other_is_a_problem() {
    let index = IndexFiles::default()
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
fn a_named_crate_that_does_not_exist_is_a_problem_and_the_others_are_resolved() {
    let index = IndexFiles::default().publish("there", "1.0.0", &[]);
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
fn an_unreadable_index_is_an_error_and_not_a_finding() {
    let index = damaged(&IndexFiles::default().publish("a", "1.0.0", &[]));
    assert!(plan(&index.snapshot, &["a"], Dependencies::ToBuild).is_err());
}

#[test]
fn real_crates_are_followed() {
    let real = ["serde_core", "rand_core", "either", "anyhow", "lazy_static"];
    let index = IndexFiles::default().with_real_crates(&real);
    let plan = closed(&index, &["either", "rand_core@0.6"], Dependencies::ToBuild);
    let files = files(&plan);
    assert!(
        files.iter().any(|file| file.starts_with("rand_core 0.6.")),
        "{files:?}"
    );
    // The other crates that they depend on are not in the fixtures.
    assert!(!plan.findings.is_empty());
}

#[test]
fn an_optional_dependency_does_not_make_a_warning_of_a_problem() {
    let perhaps = dependency("bad", "one", r#","optional":true"#);
    let index = IndexFiles::default()
        .publish("a", "1.0.0", &[&dependency("bad", "one", "")])
        .publish("b", "1.0.0", &[&perhaps]);
    for roots in [["a", "b"], ["b", "a"]] {
        let plan = closed(&index, &roots, Dependencies::ToBuild);
        let found = findings(&plan);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("problem: bad@one"), "{found:?}");
    }
}

//! What is forbidden between the files of `src`.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{External, Uses};

/// The head of the table of modules in `ARCHITECTURE.md`.
const TABLE_HEAD: &str = "| module | what it contains | uses |";

/// What only some places may name.
struct Reserved {
    /// How the paths begin, or which segment they contain if they begin with `…`.
    paths: &'static [&'static str],
    /// Files below these may.
    places: &'static [&'static str],
    rule: &'static str,
}

const RESERVED: [Reserved; 6] = [
    Reserved {
        paths: &[
            "std::env::var",
            "std::env::var_os",
            "std::env::vars",
            "std::env::vars_os",
            "std::env::set_var",
            "std::env::remove_var",
            "std::env::temp_dir",
        ],
        places: &["src/config/"],
        rule: "only `config` reads the environment",
    },
    Reserved {
        paths: &["…StatusCode"],
        places: &["src/http/", "src/upstream/", "src/index/source/"],
        rule: "only `http` names a status code; `upstream` and `index/source` read those of others",
    },
    Reserved {
        paths: &["git2", "libgit2_sys"],
        places: &["src/index/"],
        rule: "only `index` touches git2",
    },
    Reserved {
        paths: &["std::process::Command", "tokio::process::Command"],
        places: &["src/index/", "src/process_one.rs"],
        rule: "only `index` starts `git`; `process_one` starts this program itself",
    },
    Reserved {
        paths: &["object_store"],
        places: &["src/store/"],
        rule: "only `store` touches object_store",
    },
    Reserved {
        paths: &["rusqlite"],
        places: &["src/catalog/", "src/journal/", "src/sqlite/"],
        rule: "only `catalog`, `journal` and `sqlite` touch a database",
    },
];

/// Which module may use which others.
pub(crate) type Allowed = BTreeMap<String, BTreeSet<String>>;

/// Reads the table of modules: a name in backticks in the first column, names in backticks in the third one. Modules that
/// "every module may use" are added to the others, except to those that use "nothing at all".
pub(crate) fn allowed(document: &str) -> Allowed {
    let (_, table) = document
        .split_once(TABLE_HEAD)
        .expect("the table of modules");
    let quoted = |cell: &str| -> BTreeSet<String> {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let rows: Vec<(String, &str)> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
            let name = quoted(cells[0]).pop_first();
            (name.expect("a module in the first column"), cells[2])
        })
        .collect();
    let is_shared = |cell: &str| cell.contains("every module may use it");
    let shared = rows.iter().filter(|(_, cell)| is_shared(cell));
    let shared: BTreeSet<String> = shared.map(|(name, _)| name.clone()).collect();
    rows.into_iter()
        .map(|(name, cell)| {
            let mut others = quoted(cell);
            if !is_shared(cell) && !cell.contains("nothing at all") {
                others.extend(shared.iter().cloned());
            }
            (name, others)
        })
        .collect()
}

/// Everything that is wrong, one line each.
pub(crate) fn complaints(uses: &Uses, allowed: &Allowed) -> Vec<String> {
    let mut complaints = circles_of_the_table(allowed);
    complaints.extend(forbidden_edges(uses, allowed));
    complaints.extend(circles_of_files(uses));
    complaints.extend(reserved(uses));
    complaints
}

/// The module that a file belongs to: `store` for `src/store/probe.rs`.
fn module_of(file: &str) -> &str {
    let below = file.trim_start_matches("src/");
    let first = below.split('/').next().unwrap_or(below);
    first.trim_end_matches(".rs")
}

fn circles_of_the_table(allowed: &Allowed) -> Vec<String> {
    circles(allowed)
        .into_iter()
        .map(|circle| format!("the table of modules has a circle: {}", list(&circle)))
        .collect()
}

fn forbidden_edges(uses: &Uses, allowed: &Allowed) -> Vec<String> {
    let mut complaints = BTreeSet::new();
    for file in &uses.files {
        let module = module_of(file);
        if module != "lib" && !allowed.contains_key(module) {
            complaints.insert(format!("the table of modules lacks `{module}`"));
        }
    }
    for edge in &uses.ours {
        let (from, to) = (module_of(&edge.from), module_of(&edge.to));
        let may = allowed.get(from).is_some_and(|others| others.contains(to));
        if from != to && !may {
            complaints.insert(format!(
                "`{from}` may not use `{to}`: {} uses {}, from {}",
                edge.from, edge.path, edge.to
            ));
        }
    }
    complaints.into_iter().collect()
}

fn circles_of_files(uses: &Uses) -> Vec<String> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for edge in &uses.ours {
        graph
            .entry(edge.from.clone())
            .or_default()
            .insert(edge.to.clone());
    }
    let describe = |circle: BTreeSet<String>| {
        let mut complaint = format!("these files need each other: {}", list(&circle));
        for edge in &uses.ours {
            if circle.contains(&edge.from) && circle.contains(&edge.to) {
                complaint += &format!("\n    {} uses {}, from {}", edge.from, edge.path, edge.to);
            }
        }
        complaint
    };
    circles(&graph).into_iter().map(describe).collect()
}

/// The groups of nodes that reach each other.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|node| (node, reached_from(graph, node)))
        .collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for (node, others) in &reached {
        if !others.contains(node) || circles.iter().any(|circle| circle.contains(*node)) {
            continue;
        }
        let comes_back =
            |other: &&&String| reached.get(**other).is_some_and(|back| back.contains(node));
        circles.push(
            others
                .iter()
                .filter(comes_back)
                .map(|other| (*other).clone())
                .collect(),
        );
    }
    circles
}

fn reached_from<'g>(
    graph: &'g BTreeMap<String, BTreeSet<String>>,
    node: &String,
) -> BTreeSet<&'g String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = graph.get(node).into_iter().flatten().collect();
    while let Some(node) = next.pop() {
        if reached.insert(node) {
            next.extend(graph.get(node).into_iter().flatten());
        }
    }
    reached
}

fn reserved(uses: &Uses) -> Vec<String> {
    let mut complaints = Vec::new();
    for External { file, path } in &uses.external {
        for Reserved {
            paths,
            places,
            rule,
        } in &RESERVED
        {
            let is_reserved = paths.iter().any(|reserved| names(path, reserved));
            if is_reserved && !places.iter().any(|place| file.starts_with(place)) {
                complaints.push(format!("{rule}: {file} names {path}"));
            }
        }
    }
    complaints
}

fn names(path: &str, reserved: &str) -> bool {
    match reserved.strip_prefix('…') {
        Some(segment) => path.split("::").any(|named| named == segment),
        None => path
            .strip_prefix(reserved)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::")),
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

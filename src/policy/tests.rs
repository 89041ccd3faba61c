//! Properties of the policy over real index lines: a second, slower reading of the rules finds the same, and nothing but
//! the value of `yanked` changes.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::apply::{Counts, DecidedVersion, FileState, ShownFile, apply, decisions};
use super::decision::{PolicyState, Reason};
use super::line::Line;
use super::rules::{Facts, Rule, Rules};
use super::settings::{HeldDownloads, Mode, Settings, UnknownAge};
use super::states::States;
use super::testing::{DAY, MINUTE, NOW, databases, policy_files, time};
use super::yank_guard::{SeenYanks, caret};
use crate::package::canonical;

/// Real index files, by the name of the file.
const FILES: [(&str, &str); 7] = [
    ("fnv", include_str!("../../tests/fixtures/index/3/f/fnv")),
    ("hex", include_str!("../../tests/fixtures/index/3/h/hex")),
    (
        "cfg-if",
        include_str!("../../tests/fixtures/index/cf/g-/cfg-if"),
    ),
    (
        "matches",
        include_str!("../../tests/fixtures/index/ma/tc/matches"),
    ),
    (
        "rand_core",
        include_str!("../../tests/fixtures/index/ra/nd/rand_core"),
    ),
    (
        "foreign-types-shared",
        include_str!("../../tests/fixtures/index/fo/re/foreign-types-shared"),
    ),
    (
        "serde_core",
        include_str!("../../tests/fixtures/index/se/rd/serde_core"),
    ),
];

/// A line of an index file, split at the value of `yanked`.
#[derive(Clone, Debug)]
struct Written {
    before: String,
    /// The value; `None` for a line without the field. It would be inserted between the two texts.
    yanked: Option<bool>,
    after: String,
}

impl Written {
    fn of(line: &str) -> Self {
        let key = ["\"yanked\": ", "\"yanked\":"]
            .into_iter()
            .find_map(|key| line.rfind(key).map(|place| place + key.len()));
        let (before, rest) = line.split_at(key.unwrap());
        let yanked = rest.starts_with("true");
        let after = rest.strip_prefix(if yanked { "true" } else { "false" });
        Self {
            before: before.to_owned(),
            yanked: Some(yanked),
            after: after.unwrap().to_owned(),
        }
    }

    fn with(&self, yanked: Option<bool>) -> String {
        let Self { before, after, .. } = self;
        match (self.yanked, yanked) {
            (Some(_), Some(flag)) => format!("{before}{flag}{after}"),
            (None, Some(flag)) => format!("{before},\"yanked\":{flag}{after}"),
            (_, None) => format!("{before}{after}"),
        }
    }

    fn text(&self) -> String {
        self.with(self.yanked)
    }
}

/// What is in a generated file.
#[derive(Clone, Debug)]
struct Row {
    text: String,
    /// `None` for a line that is junk, or cannot be edited.
    written: Option<Written>,
}

/// A line as crates.io writes it: without spaces between the fields.
fn compact(line: &str) -> String {
    let mut in_text = false;
    line.chars()
        .filter(|character| {
            in_text ^= *character == '"';
            in_text || *character != ' '
        })
        .collect()
}

/// Both forms of all lines of each file.
static LINES: LazyLock<Vec<[Vec<String>; 2]>> = LazyLock::new(|| {
    let both = |(_, text): &(&str, &str)| {
        let spaced: Vec<String> = text.lines().map(str::to_owned).collect();
        let compact = spaced.iter().map(|line| compact(line)).collect();
        [spaced, compact]
    };
    FILES.iter().map(both).collect()
});

/// One line of a file: which one in which form, its time, its flag, and what is odd about it.
type Choice = (usize, bool, (u8, i64), u8, u8);

fn choice() -> impl Strategy<Value = Choice> {
    (
        any::<usize>(),
        any::<bool>(),
        (0..8_u8, -DAY..40 * DAY),
        0..6_u8,
        0..30_u8,
    )
}

fn row(file: usize, (line, is_compact, (kind, before_now), flag, odd): Choice) -> Row {
    let lines = &LINES[file][usize::from(is_compact)];
    let mut text = lines[line % lines.len()].clone();
    let separator = if is_compact { "," } else { ", " };
    let begin = text.rfind("\"pubtime\"").unwrap();
    let field = text.get(begin..).unwrap().trim_end_matches('}').to_owned();
    let (key, _value) = field.split_once(':').unwrap();
    match kind {
        // As it is: years ago.
        0..3 => {}
        3..6 => {
            let time = time(NOW - before_now);
            text = text.replace(&field, &format!("{key}: \"{time}\""));
        }
        6 => text = text.replace(&format!("{separator}{field}"), ""),
        _ => text = text.replace(&field, &format!("{key}:\"yesterday\"")),
    }
    let mut written = Written::of(&text);
    match flag {
        0 => written.yanked = Some(true),
        1 => written.yanked = Some(false),
        2 => {
            let key = format!(
                "{separator}\"yanked\":{}",
                if is_compact { "" } else { " " }
            );
            let rest = written.before.strip_suffix(&key).unwrap();
            let line = format!("{rest}{}", written.after);
            let (before, after) = line.split_at(line.rfind('}').unwrap());
            written = Written {
                before: before.to_owned(),
                yanked: None,
                after: after.to_owned(),
            };
        }
        _ => {}
    }
    match odd {
        0 => written.after.push('\r'),
        1 => {
            let start = "{\"v\": 9, \"new\": [{\"yanked\":null}], ";
            written.before = written.before.replacen('{', start, 1);
        }
        2 => written.before.insert(0, '\t'),
        3 => {
            // Two flags: nobody knows which one counts.
            written.before = written.before.replacen('{', "{\"yanked\": false, ", 1);
            let text = match written.yanked {
                Some(_) => written.text(),
                None => written.with(Some(false)),
            };
            return Row {
                text,
                written: None,
            };
        }
        4..8 => {
            let junk = ["", "junk", "{\"name\": \"fnv\", \"vers\": \"1\"}", "[1, 2]"];
            return Row {
                text: junk[usize::from(odd - 4)].to_owned(),
                written: None,
            };
        }
        _ => {}
    }
    Row {
        text: written.text(),
        written: Some(written),
    }
}

/// A crate with its index file.
#[derive(Clone, Debug)]
struct TestFile {
    name: &'static str,
    rows: Vec<Row>,
    ends_with_line_break: bool,
}

impl TestFile {
    fn content(&self) -> String {
        let lines: Vec<&str> = self.rows.iter().map(|row| row.text.as_str()).collect();
        let end = if self.ends_with_line_break && !lines.is_empty() {
            "\n"
        } else {
            ""
        };
        lines.join("\n") + end
    }
}

prop_compose! {
    fn files()(
        file in 0..FILES.len(),
        mut choices in prop::collection::vec(choice(), 0..9),
        is_attacked in prop::bool::weighted(0.4),
        ends_with_line_break in any::<bool>(),
    ) -> TestFile {
        // The attack: the highest version is new, and most others are yanked.
        if let Some(((line, _, time, flag, odd), others)) = choices.split_last_mut().filter(|_| is_attacked) {
            *line = LINES[file][0].len() - 1;
            *time = (3, time.1.rem_euclid(2 * DAY));
            (*flag, *odd) = (1, 29);
            for (_, _, time, flag, _) in others {
                time.0 = time.0.min(5) / 2 * 3;
                *flag = flag.saturating_sub(4);
            }
        }
        TestFile {
            name: FILES[file].0,
            rows: choices.into_iter().map(|choice| row(file, choice)).collect(),
            ends_with_line_break,
        }
    }
}

/// What a case decides by: the places of a policy file and a database, the yanks (place of a line, time), the time.
type FactChoice = (usize, Option<usize>, Vec<(usize, i64)>, i64);

fn fact_choice() -> impl Strategy<Value = FactChoice> {
    (
        0..policy_files().len(),
        prop::option::of(0..databases().len()),
        prop::collection::vec((0..9_usize, -4 * DAY..2 * DAY), 0..4),
        moments(),
    )
}

/// Policy times: whole minutes around [`NOW`].
fn moments() -> impl Strategy<Value = i64> {
    (-3 * 1_440..10 * 1_440_i64).prop_map(|minutes| NOW + minutes * MINUTE)
}

fn facts(file: &TestFile, (policy, database, yanks, policy_time): &FactChoice) -> Facts {
    let mut seen = SeenYanks::default();
    for (place, at) in yanks {
        let line = file.rows.get(*place).map(|row| row.text.as_bytes());
        if let Some(line) = line.and_then(Line::parse) {
            seen.note(file.name, &line.text, NOW + at - at.rem_euclid(MINUTE));
        }
    }
    Facts {
        file: Arc::clone(&policy_files()[*policy]),
        advisories: database.map(|place| Arc::clone(&databases()[place])),
        yanks: Arc::new(seen),
        policy_time: *policy_time,
        ..Facts::default()
    }
}

prop_compose! {
    fn settings()(
        min_age in prop::sample::select(vec!["0", "1 day", "7 days", "1 month"]),
        unknown in any::<bool>(),
        is_audit in prop::bool::weighted(0.1),
        yank_guard in prop::sample::select(vec!["0", "3 days", "3 days", "1 week"]),
    ) -> Settings {
        Settings {
            min_age: min_age.parse().unwrap(),
            unknown_age: if unknown { UnknownAge::Hold } else { UnknownAge::Allow },
            held_downloads: HeldDownloads::Allow,
            mode: if is_audit { Mode::Audit } else { Mode::Enforce },
            yank_guard: yank_guard.parse().unwrap(),
        }
    }
}

/// The reason for each version, by the text of the specification.
fn expected(
    settings: &Settings,
    facts: &Facts,
    name: &str,
    lines: &[Line<'_>],
) -> Vec<Option<Reason>> {
    let file = &facts.file;
    let own = canonical(name);
    let now = facts.policy_time;
    let advisories: Vec<_> = facts
        .advisories
        .iter()
        .flat_map(|all| all.of(&own))
        .collect();
    let advisories: Vec<_> = advisories
        .into_iter()
        .filter(|advisory| !file.ignores(&advisory.id))
        .collect();
    let guard = i64::try_from(settings.yank_guard.seconds).unwrap();

    // Each old version with its yank and each fresh one beside it.
    let mut pairs = Vec::new();
    for (old_place, old) in lines.iter().enumerate() {
        let seen = facts.yanks.of(name).and_then(|seen| seen.get(&*old.text));
        let Some(seen) = seen.filter(|_| guard > 0 && old.yanked) else {
            continue;
        };
        let is_old = old
            .published
            .as_ref()
            .is_none_or(|time| time.unix_seconds() <= seen - 30 * DAY);
        for (fresh_place, fresh) in lines.iter().enumerate() {
            let published = fresh.published.as_ref().map(|time| time.unix_seconds());
            let is_honest = file.exemption(&own, &fresh.version, now).is_some()
                || advisories.iter().any(|advisory| {
                    !advisory.is_malware()
                        && !advisory.is_withdrawn()
                        && advisory.affects(&old.version)
                        && advisory.lists_as_patched(&fresh.version)
                });
            if is_old
                && !fresh.yanked
                && published.is_some_and(|published| published >= seen - guard)
                && caret(&old.version).matches(&fresh.version)
                && fresh.version > old.version
                && !is_honest
            {
                pairs.push((*seen, old_place, fresh_place));
            }
        }
    }
    pairs.sort_unstable();
    let began = pairs.iter().fold(None, |began: Option<i64>, (seen, ..)| {
        began.filter(|began| *seen < began + guard).or(Some(*seen))
    });
    let until = began.map_or(i64::MIN, |began| began + guard);
    pairs.retain(|(seen, ..)| now < until && Some(*seen) >= began);

    let reason = |(place, line): (usize, &Line<'_>)| {
        if let Some(denial) = file.denial(&own, &line.version) {
            return Some(Reason::DeniedByFile {
                reason: denial.reason.clone(),
                use_instead: denial.use_instead.clone(),
            });
        }
        for advisory in &advisories {
            if advisory.blocks(&line.version, line.published.as_ref()) {
                return Some(Reason::Malware {
                    advisory: advisory.id.clone(),
                });
            }
        }
        if !file.is_allowed(&own, &line.version) {
            return Some(Reason::NotOnAllowList);
        }
        if let Some(exemption) = file.exemption(&own, &line.version, now) {
            return Some(Reason::ExemptByFile {
                reason: exemption.reason.clone(),
            });
        }
        for advisory in advisories
            .iter()
            .filter(|advisory| advisory.exempts_fixes())
        {
            for requirement in &advisory.patched {
                let meets = |line: &Line<'_>| {
                    line.version.pre.is_empty() && requirement.matches(&line.version)
                };
                let is_lower = |(other, theirs): (usize, &Line<'_>)| {
                    meets(theirs) && (&theirs.version, other) < (&line.version, place)
                };
                if meets(line) && !lines.iter().enumerate().any(is_lower) {
                    return Some(Reason::SecurityFix {
                        advisory: advisory.id.clone(),
                    });
                }
            }
        }
        if pairs.iter().any(|(_, old, _)| *old == place) {
            return Some(Reason::SuspiciousYank { until });
        }
        if pairs.iter().any(|(.., fresh)| *fresh == place) {
            return Some(Reason::FreshBesideYank { until });
        }
        let age = file
            .min_age(&own, &line.version)
            .unwrap_or(&settings.min_age);
        match &line.published {
            _ if age.is_zero() => None,
            Some(published) => {
                let until = published.unix_seconds() + i64::try_from(age.seconds).unwrap();
                (now < until).then(|| Reason::TooNew {
                    until,
                    min_age: age.to_string(),
                })
            }
            None => (settings.unknown_age == UnknownAge::Hold).then_some(Reason::UnknownAge),
        }
    };
    lines.iter().enumerate().map(reason).collect()
}

/// The flag that a reason leads to.
fn flag(reason: Option<&Reason>) -> Option<bool> {
    match reason.map_or(PolicyState::Allowed, Reason::state) {
        PolicyState::Allowed => None,
        PolicyState::Held | PolicyState::Denied => Some(true),
        PolicyState::Frozen => Some(false),
    }
}

/// How often a version was in each state, so that no property is true only because nothing happens.
fn applied(rules: &Rules, facts: &Facts, file: &TestFile) -> (ShownFile, FileState) {
    apply(
        rules,
        facts,
        file.name,
        file.content().as_bytes(),
        &mut Counts::default(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every line equals the upstream's but for the value of `yanked`, what is no version stays, and the reasons are those
    /// of a second reading of the rules.
    #[test]
    fn the_rules_decide_as_they_are_written_and_change_only_the_flag(
        file in files(),
        settings in settings(),
        choice in fact_choice(),
    ) {
        let facts = facts(&file, &choice);
        let rules = Rules::new(vec![Rule::Policy(settings.clone())]);
        let content = file.content();
        let parsed: Vec<Option<Line<'_>>> = file.rows.iter().map(|row| Line::parse(row.text.as_bytes())).collect();
        let is_version: Vec<bool> = parsed.iter().map(Option::is_some).collect();
        let lines: Vec<Line<'_>> = parsed.into_iter().flatten().collect();
        let decide = |facts: &Facts| {
            let found = decisions(&rules, facts, file.name, content.as_bytes());
            let reasons = found.iter().map(|found| found.reason.clone());
            (reasons.collect::<Vec<Option<Reason>>>(), found)
        };
        let (reasons, found) = decide(&facts);
        prop_assert_eq!(&reasons, &expected(&settings, &facts, file.name, &lines));
        let (file_shown, state) = applied(&rules, &facts, &file);
        // The moment at which something ends, and the one before it.
        for policy_time in state.next_change.into_iter().flat_map(|next| [next - 1, next]) {
            let then = Facts { policy_time, ..facts.clone() };
            prop_assert_eq!(&decide(&then).0, &expected(&settings, &then, file.name, &lines));
        }

        let is_audit = settings.mode == Mode::Audit;
        let mut shown = String::new();
        let mut places = 0..;
        let mut left_out = 0;
        for (index, (row, is_version)) in file.rows.iter().zip(is_version).enumerate() {
            let end = if index + 1 < file.rows.len() || file.ends_with_line_break { "\n" } else { "" };
            if !is_version {
                shown.push_str(&(row.text.clone() + end));
                continue;
            }
            let place = places.next().unwrap();
            let DecidedVersion { upstream_yanked, served_yanked, published, .. } = &found[place];
            prop_assert_eq!(*upstream_yanked, lines[place].yanked);
            prop_assert_eq!(published, &lines[place].published);
            let flag = flag(reasons[place].as_ref()).filter(|_| !is_audit);
            match (flag, &row.written) {
                (None, _) => {
                    shown.push_str(&(row.text.clone() + end));
                    prop_assert_eq!(*served_yanked, Some(*upstream_yanked));
                }
                (Some(flag), Some(written)) => {
                    shown.push_str(&(written.with(Some(flag)) + end));
                    prop_assert_eq!(*served_yanked, Some(flag));
                }
                (Some(_), None) => {
                    left_out += 1;
                    prop_assert_eq!(*served_yanked, None);
                }
            }
        }
        let expected_file = if shown == content {
            ShownFile::AsIs
        } else if shown.is_empty() {
            ShownFile::Hidden
        } else {
            ShownFile::Edited(shown.into_bytes())
        };
        prop_assert_eq!(file_shown, expected_file);
        let count = |wanted: PolicyState| {
            let states = reasons.iter().flatten().map(Reason::state);
            u32::try_from(states.filter(|state| *state == wanted).count()).unwrap()
        };
        prop_assert_eq!((state.held, state.denied, state.frozen, state.left_out), (
            count(PolicyState::Held),
            count(PolicyState::Denied),
            count(PolicyState::Frozen),
            left_out,
        ));
        let without_time = lines.iter().filter(|line| line.published.is_none()).count();
        prop_assert_eq!(usize::try_from(state.without_time).unwrap(), without_time);
        prop_assert_eq!(state.has_decisions(), reasons.iter().any(Option::is_some));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The publisher looks again only at files that it takes for affected. So nothing may differ in the others.
    #[test]
    fn a_file_that_counts_as_unaffected_is_shown_as_before(
        file in files(),
        settings in settings(),
        before in fact_choice(),
        after in fact_choice(),
        // Which facts stay as they were: most refreshes change one thing.
        keeps in (prop::bool::weighted(0.6), prop::bool::weighted(0.7), prop::bool::weighted(0.7)),
    ) {
        let rules = Rules::new(vec![Rule::Policy(settings)]);
        let mut after = after;
        if keeps.0 {
            after.0 = before.0;
        }
        if keeps.1 {
            after.1 = before.1;
        }
        if keeps.2 {
            after.2.clone_from(&before.2);
        }
        // Policy time that goes back makes everything anew.
        let (earlier, later) = (before.3.min(after.3), before.3.max(after.3));
        let (before, after) = (
            facts(&file, &(before.0, before.1, before.2, earlier)),
            facts(&file, &(after.0, after.1, after.2, later)),
        );
        let (was, is) = (applied(&rules, &before, &file), applied(&rules, &after, &file));
        let is_same = rules.fingerprint(&before) == rules.fingerprint(&after);
        let may_differ = !is_same && before.may_differ(&after).contains(file.name);
        let mut states = States::default();
        states.set(file.name, Some(was.1.clone()));
        let is_due = states.due(after.policy_time).next().is_some();
        let content = file.content();
        let of = |facts| decisions(&rules, facts, file.name, content.as_bytes());
        let (decided_before, decided) = (of(&before), of(&after));
        if !may_differ && !is_due {
            prop_assert_eq!(&was, &is);
            prop_assert_eq!(&decided_before, &decided);
        }
        // `x-policy` is made of digests: equal digests mean equal reasons.
        let reasons = |all: Vec<DecidedVersion>| -> Vec<Option<Reason>> {
            all.into_iter().map(|one| one.reason).collect()
        };
        prop_assert_eq!(
            was.1.digest == is.1.digest,
            reasons(decided_before) == reasons(decided)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the guard forgets cannot matter any more, then and later.
    #[test]
    fn yanks_that_are_forgotten_decide_nothing(
        file in files(),
        settings in settings(),
        choice in fact_choice(),
        later in 0..9 * DAY,
    ) {
        let before = facts(&file, &choice);
        let guard = i64::try_from(settings.yank_guard.seconds).unwrap();
        let mut yanks = SeenYanks::clone(&before.yanks);
        yanks.prune(guard, before.policy_time);
        prop_assert!(!yanks.has_old_ones(guard, before.policy_time));
        let rules = Rules::new(vec![Rule::Policy(settings)]);
        for policy_time in [before.policy_time, before.policy_time + later] {
            let all = Facts { policy_time, ..before.clone() };
            let pruned = Facts { yanks: Arc::new(yanks.clone()), ..all.clone() };
            prop_assert_eq!(applied(&rules, &all, &file), applied(&rules, &pruned, &file));
        }
    }

    /// The states of all files, changed one by one, equal those that are read from a file.
    #[test]
    fn states_that_follow_changes_equal_states_made_from_nothing(
        changes in prop::collection::vec(
            (0..6_u8, prop::option::of((prop::option::of(0..9_i64), 0..3_u32, 0..3_u32, 0..3_u32, 0..4_u64))),
            0..30,
        ),
        policy_time in 0..9_i64,
    ) {
        let mut followed = States::default();
        let mut last = std::collections::BTreeMap::new();
        for (name, state) in changes {
            let name = format!("crate{name}");
            let state = state.map(|(next_change, held, left_out, without_time, digest)| FileState {
                next_change,
                held,
                denied: held / 2,
                frozen: held % 2,
                left_out,
                without_time,
                is_unread: held == 2,
                digest,
            });
            followed.set(&name, state.clone());
            last.insert(name.into_boxed_str(), state.unwrap_or_default());
        }
        last.retain(|_, state| *state != FileState::default());
        let due = last.iter().filter(|(_, state)| state.next_change.is_some_and(|next| next <= policy_time));
        let due: std::collections::BTreeSet<String> = due.map(|(name, _)| name.to_string()).collect();
        let anew = States::from(last);
        let found: Vec<&str> = followed.due(policy_time).collect();
        prop_assert_eq!(found.len(), due.len());
        prop_assert!(found.iter().all(|name| due.contains(*name)));
        prop_assert_eq!(followed.count(), anew.count());
        let text = serde_json::to_string(&followed).unwrap();
        let read: States = serde_json::from_str(&text).unwrap();
        prop_assert_eq!((&followed, &read), (&anew, &anew));
    }
}

#[test]
fn the_generated_cases_are_in_every_state() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let cases = (files(), settings(), fact_choice());
    let mut rules_found = std::collections::BTreeMap::new();
    for _ in 0..800 {
        let (file, settings, choice) = cases.new_tree(&mut runner).unwrap().current();
        let facts = facts(&file, &choice);
        let rules = Rules::new(vec![Rule::Policy(settings)]);
        for decided in decisions(&rules, &facts, file.name, file.content().as_bytes()) {
            let reason = decided.reason.as_ref();
            let rule = reason.map_or("none", Reason::rule);
            let state = reason.map_or(PolicyState::Allowed, Reason::state);
            *rules_found.entry((rule, state)).or_insert(0) += 1;
        }
    }
    println!("{rules_found:#?}");
    let all = [
        ("allow-list", PolicyState::Denied),
        ("denied-by-file", PolicyState::Denied),
        ("exempt", PolicyState::Allowed),
        ("malware", PolicyState::Denied),
        ("min-publish-age", PolicyState::Held),
        ("none", PolicyState::Allowed),
        ("security-fix", PolicyState::Allowed),
        ("unknown-publish-time", PolicyState::Held),
        ("yank-guard", PolicyState::Held),
        ("yank-guard", PolicyState::Frozen),
    ];
    for wanted in all {
        assert!(
            rules_found.get(&wanted).is_some_and(|count| *count >= 10),
            "{wanted:?}"
        );
    }
}

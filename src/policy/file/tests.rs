//! What a policy file means, in tables: the text, then the answers.

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use semver::Version;

use super::{Denial, Exemption, PolicyFile, PolicyFileError, WARNINGS_MAX};

/// A file with every section and key that cargo-deny's template has, and each kind of entry.
const CARGO_DENY: &str = include_str!("../../../tests/fixtures/policy/cargo-deny.toml");

fn parse(text: &str) -> PolicyFile {
    PolicyFile::parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

/// The error as people see it, and the checks that hold for every error.
fn error_of(text: &str) -> String {
    let error = PolicyFile::parse(text).expect_err(text).to_string();
    let characters = error.chars().count();
    assert!(characters < 4_000, "{characters}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
    error
}

#[test]
fn crates_are_written_in_every_way_that_cargo_deny_takes() {
    let (all, stable) = (
        ["0.6.9", "0.7.0", "1.2.3", "1.2.4", "2.0.0", "1.2.3-rc.1"],
        ["0.6.9", "0.7.0", "1.2.3", "1.2.4", "2.0.0"],
    );
    for (entry, denied) in [
        (r#""a""#, &all[..]),
        (r#"{ crate = "a" }"#, &all),
        (r#"{ name = "a" }"#, &all),
        (r#""a@1.2.3""#, &["1.2.3"]),
        (r#""a@=1.2.3""#, &["1.2.3"]),
        (r#""a:=1.2.3""#, &["1.2.3"]),
        (r#""a@1.2""#, &["1.2.3", "1.2.4"]),
        (r#""a@1""#, &["1.2.3", "1.2.4"]),
        // After an `@` the first comparator is exact.
        (r#""a@>=1.2.3""#, &["1.2.3"]),
        (r#""a@^1.2.3, <2""#, &["1.2.3"]),
        (r#""a:1.2.3""#, &["1.2.3", "1.2.4"]),
        (r#""a:<=0.7""#, &["0.6.9", "0.7.0"]),
        (r#""a:>=0.7,<1.2.4""#, &["0.7.0", "1.2.3"]),
        (r#"{ crate = "a:<=0.7" }"#, &["0.6.9", "0.7.0"]),
        (r#"{ crate = "a@1.2.4", reason = "r" }"#, &["1.2.4"]),
        (r#"{ name = "a", version = "1.2.4" }"#, &["1.2.4"]),
        (r#"{ name = "a", version = "=1.2.3" }"#, &["1.2.3"]),
        (r#"{ name = "a", version = "<1" }"#, &["0.6.9", "0.7.0"]),
        // A requirement has a pre-release only if it names one of the same three numbers.
        (r#"{ name = "a", version = "*" }"#, &stable),
        (r#""a:*""#, &stable),
        (r#""a@*""#, &stable),
        (r#""a@1.2.3-rc.1""#, &["1.2.3-rc.1"]),
        (
            r#""a:>=1.2.3-alpha""#,
            &["1.2.3", "1.2.4", "2.0.0", "1.2.3-rc.1"],
        ),
        (r#""a:>=1.2.2-alpha""#, &["1.2.3", "1.2.4", "2.0.0"]),
        (r#""b""#, &[]),
    ] {
        let file = parse(&format!("bans.deny = [{entry}]"));
        let is_denied = |number: &&str| file.denial("a", &version(number)).is_some();
        let found: Vec<&str> = all.into_iter().filter(is_denied).collect();
        assert_eq!(found, denied.to_vec(), "{entry}");
        assert!(file.can_refuse() && file.allowed.is_none(), "{entry}");
        assert_eq!(file.warnings(0), [""; 0], "{entry}");
    }
    // Build metadata does not count.
    let file = parse(r#"bans.deny = ["a@1.2.3+linux"]"#);
    assert!(file.denial("a", &version("1.2.3")).is_some());
    assert!(file.denial("a", &version("1.2.3+other")).is_some());
}

#[test]
fn names_compare_canonically() {
    let file = parse(
        r#"
        bans.deny = ["Foo-Bar"]
        bans.allow = [{ name = "A_B" }]
        mirror.exempt = ["ACME-*"]
        mirror.age = [{ crate = "X-y", min-publish-age = "1 day" }]
        "#,
    );
    let one = version("1.0.0");
    assert!(file.denial("foo_bar", &one).is_some());
    assert!(file.is_allowed("a_b", &one));
    assert!(file.exemption("acme_http", &one, 0).is_some());
    assert!(file.exemption("acme_", &one, 0).is_some());
    assert!(file.exemption("acme", &one, 0).is_none());
    assert!(file.min_age("x_y", &one).is_some());
}

#[test]
fn a_denial_has_its_reason_and_its_substitute_and_the_first_one_counts() {
    let file = parse(
        r#"
        [[bans.deny]]
        crate = "a@1.0.0"
        reason = " two\n\tlines \u0007 "
        use-instead = "b"
        [[bans.deny]]
        name = "a"
        wrappers = []
        deny-multiple-versions = false
        "#,
    );
    let first = Denial {
        reason: Some("two lines \\u0007".to_owned()),
        use_instead: Some("b".to_owned()),
    };
    assert_eq!(file.denial("a", &version("1.0.0")), Some(&first));
    let second = Some(&Denial::default());
    assert_eq!(file.denial("a", &version("1.0.1")), second);
    let long = format!(
        "bans.deny = [{{ crate = 'a', reason = '{}' }}]",
        "京".repeat(9_999)
    );
    let long = parse(&long);
    let reason = long.denial("a", &version("1.0.0")).unwrap().reason.clone();
    assert_eq!(reason.unwrap().chars().count(), 301);
}

#[test]
fn an_allow_list_that_is_not_empty_allows_nothing_else() {
    let one = version("1.0.0");
    for (text, has_list, allows) in [
        ("", false, ["a", "b"].as_slice()),
        ("bans.allow = []", false, &["a", "b"]),
        ("bans.allow = ['a']", true, &["a"]),
        (
            "bans.allow = [{ crate = 'a@1', reason = 'r' }]",
            true,
            &["a"],
        ),
        ("bans.allow = ['a@2', 'b']", true, &["b"]),
        (
            "bans.allow = ['a']\nmirror.use-bans-allow = true",
            true,
            &["a"],
        ),
        (
            "bans.allow = ['a']\nmirror.use-bans-allow = false",
            false,
            &["a", "b"],
        ),
    ] {
        let file = parse(text);
        let allowed = ["a", "b"].into_iter();
        let allowed: Vec<&str> = allowed.filter(|name| file.is_allowed(name, &one)).collect();
        assert_eq!(allowed, allows, "{text}");
        assert_eq!(file.allowed.is_some(), has_list, "{text}");
        assert_eq!(file.can_refuse(), has_list, "{text}");
    }
}

#[test]
fn an_exemption_ends_at_its_date() {
    for (date, expires) in [
        ("2026-12-03", Some(1_796_256_000)),
        ("2026-12-03T00:00:00Z", Some(1_796_256_000)),
        ("2026-12-03 00:00:00z", Some(1_796_256_000)),
        ("2026-12-03T01:00:00+01:00", Some(1_796_256_000)),
        ("2026-12-02T16:00:00.75-08:00", Some(1_796_256_000)),
        ("2026-12-02T23:59:60Z", Some(1_796_256_000)),
        ("1970-01-01", Some(0)),
        ("1969-12-31T23:59:59Z", Some(-1)),
        // Nobody knows which time zones these are in.
        ("2026-12-03T00:00:00", None),
        ("00:00:00", None),
    ] {
        let text = format!("mirror.exempt = [{{ crate = 'a', expires = {date} }}]");
        let Some(expires) = expires else {
            assert!(error_of(&text).contains("`expires`"), "{date}");
            continue;
        };
        let file = parse(&text);
        let exempt = |time| file.exemption("a", &version("1.0.0"), time).is_some();
        assert!(exempt(expires - 1) && !exempt(expires), "{date}");
        assert_eq!(file.next_expiry("a", expires - 1), Some(expires), "{date}");
        assert_eq!(file.next_expiry("a", expires), None, "{date}");
        assert_eq!(file.next_expiry("b", expires - 1), None, "{date}");
        assert!(file.warnings(expires - 1).is_empty(), "{date}");
    }
    let file = parse(
        r#"mirror.exempt = [
            { crate = "a", reason = "one", expires = 1970-01-02 },
            { crate = "a@2", reason = "two", expires = 1970-01-03 },
            { crate = "*", reason = "all", expires = 1970-01-04 },
            "b",
        ]"#,
    );
    let day = 86_400;
    let reason = |name, number, time| {
        let exemption = file.exemption(name, &version(number), time);
        exemption.map(|exemption: &Exemption| exemption.reason.clone().unwrap_or_default())
    };
    for (name, number, time, expected) in [
        ("a", "2.0.0", 0, Some("one")),
        ("a", "2.0.0", day, Some("two")),
        ("a", "2.0.0", 2 * day, Some("all")),
        ("a", "1.0.0", day, Some("all")),
        ("a", "1.0.0", 3 * day, None),
        ("b", "1.0.0", 0, Some("all")),
        ("b", "1.0.0", 3 * day, Some("")),
    ] {
        let found = reason(name, number, time);
        assert_eq!(found.as_deref(), expected, "{name} {number} {time}");
    }
    assert_eq!(file.next_expiry("a", 0), Some(day));
    assert_eq!(file.next_expiry("b", 0), Some(3 * day));
    let warned = ["the exemption of `a` has expired at 1970-01-02T00:00:00Z"];
    assert_eq!(file.warnings(day), warned);
}

#[test]
fn the_first_age_that_matches_counts_whether_it_has_a_star_or_not() {
    let file = parse(
        r#"
        [mirror]
        age = [
            { crate = "acme-core", min-publish-age = "0" },
            { crate = "acme-*", min-publish-age = "2 days" },
            { crate = "acme-http", min-publish-age = "3 days" },
            { crate = "tokio@1", min-publish-age = "14 days" },
            { name = "to*", version = "<1", min-publish-age = "4 days" },
            { crate = "*", min-publish-age = "1 week" },
        ]
        "#,
    );
    for (name, number, expected) in [
        ("acme_core", "1.0.0", "0"),
        ("acme_http", "1.0.0", "2 days"),
        ("acme", "1.0.0", "1 week"),
        ("tokio", "1.9.0", "14 days"),
        ("tokio", "0.9.0", "4 days"),
        ("tokio", "2.0.0", "1 week"),
        ("z", "1.0.0-rc.1", "1 week"),
    ] {
        let age = file.min_age(name, &version(number)).unwrap();
        assert_eq!(age.to_string(), expected, "{name} {number}");
    }
    assert!(file.can_hold() && !file.can_refuse());
    assert!(!parse("mirror.age = [{ crate = 'a', min-publish-age = '0' }]").can_hold());
}

#[test]
fn ids_of_advisories_are_ignored_and_crates_among_them_are_passed_over() {
    let file = parse(
        r#"advisories.ignore = [
            "RUSTSEC-2026-0001",
            { id = "RUSTSEC-2026-0002", reason = "r" },
            "GHSA-abcd-efgh-ijkl",
            "yanked@0.1.1",
            "yanked-crate",
            "1 no crate",
            { crate = "yanked@0.1.1", reason = "r" },
        ]"#,
    );
    for (id, is_ignored) in [
        ("RUSTSEC-2026-0001", true),
        ("RUSTSEC-2026-0002", true),
        ("GHSA-abcd-efgh-ijkl", true),
        ("RUSTSEC-2026-0003", false),
        ("rustsec-2026-0001", false),
        ("yanked-crate", false),
    ] {
        assert_eq!(file.ignores(id), is_ignored, "{id}");
    }
    assert!(!file.can_refuse() && file.warnings(0).is_empty());
}

#[test]
fn a_file_of_cargo_deny_is_a_policy_file() {
    let file = parse(CARGO_DENY);
    let one = version("1.0.0");
    assert!(file.denial("openssl", &one).is_some());
    assert!(file.denial("native_tls", &one).is_none());
    assert!(file.denial("block_buffer", &one).is_none());
    assert!(file.is_allowed("serde", &one) && !file.is_allowed("evil", &one));
    assert!(file.ignores("RUSTSEC-2026-0001"));
    let warnings = file.warnings(0);
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    for (warning, expected) in warnings.iter().zip([
        "`*` in [bans] deny matches no crate",
        "`native-tls@0.2` in [bans] deny is skipped: it has `wrappers`",
        "`block-buffer` in [bans] deny is skipped: it has `deny-multiple-versions`",
        "`scope` of `git2` is not known and passed over",
    ]) {
        assert!(
            warning.starts_with("line ") && warning.contains(expected),
            "{warning}"
        );
    }
}

#[test]
fn the_examples_of_the_document_are_policy_files() {
    let blocks = include_str!("../../../docs/policy.md")
        .split("```toml\n")
        .skip(1);
    let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        let warnings = parse(block).warnings(0);
        assert!(warnings.is_empty(), "{block}\n{warnings:?}");
    }
}

#[test]
fn nothing_is_a_file_without_rules() {
    for text in [
        "",
        "\n# only a comment\n",
        "\u{feff}[mirror]\n",
        "[bans]\r\n[mirror]\r\n",
    ] {
        let file = parse(text);
        assert!(
            !file.can_refuse() && !file.can_hold() && !file.ignores(""),
            "{text:?}"
        );
        assert!(file.is_allowed("a", &version("1.0.0")), "{text:?}");
        assert!(file.may_differ(0, &PolicyFile::default(), 9).is_empty());
    }
}

#[test]
fn an_error_names_the_line_and_the_entry() {
    for (text, line, words) in [
        ("a = ", 1, ""),
        (
            "[bans]\ndeny = [\n  'a',\n  'a b',\n]",
            4,
            "`a b` is not the name of a crate",
        ),
        ("[bans]\ndeny = ['1a']", 2, "`1a`"),
        ("[bans]\ndeny = ['']", 2, "cannot be empty"),
        ("[bans]\ndeny = [' a']", 2, "` a`"),
        (
            "[bans]\ndeny = ['a@']",
            2,
            "`` is not a version requirement",
        ),
        (
            "[bans]\ndeny = ['a@y']",
            2,
            "`y` is not a version requirement",
        ),
        ("[bans]\ndeny = ['a:<=y']", 2, "`<=y`"),
        ("[bans]\ndeny = ['acme-*']", 2, "only in [mirror]"),
        ("[bans]\nallow = ['*']", 2, "only in [mirror]"),
        ("[bans]\nallow = [{ name = 'a*' }]", 2, "`a*`"),
        ("[bans]\ndeny = [{ reason = 'r' }]", 2, "no `crate`"),
        ("[bans]\ndeny = [1]", 2, "is a number"),
        ("[bans]\ndeny = 'a'", 2, "`deny` must be an array"),
        (
            "[bans]\ndeny = [{ crate = 1 }]",
            2,
            "`crate` must be a string",
        ),
        (
            "[bans]\ndeny = [{ name = 'a', version = 1.0 }]",
            2,
            "`version`",
        ),
        (
            "[bans]\ndeny = [{ crate = 'a', reason = 1 }]",
            2,
            "`reason`",
        ),
        (
            "[bans]\ndeny = [{ crate = 'a', wrappers = 1 }]",
            2,
            "`wrappers`",
        ),
        ("bans = 1", 1, "`bans` must be a table, and is a number"),
        ("[advisories]\nignore = 'a'", 2, "`ignore`"),
        ("[advisories]\nignore = [1]", 2, "`ignore`"),
        ("[advisories]\nignore = [{ id = 1 }]", 2, "`id`"),
        (
            "[mirror]\nexempted = []",
            2,
            "`exempted` is not a key of [mirror]",
        ),
        ("[mirror]\nuse-bans-allow = 'no'", 2, "true or false"),
        ("[mirror]\nexempt = ['*a']", 2, "`*a`"),
        ("[mirror]\nexempt = ['a**']", 2, "`a*`"),
        ("[mirror]\nexempt = ['a*b']", 2, "`a*b`"),
        (
            "[mirror]\nexempt = [{ crate = 'a', expire = 2026-12-03 }]",
            2,
            "`expire`",
        ),
        (
            "[mirror]\nexempt = [{ crate = 'a', version = '1' }]",
            2,
            "`version`",
        ),
        (
            "[mirror]\nexempt = [{ crate = 'a', expires = '2026-12-03' }]",
            2,
            "without quotes",
        ),
        (
            "[mirror]\nexempt = [{ crate = 'a', expires = 2026-13-03 }]",
            2,
            "",
        ),
        ("[mirror]\nage = ['a']", 2, "no `min-publish-age`"),
        (
            "[mirror]\nage = [{ crate = 'a', min-publish-age = '7d' }]",
            2,
            "such as `7 days`",
        ),
        (
            "[mirror]\nage = [{ crate = 'a', min-publish-age = 7 }]",
            2,
            "`min-publish-age`",
        ),
        (
            "[mirror]\nage = [{ crate = 'a', min-publish-age = '0', reason = 'r' }]",
            2,
            "`reason` is not a key of [mirror] age",
        ),
        ("[mirror]\n[mirror]", 2, ""),
        ("[bans]\ndeny = [\"\\u0007\\u202e\"]", 2, "`\\u0007\\u202e`"),
    ] {
        let error = error_of(text);
        let begin = format!("line {line}: ");
        assert!(
            error.starts_with(&begin) && error.contains(words),
            "{text}\n{error}"
        );
    }
    let long = format!("bans.deny = ['{}']", "京".repeat(100_000));
    assert!(error_of(&long).ends_with('…'));
    let large = "#".repeat(PolicyFile::BYTES_MAX + 1);
    assert_eq!(
        PolicyFile::parse(&large).unwrap_err(),
        PolicyFileError::TooLarge
    );
    assert!(PolicyFile::parse(large.strip_prefix('#').unwrap()).is_ok());
    let deep = format!("a = {}", "[".repeat(100_000));
    error_of(&deep);
}

#[test]
fn there_are_few_warnings_however_long_the_file_is() {
    let skipped = "{ crate = 'a', wrappers = ['b'] },\n".repeat(1_000);
    let expired = "{ crate = 'a', expires = 1970-01-01 },\n".repeat(1_000);
    let text = format!("bans.deny = [\n{skipped}]\nmirror.exempt = [{expired}]");
    let warnings = parse(&text).warnings(0);
    assert_eq!(warnings.len(), WARNINGS_MAX + 1);
    assert_eq!(warnings.last().unwrap(), "1980 more warnings");
    assert!(warnings[1].starts_with("line 3: "), "{}", warnings[1]);
}

#[test]
fn a_change_is_about_the_crates_of_the_entries_that_differ() {
    let same =
        "bans.deny = ['a', 'b']\nmirror.age = [{ crate = 'x-*', min-publish-age = '1 day' }]";
    for (before, after, differing) in [
        ("", "", [].as_slice()),
        (same, same, &[]),
        (
            "bans.deny = ['a', 'b']",
            "bans.deny = ['a', 'c', 'b']",
            &["c"],
        ),
        ("bans.deny = ['a', 'b']", "bans.deny = ['b']", &["a"]),
        (
            "bans.deny = ['a', 'b']",
            "bans.deny = ['b', 'a']",
            &["a", "b"],
        ),
        ("bans.deny = ['a']", "bans.deny = ['a@1']", &["a"]),
        (
            "bans.deny = ['a']",
            "bans.deny = [{ crate = 'a', reason = 'r' }]",
            &["a"],
        ),
        ("", "mirror.exempt = ['x-*']", &["x_1", "x_2"]),
        (
            "bans.allow = ['a', 'b']",
            "bans.allow = ['a', 'c']",
            &["b", "c"],
        ),
        ("bans.allow = ['a']", "", &["a", "b", "c", "x_1", "x_2"]),
        // Only the advisories know which crates they are about.
        ("", "advisories.ignore = ['RUSTSEC-1']", &[]),
        ("", "# a comment\n[licenses]\nallow = []", &[]),
    ] {
        let crates = parse(before).may_differ(0, &parse(after), 0);
        let found = ["a", "b", "c", "x_1", "x_2"].into_iter();
        let found: Vec<&str> = found.filter(|name| crates.matches(name)).collect();
        assert_eq!(found, differing, "{before}\n{after}");
        assert_eq!(crates.is_empty(), differing.is_empty(), "{before}\n{after}");
    }
    // The time alone changes what an exemption means.
    let file = parse("mirror.exempt = ['b', { crate = 'a', expires = 1970-01-02 }]");
    for (from, to, differs) in [(0, 86_399, false), (0, 86_400, true), (86_400, 9, true)] {
        let crates = file.may_differ(from, &file, to);
        assert_eq!(crates.matches("a"), differs, "{from} {to}");
        assert!(!crates.matches("b"));
    }
}

/// Texts that are nearly policy files.
fn pieces() -> impl Strategy<Value = String> {
    let pieces = [
        "[bans]\n",
        "[mirror]\n",
        "[advisories]\n",
        "[[bans.deny]]\n",
        "[[mirror.exempt]]\n",
        "deny",
        "allow",
        "exempt",
        "age",
        "ignore",
        "crate",
        "name",
        "version",
        "expires",
        "wrappers",
        "use-bans-allow",
        "min-publish-age",
        " = ",
        "= [",
        "]\n",
        "{",
        "}",
        ",",
        "\n",
        "'a'",
        "'a@1'",
        "'a:<1'",
        "'a-*'",
        "'*'",
        "'7 days'",
        "'京'",
        "\"\\u0000\"",
        "1",
        "true",
        "2026-12-03",
        "2026-12-03T00:00:60Z",
        "9999-12-31T23:59:59-23:59",
        "0000-01-01",
    ];
    prop::collection::vec(select(pieces.to_vec()), 0..20).prop_map(|pieces| pieces.concat())
}

/// Good files with a few entries about a few crates.
fn files() -> impl Strategy<Value = String> {
    let names = || select(vec!["a", "ab", "abc", "b"]);
    let stars = || select(vec!["a", "ab", "a*", "ab*", "*", "b@1"]);
    let denied = prop::collection::vec((names(), select(vec!["", "@1", ":<2"])), 0..4);
    let denied = denied.prop_map(|entries| {
        let entries = entries
            .into_iter()
            .map(|(name, version)| format!("'{name}{version}',"));
        format!("bans.deny = [{}]\n", entries.collect::<String>())
    });
    let allowed =
        prop::collection::vec(names(), 0..3).prop_map(|names| format!("bans.allow = {names:?}\n"));
    let exempt = prop::collection::vec((stars(), 1..4), 0..4).prop_map(|entries| {
        let entries = entries.into_iter();
        let entries =
            entries.map(|(name, day)| format!("{{ crate = '{name}', expires = 1970-01-0{day} }},"));
        format!("mirror.exempt = [{}]\n", entries.collect::<String>())
    });
    let ages = prop::collection::vec((stars(), 1..4), 0..4).prop_map(|entries| {
        let entries = entries.into_iter();
        let entries = entries.map(|(name, days)| {
            format!("{{ crate = '{name}', min-publish-age = '{days} days' }},")
        });
        format!("mirror.age = [{}]\n", entries.collect::<String>())
    });
    (denied, allowed, exempt, ages).prop_map(|(a, b, c, d)| a + &b + &c + &d)
}

proptest! {
    #[test]
    fn reading_never_panics(text in prop_oneof![pieces(), "\\PC*", "[\\x00-\\x7f]*"]) {
        match PolicyFile::parse(&text) {
            Ok(file) => prop_assert!(file.warnings(0).len() <= WARNINGS_MAX + 1),
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
        }
    }

    #[test]
    fn crates_that_a_change_is_not_about_get_the_same_answers(
        before in files(), after in option::of(files()), from in 0..4_i64, to in 0..4_i64,
    ) {
        // Often only the time changes.
        let after = parse(after.as_ref().unwrap_or(&before));
        let before = parse(&before);
        let (from, to) = (from * 86_400, to * 86_400);
        let crates = before.may_differ(from, &after, to);
        for name in ["a", "ab", "abc", "b", "c"] {
            if crates.matches(name) {
                continue;
            }
            for version in ["1.0.0", "2.0.0", "1.0.0-rc.1"].map(version) {
                let answers = |file: &PolicyFile, time| (
                    file.denial(name, &version).cloned(),
                    file.is_allowed(name, &version),
                    file.exemption(name, &version, time).cloned(),
                    file.min_age(name, &version).cloned(),
                );
                prop_assert_eq!(answers(&before, from), answers(&after, to), "{}", name);
            }
        }
    }
}

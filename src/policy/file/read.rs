//! Reads the text of a policy file.
//!
//! In the tables of cargo-deny, what concerns projects and not a mirror is passed over. An unknown key is passed over,
//! too, with a warning if it belongs to an entry that is read. In `[mirror]` it is an error.

use chrono::NaiveDate;
use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

use super::spec::{Spec, SpecError, Stars};
use super::{Denial, Exemption, PolicyFile, PolicyFileError, WARNINGS_MAX};
use crate::policy::age::Age;
use crate::printable::printable;

/// The length of a text from the file, and of a message about it.
const TEXT_CHARACTERS_MAX: usize = 300;

/// A value with its place.
type Value<'t> = Spanned<DeValue<'t>>;

/// Something that is wrong at a place, which is counted in bytes.
#[derive(Debug)]
struct Wrong {
    place: usize,
    what: String,
}

impl PolicyFile {
    /// Reads the text of a policy file.
    pub(crate) fn parse(text: &str) -> Result<Self, PolicyFileError> {
        if text.len() > Self::BYTES_MAX {
            return Err(PolicyFileError::TooLarge);
        }
        let lines = Lines::of(text);
        let read = read(text, &lines).map_err(|wrong| PolicyFileError::Wrong {
            line: lines.line_of(wrong.place),
            what: on_one_line(&wrong.what),
        });
        let mut file = Self {
            digest: format!("{:x}", Sha256::digest(text)),
            is_blank: text.trim().is_empty(),
            ..read?
        };
        if file.is_blank {
            file.warn(&lines, 0, "the file is empty");
        }
        Ok(file)
    }

    fn warn(&mut self, lines: &Lines, place: usize, what: &str) {
        self.warnings_count += 1;
        if self.warnings.len() < WARNINGS_MAX {
            let line = lines.line_of(place);
            self.warnings
                .push(on_one_line(&format!("line {line}: {what}")));
        }
    }
}

fn read(text: &str, lines: &Lines) -> Result<PolicyFile, Wrong> {
    let document = DeTable::parse(text).map_err(|error| Wrong {
        place: error.span().map_or(0, |span| span.start),
        what: error.message().to_owned(),
    })?;
    let document = document.get_ref();
    let mut file = PolicyFile::default();
    let mirror = table_of(document, "mirror")?;
    let mut uses_allow_list = true;
    if let Some(mirror) = mirror {
        uses_allow_list = read_mirror(mirror, &mut file)?;
    }
    if let Some(bans) = table_of(document, "bans")? {
        read_denials(bans, &mut file, lines)?;
        if uses_allow_list {
            read_allow_list(bans, &mut file, lines)?;
        }
    }
    if let Some(advisories) = table_of(document, "advisories")? {
        read_ignored(advisories, &mut file)?;
    }
    Ok(file)
}

/// Reads `[mirror]`. Returns whether `[bans] allow` counts.
fn read_mirror(mirror: &DeTable<'_>, file: &mut PolicyFile) -> Result<bool, Wrong> {
    refuse_unknown_keys(mirror, &["age", "exempt", "use-bans-allow"], "[mirror]")?;
    for value in list_of(mirror, "exempt")? {
        let entry = Entry::read(value, Stars::Allowed)?;
        entry.refuse_unknown_keys(&["reason", "expires"], "[mirror] exempt")?;
        let exemption = Exemption {
            reason: entry.text("reason")?.and_then(note),
            expires: entry.value("expires").map(read_expiry).transpose()?,
        };
        file.exemptions.push(entry.spec, exemption);
    }
    for value in list_of(mirror, "age")? {
        let entry = Entry::read(value, Stars::Allowed)?;
        entry.refuse_unknown_keys(&["min-publish-age"], "[mirror] age")?;
        let Some(text) = entry.value("min-publish-age") else {
            return Err(wrong(value, "the entry has no `min-publish-age`"));
        };
        let age: Age = string(text, "min-publish-age")?
            .parse()
            .map_err(|error| wrong(text, &format!("`min-publish-age`: {error}")))?;
        file.ages.push(entry.spec, age);
    }
    let uses_allow_list = mirror.get("use-bans-allow");
    uses_allow_list.map_or(Ok(true), |value| boolean(value, "use-bans-allow"))
}

/// Reads `[bans] deny`.
fn read_denials(bans: &DeTable<'_>, file: &mut PolicyFile, lines: &Lines) -> Result<(), Wrong> {
    for value in list_of(bans, "deny")? {
        // cargo-deny's documents have it, although it matches no crate there.
        if name_in(value) == Some("*") {
            let what = "`*` in [bans] deny matches no crate, as in cargo-deny: an allow list denies all others";
            file.warn(lines, value.span().start, what);
            continue;
        }
        let entry = Entry::read(value, Stars::Forbidden)?;
        let wrappers = entry.value("wrappers");
        let wrappers = wrappers.map(|value| array(value, "wrappers")).transpose()?;
        let multiple = entry.value("deny-multiple-versions");
        let multiple = multiple.map(|value| boolean(value, "deny-multiple-versions"));
        // Both depend on what else a project uses, which a mirror cannot know.
        let skipped = if wrappers.is_some_and(|wrappers| !wrappers.is_empty()) {
            Some("wrappers")
        } else if multiple.transpose()? == Some(true) {
            Some("deny-multiple-versions")
        } else {
            None
        };
        if let Some(key) = skipped {
            let what = format!("`{}` in [bans] deny is skipped: it has `{key}`", entry.spec);
            file.warn(lines, value.span().start, &what);
            continue;
        }
        let known = [
            "wrappers",
            "deny-multiple-versions",
            "reason",
            "use-instead",
        ];
        entry.warn_of_unknown_keys(&known, file, lines);
        let denial = Denial {
            reason: entry.text("reason")?.and_then(note),
            use_instead: entry.text("use-instead")?.and_then(note),
        };
        file.denials.push(entry.spec, denial);
    }
    Ok(())
}

/// Reads `[bans] allow`. An empty list is none.
fn read_allow_list(bans: &DeTable<'_>, file: &mut PolicyFile, lines: &Lines) -> Result<(), Wrong> {
    for value in list_of(bans, "allow")? {
        let entry = Entry::read(value, Stars::Forbidden)?;
        entry.warn_of_unknown_keys(&["reason"], file, lines);
        file.allowed.get_or_insert_default().push(entry.spec, ());
    }
    Ok(())
}

/// Reads `[advisories] ignore`. It also has crates whose yanked versions cargo-deny ignores. Those are passed over.
fn read_ignored(advisories: &DeTable<'_>, file: &mut PolicyFile) -> Result<(), Wrong> {
    for value in list_of(advisories, "ignore")? {
        let id = match value.get_ref() {
            DeValue::String(text) => {
                // As in cargo-deny: ids begin in capitals, which it takes no crate to do.
                let kind = text.split_once('-').map(|(kind, _rest)| kind);
                let is_id = |kind: &str| kind.chars().all(|letter| letter.is_ascii_uppercase());
                kind.is_some_and(is_id).then_some(text.as_ref())
            }
            DeValue::Table(table) => {
                let id = table.get("id");
                id.map(|id| string(id, "id")).transpose()?
            }
            _ => return Err(not_a(value, "an entry of `ignore`", "a string or a table")),
        };
        file.ignored.extend(id.map(str::to_owned));
    }
    Ok(())
}

/// An entry of a list: a crate, and what is said about it.
struct Entry<'t> {
    spec: Spec,
    /// The whole entry. `None` if it is a string.
    table: Option<&'t DeTable<'t>>,
}

impl<'t> Entry<'t> {
    fn read(value: &'t Value<'t>, stars: Stars) -> Result<Self, Wrong> {
        let bad = |error: SpecError| wrong(value, &error.to_string());
        match value.get_ref() {
            DeValue::String(text) => Ok(Self {
                spec: Spec::parse(text, stars).map_err(bad)?,
                table: None,
            }),
            DeValue::Table(table) => {
                let spec = if let Some(text) = table.get("crate") {
                    Spec::parse(string(text, "crate")?, stars)
                } else if let Some(name) = table.get("name") {
                    let version = table.get("version");
                    let version = version.map(|version| string(version, "version"));
                    Spec::of_parts(string(name, "name")?, version.transpose()?, stars)
                } else {
                    return Err(wrong(value, "the entry has no `crate`"));
                };
                Ok(Self {
                    spec: spec.map_err(bad)?,
                    table: Some(table),
                })
            }
            _ => Err(not_a(value, "an entry", "a string or a table")),
        }
    }

    fn value(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table?.get(key)
    }

    fn text(&self, key: &'static str) -> Result<Option<&'t str>, Wrong> {
        self.value(key).map(|value| string(value, key)).transpose()
    }

    /// The keys that are neither known nor those of the crate.
    fn unknown_keys(&self, known: &[&str]) -> impl Iterator<Item = (usize, &'t str)> {
        let of_crate: &[&str] = match self.value("crate") {
            Some(_) => &["crate"],
            None => &["name", "version"],
        };
        let keys = self.table.into_iter().flat_map(DeTable::keys);
        keys.filter(move |key| {
            let key = key.get_ref().as_ref();
            !known.contains(&key) && !of_crate.contains(&key)
        })
        .map(|key| (key.span().start, key.get_ref().as_ref()))
    }

    fn refuse_unknown_keys(&self, known: &[&str], list: &str) -> Result<(), Wrong> {
        match self.unknown_keys(known).next() {
            None => Ok(()),
            Some((place, key)) => Err(Wrong {
                place,
                what: format!("`{key}` is not a key of {list}"),
            }),
        }
    }

    fn warn_of_unknown_keys(&self, known: &[&str], file: &mut PolicyFile, lines: &Lines) {
        for (place, key) in self.unknown_keys(known) {
            let what = format!("`{key}` of `{}` is not known and passed over", self.spec);
            file.warn(lines, place, &what);
        }
    }
}

/// The name in an entry, if it can be read.
fn name_in<'t>(value: &'t Value<'t>) -> Option<&'t str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        DeValue::Table(table) => {
            let name = table.get("crate").or_else(|| table.get("name"))?;
            name.get_ref().as_str()
        }
        _ => None,
    }
}

/// A moment in seconds since 1970. A date alone is its beginning in UTC.
fn read_expiry(value: &Value<'_>) -> Result<i64, Wrong> {
    let DeValue::Datetime(moment) = value.get_ref() else {
        let expected = "a date such as 2026-12-03 or 2026-12-03T00:00:00Z, without quotes";
        return Err(not_a(value, "`expires`", expected));
    };
    seconds_of(moment).ok_or_else(|| {
        let what = "`expires` needs a date, and with a time also its offset, such as `Z` for UTC";
        wrong(value, what)
    })
}

fn seconds_of(moment: &Datetime) -> Option<i64> {
    let date = moment.date?;
    let day = NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into())?;
    let midnight = day.and_hms_opt(0, 0, 0)?.and_utc().timestamp();
    let Some(time) = moment.time else {
        return Some(midnight);
    };
    let minutes_ahead = match moment.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let minutes = i64::from(time.hour) * 60 + i64::from(time.minute) - minutes_ahead;
    Some(midnight + minutes * 60 + i64::from(time.second.unwrap_or(0)))
}

fn table_of<'t>(
    table: &'t DeTable<'t>,
    key: &'static str,
) -> Result<Option<&'t DeTable<'t>>, Wrong> {
    let found = table.get(key);
    let table = |value: &'t Value<'t>| match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        _ => Err(not_a(value, &format!("`{key}`"), "a table")),
    };
    found.map(table).transpose()
}

/// The elements of a list, which may be missing.
fn list_of<'t>(table: &'t DeTable<'t>, key: &'static str) -> Result<&'t [Value<'t>], Wrong> {
    table.get(key).map_or(Ok(&[]), |value| array(value, key))
}

fn array<'t>(value: &'t Value<'t>, key: &str) -> Result<&'t [Value<'t>], Wrong> {
    match value.get_ref() {
        DeValue::Array(array) => Ok(array),
        _ => Err(not_a(value, &format!("`{key}`"), "an array")),
    }
}

fn string<'t>(value: &'t Value<'t>, key: &str) -> Result<&'t str, Wrong> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => Err(not_a(value, &format!("`{key}`"), "a string")),
    }
}

fn boolean(value: &Value<'_>, key: &str) -> Result<bool, Wrong> {
    match value.get_ref() {
        DeValue::Boolean(boolean) => Ok(*boolean),
        _ => Err(not_a(value, &format!("`{key}`"), "true or false")),
    }
}

fn refuse_unknown_keys(table: &DeTable<'_>, known: &[&str], name: &str) -> Result<(), Wrong> {
    let mut keys = table.keys();
    match keys.find(|key| !known.contains(&key.get_ref().as_ref())) {
        None => Ok(()),
        Some(key) => Err(Wrong {
            place: key.span().start,
            what: format!("`{}` is not a key of {name}", key.get_ref()),
        }),
    }
}

fn wrong(value: &Value<'_>, what: &str) -> Wrong {
    Wrong {
        place: value.span().start,
        what: what.to_owned(),
    }
}

fn not_a(value: &Value<'_>, what: &str, expected: &str) -> Wrong {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    wrong(value, &format!("{what} must be {expected}, and is {found}"))
}

/// A text for people: on one line and short. `None` if there is nothing in it.
fn note(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    (!words.is_empty()).then(|| on_one_line(&words.join(" ")))
}

/// A printable text, cut after [`TEXT_CHARACTERS_MAX`].
fn on_one_line(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        None => printable(text).into_owned(),
        Some((end, _next)) => printable(text.get(..end).unwrap_or_default()).into_owned() + "…",
    }
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(memchr::memchr_iter(b'\n', text.as_bytes()).collect())
    }

    /// The number of the line of this place, from 1.
    fn line_of(&self, place: usize) -> usize {
        self.0.partition_point(|end| *end < place) + 1
    }
}

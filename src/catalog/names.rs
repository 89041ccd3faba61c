//! The names of all shown crates in memory, for search.
//!
//! A database reads a row for each match to count them, and its trigrams do not serve one and two characters. But the names
//! of 250,000 crates are 4 MB, which are searched from end to end for every question. With what the orders need, a crate
//! takes about 65 bytes. All else is read from the database, for the crates of one page.

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;

use memchr::memmem;

use super::questions::{CrateFilter, CrateOrder, Page, Place, Search, Start};
use super::record::ShownCrate;
use crate::package::{Timestamp, canonical};

/// Queries of this many bytes and less match only at the beginning of a word.
const WORD_BYTES_MAX: usize = 2;

/// What precedes each name in both texts. In the canonical one it is also what separates words, so that the first word of
/// a name is found like any other.
const SEPARATOR: char = '_';

/// The table. Immutable: an update makes a new one.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    /// All names in canonical form, with a separator before each, in the order of `crates`.
    canonical: String,
    /// The same as published. Every name is at the same place as in `canonical`.
    published: String,
    /// Sorted by name in lower case.
    crates: Vec<NamedCrate>,
}

/// A crate in the table.
#[derive(Clone, Copy, Debug)]
struct NamedCrate {
    number: i64,
    /// Seconds since 1970. Times outside of the range are at its ends; they only matter for the order.
    created: u32,
    updated: u32,
    /// Its row in the database.
    row: u32,
    /// The position of the name in the texts.
    start: u32,
    length: u8,
    is_yanked: bool,
}

/// A page of rows in the database.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) total: usize,
    pub(super) rows: Vec<i64>,
    pub(super) last: Option<Place>,
}

impl NameTable {
    /// The number of crates.
    pub(super) fn count(&self) -> usize {
        self.crates.len()
    }

    /// The same crates without these rows, and with these crates.
    pub(super) fn updated<'a>(
        &self,
        without: &HashSet<i64>,
        with: impl Iterator<Item = (i64, &'a ShownCrate)>,
    ) -> Self {
        let mut added = TableBuilder::default();
        for (row, shown) in with {
            added.push_shown(row, shown);
        }
        let added = added.build();
        let bytes = self.published.len() + added.published.len();
        let mut table = Self::with_capacity(bytes, self.crates.len() + added.crates.len());
        let mut rest = self.crates.as_slice();
        // Both are sorted. Only the places of the few that are added are looked for.
        for new in &added.crates {
            let is_before = |named: &NamedCrate| {
                name_order(
                    (self.name(named), named.number),
                    (added.name(new), new.number),
                )
                .is_lt()
            };
            let (before, after) = rest.split_at(rest.partition_point(is_before));
            table.extend(self, before, without);
            table.extend(&added, std::slice::from_ref(new), &HashSet::default());
            rest = after;
        }
        table.extend(self, rest, without);
        table
    }

    fn with_capacity(bytes: usize, crates: usize) -> Self {
        Self {
            canonical: String::with_capacity(bytes),
            published: String::with_capacity(bytes),
            crates: Vec::with_capacity(crates),
        }
    }

    /// Adds crates of another table, which come after all that are here, without these rows.
    fn extend(&mut self, other: &Self, crates: &[NamedCrate], without: &HashSet<i64>) {
        for named in crates {
            if without.contains(&i64::from(named.row)) {
                continue;
            }
            self.published.push(SEPARATOR);
            self.canonical.push(SEPARATOR);
            // Never more: a table of this size does not exist.
            let start = u32::try_from(self.published.len()).unwrap_or(u32::MAX);
            self.published.push_str(other.name(named));
            self.canonical.push_str(other.canonical_name(named));
            self.crates.push(NamedCrate { start, ..*named });
        }
    }

    /// Finds the crates of a page.
    pub(super) fn search(&self, search: &Search) -> Rows {
        let text = canonical(&search.text);
        let matching = self.matching(&text, &search.filter);
        let listed = matching
            .into_iter()
            .filter(|named| search.include_yanked || !named.is_yanked)
            .collect();
        self.page(listed, search.order, &text, &search.page)
    }

    /// The crates with the latest publish that was not their first one.
    pub(super) fn just_updated(&self, limit: usize) -> Rows {
        let again = |named: &&NamedCrate| named.updated != named.created;
        let page = Page {
            start: Start::Skip(0),
            limit,
        };
        let crates = self.crates.iter().filter(again).collect();
        self.page(crates, CrateOrder::Updated, "", &page)
    }

    /// The crates that match, in the order of the table.
    fn matching(&self, text: &str, filter: &CrateFilter) -> Vec<&NamedCrate> {
        match filter {
            CrateFilter::None if text.is_empty() => self.crates.iter().collect(),
            CrateFilter::None => self.containing(text),
            CrateFilter::Letter(letter) => {
                let first = letter.to_ascii_lowercase();
                let begins = |named: &&NamedCrate| self.canonical_name(named).starts_with(first);
                let mut matching = self.matching(text, &CrateFilter::None);
                matching.retain(begins);
                matching
            }
            CrateFilter::Names(names) => {
                let mut matching: Vec<&NamedCrate> =
                    names.iter().filter_map(|name| self.find(name)).collect();
                matching.sort_unstable_by_key(|named| named.start);
                matching.dedup_by_key(|named| named.start);
                matching.retain(|named| is_match(self.canonical_name(named), text));
                matching
            }
        }
    }

    /// The crates whose name contains the text, by the rule of [`Search::text`].
    fn containing(&self, text: &str) -> Vec<&NamedCrate> {
        let is_word = text.len() <= WORD_BYTES_MAX;
        let needle = if is_word {
            format!("{SEPARATOR}{text}")
        } else {
            text.to_owned()
        };
        let finder = memmem::Finder::new(&needle);
        let bytes = self.canonical.as_bytes();
        let mut found = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(hit) = bytes.get(from..).and_then(|rest| finder.find(rest)) {
            // The separator before a word may be the one before the name.
            let begin = from + hit + usize::from(is_word);
            // Hits and names rise together, so each name is passed once.
            while self
                .crates
                .get(at)
                .is_some_and(|named| named.end() <= begin)
            {
                at += 1;
            }
            let Some(named) = self.crates.get(at) else {
                break;
            };
            let is_inside = named.start as usize <= begin && begin + text.len() <= named.end();
            if is_inside {
                found.push(named);
            }
            // One hit in a name is enough. Another one may begin inside of a hit that crosses two names.
            from = if is_inside {
                named.end()
            } else {
                from + hit + 1
            };
        }
        found
    }

    /// The crate with exactly this published name.
    fn find(&self, name: &str) -> Option<&NamedCrate> {
        let order = |named: &NamedCrate| lowercase_order(self.name(named), name);
        let first = self.crates.partition_point(|named| order(named).is_lt());
        let same = self.crates.get(first..).unwrap_or_default().iter();
        same.take_while(|named| order(named).is_eq())
            .find(|named| self.name(named) == name)
    }

    fn page(
        &self,
        mut listed: Vec<&NamedCrate>,
        order: CrateOrder,
        text: &str,
        page: &Page,
    ) -> Rows {
        let total = listed.len();
        let is_exact = |named: &NamedCrate| {
            order == CrateOrder::Name && !text.is_empty() && self.canonical_name(named) == text
        };
        let key = |named: &NamedCrate| Place {
            is_exact: is_exact(named),
            time: named.time(order),
            number: named.number,
            name: self.name(named),
        };
        let skip = match &page.start {
            Start::Skip(skip) => *skip,
            Start::After(place) => {
                listed.retain(|named| key(named).order(place, order).is_gt());
                0
            }
        };
        let end = skip.saturating_add(page.limit);
        if order == CrateOrder::Name {
            // They are in this order already, except for the exact one.
            // A strange index has several exact ones: `a-b` and `a_b`.
            if listed.iter().any(|named| is_exact(named)) {
                listed.sort_by_key(|named| !is_exact(named));
            }
        } else {
            listed = latest(listed, order, end);
        }
        let begin = skip.min(listed.len());
        let rows = listed.get(begin..end.min(listed.len())).unwrap_or_default();
        Rows {
            total,
            rows: rows.iter().map(|named| i64::from(named.row)).collect(),
            last: rows.last().map(|named| key(named).owned()),
        }
    }

    fn name(&self, named: &NamedCrate) -> &str {
        let range = named.start as usize..named.end();
        self.published.get(range).unwrap_or_default()
    }

    fn canonical_name(&self, named: &NamedCrate) -> &str {
        let range = named.start as usize..named.end();
        self.canonical.get(range).unwrap_or_default()
    }
}

/// The first ones of these crates, in an order by time or by number.
fn latest(crates: Vec<&NamedCrate>, order: CrateOrder, count: usize) -> Vec<&NamedCrate> {
    let mut first = Vec::new();
    let mut last = None;
    for named in crates {
        // The keys stand side by side: to find each in the table, at each comparison, takes most of the time.
        let key = Reverse((named.time(order), named.number));
        if last.is_some_and(|last| key > last) {
            continue;
        }
        first.push((key, named));
        // Of many crates, nearly all are behind the last one that is wanted, as soon as it is known.
        if first.len() > 2 * count.max(500) {
            let (_, (key, _), _) = first.select_nth_unstable_by_key(count, |(key, _)| *key);
            last = Some(*key);
            first.truncate(count);
        }
    }
    first.sort_unstable_by_key(|(key, _)| *key);
    first.truncate(count);
    first.into_iter().map(|(_, named)| named).collect()
}

/// Whether a canonical name matches a canonical text, by the rule of [`Search::text`].
fn is_match(name: &str, text: &str) -> bool {
    if text.len() > WORD_BYTES_MAX {
        return name.contains(text);
    }
    name.match_indices(text).any(|(at, _)| {
        at == 0
            || name
                .get(..at)
                .is_some_and(|before| before.ends_with(SEPARATOR))
    })
}

impl NamedCrate {
    /// The time by which an order sorts; 0 if it sorts by something else.
    fn time(&self, order: CrateOrder) -> u32 {
        match order {
            CrateOrder::Name | CrateOrder::Id => 0,
            CrateOrder::Updated => self.updated,
            CrateOrder::Created => self.created,
        }
    }

    fn end(&self) -> usize {
        self.start as usize + usize::from(self.length)
    }
}

impl<N: AsRef<str>> Place<N> {
    fn order(&self, other: &Place<impl AsRef<str>>, order: CrateOrder) -> Ordering {
        let (ours, theirs) = (self.name.as_ref(), other.name.as_ref());
        let by_number = || other.number.cmp(&self.number);
        match order {
            CrateOrder::Name => other
                .is_exact
                .cmp(&self.is_exact)
                .then_with(|| name_order((ours, self.number), (theirs, other.number))),
            CrateOrder::Id | CrateOrder::Updated | CrateOrder::Created => {
                other.time.cmp(&self.time).then_with(by_number)
            }
        }
    }

    fn owned(&self) -> Place {
        let name = self.name.as_ref().to_owned();
        (self.is_exact, self.time, self.number, name).into()
    }
}

fn lowercase_order(left: &str, right: &str) -> Ordering {
    let lower = |byte: u8| byte.to_ascii_lowercase();
    left.bytes().map(lower).cmp(right.bytes().map(lower))
}

/// The order of the table. crates.io has no two crates with the same name in lower case, but another index may.
fn name_order(left: (&str, i64), right: (&str, i64)) -> Ordering {
    lowercase_order(left.0, right.0).then_with(|| right.1.cmp(&left.1))
}

/// Collects crates in any order.
#[derive(Debug, Default)]
pub(super) struct TableBuilder {
    names: String,
    crates: Vec<NamedCrate>,
}

impl TableBuilder {
    /// Adds a crate, which has this row in the database.
    pub(super) fn push_shown(&mut self, row: i64, shown: &ShownCrate) {
        let crate_ = &shown.summary;
        let times = [&crate_.created_at, &crate_.updated_at].map(Timestamp::unix_seconds);
        self.push(
            row,
            &crate_.name,
            shown.number,
            times.into(),
            crate_.is_yanked,
        );
    }

    /// The same, by what the database has of it.
    pub(super) fn push(
        &mut self,
        row: i64,
        name: &str,
        number: i64,
        (created, updated): (i64, i64),
        is_yanked: bool,
    ) {
        let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
        // Never refused: a database of this size would not fit on any disk.
        let Ok(row) = u32::try_from(row) else { return };
        let named = NamedCrate {
            number,
            created: seconds(created),
            updated: seconds(updated),
            row,
            start: 0,
            length: 0,
            is_yanked,
        };
        self.add(name, named);
    }

    fn add(&mut self, name: &str, named: NamedCrate) {
        // Never refused: names have 64 bytes at most, and an index has a limit for its files.
        let (Ok(start), Ok(length)) = (u32::try_from(self.names.len()), u8::try_from(name.len()))
        else {
            return;
        };
        self.names.push_str(name);
        self.crates.push(NamedCrate {
            start,
            length,
            ..named
        });
    }

    /// Sorts them, and makes the table.
    pub(super) fn build(self) -> NameTable {
        let Self { names, mut crates } = self;
        let name = |named: &NamedCrate| {
            let range = named.start as usize..named.end();
            names.get(range).unwrap_or_default()
        };
        // A stable sort, because it takes what is sorted already as it is: after an update that is nearly all.
        crates.sort_by(|left, right| {
            name_order((name(left), left.number), (name(right), right.number))
        });
        let mut published = String::with_capacity(names.len() + crates.len());
        for named in &mut crates {
            published.push(SEPARATOR);
            let start = u32::try_from(published.len()).unwrap_or(u32::MAX);
            published.push_str(name(named));
            named.start = start;
        }
        NameTable {
            canonical: canonical(&published),
            published,
            crates,
        }
    }
}

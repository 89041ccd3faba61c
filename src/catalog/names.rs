//! The names of all shown crates in memory, for search.
//!
//! A database reads a row for each match to count them, and its trigrams do not serve one and two characters. But the names
//! of 250,000 crates are 4 MB, which are searched from end to end for every question. With what the orders need, a crate
//! takes about 65 bytes. All else is read from the database, for the crates of one page.
//!
//! The crates lie in chunks. An update makes only the chunks of changed crates anew, and shares the others with the table
//! before it. So its cost depends on the changed crates.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use memchr::memmem;

use super::questions::{CrateFilter, CrateOrder, Page, Place, Search, Start};
use super::record::ShownCrate;
use crate::package::{Timestamp, canonical};

/// Queries of this many bytes and less match only at the beginning of a word.
const WORD_BYTES_MAX: usize = 2;

/// What precedes each name in both texts. In the canonical one it is also what separates words, so that the first word of
/// a name is found like any other.
const SEPARATOR: char = '_';

/// The largest number of crates in a chunk. Smaller chunks make updates faster, and larger chunks make searches faster. It is
/// small in tests: there a few crates make many chunks.
const CHUNK_CRATES_MAX: usize = if cfg!(test) { 4 } else { 2_048 };

/// The table. Immutable: an update makes a new one.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    /// In the order of the table. None is empty.
    chunks: Vec<Arc<Chunk>>,
}

/// Crates that follow each other in the table. Immutable.
#[derive(Debug)]
struct Chunk {
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
    /// The position of the name in the texts of its chunk.
    start: u32,
    length: u8,
    is_yanked: bool,
}

/// A crate, and the chunk with its name.
#[derive(Clone, Copy, Debug)]
struct Found<'a> {
    chunk: &'a Chunk,
    named: &'a NamedCrate,
}

/// What the table is sorted by: name and number of a crate.
type Key<'a> = (&'a str, i64);

/// A page of rows in the database.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) total: usize,
    pub(super) rows: Vec<i64>,
    pub(super) last: Option<Place>,
}

impl NameTable {
    /// The number of crates.
    pub(super) fn count(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.crates.len()).sum()
    }

    /// The same crates without these rows, which have these published names, and with these crates. Small chunks are not
    /// merged: a restart makes all chunks anew.
    pub(super) fn updated<'a>(
        &self,
        without: &BTreeMap<i64, String>,
        with: impl Iterator<Item = (i64, &'a ShownCrate)>,
    ) -> Self {
        // The chunks that are made anew, by their position, with what is added to each.
        let mut anew: BTreeMap<usize, TableBuilder> = BTreeMap::new();
        for (row, name) in without {
            let mut spellings = self.spellings(name);
            if let Some((at, _)) = spellings.find(|(_, found)| found.row() == *row) {
                anew.entry(at).or_default();
            }
        }
        for (row, shown) in with {
            let at = self.chunk_of((&shown.summary.name, shown.number));
            anew.entry(at).or_default().push_shown(row, shown);
        }
        let mut chunks = Vec::with_capacity(self.chunks.len() + anew.len());
        // An empty table has no chunk, and may get its first one.
        for at in 0..self.chunks.len().max(1) {
            let chunk = self.chunks.get(at);
            let Some(mut builder) = anew.remove(&at) else {
                chunks.extend(chunk.cloned());
                continue;
            };
            let crates = chunk.into_iter().flat_map(|chunk| chunk.all());
            crates
                .filter(|found| !without.contains_key(&found.row()))
                .for_each(|found| builder.add(found.name(), *found.named));
            chunks.extend(builder.build().chunks);
        }
        Self { chunks }
    }

    /// The position of the chunk that a crate with this key belongs to: the last one that does not begin after it.
    fn chunk_of(&self, key: Key<'_>) -> usize {
        let begins_in_time = |chunk: &Arc<Chunk>| {
            let first = chunk.all().next();
            first.is_some_and(|found| name_order(found.key(), key).is_le())
        };
        self.chunks
            .partition_point(begins_in_time)
            .saturating_sub(1)
    }

    /// The crates with this name in lower case, each with the position of its chunk. Only a strange index has several.
    fn spellings<'a>(&'a self, name: &str) -> impl Iterator<Item = (usize, Found<'a>)> {
        // Not after any of them, by the order of numbers.
        let key = (name, i64::MAX);
        let chunks = self.chunks.iter().enumerate().skip(self.chunk_of(key));
        let rest = chunks.flat_map(move |(at, chunk)| {
            let is_before = |named: &NamedCrate| name_order(chunk.found(named).key(), key).is_lt();
            let first = chunk.crates.partition_point(is_before);
            chunk.all().skip(first).map(move |found| (at, found))
        });
        rest.take_while(move |(_, found)| lowercase_order(found.name(), name).is_eq())
    }

    /// How many chunks it has, and how many of them are also those of another table.
    #[cfg(test)]
    pub(super) fn chunks_shared(&self, other: &Self) -> (usize, usize) {
        let is_shared = |chunk: &&Arc<Chunk>| other.chunks.iter().any(|of| Arc::ptr_eq(of, chunk));
        let shared = self.chunks.iter().filter(is_shared).count();
        (self.chunks.len(), shared)
    }

    /// Finds the crates of a page.
    pub(super) fn search(&self, search: &Search) -> Rows {
        let text = canonical(&search.text);
        let listed = self
            .matching(&text, &search.filter)
            .filter(|found| search.include_yanked || !found.named.is_yanked);
        page(listed, search.order, &text, &search.page)
    }

    /// The crates with the latest publish that was not their first one.
    pub(super) fn just_updated(&self, limit: usize) -> Rows {
        let again = |found: &Found<'_>| found.named.updated != found.named.created;
        let crates = self.matching("", &CrateFilter::None).filter(again);
        page(crates, CrateOrder::Updated, "", &Page::first(limit))
    }

    /// The crates that match, in the order of the table. They are found chunk by chunk: one list of all of them would be a
    /// large block of memory, and getting it from the system takes longer than the search.
    fn matching<'a>(
        &'a self,
        text: &'a str,
        filter: &CrateFilter,
    ) -> impl Iterator<Item = Found<'a>> {
        let (named, letter, chunks) = match filter {
            CrateFilter::None => (Vec::new(), None, self.chunks.as_slice()),
            CrateFilter::Letter(letter) => (Vec::new(), Some(letter), self.chunks.as_slice()),
            CrateFilter::Names(names) => (self.named(names), None, [].as_slice()),
        };
        let first = letter.map(char::to_ascii_lowercase);
        let is_word = text.len() <= WORD_BYTES_MAX;
        let needle = if is_word {
            format!("{SEPARATOR}{text}")
        } else {
            text.to_owned()
        };
        let finder = memmem::Finder::new(&needle).into_owned();
        let containing = chunks.iter().flat_map(move |chunk| match text.is_empty() {
            true => chunk.all().collect(),
            false => chunk.containing(&finder, is_word),
        });
        let named = named.into_iter();
        named
            .filter(|found| is_match(found.canonical_name(), text))
            .chain(containing)
            .filter(move |found| {
                first.is_none_or(|first| found.canonical_name().starts_with(first))
            })
    }

    /// The crates with exactly these published names, in the order of the table.
    fn named(&self, names: &[String]) -> Vec<Found<'_>> {
        let names: BTreeSet<&String> = names.iter().collect();
        let find = |name: &String| {
            let mut spellings = self.spellings(name).map(|(_, found)| found);
            spellings.find(|found| found.name() == name)
        };
        let mut found: Vec<Found<'_>> = names.into_iter().filter_map(find).collect();
        found.sort_by(|left, right| name_order(left.key(), right.key()));
        found
    }
}

impl Chunk {
    fn found<'a>(&'a self, named: &'a NamedCrate) -> Found<'a> {
        Found { chunk: self, named }
    }

    fn all(&self) -> impl Iterator<Item = Found<'_>> {
        self.crates.iter().map(|named| self.found(named))
    }

    /// The crates whose name contains the text of a finder. If that is a word, it begins with a separator.
    fn containing(&self, finder: &memmem::Finder<'_>, is_word: bool) -> Vec<Found<'_>> {
        // Enough for a common text: growth takes a part of the time.
        let mut found = Vec::with_capacity(self.crates.len() / 16);
        let bytes = self.canonical.as_bytes();
        let (mut from, mut crates) = (0, self.crates.as_slice());
        while let Some(hit) = bytes.get(from..).and_then(|rest| finder.find(rest)) {
            let end = from + hit + finder.needle().len();
            // The separator before a word may be the one before the name.
            let begin = from + hit + usize::from(is_word);
            // Hits and names rise together, so each name is passed once.
            let passed = crates.iter().take_while(|named| named.end() <= begin);
            crates = crates.get(passed.count()..).unwrap_or_default();
            let Some(named) = crates.first() else { break };
            if named.start as usize <= begin && end <= named.end() {
                // One hit in a name is enough.
                found.push(self.found(named));
                from = named.end();
            } else {
                // Another hit may begin inside of this one, which crosses two names.
                from += hit + 1;
            }
        }
        found
    }
}

impl<'a> Found<'a> {
    fn name(self) -> &'a str {
        let range = self.named.start as usize..self.named.end();
        self.chunk.published.get(range).unwrap_or_default()
    }

    fn canonical_name(self) -> &'a str {
        let range = self.named.start as usize..self.named.end();
        self.chunk.canonical.get(range).unwrap_or_default()
    }

    fn key(self) -> Key<'a> {
        (self.name(), self.named.number)
    }

    fn row(self) -> i64 {
        i64::from(self.named.row)
    }
}

/// A page of these crates, which are in the order of the table.
fn page<'a>(
    listed: impl Iterator<Item = Found<'a>>,
    order: CrateOrder,
    text: &str,
    page: &Page,
) -> Rows {
    let is_exact = |found: &Found<'a>| {
        order == CrateOrder::Name && !text.is_empty() && found.canonical_name() == text
    };
    let place = |found: &Found<'a>| Place {
        is_exact: is_exact(found),
        time: found.named.time(order),
        number: found.named.number,
        name: found.name(),
    };
    let (skip, after) = match &page.start {
        Start::Skip(skip) => (*skip, None),
        Start::After(last) => (0, Some(last)),
    };
    let end = skip.saturating_add(page.limit);
    let mut total = 0;
    let listed = listed
        .inspect(|_| total += 1)
        .filter(|found| after.is_none_or(|last| place(found).order(last, order).is_gt()));
    let listed = if order == CrateOrder::Name {
        // They are in this order already, except for the exact one.
        // A strange index has several exact ones: `a-b` and `a_b`.
        let (mut first, mut others) = (Vec::new(), Vec::new());
        // As in `latest`, faster than with `for`.
        listed.for_each(|found| match is_exact(&found) {
            true => first.push(found),
            false if others.len() < end => others.push(found),
            false => {}
        });
        first.append(&mut others);
        first
    } else {
        latest(listed, order, end)
    };
    let begin = skip.min(listed.len());
    let rows = listed.get(begin..end.min(listed.len())).unwrap_or_default();
    Rows {
        total,
        rows: rows.iter().map(|found| found.row()).collect(),
        last: rows.last().map(|found| place(found).owned()),
    }
}

/// The first ones of these crates, in an order by time or by number.
fn latest<'a>(
    crates: impl Iterator<Item = Found<'a>>,
    order: CrateOrder,
    count: usize,
) -> Vec<Found<'a>> {
    let mut first = Vec::new();
    let mut last = None;
    // With `for`, an iterator over chunks takes twice the time.
    crates.for_each(|found| {
        // The keys stand side by side: to find each in the table, at each comparison, takes most of the time.
        let key = Reverse((found.named.time(order), found.named.number));
        if last.is_some_and(|last| key > last) {
            return;
        }
        first.push((key, found));
        // Of many crates, nearly all are behind the last one that is wanted, as soon as it is known.
        if first.len() > 2 * count.max(500) {
            let (_, (key, _), _) = first.select_nth_unstable_by_key(count, |(key, _)| *key);
            last = Some(*key);
            first.truncate(count);
        }
    });
    first.sort_unstable_by_key(|(key, _)| *key);
    first.truncate(count);
    first.into_iter().map(|(_, found)| found).collect()
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
        Place {
            is_exact: self.is_exact,
            time: self.time,
            number: self.number,
            name: self.name.as_ref().to_owned(),
        }
    }
}

fn lowercase_order(left: &str, right: &str) -> Ordering {
    let lower = |byte: u8| byte.to_ascii_lowercase();
    left.bytes().map(lower).cmp(right.bytes().map(lower))
}

/// The order of the table. crates.io has no two crates with the same name in lower case, but another index may.
fn name_order(left: Key<'_>, right: Key<'_>) -> Ordering {
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
        // All chunks get about the same size. A small last chunk would slow every search.
        let count = crates.len().div_ceil(CHUNK_CRATES_MAX).max(1);
        let size = crates.len().div_ceil(count).max(1);
        let chunks = crates.chunks(size).map(|crates| {
            let bytes = crates.iter().map(|named| 1 + usize::from(named.length));
            let mut published = String::with_capacity(bytes.sum());
            let mut crates = crates.to_vec();
            for named in &mut crates {
                published.push(SEPARATOR);
                let start = u32::try_from(published.len()).unwrap_or(u32::MAX);
                published.push_str(name(named));
                named.start = start;
            }
            Arc::new(Chunk {
                canonical: canonical(&published),
                published,
                crates,
            })
        });
        NameTable {
            chunks: chunks.collect(),
        }
    }
}

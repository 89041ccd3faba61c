//! Sets of crates, by name and by the beginning of the name.

use foldhash::HashMap;

/// The crates that an entry is about. Names are canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// The crate with this name.
    One(String),
    /// All crates whose name begins with this: `acme_` for `acme-*`. Empty for all crates.
    Beginning(String),
}

/// A value for each of some names and beginnings.
#[derive(Debug, Default)]
pub(super) struct NameMap<T> {
    by_name: HashMap<String, T>,
    by_beginning: HashMap<String, T>,
    /// The lengths of the beginnings in bytes, each once. A name has at most 64, however many beginnings there are.
    lengths: Vec<usize>,
}

/// Some crates, perhaps all.
#[derive(Debug, Default)]
pub(crate) struct CrateMatch(NameMap<()>);

impl<T: Default> NameMap<T> {
    /// The value of exactly these names, made if it is missing.
    pub(super) fn value_of(&mut self, names: &Names) -> &mut T {
        match names {
            Names::One(name) => self.by_name.entry(name.clone()).or_default(),
            Names::Beginning(beginning) => {
                if !self.lengths.contains(&beginning.len()) {
                    self.lengths.push(beginning.len());
                }
                self.by_beginning.entry(beginning.clone()).or_default()
            }
        }
    }

    /// All values that are about a crate, in no certain order.
    pub(super) fn about(&self, name: &str) -> impl Iterator<Item = &T> {
        let beginnings = self.lengths.iter().filter_map(|length| {
            let beginning = name.get(..*length)?;
            self.by_beginning.get(beginning)
        });
        self.by_name.get(name).into_iter().chain(beginnings)
    }
}

impl CrateMatch {
    /// Whether there is no crate among them.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.by_name.is_empty() && self.0.by_beginning.is_empty()
    }

    /// Whether the crate with this canonical name is one of them.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.about(name).next().is_some()
    }

    pub(super) fn add(&mut self, names: &Names) {
        // Only the key counts.
        let () = self.0.value_of(names);
    }

    pub(super) fn add_all(&mut self) {
        self.add(&Names::Beginning(String::new()));
    }
}

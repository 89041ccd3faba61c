//! A list of entries about crates, with a quick look-up by name: it is asked for every version of the index.

use semver::Version;

use super::names::{CrateMatch, NameMap};
use super::spec::Spec;

/// Entries in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Entries<T> {
    list: Vec<(Spec, T)>,
    /// The places in `list` for each name, in rising order.
    places: NameMap<Vec<usize>>,
}

impl<T> Entries<T> {
    pub(super) fn push(&mut self, spec: Spec, value: T) {
        let places = self.places.value_of(&spec.names);
        places.push(self.list.len());
        self.list.push((spec, value));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(Spec, T)> {
        self.list.iter()
    }

    /// The values of all entries about a crate, whatever their versions are, in no certain order.
    pub(super) fn about(&self, name: &str) -> impl Iterator<Item = &T> {
        let places = self.places.about(name).flatten();
        places.filter_map(|place| Some(&self.list.get(*place)?.1))
    }

    /// The value of the first entry about this version that counts.
    pub(super) fn first(
        &self,
        name: &str,
        version: &Version,
        counts: impl Fn(&T) -> bool,
    ) -> Option<&T> {
        let matching = |place: &usize| {
            let (spec, value) = self.list.get(*place)?;
            (spec.has(version) && counts(value)).then_some((*place, value))
        };
        // Places rise in each part, so the first match of a part is its lowest.
        let of_parts = self.places.about(name);
        let first = of_parts.filter_map(|places| places.iter().find_map(matching));
        first
            .min_by_key(|(place, _value)| *place)
            .map(|(_place, value)| value)
    }
}

impl<T: PartialEq> Entries<T> {
    /// Adds the crates for which the two lists may answer differently.
    ///
    /// Equal entries at the beginning and at the end are skipped. A crate that no other entry is about has the same
    /// entries in the same order in both lists.
    pub(super) fn add_differing(&self, other: &Self, crates: &mut CrateMatch) {
        let (mut ours, mut theirs) = (self.list.as_slice(), other.list.as_slice());
        while let ([one, ours_left @ ..], [another, theirs_left @ ..]) = (ours, theirs)
            && one == another
        {
            (ours, theirs) = (ours_left, theirs_left);
        }
        while let ([ours_left @ .., one], [theirs_left @ .., another]) = (ours, theirs)
            && one == another
        {
            (ours, theirs) = (ours_left, theirs_left);
        }
        for (spec, _value) in ours.iter().chain(theirs) {
            crates.add(&spec.names);
        }
    }
}

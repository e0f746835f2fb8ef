//! Places for work that takes as long as a stranger's server wants, so many in all and so many of each key: who has servers that
//! never answer must not take all of them.

use parking_lot::Mutex;

/// Places, some of them taken.
#[derive(Debug)]
pub(super) struct PlacesByKey {
    /// In all, and of one key.
    limits: [usize; 2],
    taken: Mutex<Vec<[String; 2]>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct TakenPlace<'a>(&'a PlacesByKey, [String; 2]);

impl PlacesByKey {
    /// So many in all, and so many of one key.
    pub(super) fn new(limits: [usize; 2]) -> Self {
        Self { limits, taken: Mutex::default() }
    }

    /// A place for work of these keys; `None`: there is none for it.
    pub(super) fn enter(&self, keys: [&String; 2]) -> Option<TakenPlace<'_>> {
        let [all, each] = self.limits;
        let mut taken = self.taken.lock();
        let of = |key: &String| taken.iter().filter(|place| place.contains(key)).count();
        if taken.len() >= all || keys.iter().any(|key| of(key) >= each) {
            return None;
        }
        let keys = keys.map(Clone::clone);
        taken.push(keys.clone());
        Some(TakenPlace(self, keys))
    }
}

impl Drop for TakenPlace<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.taken.lock();
        if let Some(place) = taken.iter().position(|place| *place == self.1) {
            taken.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_60_servers_that_never_answer_keep_places_for_all_but_their_owner() {
        let (places, [a, b, c, d]) = (PlacesByKey::new([6, 2]), ["a", "b", "c", "d"].map(str::to_owned));
        let first = places.enter([&a, &b]);
        let second = places.enter([&a, &c]);
        assert!(first.is_some() && second.is_some() && places.enter([&a, &d]).is_none(), "two of an owner");
        assert!(places.enter([&d, &a]).is_none(), "whichever way it is named");
        let others: Vec<_> = (0..8).filter_map(|number| places.enter([&d, &number.to_string()])).collect();
        assert_eq!(others.len(), 2);
        drop(first);
        assert!(places.enter([&a, &b]).is_some());
    }
}

//! A map whose copies share their values until one of them changes: a registry with a hundred thousand addresses is copied,
//! compared and put back by its few thousand guests and pools instead.

use std::borrow::{Borrow, Cow};
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::once;

/// As a [`BTreeMap`], but for what a copy costs: a pointer for each value. A value that is changed in one copy is copied
/// then, and stays as it is in the others. Two values that are still one are equal without a look at them.
#[derive(PartialEq, Eq)]
pub struct SharedMap<K, V>(BTreeMap<K, Arc<V>>);

impl<K: Clone, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key whose values differ in two maps, with the value that each has.
pub type Difference<'a, K, V> = (&'a K, [Option<&'a V>; 2]);

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map(Arc::as_ref)
    }

    /// The key as it is in the map, and its value.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.0.get_key_value(key).map(|(key, value)| (key, value.as_ref()))
    }

    /// Whether there is a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// The value of a key, to be changed; copied first if another map has it, too.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        self.0.get_mut(key).map(Arc::make_mut)
    }

    /// The same, of a value that is made if there is none.
    pub fn get_or_insert_with(&mut self, key: K, made: impl FnOnce() -> V) -> &mut V
    where
        V: Clone,
    {
        Arc::make_mut(self.0.entry(key).or_insert_with(|| Arc::new(made())))
    }

    /// Sets a value.
    pub fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, Arc::new(value));
    }

    /// Sets a value that others may have, too.
    pub fn insert_shared(&mut self, key: K, value: Arc<V>) {
        self.0.insert(key, value);
    }

    /// Takes a value out; says whether there was one.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }

    /// The value of a key for another map, without a copy of it.
    pub fn share<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).cloned()
    }

    /// The keys whose values are not the same in both maps, in order.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Difference<'a, K, V>>
    where
        V: PartialEq,
    {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let order = match (left.peek(), right.peek()) {
                    (Some((one, _)), Some((two, _))) => one.cmp(two),
                    (Some(_), None) => std::cmp::Ordering::Less,
                    (None, Some(_)) => std::cmp::Ordering::Greater,
                    (None, None) => return None,
                };
                let old = if order.is_le() { left.next() } else { None };
                let new = if order.is_ge() { right.next() } else { None };
                match (old, new) {
                    (Some((_, old)), Some((_, new))) if Arc::ptr_eq(old, new) || old == new => {}
                    (Some((key, old)), new) => {
                        return Some((key, [Some(old.as_ref()), new.map(|(_, new)| new.as_ref())]));
                    }
                    (None, Some((key, new))) => return Some((key, [None, Some(new.as_ref())])),
                    (None, None) => return None,
                }
            }
        })
    }
}

impl<K, V> SharedMap<K, V> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.0.keys()
    }

    /// The values by their keys' order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.0.values().map(Arc::as_ref)
    }

    /// The values, to be changed; each is copied first that another map has, too.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V>
    where
        V: Clone,
    {
        self.0.values_mut().map(Arc::make_mut)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.0.iter())
    }
}

/// Keys and values of a [`SharedMap`].
#[derive(Debug)]
pub struct Iter<'a, K, V>(btree_map::Iter<'a, K, Arc<V>>);

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key, value.as_ref()))
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key, Arc::new(value))).collect())
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> std::ops::Index<&Q> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        &self.0[key]
    }
}

impl<K: Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de, K: Deserialize<'de> + Ord + fmt::Display, V: Deserialize<'de>> Deserialize<'de> for SharedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(once::map::<K, V, D>(deserializer)?.into_iter().collect())
    }
}

impl<K: JsonSchema, V: JsonSchema> JsonSchema for SharedMap<K, V> {
    fn schema_name() -> Cow<'static, str> {
        BTreeMap::<K, V>::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        BTreeMap::<K, V>::schema_id()
    }

    fn inline_schema() -> bool {
        BTreeMap::<K, V>::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<K, V>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_of_one_copy_is_none_of_the_other() {
        let mut one: SharedMap<u8, String> = [(1, "a".to_owned()), (2, "b".to_owned())].into();
        let two = one.clone();
        assert_eq!(one.differences(&two).count(), 0);
        one.get_mut(&1).unwrap().push('x');
        *one.get_or_insert_with(2, || unreachable!()) = "b".to_owned();
        one.get_or_insert_with(3, || "c".to_owned());
        assert_eq!(two.values().collect::<Vec<_>>(), ["a", "b"]);
        let found: Vec<_> =
            two.differences(&one).map(|(key, [old, new])| (*key, old.is_some(), new.is_some())).collect();
        assert_eq!(found, [(1, true, true), (3, false, true)]);
    }

    proptest! {
        #[test]
        fn differences_are_those_of_every_key(
            old in proptest::collection::btree_map(0u8..12, 0u8..3, 0..12),
            new in proptest::collection::btree_map(0u8..12, 0u8..3, 0..12),
        ) {
            let [one, two]: [SharedMap<u8, u8>; 2] = [&old, &new].map(|map| map.iter().map(|(k, v)| (*k, *v)).collect());
            let found: Vec<_> = one.differences(&two).map(|(key, [a, b])| (*key, a.copied(), b.copied())).collect();
            let wanted: Vec<_> = (0u8..12)
                .map(|key| (key, old.get(&key).copied(), new.get(&key).copied()))
                .filter(|(_, a, b)| a != b)
                .collect();
            prop_assert_eq!(found, wanted);
        }
    }
}

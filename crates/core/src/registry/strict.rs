//! Reads a document that has no key which its type does not know. Where the key would be is not noted: a node reads thousands
//! of files, and looks for what is wrong with one afterwards.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The document, `None` if the text is none or has more keys.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    let unknown = Cell::new(false);
    let mut json = serde_json::Deserializer::from_str(text);
    let document = T::deserialize(Watched { inner: &mut json, unknown: &unknown }).ok()?;
    json.end().ok()?;
    (!unknown.get()).then_some(document)
}

/// Does what the one inside does. A type that does not know a key has its value ignored, and that is seen here.
struct Watched<'a, X> {
    inner: X,
    unknown: &'a Cell<bool>,
}

/// Methods of which the last argument is a visitor. Nothing can be ignored inside a plain value, so its visitor is not watched.
macro_rules! forward {
    ($wrap:ident: $($method:ident($($name:ident: $type:ty),*))*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($name,)* forward!(@$wrap self visitor))
        })*
    };
    (@watched $self:ident $visitor:ident) => { Watched { inner: $visitor, unknown: $self.unknown } };
    (@plain $self:ident $visitor:ident) => { $visitor };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Watched<'_, D> {
    type Error = D::Error;

    forward!(plain:
        deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128() deserialize_f32()
        deserialize_f64() deserialize_char() deserialize_str() deserialize_string() deserialize_bytes()
        deserialize_byte_buf() deserialize_unit() deserialize_unit_struct(name: &'static str) deserialize_identifier()
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    );
    forward!(watched:
        deserialize_any() deserialize_option() deserialize_newtype_struct(name: &'static str) deserialize_seq()
        deserialize_tuple(length: usize) deserialize_tuple_struct(name: &'static str, length: usize) deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
    );

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.unknown.set(true);
        self.inner.deserialize_ignored_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The same for the methods of a visitor that take a plain value.
macro_rules! visit {
    ($($method:ident($type:ty))*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watched<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit!(visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String));

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Watched { inner, unknown: self.unknown })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Watched { inner, unknown: self.unknown })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Watched { inner, unknown: self.unknown })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Watched { inner, unknown: self.unknown })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Watched<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Watched { inner, unknown: self.unknown })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Watched<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Watched { inner, unknown: self.unknown })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Watched<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Watched { inner, unknown: self.unknown })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        a: u64,
        b: Option<Inner>,
        #[serde(default)]
        c: BTreeMap<String, Vec<Inner>>,
        #[serde(default)]
        d: Kind,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        x: String,
        y: Option<bool>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        One,
        Two,
    }

    /// What the crate says that notes where each unknown key is.
    fn slow(text: &str) -> Option<Outer> {
        let mut unknown = 0;
        let mut json = serde_json::Deserializer::from_str(text);
        let document: Outer = serde_ignored::deserialize(&mut json, |_| unknown += 1).ok()?;
        json.end().ok().filter(|()| unknown == 0).map(|()| document)
    }

    #[test]
    fn an_unknown_key_is_seen_at_every_depth() {
        let known =
            r#"{"a": 1, "b": {"x": "é\n", "y": null}, "c": {"k": [{"x": ""}, {"x": "", "y": true}]}, "d": "two"}"#;
        assert!(slow(known).is_some());
        assert_eq!(read(known), slow(known));
        for text in [
            r#"{"a": 1, "b": null, "e": 0}"#,
            r#"{"a": 1, "b": {"x": "", "z": [{}]}}"#,
            r#"{"a": 1, "c": {"k": [{"x": ""}, {"x": "", "z": null}]}}"#,
            r#"{"a": 1} {}"#,
            r#"{"a": 1, "a": 2}"#,
            r#"{"a": -1}"#,
            r#"{"a": 1, "d": "three"}"#,
            "",
        ] {
            assert_eq!(slow(text), None, "{text}");
            assert_eq!(read::<Outer>(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_say_the_same(cut in 0usize..110, put in "[a-z\"{}\\[\\],: 0-9]{0,4}") {
            let mut text = r#"{"a": 1, "b": {"x": "y", "y": true}, "c": {"k": [{"x": ""}, {"x": "", "y": null}]}, "d": "two"}"#.to_owned();
            let cut = cut.min(text.len());
            text.replace_range(cut..(cut + put.len() / 2).min(text.len()), &put);
            prop_assert_eq!(read::<Outer>(&text), slow(&text));
        }
    }
}

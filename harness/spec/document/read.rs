//! Reads typed values from a document's tree with serde; every error knows the innermost place.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::{DocumentError, Key, Node, Place, Value};

/// Fills in the place when the error does not know one yet: inner values are tried first.
fn at<T>(place: Place, result: Result<T, DocumentError>) -> Result<T, DocumentError> {
    result.map_err(|mut error| {
        error.place.get_or_insert(place);
        error
    })
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = DocumentError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocumentError> {
        at(
            self.place,
            match &self.value {
                Value::Null => visitor.visit_unit(),
                Value::Bool(value) => visitor.visit_bool(*value),
                Value::Integer(value) => visitor.visit_i64(*value),
                Value::Float(value) => visitor.visit_f64(*value),
                Value::String(value) => visitor.visit_borrowed_str(value),
                Value::Sequence(items) => visitor.visit_seq(Items(items.iter())),
                Value::Mapping(entries) => visitor.visit_map(Entries {
                    entries: entries.iter(),
                    value: None,
                }),
            },
        )
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocumentError> {
        match &self.value {
            Value::Null => visitor.visit_none(),
            _ => at(self.place, visitor.visit_some(self)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DocumentError> {
        at(self.place, visitor.visit_newtype_struct(self))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocumentError> {
        match &self.value {
            Value::Integer(value) => at(self.place, visitor.visit_f64(*value as f64)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocumentError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DocumentError> {
        at(
            self.place,
            match &self.value {
                Value::String(name) => visitor.visit_enum(Variant {
                    name,
                    place: self.place,
                    content: None,
                }),
                Value::Mapping(entries) => match entries.as_slice() {
                    [(key, content)] => visitor.visit_enum(Variant {
                        name: &key.name,
                        place: key.place,
                        content: Some(content),
                    }),
                    _ => Err(de::Error::custom(
                        "expected a name, or one name with its settings: `name: {...}`",
                    )),
                },
                _ => Err(de::Error::invalid_type(
                    self.describe(),
                    &"a name, or a name with its settings",
                )),
            },
        )
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = DocumentError;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DocumentError> {
        self.0
            .next()
            .map(|node| at(node.place, seed.deserialize(node)))
            .transpose()
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, (Key, Node)>,
    value: Option<&'de Node>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = DocumentError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DocumentError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        let name: de::value::StrDeserializer<'_, DocumentError> =
            key.name.as_str().into_deserializer();
        at(key.place, seed.deserialize(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DocumentError> {
        match self.value.take() {
            Some(node) => at(node.place, seed.deserialize(node)),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

struct Variant<'de> {
    name: &'de str,
    place: Place,
    content: Option<&'de Node>,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = DocumentError;
    type Variant = Self;
    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), DocumentError> {
        let name: de::value::StrDeserializer<'_, DocumentError> = self.name.into_deserializer();
        Ok((at(self.place, seed.deserialize(name))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = DocumentError;

    fn unit_variant(self) -> Result<(), DocumentError> {
        match self.content {
            None => Ok(()),
            Some(node) if node.value == Value::Null || node.value == Value::Mapping(Vec::new()) => {
                Ok(())
            }
            Some(node) => at(
                node.place,
                Err(de::Error::custom(format!(
                    "`{}` takes no settings",
                    self.name
                ))),
            ),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, DocumentError> {
        match self.content {
            Some(node) => at(node.place, seed.deserialize(node)),
            None => at(
                self.place,
                Err(de::Error::custom(format!(
                    "`{0}` needs its settings: `{0}: {{...}}`",
                    self.name
                ))),
            ),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, DocumentError> {
        at(
            self.place,
            Err(de::Error::custom(format!(
                "`{}` cannot be written in a study file",
                self.name
            ))),
        )
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DocumentError> {
        match self.content {
            Some(node) => de::Deserializer::deserialize_any(node, visitor),
            None => at(
                self.place,
                Err(de::Error::custom(format!(
                    "`{0}` needs its settings: `{0}: {{...}}`",
                    self.name
                ))),
            ),
        }
    }
}

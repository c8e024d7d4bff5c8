//! A YAML document whose every value remembers the line it stands on.
//!
//! Study files are read in two steps. Here the text becomes a tree of [`Node`]s, so that profiles and variants can
//! replace values by path; then a typed struct is read from the tree with serde, and whatever is wrong with a value is
//! reported at the place that value came from, be it the base, a profile or a variant.

mod read;

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Visitor};
use serde_json::Value as Json;
use serde_yaml::Spanned;
use serde_yaml::budget::BudgetBreach;

use super::nearest::nearest;

/// Where a value starts: line and column from 1; 0 when unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Sequence(Vec<Node>),
    /// In the order of the file.
    Mapping(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    pub place: Place,
}

/// What is wrong, and where in the document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentError {
    pub message: String,
    pub place: Option<Place>,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for DocumentError {}

impl de::Error for DocumentError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            place: None,
        }
    }

    fn invalid_type(found: de::Unexpected, expected: &dyn de::Expected) -> Self {
        wrong_value(found, expected)
    }

    fn invalid_value(found: de::Unexpected, expected: &dyn de::Expected) -> Self {
        wrong_value(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        de::Error::custom(format!("`{field}` is missing here; add it"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self {
            message: unknown("field", field, expected),
            place: None,
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self {
            message: unknown("value", variant, expected),
            place: None,
        }
    }
}

/// serde speaks of Rust's types; a study's author is told what to write.
fn wrong_value(found: de::Unexpected, expected: &dyn de::Expected) -> DocumentError {
    let found = match found {
        de::Unexpected::Unit => "nothing stands here".to_owned(),
        de::Unexpected::Bool(value) => format!("`{value}` is a truth value"),
        de::Unexpected::Signed(value) => format!("{value} does not fit"),
        de::Unexpected::Unsigned(value) => format!("{value} does not fit"),
        de::Unexpected::Float(value) => format!("{value} does not fit"),
        de::Unexpected::Str(value) => format!("`{value}` does not fit"),
        de::Unexpected::Seq => "a list does not fit".to_owned(),
        de::Unexpected::Map => "a section does not fit".to_owned(),
        other => format!("{other} does not fit"),
    };
    let expected = expected.to_string();
    let right = match expected.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" => "text",
        "a sequence" => "a list: `[...]`",
        "a map" => "a section: `{name: ...}`",
        other if other.starts_with("struct ") => "a section with its fields: `{field: value}`",
        other => other,
    };
    de::Error::custom(format!("{found}; write {right}"))
}

fn unknown(what: &str, name: &str, expected: &[&str]) -> String {
    let mut message = format!("unknown {what} `{name}`");
    if let Some(near) = nearest(name, expected.iter().copied()) {
        message.push_str(&format!(", did you mean `{near}`?"));
    }
    if expected.is_empty() {
        message.push_str("; no fields are known here");
    } else {
        message.push_str(&format!("; known: {}", expected.join(", ")));
    }
    message
}

/// Reads one YAML document. Duplicate keys, more than one document, alias bombs and non-string keys are refused.
pub fn parse(text: &str) -> Result<Node, DocumentError> {
    if text.trim_start_matches('\u{feff}').lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    }) {
        return Err(DocumentError {
            message: "the file is empty; a study needs at least `study`, `languages`, `data`, `tokenizer`, `model`, `pretrain`, `seeds` and `variants`".into(),
            place: None,
        });
    }
    let options = serde_yaml::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => node(raw),
        Err(error) => Err(DocumentError {
            place: tab(&error, text).or(error.location().map(place)),
            message: yaml_problem(error.without_snippet()),
        }),
    }
}

/// The first tab in an indentation, when it is tabs that the reader complains of: it points at what stands before them.
fn tab(error: &serde_yaml::Error, text: &str) -> Option<Place> {
    if !yaml_problem(error.without_snippet()).ends_with(NO_TABS) {
        return None;
    }
    let indented = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    let line = text.lines().position(indented)?;
    let column = text.lines().nth(line)?.find('\t')?;
    Some(Place {
        line: line as u32 + 1,
        column: column as u32 + 1,
    })
}

const NO_TABS: &str = "indent with spaces";

/// What the YAML reader found, in the words of a study's author.
fn yaml_problem(error: &serde_yaml::Error) -> String {
    use serde_yaml::Error;
    match error {
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("`{key}` stands here a second time; keep one"),
            None => "a key stands here a second time; keep one".into(),
        },
        Error::NonFiniteFloat { value, .. } => {
            format!("{value} is not a number that a study can use; write a finite number")
        }
        Error::MultipleDocuments { .. } => {
            "a second document begins here; a study file holds one: remove the `---` and what follows".into()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            "values are nested too deeply for a study; is a bracket too many open?".into()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "the file unfolds into far more values than a study has; write fewer aliases".into()
        }
        Error::AliasError { error, .. } => yaml_problem(error),
        Error::ExternalMessage { msg, .. } => {
            let advice = if msg.contains("tab") {
                NO_TABS
            } else if msg.contains("recursion limit") {
                "values are nested too deeply for a study"
            } else {
                "is the indentation right, and every quote and bracket closed?"
            };
            format!("not YAML: {msg}; {advice}")
        }
        Error::Message { msg, .. } => msg.clone(),
        other => {
            let text = other.to_string();
            // The place is told in front of the message.
            text.split(" at line ").next().unwrap_or(&text).to_owned()
        }
    }
}

fn place(location: serde_yaml::Location) -> Place {
    Place {
        line: location.line() as u32,
        column: location.column() as u32,
    }
}

/// What serde-saphyr hands over, before keys are checked.
enum Raw {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Sequence(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

fn node(raw: Spanned<Raw>) -> Result<Node, DocumentError> {
    let at = place(raw.defined);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Integer(value) => Value::Integer(value),
        Raw::Float(value) if value.is_finite() => Value::Float(value),
        Raw::Float(value) => {
            return Err(DocumentError {
                message: format!(
                    "{value} is not a number that a study can use; write a finite number"
                ),
                place: Some(at),
            });
        }
        Raw::String(value) => Value::String(value),
        Raw::Sequence(items) => {
            Value::Sequence(items.into_iter().map(node).collect::<Result<_, _>>()?)
        }
        Raw::Mapping(entries) => {
            let mut mapping = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let key_place = place(key.defined);
                let Raw::String(name) = key.value else {
                    return Err(DocumentError {
                        message: "a key must be text; put it in quotes".into(),
                        place: Some(key_place),
                    });
                };
                mapping.push((
                    Key {
                        name,
                        place: key_place,
                    },
                    node(value)?,
                ));
            }
            Value::Mapping(mapping)
        }
    };
    Ok(Node { value, place: at })
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_some<D: de::Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Raw, D::Error> {
                deserializer.deserialize_any(self)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Integer(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
                i64::try_from(value).map(Raw::Integer).map_err(|_| {
                    E::custom(format!(
                        "{value} is too large; write a smaller whole number"
                    ))
                })
            }
            fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::String(value.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Raw::Sequence(items))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Mapping(entries))
            }
        }
        deserializer.deserialize_any(RawVisitor)
    }
}

impl Node {
    /// The value below a key of a mapping.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The value at a dotted path; a number picks an item of a list. The deepest value that exists when the path ends early.
    pub fn nearest_to(&self, path: &str) -> &Node {
        let mut node = self;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let next = match &node.value {
                Value::Sequence(items) => part
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index)),
                _ => node.get(part),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// Replaces the value at a dotted path, making mappings on the way where there are none. `place` is where the path
    /// stands: an unknown name in it is reported there.
    pub fn replace(&mut self, path: &str, place: Place, replacement: Node) {
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        if !matches!(self.value, Value::Mapping(_)) {
            *self = Node {
                value: Value::Mapping(Vec::new()),
                place,
            };
        }
        let Value::Mapping(entries) = &mut self.value else {
            return;
        };
        let index = match entries.iter().position(|(key, _)| key.name == first) {
            Some(index) => index,
            None => {
                let empty = Node {
                    value: Value::Mapping(Vec::new()),
                    place,
                };
                entries.push((
                    Key {
                        name: first.to_owned(),
                        place,
                    },
                    empty,
                ));
                entries.len() - 1
            }
        };
        match rest {
            Some(rest) => entries[index].1.replace(rest, place, replacement),
            None => {
                entries[index].0.place = place;
                entries[index].1 = replacement;
            }
        }
    }

    /// Takes a key out of a mapping.
    pub fn remove(&mut self, name: &str) -> Option<Node> {
        let Value::Mapping(entries) = &mut self.value else {
            return None;
        };
        let index = entries.iter().position(|(key, _)| key.name == name)?;
        Some(entries.remove(index).1)
    }

    /// Reads a typed value; the error names the innermost place that is known.
    pub fn read<'de, T: Deserialize<'de>>(&'de self) -> Result<T, DocumentError> {
        T::deserialize(self)
    }

    /// Every scalar and empty collection with its dotted path and place, in the order of the file.
    pub fn leaves(&self) -> Vec<(String, String, Place)> {
        let mut found = Vec::new();
        self.collect_leaves(String::new(), &mut found);
        found
    }

    fn collect_leaves(&self, path: String, found: &mut Vec<(String, String, Place)>) {
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        match &self.value {
            Value::Mapping(entries) if !entries.is_empty() => {
                for (key, node) in entries {
                    node.collect_leaves(below(&key.name), found);
                }
            }
            Value::Sequence(items)
                if items
                    .iter()
                    .any(|item| matches!(item.value, Value::Mapping(_) | Value::Sequence(_))) =>
            {
                for (index, item) in items.iter().enumerate() {
                    item.collect_leaves(below(&index.to_string()), found);
                }
            }
            _ => found.push((path, self.to_json().to_string(), self.place)),
        }
    }

    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Integer(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::String(value) => Json::from(value.as_str()),
            Value::Sequence(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Mapping(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.name.clone(), node.to_json()))
                    .collect(),
            ),
        }
    }

    fn describe(&self) -> de::Unexpected<'_> {
        match &self.value {
            Value::Null => de::Unexpected::Unit,
            Value::Bool(value) => de::Unexpected::Bool(*value),
            Value::Integer(value) => de::Unexpected::Signed(*value),
            Value::Float(value) => de::Unexpected::Float(*value),
            Value::String(value) => de::Unexpected::Str(value),
            Value::Sequence(_) => de::Unexpected::Seq,
            Value::Mapping(_) => de::Unexpected::Map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Small {
        rate: f64,
        kind: Kind,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        With { depth: usize },
    }

    #[test]
    fn errors_point_at_the_value_or_the_key() {
        let node = parse("rate: 1\nkind: {with: {depth: -1}}\n").unwrap();
        let error = node.read::<Small>().unwrap_err();
        assert_eq!(
            error.place,
            Some(Place {
                line: 2,
                column: 22
            }),
            "{error}"
        );
        let node = parse("rate: 1\nkind: plain\n\nraet: 2\n").unwrap();
        let error = node.read::<Small>().unwrap_err();
        assert_eq!(error.place, Some(Place { line: 4, column: 1 }));
        assert!(error.message.contains("did you mean `rate`?"), "{error}");
    }

    #[test]
    fn replaced_values_keep_the_place_of_their_override() {
        let mut node = parse("rate: 1\nkind: plain\n").unwrap();
        let other = parse("\n\n  {with: {depth: 3}}\n").unwrap();
        let path = Place { line: 9, column: 1 };
        node.replace("kind", path, other);
        node.replace(
            "kind.with.depth",
            path,
            Node {
                value: Value::Integer(-3),
                place: Place { line: 9, column: 9 },
            },
        );
        assert_eq!(
            node.read::<Small>().unwrap_err().place,
            Some(Place { line: 9, column: 9 })
        );
    }

    #[test]
    fn norwegian_is_a_language_and_not_a_boolean() {
        assert_eq!(
            parse("a: no").unwrap().get("a").map(|node| &node.value),
            Some(&Value::String("no".into()))
        );
    }

    #[test]
    fn duplicate_keys_and_empty_files_are_refused() {
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.place.map(|place| place.line), Some(3), "{error}");
        assert!(parse("# nothing\n").unwrap_err().message.contains("empty"));
    }
}

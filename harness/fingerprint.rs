//! Identity of artifacts: a BLAKE3 hash of canonical JSON (keys sorted, no whitespace).

use std::fmt;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// 256 bits in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of any value that serialises to JSON; the order of an object's keys does not matter.
    pub fn of<T: Serialize>(value: &T) -> Result<Self> {
        let value = serde_json::to_value(value).context("a value to fingerprint is not JSON")?;
        Ok(Self::of_bytes(canonical(&value).as_bytes()))
    }

    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::of_hash(&blake3::hash(bytes))
    }

    pub fn of_hash(hash: &blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12.min(self.0.len())]
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// JSON with sorted keys and no whitespace.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let fields: Vec<String> = keys
                .into_iter()
                .map(|key| format!("{}:{}", Value::from(key.as_str()), canonical(&map[key])))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_of_keys_is_not_identity() {
        let one = Fingerprint::of(&json!({"a": 1, "b": {"c": [1, 2], "d": null}})).unwrap();
        let two = Fingerprint::of(&json!({"b": {"d": null, "c": [1, 2]}, "a": 1})).unwrap();
        assert_eq!(one, two);
        assert_ne!(
            one,
            Fingerprint::of(&json!({"a": 1, "b": {"c": [2, 1], "d": null}})).unwrap()
        );
    }
}

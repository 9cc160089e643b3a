//! Reading what the service sends without insisting on its types.
//!
//! One odd field must not cost a page of a thousand items: a value of the wrong type counts as
//! absent, a number may come as text, and a byte order mark is skipped.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Removes a UTF-8 byte order mark.
pub(crate) fn strip_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

/// Deserializes a field, or takes it for absent when it has another type.
pub(crate) fn field<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).ok())
}

/// Deserializes a field that is text; a number is taken as its digits.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Deserializes a count: a number, or text with one. Negative counts are absent.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(value_count(&Value::deserialize(deserializer)?))
}

/// Reads a count from a value.
fn value_count(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A float that stands for a whole number in the range where floats are exact.
fn whole(number: f64) -> Option<u64> {
    /// Largest integer up to which every integer has its own float: 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && (0.0..=EXACT).contains(&number) {
        format!("{number:.0}").parse().ok()
    } else {
        None
    }
}

/// Deserializes a list, dropping elements that have another type; anything else is an empty list.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(values) => values
            .into_iter()
            .filter_map(|value| T::deserialize(value).ok())
            .collect(),
        _ => Vec::new(),
    })
}

/// Deserializes the presence of a facet: any value but null.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<serde::de::IgnoredAny>::deserialize(deserializer)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Probe {
        #[serde(deserialize_with = "count")]
        size: Option<u64>,
        #[serde(deserialize_with = "text")]
        name: Option<String>,
        #[serde(deserialize_with = "present")]
        folder: bool,
        #[serde(deserialize_with = "list")]
        ranges: Vec<String>,
    }

    #[test]
    fn odd_types_count_as_absent() {
        for (json, size) in [
            (r#"{"size":5}"#, Some(5)),
            (r#"{"size":"5"}"#, Some(5)),
            (r#"{"size":5.0}"#, Some(5)),
            (r#"{"size":-1}"#, None),
            (r#"{"size":{}}"#, None),
            (r#"{"size":null}"#, None),
            (r#"{"size":1e300}"#, None),
            (r"{}", None),
        ] {
            assert_eq!(
                serde_json::from_str::<Probe>(json).unwrap().size,
                size,
                "{json}"
            );
        }
        let odd = r#"{"name":[],"folder":{},"ranges":["0-",7]}"#;
        let probe: Probe = serde_json::from_str(odd).unwrap();
        assert!(probe.name.is_none() && probe.folder);
        assert_eq!(probe.ranges, ["0-"]);
        assert!(
            !serde_json::from_str::<Probe>(r#"{"folder":null}"#)
                .unwrap()
                .folder
        );
    }
}

//! Reading what the service sends without insisting on its types.
//!
//! One odd field must not cost a page of a thousand items: a value of the wrong type counts as
//! absent, a number may come as text, and a byte order mark is skipped.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::{Number, Value};

/// Removes a UTF-8 byte order mark.
pub(crate) fn strip_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

/// Parses an answer. In an object that tells something twice the last one counts: that is rare enough
/// to be read anew, and slowly.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let body = strip_bom(body);
    serde_json::from_slice(body).or_else(|error| match error.classify() {
        Category::Data => serde_json::from_slice(body)
            .and_then(|value: Value| T::deserialize(value))
            .map_err(|_less_telling| error),
        Category::Io | Category::Syntax | Category::Eof => Err(error),
    })
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

/// Deserializes a field that is an object, or takes it for absent when it is anything else. Its own
/// fields are read leniently, too: what one of them refuses would cost the whole answer.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Object(PhantomData))
}

/// Deserializes a field that is text; a number is taken as its digits.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    deserializer.deserialize_any(Text)
}

/// Deserializes a count: a number, or text with one. Negative counts are absent.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(Count)
}

/// What is common to the visitors below: they take everything, and what they do not want comes to
/// nothing.
macro_rules! absent_are {
    ($($kind:ident),*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }
        fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<Self::Value, D::Error> {
            some.deserialize_any(self)
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_bool<E>(self, _odd: bool) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut odd: A) -> Result<Self::Value, A::Error> {
            while odd.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }
        $(absent_are!(@ $kind);)*
    };
    (@ map) => {
        fn visit_map<A: MapAccess<'de>>(self, mut odd: A) -> Result<Self::Value, A::Error> {
            while odd.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(None)
        }
    };
    (@ text) => {
        fn visit_str<E>(self, _odd: &str) -> Result<Self::Value, E> {
            Ok(None)
        }
    };
    (@ numbers) => {
        fn visit_u64<E>(self, _odd: u64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_i64<E>(self, _odd: i64) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_f64<E>(self, _odd: f64) -> Result<Self::Value, E> {
            Ok(None)
        }
    };
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = Option<T>;

    absent_are!(text, numbers);

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Option<String>;

    absent_are!(map);

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(number).map(|number| number.to_string()))
    }
}

struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = Option<u64>;

    absent_are!(map);

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.trim().parse().ok())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(number).ok())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(whole(number))
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
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
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
        #[serde(deserialize_with = "object")]
        inner: Option<Box<Probe>>,
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

    #[test]
    fn what_is_no_object_is_absent() {
        for odd in [
            "7",
            "-7",
            "7.5",
            "true",
            "null",
            "\"text\"",
            "[{\"size\":1}]",
        ] {
            let json = format!(r#"{{"inner":{odd},"name":"after it"}}"#);
            let probe: Probe = parse(json.as_bytes()).unwrap();
            assert!(probe.inner.is_none(), "{odd}");
            assert_eq!(probe.name.as_deref(), Some("after it"));
        }
        let probe: Probe = parse(br#"{"inner":{"size":[{}],"name":{"a":[1]},"x":{}}}"#).unwrap();
        let inner = probe.inner.unwrap();
        assert!(inner.size.is_none() && inner.name.is_none());
    }

    #[test]
    fn numbers_come_as_text_and_text_as_numbers() {
        let name = |json: &str| parse::<Probe>(json.as_bytes()).unwrap().name;
        for (json, expected) in [
            (r#"{"name":5}"#, Some("5")),
            (r#"{"name":-5}"#, Some("-5")),
            (r#"{"name":5.5}"#, Some("5.5")),
            (r#"{"name":true}"#, None),
            (r#"{"name":"a\u00e9\n"}"#, Some("a\u{e9}\n")),
        ] {
            assert_eq!(name(json).as_deref(), expected, "{json}");
        }
        let size = |json: &str| parse::<Probe>(json.as_bytes()).unwrap().size;
        assert_eq!(size(r#"{"size":" 5 "}"#), Some(5));
        assert_eq!(size(r#"{"size":"five"}"#), None);
        assert_eq!(size(r#"{"size":18446744073709551615}"#), Some(u64::MAX));
    }

    #[test]
    fn of_what_is_told_twice_the_last_counts() {
        let twice = br#"{"name":"a","inner":{"size":1,"size":2},"name":"b"}"#;
        let probe: Probe = parse(twice).unwrap();
        assert_eq!(probe.name.as_deref(), Some("b"));
        assert_eq!(probe.inner.unwrap().size, Some(2));
        assert!(parse::<Probe>(br#"{"name":"a","#).is_err());
        assert!(parse::<Probe>(b"7").is_err());
    }
}

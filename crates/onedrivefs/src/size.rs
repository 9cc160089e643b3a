//! Amounts of bytes as people write and read them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// An amount of bytes, written as a number or with a unit: `500M`, `10GiB`, `2 TB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct ByteSize(pub(crate) u64);

/// Binary units; a bare `K`, `M`, `G`, `T` means the binary one, as in `df -h`.
const BINARY: [(&str, u64); 4] = [
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let complaint =
            || format!("\"{text}\" is not a size; write for example 500M, 10GiB or 2TB");
        let digits = text.trim();
        let split = digits
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(digits.len());
        let (number, unit) = digits.split_at(split);
        let factor = factor(unit.trim()).ok_or_else(complaint)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(complaint);
        }
        let value: f64 = number.parse().map_err(|_| complaint())?;
        let bytes = value * factor as f64;
        // Far below 2^64, so that the conversion cannot saturate.
        if !(0.0..1e18).contains(&bytes) {
            return Err(complaint());
        }
        Ok(Self(bytes as u64))
    }
}

/// The factor of a unit, or nothing when there is no such unit.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_uppercase();
    if unit.is_empty() || unit == "B" {
        return Some(1);
    }
    BINARY
        .iter()
        .enumerate()
        .find_map(|(power, &(letter, binary))| {
            let rest = unit.strip_prefix(letter)?;
            match rest {
                "" | "IB" => Some(binary),
                "B" => Some(1000_u64.pow(u32::try_from(power).ok()? + 1)),
                _ => None,
            }
        })
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 10GiB")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ByteSize, E> {
                u64::try_from(value)
                    .map(ByteSize)
                    .map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<ByteSize, E> {
                value.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64;
        let mut unit = "B";
        for next in UNITS {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        write!(f, "{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("10GiB", 10 << 30),
            ("2 TB", 2_000_000_000_000),
            ("1.5M", 3 << 19),
            ("5b", 5),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "x", "10X", "-1", "1.2.3G", "99999999T", "10GiBB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_binary_units() {
        assert_eq!(ByteSize(1023).to_string(), "1023 B");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(10 << 30).to_string(), "10.0 GiB");
    }
}

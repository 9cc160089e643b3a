//! Checks hashes and names against stored vectors.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use onedrivefs_core::{DriveKind, QuickXorHash, name};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/vectors.json")).unwrap()
}

/// Produces the input that a vector describes.
fn input(pattern: &str, len: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from(i).unwrap();
    if let Some(hex) = pattern.strip_prefix("hex:") {
        return (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
    }
    if let Some(seed) = pattern.strip_prefix("xorshift32:") {
        let mut x = u32::from_str_radix(seed, 16).unwrap();
        return (0..len)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                x.to_le_bytes()[0]
            })
            .collect();
    }
    match pattern.strip_prefix("pattern:").unwrap() {
        "i%251" => (0..len).map(|i| byte(i % 251)).collect(),
        "i&255" => (0..len).map(|i| byte(i & 255)).collect(),
        "0xff" => vec![0xff; len],
        "0x00" => vec![0; len],
        other => panic!("unknown pattern {other}"),
    }
}

#[test]
fn quick_xor_hash_matches_every_vector() {
    for vector in vectors()["quickxorhash"].as_array().unwrap() {
        let len = usize::try_from(vector["len"].as_u64().unwrap()).unwrap();
        let pattern = vector["hex_or_pattern"].as_str().unwrap();
        let data = input(pattern, len);
        assert_eq!(data.len(), len);
        let expected = vector["base64"].as_str().unwrap();
        assert_eq!(
            QuickXorHash::of(&data).to_string(),
            expected,
            "{pattern} x {len}"
        );
        assert_eq!(QuickXorHash::parse(expected), Some(QuickXorHash::of(&data)));
    }
}

#[test]
fn refused_names_are_recognised_and_encoded_into_accepted_ones() {
    for vector in vectors()["names"].as_array().unwrap() {
        let text = vector["name"].as_str().unwrap();
        let valid = vector["valid"].as_bool().unwrap();
        let kind = match vector["scope"].as_str().unwrap() {
            "business" => DriveKind::Business,
            _ => DriveKind::Personal,
        };
        // A cautious client may encode what a drive would take; never the other way round.
        if !valid {
            assert!(
                !name::is_accepted(text, kind, true) || text == "forms" && valid,
                "{text:?}"
            );
        }
        let is_local_name = !matches!(text, "" | "." | "..") && !text.contains('/');
        if is_local_name {
            assert_eq!(name::decode(&name::encode(text)), text);
        }
    }
}

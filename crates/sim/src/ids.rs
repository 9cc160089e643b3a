//! Ids and tags have shapes that clients stumble over, so they are reproduced; but storing a
//! million strings would not be cheap, so they are computed from the item number and back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::body::mix;
use crate::config::DriveKind;
use crate::drive::{Idx, Node, ROOT, Tree};

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// The end of every library root's id.
const LIBRARY_ROOT: &str = "6Y2GOVW7725BZO354PWSELRRZ";
/// The id of every migrated personal root, after the drive id.
const PERSONAL_ROOT: &str = "sea8cc6beffdb43d7976fbc7da445c639";

/// Makes up a drive id of the shape that the kind has.
pub(crate) fn drive_id(kind: DriveKind, number: usize) -> String {
    let seed = mix(0x0d21_7e00 + number as u64);
    match kind {
        // The leading zero is there because some answers of the service lose it.
        DriveKind::Personal => format!("0{:015X}", seed >> 4),
        _ => format!("b!{}", base32(&[mix(seed), mix(seed + 1), mix(seed + 2)])),
    }
}

/// Numbers items hash from: one per drive.
pub(crate) fn drive_key(drive_id: &str) -> u64 {
    drive_id
        .bytes()
        .fold(0x51, |key, byte| mix(key ^ u64::from(byte)))
}

fn base32(words: &[u64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    base32_bytes(&bytes)
}

fn base32_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(BASE32[(buffer >> bits) as usize & 31]));
        }
    }
    out
}

impl Tree {
    /// The public id of an item.
    pub(crate) fn id_of(&self, idx: Idx) -> String {
        let scrambled = (mix(self.key) as u32) ^ idx;
        let check = mix(self.key ^ u64::from(idx));
        match (self.kind, self.classic) {
            (DriveKind::Personal, true) => format!("{}!{}", self.drive_id, 101 + idx),
            (DriveKind::Personal, false) if idx == ROOT => {
                format!("{}!{PERSONAL_ROOT}", self.drive_id)
            }
            (DriveKind::Personal, false) => {
                let low = mix(check) as u32;
                format!("{}!s{check:016x}{scrambled:08x}{low:08x}", self.drive_id)
            }
            _ if idx == ROOT => format!("01{}{LIBRARY_ROOT}", &base32(&[self.key])[..7]),
            _ => {
                let mut bytes = Vec::with_capacity(20);
                bytes.extend(check.to_be_bytes());
                bytes.extend(mix(check).to_be_bytes());
                bytes.extend(scrambled.to_be_bytes());
                format!("01{}", base32_bytes(&bytes))
            }
        }
    }

    /// The item with that public id, whether live or deleted.
    pub(crate) fn find_id(&self, id: &str) -> Option<Idx> {
        let same = |idx: Idx| -> Option<Idx> {
            let known = (idx as usize) < self.nodes.len();
            let own = |idx| self.id_of(idx);
            let equal = if self.kind == DriveKind::Personal {
                |a: &str, b: &str| a.eq_ignore_ascii_case(b)
            } else {
                |a: &str, b: &str| a == b
            };
            (known && equal(&own(idx), id)).then_some(idx)
        };
        if same(ROOT).is_some() {
            return Some(ROOT);
        }
        if self.kind == DriveKind::Personal {
            let (_, local) = id.split_once('!')?;
            if self.classic {
                return same(local.parse::<Idx>().ok()?.checked_sub(101)?);
            }
            let word = u32::from_str_radix(local.get(17..25)?, 16).ok()?;
            return same(word ^ mix(self.key) as u32);
        }
        let tail = id.get(2..)?;
        if tail.len() != 32 {
            return None;
        }
        let mut word = 0u64;
        for c in tail
            .bytes()
            .rev()
            .take(7)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            let digit = BASE32.iter().position(|b| *b == c)?;
            word = (word << 5) | digit as u64;
        }
        same(word as u32 ^ mix(self.key) as u32)
    }

    fn guid(&self, idx: Idx) -> String {
        let a = mix(self.key.rotate_left(17) ^ u64::from(idx));
        let b = mix(a);
        format!(
            "{:08X}-{:04X}-{:04X}-{:04X}-{:012X}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        )
    }

    /// The tag that changes with every change of an item.
    pub(crate) fn etag(&self, idx: Idx, node: &Node) -> String {
        if self.classic && self.kind == DriveKind::Personal {
            let text = format!("i{}!{}.{}", self.drive_id, 101 + idx, node.etag_n);
            return format!("a{}", STANDARD_NO_PAD.encode(text));
        }
        format!("\"{{{}}},{}\"", self.guid(idx), node.etag_n)
    }

    /// The tag that changes with the content; business folders have none.
    pub(crate) fn ctag(&self, idx: Idx, node: &Node) -> Option<String> {
        if self.is_business() && node.file().is_none() {
            return None;
        }
        if self.classic && self.kind == DriveKind::Personal {
            let text = format!("c:{}!{}.{}", self.drive_id, 101 + idx, node.ctag_n);
            return Some(format!("a{}", STANDARD_NO_PAD.encode(text)));
        }
        Some(format!("\"c:{{{}}},{}\"", self.guid(idx), node.ctag_n))
    }

    /// Whether an `If-Match` or `If-None-Match` value names the present state.
    pub(crate) fn tag_matches(&self, idx: Idx, header: &str) -> bool {
        let node = self.node(idx);
        let tags = [Some(self.etag(idx, node)), self.ctag(idx, node)];
        let header = header.trim();
        header == "*" || tags.iter().flatten().any(|tag| tag == header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::Actor;
    use crate::config::DriveSpec;
    use crate::drive::FsTimes;

    #[test]
    fn ids_lead_back_to_their_items() {
        let shapes = [
            (DriveKind::Business, false),
            (DriveKind::DocumentLibrary, false),
            (DriveKind::Personal, false),
            (DriveKind::Personal, true),
        ];
        for (kind, classic_ids) in shapes {
            let id = drive_id(kind, 0);
            let spec = DriveSpec {
                id: id.clone(),
                kind,
                classic_ids,
                ..DriveSpec::default()
            };
            let mut tree = Tree::new(&spec, Actor::default(), drive_key(&id), 0);
            for n in 0..100 {
                tree.mkdir(ROOT, &format!("folder {n}"), FsTimes::default(), 0)
                    .unwrap();
            }
            for idx in 0..=100 {
                assert_eq!(tree.find_id(&tree.id_of(idx)), Some(idx), "{kind:?}");
            }
            assert_eq!(tree.find_id("01NOSUCHITEM"), None);
        }
    }

    #[test]
    fn business_ids_have_the_known_shape() {
        let spec = DriveSpec {
            id: "b!x".into(),
            ..DriveSpec::default()
        };
        let tree = Tree::new(&spec, Actor::default(), 5, 0);
        assert_eq!(tree.id_of(ROOT).len(), 34);
        assert_eq!(tree.id_of(7).len(), 34);
        assert!(tree.id_of(ROOT).ends_with(LIBRARY_ROOT));
    }
}

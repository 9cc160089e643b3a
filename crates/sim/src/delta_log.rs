//! Delta is the latest state of every item in order of its last change. A page is a range of the
//! change log, so its cost depends on the page and not on the drive.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::config::{Knobs, SubfolderDelta};
use crate::drive::{Idx, Kind, Life, ROOT, Tree};
use crate::error::{ApiError, ApiResult};
use crate::item_json::{self, Drawn, Show};

/// The state of a run, carried in the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) epoch: u32,
    /// Everything up to this change number was already given out.
    pub(crate) from: u64,
    /// Change number at the start of the run; older deletions are not told in full runs.
    pub(crate) start: u64,
    pub(crate) full: bool,
    /// An empty page was already given out in this run.
    pub(crate) primed: bool,
    pub(crate) folder: Idx,
    pub(crate) issued_ms: i64,
    pub(crate) top: usize,
    pub(crate) select: String,
}

impl Token {
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!(
            "{};{};{};{};{};{};{};{};{}",
            self.epoch,
            self.from,
            self.start,
            u8::from(self.full),
            u8::from(self.primed),
            self.folder,
            self.issued_ms,
            self.top,
            self.select
        ))
    }

    pub(crate) fn decode(text: &str) -> Option<Token> {
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = plain.splitn(9, ';');
        let mut next = || parts.next();
        Some(Token {
            epoch: next()?.parse().ok()?,
            from: next()?.parse().ok()?,
            start: next()?.parse().ok()?,
            full: next()? == "1",
            primed: next()? == "1",
            folder: next()?.parse().ok()?,
            issued_ms: next()?.parse().ok()?,
            top: next()?.parse().ok()?,
            select: next()?.to_owned(),
        })
    }
}

/// One answer of delta.
pub(crate) struct Page {
    pub(crate) items: Vec<Drawn>,
    pub(crate) token: Token,
    /// Whether the run is over, so that the token belongs into a delta link.
    pub(crate) done: bool,
}

/// What the request headers ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeltaOptions {
    pub(crate) shortcuts: bool,
    pub(crate) exclude_parents: bool,
}

/// The 410 that ends a run.
pub(crate) fn gone(knobs: &Knobs, fresh: &str) -> ApiError {
    ApiError::new(
        410,
        &knobs.delta_gone_code,
        "Resync required. Replace any local items.",
    )
    .inner(&knobs.delta_gone_inner)
    .header("location", fresh)
}

/// Checks that a token can still be served.
pub(crate) fn check(
    tree: &Tree,
    token: &Token,
    knobs: &Knobs,
    now: i64,
    fresh: &str,
) -> ApiResult<()> {
    let age = now - token.issued_ms;
    if token.epoch != tree.epoch || age > knobs.delta_token_ttl_s * 1000 {
        return Err(gone(knobs, fresh));
    }
    if token.from > tree.seq || token.folder as usize >= tree.nodes.len() {
        return Err(ApiError::bad_request(
            "The token is not valid for this drive.",
        ));
    }
    Ok(())
}

/// Takes the next page of a run.
pub(crate) fn page(
    tree: &Tree,
    mut token: Token,
    show: &Show<'_>,
    options: DeltaOptions,
    now: i64,
) -> Page {
    token.issued_ms = now;
    if show.knobs.delta_empty_page && !token.primed {
        token.primed = true;
        return Page {
            items: Vec::new(),
            token,
            done: false,
        };
    }
    let size = if token.top > 0 {
        token.top
    } else {
        show.knobs.delta_page_size.max(1)
    };
    let mut picked = Vec::new();
    let mut done = true;
    for (seq, idx) in tree.log.range(token.from + 1..) {
        if picked.len() >= size {
            done = false;
            break;
        }
        token.from = *seq;
        pick(tree, *idx, &token, show, options, &mut picked);
    }
    if !token.full {
        let whole = show.knobs.subfolder_delta == SubfolderDelta::WholeDrive;
        let top = if whole { ROOT } else { token.folder };
        picked = with_ancestors(tree, picked, options, top);
    }
    let mut items: Vec<Drawn> = picked.iter().map(|p| render(tree, p, show)).collect();
    if show.knobs.delta_child_first {
        items.reverse();
    }
    if show.knobs.delta_repeats
        && let Some(stale) = items.iter().find_map(outdated)
    {
        items.insert(0, stale);
    }
    if done {
        token.from = tree.seq;
        token.start = tree.seq;
        token.full = false;
        token.primed = false;
    }
    Page { items, token, done }
}

/// An item as it was before its latest change.
fn outdated(item: &Drawn) -> Option<Drawn> {
    let mut copy: Value = serde_json::from_str(&item.text).ok()?;
    let name = copy.get("name")?.as_str()?.to_owned();
    copy.get("file")?;
    copy["name"] = format!("outdated {name}").into();
    copy["eTag"] = "\"{00000000-0000-0000-0000-000000000000},0\"".into();
    Some(Drawn {
        idx: item.idx,
        text: copy.to_string(),
    })
}

enum Pick {
    Item(Idx),
    Gone(Idx),
}

fn pick(
    tree: &Tree,
    idx: Idx,
    token: &Token,
    show: &Show<'_>,
    options: DeltaOptions,
    picked: &mut Vec<Pick>,
) {
    let node = tree.node(idx);
    if matches!(node.kind, Kind::Shortcut(_)) && !options.shortcuts {
        return;
    }
    let whole = token.folder == ROOT || show.knobs.subfolder_delta == SubfolderDelta::WholeDrive;
    let inside = whole || tree.is_within(idx, token.folder);
    if node.life != Life::Live {
        if inside && !(token.full && node.seq <= token.start) {
            picked.push(Pick::Gone(idx));
        }
        return;
    }
    let moved = node
        .extra()
        .and_then(|e| e.moved)
        .filter(|(seq, _)| *seq > token.start);
    let was_inside = |from: Idx| whole || tree.is_within(from, token.folder);
    match (inside, moved) {
        (true, Some((_, from))) if !was_inside(from) && node.is_folder() => {
            picked.push(Pick::Item(idx));
            picked.extend(tree.descendants(idx).into_iter().map(Pick::Item));
        }
        (true, _) => picked.push(Pick::Item(idx)),
        (false, Some((_, from))) if was_inside(from) => picked.push(Pick::Gone(idx)),
        (false, _) => {}
    }
}

/// Puts the ancestors of changed items in front of them, each once per page, up to the folder that
/// is asked about.
fn with_ancestors(tree: &Tree, picked: Vec<Pick>, options: DeltaOptions, top: Idx) -> Vec<Pick> {
    let mut out = Vec::new();
    let own: HashSet<Idx> = picked
        .iter()
        .filter_map(|p| {
            if let Pick::Item(i) = p {
                Some(*i)
            } else {
                None
            }
        })
        .collect();
    let mut shown = HashSet::new();
    for pick in picked {
        let (Pick::Item(idx) | Pick::Gone(idx)) = &pick;
        let mut chain = Vec::new();
        let mut at = *idx;
        while at != top && tree.is_within(at, top) {
            at = tree.node(at).parent;
            let wanted = at == top || !options.exclude_parents;
            if wanted && tree.node(at).is_live() && !own.contains(&at) && shown.insert(at) {
                chain.push(Pick::Item(at));
            }
        }
        out.extend(chain.into_iter().rev());
        out.push(pick);
    }
    out
}

fn render(tree: &Tree, pick: &Pick, show: &Show<'_>) -> Drawn {
    match pick {
        Pick::Item(idx) => Drawn::item(tree, *idx, show),
        Pick::Gone(idx) => Drawn {
            idx: *idx,
            text: item_json::tombstone(tree, *idx, show).to_string(),
        },
    }
}

/// The change number before the first change at or after `since`.
pub(crate) fn since(tree: &Tree, since: i64) -> u64 {
    let first = tree
        .log
        .iter()
        .find(|(_, idx)| tree.node(**idx).modified >= since);
    first.map_or(tree.seq, |(seq, _)| seq - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_encoding() {
        let token = Token {
            epoch: 1,
            from: 12,
            start: 10,
            full: true,
            primed: false,
            folder: 4,
            issued_ms: 1_700_000_000_000,
            top: 50,
            select: "id,name;odd".into(),
        };
        assert_eq!(Token::decode(&token.encode()), Some(token));
        assert_eq!(Token::decode("not a token"), None);
    }
}

//! A client is only as good as its behaviour when things go wrong, and each thing must go wrong at
//! a chosen moment. A plan is a list of rules; the first rules that match a request decide its
//! fate, before or after the request has taken effect.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::body::mix;

/// One scripted misfortune.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultRule {
    /// Operation it applies to (`delta`, `children`, `download`, `upload_fragment`, …); absent
    /// means all.
    pub op: Option<String>,
    /// HTTP method; absent means all.
    pub method: Option<String>,
    /// Pattern over the raw path and query, `*` standing for anything; absent means all.
    pub path: Option<String>,
    /// Matching requests that pass unharmed first.
    pub skip: u64,
    /// How many requests it hits; absent means no end.
    pub count: Option<u64>,
    /// Whether `skip` and `count` hold for each address (method and path) by itself.
    pub each: bool,
    /// Chance of hitting each matching request, 0 to 1; absent means certain.
    pub probability: Option<f64>,
    /// Seed of the chance.
    pub seed: u64,
    /// What happens.
    pub action: FaultAction,
}

impl FaultRule {
    /// A rule that hits every request of an operation.
    pub fn on(op: &str, action: FaultAction) -> Self {
        FaultRule {
            op: Some(op.into()),
            action,
            ..Self::default()
        }
    }

    /// Limits how often the rule hits.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// Lets the first matching requests pass.
    #[must_use]
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Counts for each address by itself.
    #[must_use]
    pub fn each(mut self) -> Self {
        self.each = true;
        self
    }

    /// Limits the rule to paths that a pattern is found in.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.path = Some(path.into());
        self
    }
}

/// The form of an error body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    /// Graph's error JSON.
    #[default]
    Json,
    /// The front end's HTML page.
    Html,
    /// Graph's error JSON after a UTF-8 byte order mark.
    Bom,
    /// No body at all.
    Empty,
    /// [`FaultAction::Status::body`] as it is.
    Raw,
}

/// What a rule does to a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultAction {
    /// Nothing; the request is only counted.
    #[default]
    Pass,
    /// Answers with a status.
    Status {
        /// HTTP status.
        status: u16,
        /// Error code; one that suits the status by default.
        #[serde(default)]
        code: Option<String>,
        /// Inner error code.
        #[serde(default)]
        inner: Option<String>,
        /// Value of `Retry-After`, sent as it is.
        #[serde(default)]
        retry_after: Option<String>,
        /// Form of the body.
        #[serde(default)]
        form: BodyForm,
        /// Message, or the whole body with [`BodyForm::Raw`].
        #[serde(default)]
        body: Option<String>,
        /// Whether the request takes effect before that answer.
        #[serde(default)]
        after_effect: bool,
    },
    /// Waits, then goes on (further rules included).
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Waits until the rule is removed, then goes on (further rules included).
    Hold,
    /// Takes effect; the answer waits until the rule is removed.
    HoldAnswer,
    /// Closes the connection; the request has no effect.
    DropBefore,
    /// Closes the connection; the request has taken effect.
    DropAfter,
    /// Sends only the beginning of the body, then closes the connection.
    Truncate {
        /// Bytes that are sent.
        bytes: u64,
    },
    /// Flips the bits of one byte of the body.
    Corrupt {
        /// Offset of that byte in the body.
        offset: u64,
    },
    /// Accepts the request and never answers.
    Stall,
    /// Answers with another value in a header; an absent one leaves the header out.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        #[serde(default)]
        value: Option<String>,
    },
    /// Sends the beginning of the body and then nothing more, keeping the connection.
    StallBody {
        /// Bytes that are sent.
        bytes: u64,
    },
    /// Lets all access tokens expire first.
    ExpireTokens,
    /// Lets all download URLs expire first.
    ExpireUrls,
    /// Lets all upload sessions expire first.
    ExpireSessions,
    /// Makes all delta tokens stale first.
    ExpireDelta,
}

impl FaultAction {
    /// A plain error status.
    pub fn status(status: u16) -> Self {
        FaultAction::Status {
            status,
            code: None,
            inner: None,
            retry_after: None,
            form: BodyForm::Json,
            body: None,
            after_effect: false,
        }
    }

    /// An error status with `Retry-After`.
    pub fn retry_after(after_status: u16, value: &str) -> Self {
        match Self::status(after_status) {
            FaultAction::Status {
                status,
                code,
                inner,
                form,
                body,
                after_effect,
                ..
            } => {
                let retry_after = Some(value.to_owned());
                FaultAction::Status {
                    status,
                    code,
                    inner,
                    retry_after,
                    form,
                    body,
                    after_effect,
                }
            }
            other => other,
        }
    }
}

/// A rule with its counters.
#[derive(Clone, Debug, Serialize)]
pub struct FaultState {
    /// Number for removal.
    pub id: u64,
    /// The rule.
    pub rule: FaultRule,
    /// Requests that matched.
    pub matched: u64,
    /// Requests that were hit.
    pub hits: u64,
    /// The same counters by address, for rules that count each by itself.
    #[serde(skip)]
    by_address: HashMap<String, (u64, u64)>,
}

impl FaultState {
    /// Counts a request that matches the rule. Tells whether it is hit.
    fn takes(&mut self, address: impl FnOnce() -> String) -> bool {
        self.matched += 1;
        let mut own = None;
        if self.rule.each {
            let counters = self.by_address.entry(address()).or_default();
            counters.0 += 1;
            own = Some(counters);
        }
        let (matched, hits) = own.as_deref().map_or((self.matched, self.hits), |own| *own);
        let rule = &self.rule;
        let exhausted = rule.count.is_some_and(|count| hits >= count);
        if matched <= rule.skip || exhausted || !chance(rule, self.matched) {
            return false;
        }
        self.hits += 1;
        if let Some(own) = own {
            own.1 += 1;
        }
        true
    }
}

/// The rules in force.
#[derive(Default)]
pub struct FaultPlan {
    state: Mutex<(u64, Vec<FaultState>)>,
}

impl FaultPlan {
    /// Adds a rule behind the others and returns its number.
    pub fn add(&self, rule: FaultRule) -> u64 {
        let mut state = self.state.lock();
        state.0 += 1;
        let id = state.0;
        state.1.push(FaultState {
            id,
            rule,
            matched: 0,
            hits: 0,
            by_address: HashMap::new(),
        });
        id
    }

    /// Removes one rule.
    pub fn remove(&self, id: u64) {
        self.state.lock().1.retain(|s| s.id != id);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.state.lock().1.clear();
    }

    /// The rules with their counters.
    pub fn list(&self) -> Vec<FaultState> {
        self.state.lock().1.clone()
    }

    /// Requests that a rule has hit so far; 0 for one that was removed.
    pub fn hits(&self, id: u64) -> u64 {
        let state = self.state.lock();
        state.1.iter().find(|s| s.id == id).map_or(0, |s| s.hits)
    }

    /// Whether a rule is in force.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.state.lock().1.iter().any(|s| s.id == id)
    }

    /// What happens to this request, in order and with the numbers of the rules; all but the last
    /// are preliminaries.
    pub(crate) fn decide(&self, op: &str, method: &str, target: &str) -> Vec<(u64, FaultAction)> {
        let mut actions = Vec::new();
        for state in &mut self.state.lock().1 {
            if !matches(&state.rule, op, method, target)
                || !state.takes(|| format!("{method} {target}"))
            {
                continue;
            }
            actions.push((state.id, state.rule.action.clone()));
            if is_final(&state.rule.action) {
                break;
            }
        }
        actions
    }
}

fn is_final(action: &FaultAction) -> bool {
    !matches!(
        action,
        FaultAction::Pass
            | FaultAction::Delay { .. }
            | FaultAction::Hold
            | FaultAction::HoldAnswer
            | FaultAction::ExpireTokens
            | FaultAction::ExpireUrls
            | FaultAction::ExpireSessions
            | FaultAction::ExpireDelta
    )
}

fn chance(rule: &FaultRule, matched: u64) -> bool {
    let Some(probability) = rule.probability else {
        return true;
    };
    let draw = mix(rule.seed ^ matched.wrapping_mul(0x9e37_79b9)) >> 11;
    (draw as f64 / (1u64 << 53) as f64) < probability
}

fn matches(rule: &FaultRule, op: &str, method: &str, target: &str) -> bool {
    rule.op.as_deref().is_none_or(|o| o == op)
        && rule
            .method
            .as_deref()
            .is_none_or(|m| m.eq_ignore_ascii_case(method))
        && rule.path.as_deref().is_none_or(|p| glob(p, target))
}

/// Whether `text` contains the pieces of `pattern` between its stars, in order.
fn glob(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    for piece in pattern.split('*') {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_count_and_skip() {
        let plan = FaultPlan::default();
        plan.add(
            FaultRule::on("delta", FaultAction::status(503))
                .after(1)
                .times(2),
        );
        let hit = |op| !plan.decide(op, "GET", "/x").is_empty();
        assert!(!hit("children"));
        let hits: Vec<bool> = (0..5).map(|_| hit("delta")).collect();
        assert_eq!(hits, [false, true, true, false, false]);
    }

    #[test]
    fn delays_go_on_to_the_next_rule() {
        let plan = FaultPlan::default();
        plan.add(FaultRule::on("x", FaultAction::Delay { ms: 1 }));
        plan.add(FaultRule::on("x", FaultAction::DropAfter));
        plan.add(FaultRule::on("x", FaultAction::Stall));
        let actions = plan.decide("x", "GET", "/");
        assert_eq!(
            actions,
            [
                (1, FaultAction::Delay { ms: 1 }),
                (2, FaultAction::DropAfter)
            ]
        );
    }

    #[test]
    fn each_address_has_counters_of_its_own() {
        let plan = FaultPlan::default();
        let rule = FaultRule::on("patch", FaultAction::DropAfter).times(1);
        let id = plan.add(rule.each());
        let hit = |target| !plan.decide("patch", "PATCH", target).is_empty();
        assert!(hit("/a") && hit("/b"));
        assert!(!hit("/a") && !hit("/b"));
        assert_eq!(plan.hits(id), 2);
    }

    #[test]
    fn chance_is_repeatable() {
        let draw = |seed| {
            let plan = FaultPlan::default();
            let rule = FaultRule {
                probability: Some(0.5),
                seed,
                ..FaultRule::default()
            };
            plan.add(rule);
            (0..64)
                .map(|_| !plan.decide("a", "GET", "/").is_empty())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn patterns() {
        assert!(glob("/items/*/content", "/v1.0/drives/d/items/x/content"));
        assert!(!glob("/items/*/content", "/v1.0/drives/d/items/x/copy"));
    }
}

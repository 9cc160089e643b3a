//! The service charges every request in resource units and refuses when the minute's budget is
//! spent; refused requests cost as well.

use crate::error::ApiError;

/// Resource units spent in the current minute.
#[derive(Default)]
pub(crate) struct Bucket {
    minute: i64,
    spent: u32,
}

/// Announced from this share of the budget on.
const WARN_PERCENT: u32 = 80;

impl Bucket {
    /// Charges a request; the headers to send along, or the refusal.
    pub(crate) fn charge(
        &mut self,
        cost: u32,
        limit: u32,
        now_ms: i64,
    ) -> Result<Vec<(&'static str, String)>, ApiError> {
        let minute = now_ms.div_euclid(60_000);
        if minute != self.minute {
            *self = Bucket { minute, spent: 0 };
        }
        self.spent = self.spent.saturating_add(cost);
        let reset = (60_000 - now_ms.rem_euclid(60_000)).div_euclid(1000) + 1;
        let headers = vec![
            ("ratelimit-limit", limit.to_string()),
            (
                "ratelimit-remaining",
                limit.saturating_sub(self.spent).to_string(),
            ),
            ("ratelimit-reset", reset.to_string()),
        ];
        if self.spent > limit {
            let mut error = ApiError::new(429, "activityLimitReached", "Too many requests.")
                .inner("throttledRequest")
                .header("retry-after", reset.to_string());
            error.headers.extend(headers);
            return Err(error);
        }
        let loud = u64::from(self.spent) * 100 >= u64::from(limit) * u64::from(WARN_PERCENT);
        Ok(if loud { headers } else { Vec::new() })
    }
}

/// What a named operation costs.
pub(crate) fn cost(op: &str, query: &str) -> u32 {
    match op {
        "permissions" | "invite" => 5,
        _ if query.contains("permissions") => 5,
        "delta" if query.contains("token=") => 1,
        "item" | "download" | "content" | "drive" | "user" | "socketio" => 1,
        _ => 2,
    }
}

//! `onedrivefs doctor`.

use serde_json::json;

use super::DoctorArgs;
use crate::doctor::{self, Check, Verdict};
use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};

/// Checks everything and says what to do about what is wrong.
pub(crate) async fn run(args: &DoctorArgs) -> Outcome {
    let checks = doctor::examine().await;
    if args.json {
        let values: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({
                    "check": check.name,
                    "verdict": check.verdict,
                    "detail": check.detail,
                    "next": check.next,
                })
            })
            .collect();
        output::json(&values)?;
    } else {
        for check in &checks {
            show(check)?;
        }
    }
    let failed = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("doctor", "1 check failed")),
        _ => Err(Failure::new("doctor", format!("{failed} checks failed"))),
    }
}

fn show(check: &Check) -> Outcome {
    let verdict = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    output::line(format!(
        "{verdict}  {}: {}",
        check.name,
        printable(&check.detail)
    ))?;
    match &check.next {
        Some(next) => output::line(format!("      next: {next}")),
        None => Ok(()),
    }
}

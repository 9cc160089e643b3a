//! `onedrivefs doctor`.

use std::path::Path;

use serde_json::{Value, json};

use super::DoctorArgs;
use crate::config::Layer;
use crate::doctor::{self, Check, Verdict, network, report};
use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::{Dirs, absolute};

/// Checks everything and says what to do about what is wrong.
pub(crate) async fn run(args: &DoctorArgs) -> Outcome {
    if args.network {
        return hosts(args.json).await;
    }
    let checks = doctor::examine().await;
    if let Some(path) = &args.report {
        return write_report(&absolute(path)?, &checks).await;
    }
    if args.json {
        output::json(&checks.iter().map(as_json).collect::<Vec<_>>())?;
    } else {
        for check in &checks {
            show(check)?;
        }
    }
    judge(&checks)
}

/// Fails when a check did.
fn judge<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Outcome {
    let failed = checks
        .into_iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::new("doctor", "1 check failed")),
        _ => Err(Failure::new("doctor", format!("{failed} checks failed"))),
    }
}

/// Prints the hosts to allow, and whether those with a certain name answer.
async fn hosts(as_json: bool) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = Layer::load(&dirs.config_file)?;
    let mut found = Vec::new();
    for host in network::hosts(&dirs, &config)? {
        let check = network::try_host(&config, &host).await;
        found.push((host, check));
    }
    if as_json {
        let values = found.iter().map(|(host, check)| {
            json!({
                "host": host.name,
                "port": host.url.as_ref().and_then(url::Url::port_or_known_default).unwrap_or(443),
                "purpose": host.purpose,
                "verdict": check.as_ref().map(|check| check.verdict),
                "detail": check.as_ref().map(|check| check.detail.clone()),
            })
        });
        output::json(&values.collect::<Vec<_>>())?;
    } else {
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|(host, check)| {
                let state = match check {
                    None => "not tried: any name below",
                    Some(check) if check.verdict == Verdict::Fail => "NO ANSWER",
                    Some(_) => "answers",
                };
                vec![host.name.clone(), state.to_owned(), host.purpose.to_owned()]
            })
            .collect();
        output::raw(&output::table(&["HOST", "STATE", "NEEDED FOR"], &rows))?;
        output::note(
            "All of them by HTTPS on port 443, without caching. Those of the bytes of files are handed \
             out by Graph and begin with names of the organization.",
        );
        for check in found.iter().filter_map(|(_, check)| check.as_ref()) {
            if check.verdict == Verdict::Fail {
                show(check)?;
            }
        }
    }
    judge(found.iter().filter_map(|(_, check)| check.as_ref()))
}

async fn write_report(path: &Path, checks: &[Check]) -> Outcome {
    report::write(path, checks).await?;
    output::line(format!("Written to {}.", path.display()))?;
    output::note(
        "It names no person, file, tenant or secret; have a look at it before you send it anyway.",
    );
    Ok(())
}

fn as_json(check: &Check) -> Value {
    json!({
        "check": check.name,
        "verdict": check.verdict,
        "detail": check.detail,
        "next": check.next,
    })
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

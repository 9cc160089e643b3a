//! `onedrivefs demo`: the real file system on a simulated service inside this process.

use std::fs;
use std::io;
use std::path::Path;

use onedrivefs_core::Timestamp;
use onedrivefs_graph::auth::{TokenSet, TokenStore};
use onedrivefs_graph::{AuthConfig, GraphClient};
use onedrivefs_sim::{SimConfig, Simulator, sample};

use super::DemoArgs;
use onedrivefs_sync::Oneself;

use crate::account::DriveRecord;
use crate::config::{Endpoints, Layer};
use crate::connect::{self, Patience, explain_graph};
use crate::daemon::{self, Access, Common, Plan};
use crate::failure::{Explain, Failure, Outcome};
use crate::paths::{AccountName, Dirs, absolute};

/// The demonstration's application; the simulator accepts any.
const CLIENT_ID: &str = "onedrivefs-demo";

/// Lifetime of the demonstration's token in seconds: a year, so that nobody ever signs in.
const TOKEN_LIFE_S: i64 = 365 * 24 * 3600;

/// Most files that can be generated: each takes memory in the simulator.
const FILES_MAX: u64 = 5_000_000;

/// Mounts a simulated drive until it is unmounted; nothing of it is left afterwards.
pub(crate) async fn run(args: &DemoArgs) -> Outcome {
    if args.files > FILES_MAX {
        return Err(Failure::usage(
            "demo",
            format!("at most {FILES_MAX} files can be generated"),
        ));
    }
    let mountpoint = absolute(&args.mountpoint)?;
    let scratch = tempfile::Builder::new()
        .prefix("onedrivefs-demo-")
        .tempdir()
        .explain(|| "making a temporary directory".to_owned())
        .map_err(|failure| failure.next("set TMPDIR to a directory that can be written to"))?;
    let simulator = simulate(scratch.path(), args.files).await?;
    let dirs = Dirs::below(scratch.path(), Dirs::from_env()?.runtime);
    let config = configuration(&simulator)?;
    let graph = signed_in(&simulator, &config)?;
    let drive = look_up(&graph).await?;
    let oneself = Oneself {
        person: graph.me().await.ok().map(|me| me.id),
        own_drive: true,
        ..Oneself::default()
    };
    let created = create_mountpoint(&mountpoint)?;
    let outcome = daemon::serve(Plan {
        sign_in: None,
        warns: false,
        common: Common::default(),
        dirs,
        account: demo_account()?,
        oneself,
        drive,
        folder: None,
        again: None,
        is_file: false,
        graph,
        config,
        tree: false,
        access: Access {
            read_only: false,
            read_only_elsewhere: false,
            allow_other: false,
        },
        greeting: Some(greeting(&mountpoint)),
        mountpoint: mountpoint.clone(),
    })
    .await;
    simulator.shutdown().await;
    if created {
        // Left alone when somebody put something there meanwhile.
        drop(fs::remove_dir(&mountpoint));
    }
    outcome
}

/// Each demonstration is an account of its own, so that several can run.
fn demo_account() -> Outcome<AccountName> {
    format!("demo-{}", std::process::id())
        .parse()
        .map_err(|error: String| Failure::new("demo", error))
}

async fn simulate(scratch: &Path, files: u64) -> Outcome<Simulator> {
    let spool = scratch.join("simulator");
    fs::create_dir(&spool).explain(|| format!("writing {}", spool.display()))?;
    let mut config = SimConfig {
        spool_dir: Some(spool),
        ..SimConfig::default()
    };
    config.knobs.token_ttl_s = TOKEN_LIFE_S;
    let simulator = Simulator::start(config)
        .await
        .explain(|| "starting the simulated service".to_owned())?;
    let drive = simulator.default_drive();
    sample::populate(&drive)
        .and_then(|()| sample::populate_many(&drive, files))
        .explain(|| "filling the simulated drive".to_owned())?;
    Ok(simulator)
}

/// The built-in settings with the simulator's addresses. What is configured for real accounts,
/// such as a proxy, does not apply.
fn configuration(simulator: &Simulator) -> Outcome<Layer> {
    let parse = |url: String| {
        url::Url::parse(&url)
            .map(Some)
            .explain(|| "reaching the simulated service".to_owned())
    };
    Ok(Layer {
        endpoints: Endpoints {
            graph: parse(simulator.graph_url())?,
            login: parse(simulator.login_url())?,
        },
        ..Layer::default()
    })
}

fn signed_in(simulator: &Simulator, config: &Layer) -> Outcome<GraphClient> {
    let now = Timestamp::now();
    let life_nanos = TOKEN_LIFE_S.saturating_mul(1_000_000_000);
    let store = TokenStore::memory();
    store
        .save(&TokenSet {
            access_token: simulator.access_token().into(),
            refresh_token: None,
            issued_at: now,
            expires_at: Timestamp::from_nanos(now.as_nanos().saturating_add(life_nanos)),
            scope: Vec::new(),
        })
        .map_err(|error| explain_graph("demo", error))?;
    let auth = AuthConfig::new(CLIENT_ID, "common", connect::endpoints(config, "")?);
    connect::with_store(
        &auth,
        connect::http_options(config, Patience::Daemon),
        store,
    )
}

async fn look_up(graph: &GraphClient) -> Outcome<DriveRecord> {
    let drive = graph
        .my_drive()
        .await
        .map_err(|error| explain_graph("reading the simulated drive", error))?;
    Ok(DriveRecord {
        id: drive.id,
        kind: drive.kind,
        name: drive.name,
        own: true,
        mailbox: None,
        site: None,
        site_default: false,
    })
}

/// Creates the mountpoint if it is missing; tells whether it did. A mountpoint that a killed
/// daemon left behind counts as existing.
fn create_mountpoint(mountpoint: &Path) -> Outcome<bool> {
    match fs::symlink_metadata(mountpoint) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(mountpoint)
                .explain(|| format!("creating {}", mountpoint.display()))
                .map_err(|failure| failure.next("choose a directory you can write to"))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn greeting(mountpoint: &Path) -> String {
    let place = mountpoint.display();
    format!(
        "\nA simulated OneDrive is mounted at {place}. Nothing leaves this machine. In another \
         terminal:\n\n  \
         ls -R {place}\n  \
         cat {place}/Welcome.md\n  \
         tail -c 4096 {place}/Videos/holiday-2025.mp4 | xxd | head\n  \
         cp -r /etc/fonts {place}/Projects/ ; onedrivefs status\n  \
         onedrivefs sync {place}\n  \
         onedrivefs unmount {place}\n\n\
         Ctrl-C ends it too, and leaves nothing behind."
    )
}

//! `onedrivefs mount`.

use std::io::{self, IsTerminal};
use std::path::Path;

use onedrivefs_graph::Feature;

use super::MountArgs;
use crate::account::{self, SignInKind};
use crate::all;
use crate::config::{Layer, MountLayer};
use crate::connect::{self, Patience};
use crate::daemon::{self, Access, Common, Plan};
use crate::failure::Outcome;
use crate::paths::{Dirs, absolute};
use crate::root::{Again, Root, Selection, Unready};
use crate::sign_in::SignInReport;
use crate::tree;

/// Mounts a drive and serves it until it is unmounted.
pub(crate) async fn run(args: MountArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = layers(&args, Layer::load(&dirs.config_file)?)?;
    let Some(mountpoint) = &args.mountpoint else {
        return all::serve(dirs, config).await;
    };
    let mountpoint = absolute(mountpoint)?;
    let mut wanted = wanted(args, mount_layer(&config, &mountpoint));
    let (account, mut record) = account::choose(&dirs, &config, wanted.account.as_ref())?;
    let tree = wanted.tree == Some(true);
    if !wanted.names_whose() && !tree && record.sign_in == SignInKind::App {
        wanted.user.clone_from(&record.mailbox);
    }
    let graph = connect::client(&dirs, &config, &account, &record, Patience::Daemon)?;
    let selection = Selection::of(&wanted);
    let root = if tree {
        Root::whole(tree::root())
    } else {
        selection.check(&account, &record)?;
        selection
            .resolve(&dirs, &account, &mut record, &graph, Unready::Wait)
            .await?
    };
    let forbidden = record.permissions().read_only();
    if forbidden {
        tracing::info!("The sign-in has no permission to change anything; the mount is read-only");
    }
    daemon::serve(Plan {
        sign_in: Some(SignInReport::new(&dirs, &config, &account)),
        warns: true,
        common: Common::default(),
        dirs,
        account,
        oneself: record.oneself(&root.drive),
        drive: root.drive,
        folder: root.folder,
        again: Again::of(&selection, &record).filter(|_| !tree && !root.is_file),
        is_file: root.is_file,
        tree,
        graph,
        config,
        access: Access {
            read_only: wanted.read_only.unwrap_or(false) || forbidden,
            read_only_elsewhere: !record.permissions().allow(Feature::WriteOthers),
            allow_other: wanted.allow_other.unwrap_or(false),
        },
        greeting: io::stderr().is_terminal().then(|| greeting(&mountpoint)),
        mountpoint,
    })
    .await
}

fn greeting(mountpoint: &Path) -> String {
    format!(
        "Mounted at {0}. Ctrl-C ends it, as does `onedrivefs unmount {0}` elsewhere.",
        mountpoint.display()
    )
}

/// The command line over the environment and the file.
fn layers(args: &MountArgs, below: Layer) -> Outcome<Layer> {
    let mut layer = below;
    for option in &args.options {
        layer = Layer::from_option(option)?.over(layer);
    }
    let flags = Layer {
        cache_size: args.cache_size,
        poll: args.poll,
        ..Layer::default()
    };
    Ok(flags.over(layer))
}

/// What the configuration says about a mountpoint.
fn mount_layer(config: &Layer, mountpoint: &Path) -> MountLayer {
    config
        .mounts
        .iter()
        .find(|(path, _)| path.as_path() == mountpoint)
        .map(|(_, layer)| layer.clone())
        .unwrap_or_default()
}

/// The command line over what the configuration says about the mountpoint. A drive named on the
/// command line replaces the configured one altogether.
fn wanted(args: MountArgs, below: MountLayer) -> MountLayer {
    let line = MountLayer {
        drive: args.drive,
        user: args.user,
        site: args.site,
        library: args.library,
        team: args.team,
        channel: args.channel,
        shared: args.shared,
        app_folder: args.app_folder.then_some(true),
        tree: args.tree.then_some(true),
        folder: args.folder,
        ..MountLayer::default()
    };
    let root = if line.names_root() {
        line
    } else {
        below.clone()
    };
    MountLayer {
        account: args.account.account.or(below.account),
        read_only: Some(args.read_only || below.read_only.unwrap_or(false)),
        allow_other: Some(args.allow_other || below.allow_other.unwrap_or(false)),
        ..root
    }
}

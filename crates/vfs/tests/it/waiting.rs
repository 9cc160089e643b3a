//! Waiting for a folder that is not known.

use std::ffi::OsStr;
use std::time::Duration;

use onedrivefs_core::Ino;
use onedrivefs_sim::{FaultAction, FaultRule};
use onedrivefs_store::StoreError;
use onedrivefs_sync::Net;
use onedrivefs_vfs::{Entry, VfsError};

use crate::fixture::{Mount, settle};

/// Less than a folder is waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A mount with a folder that nobody has listed yet.
async fn with_unknown_folder() -> (Mount, Ino) {
    let mount = Mount::new().await;
    mount.drive.put("/dir/file", "text").expect("file");
    mount.sync().await;
    let dir = mount.ino("/dir");
    let forgotten = mount.engine.store.write(|tx| {
        let mut item = tx.item(dir)?.expect("folder");
        item.children_known = false;
        tx.update_item(&item)?;
        Ok::<_, StoreError>(())
    });
    forgotten.expect("forgotten");
    (mount, dir)
}

async fn look(mount: &Mount, dir: Ino) -> Result<Option<Entry>, VfsError> {
    settle(mount.vfs.lookup(dir, OsStr::new("none"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_not_waited_for_when_the_network_goes_and_when_there_is_none() {
    let (mount, dir) = with_unknown_folder().await;
    let hold = |op| mount.sim.faults().add(FaultRule::on(op, FaultAction::Hold));
    let (held, _delta) = (hold("children"), hold("delta"));
    let gone = async {
        let asked = || mount.sim.faults().hits(held) > 0;
        mount.until("the folder is asked for", asked).await;
        // The request is on its way all the same.
        mount.engine.net.set(Net::Offline);
    };
    let (found, ()) = tokio::join!(tokio::time::timeout(AT_ONCE, look(&mount, dir)), gone);
    let found = found.expect("at once");
    assert!(matches!(found, Err(VfsError::Offline)), "{found:?}");
    let found = tokio::time::timeout(AT_ONCE, look(&mount, dir)).await;
    let found = found.expect("at once");
    assert!(matches!(found, Err(VfsError::Offline)), "{found:?}");

    mount.sim.faults().clear();
    mount.engine.net.set(Net::Online);
    assert!(look(&mount, dir).await.expect("listed").is_none());
}

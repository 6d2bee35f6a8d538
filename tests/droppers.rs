//! Somebody else drops files: what `docs/OPERATIONS.md` says of owners, modes and the group, done with two users. It takes
//! root to be two users.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a scenario fails loudly, in its helpers too"
)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::Value;
use sqlx::{ConnectOptions, Connection};
use support::{Configured, Daemon, Site, eventually, list, number, quick_tenant, simulate};
use sweepd::simulator::fleet;

/// A user beside the service's: not root, and not it.
const ANN: u32 = 65_533;

/// Runs a line of shell as Ann, in these groups beside her own.
fn as_ann(groups: &str, line: &str) -> bool {
    let words = ["--reuid", "65533", "--regid", "65533", "--groups", groups, "sh", "-c", line];
    Command::new("setpriv").args(words).status().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_the_group_drops_files_and_reads_receipts_and_nobody_else_does() {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(46, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let mut daemon = Daemon::new(site);
    let Some(service) = daemon.run_as_somebody_else() else {
        return eprintln!("SKIPPED: only root can be two users");
    };
    // As `sweepd.tmpfiles` and the unit's `UMask` have it.
    let (state, incoming) = (daemon.site.state(), daemon.site.spool("incoming"));
    fs::create_dir_all(&incoming).unwrap();
    for (folder, mode) in [(&state, 0o750), (&daemon.site.spool(""), 0o750), (&incoming, 0o3770)] {
        std::os::unix::fs::chown(folder, Some(service), Some(service)).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(daemon.site.path(), Permissions::from_mode(0o755)).unwrap();
    let service = service.to_string();
    let with_umask = ["sh", "-c", "umask 027 && exec \"$0\" \"$@\""].map(str::to_owned);
    daemon.through = with_umask.into_iter().chain(std::mem::take(&mut daemon.through)).collect();
    // As an older version has left it.
    fs::set_permissions(&incoming, Permissions::from_mode(0o2770)).unwrap();
    daemon.start().await;
    eventually("word of it", || daemon.has_logged("the drop folder is not sticky").then_some(())).await;
    assert!(daemon.terminate().await.success());
    fs::set_permissions(&incoming, Permissions::from_mode(0o3770)).unwrap();
    daemon.start().await;
    daemon.told(&["pause"]);
    assert!(!daemon.has_logged("is not sticky"));

    let lists = tempfile::tempdir().unwrap();
    fs::set_permissions(lists.path(), Permissions::from_mode(0o755)).unwrap();
    let source = lists.path().join("fleet.txt");
    fs::write(&source, list(&fleet(2, 3, "fleet"))).unwrap();
    let copy = |umask: &str, name: &str| {
        let target = incoming.join(name);
        format!("umask {umask} && cat {} > {}.part && mv {1}.part {1}", source.display(), target.display())
    };
    assert!(!as_ann("65533", &copy("022", "stranger.txt")), "who is not in the group may not even pass");
    assert!(as_ann(&service, &copy("027", "fleet.txt")));
    assert_eq!(number(&daemon.receipt("processed/fleet.txt").await, "queued"), 3);

    let taken = fs::metadata(daemon.site.spool("processed/fleet.txt")).unwrap();
    assert_eq!(taken.uid().to_string(), service, "our own copy: she can change it no more");
    let may_read = |groups: &str, relative: &str| {
        as_ann(groups, &format!("cat {} > /dev/null 2>&1", daemon.site.spool(relative).display()))
    };
    assert!(may_read(&service, "processed/fleet.txt.receipt.json") && may_read(&service, "processed/fleet.txt"));
    assert!(!may_read("65533", "processed/fleet.txt.receipt.json"), "nobody else reads it");
    assert!(!as_ann(&service, &format!("cat {} > /dev/null 2>&1", state.join("sweepd.db").display())), "nor the queue");
    assert!(!as_ann(&service, &format!("touch {} 2> /dev/null", daemon.site.spool("processed/mine").display())));

    // What another member has dropped, or the service made, is not hers to move: the folder is sticky.
    fs::write(incoming.join("bobs.part"), "not whole yet").unwrap();
    std::os::unix::fs::chown(incoming.join("bobs.part"), Some(ANN + 1), service.parse().ok()).unwrap();
    fs::set_permissions(incoming.join("bobs.part"), Permissions::from_mode(0o660)).unwrap();
    let bobs = incoming.join("bobs.part");
    assert!(!as_ann(&service, &format!("mv {0} {0}.csv 2> /dev/null", bobs.display())));
    assert!(!as_ann(&service, &format!("rm -f {} 2> /dev/null", bobs.display())));
    fs::remove_file(bobs).unwrap();

    // With a umask that leaves nothing to the group, the service cannot read it, and says so.
    assert!(as_ann(&service, &copy("077", "closed.txt")));
    eventually("word of it", || daemon.has_logged("Permission denied").then_some(())).await;
    assert!(incoming.join("closed.txt").exists());

    // `sweepd submit` leaves something to the group whatever her umask is.
    let id = fleet(3, 1, "submitted")[0].id.to_string();
    let (binary, config) = (daemon.site.path().join("sweepd"), daemon.site.config());
    let submit = format!("umask 077 && {} --config {} submit --wait {id}", binary.display(), config.display());
    assert!(as_ann(&service, &submit));
    assert!(daemon.jobs().iter().any(|job| job["machine_id"] == *id));

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(state.join("sweepd.db")).read_only(true);
    let mut connection = options.connect().await.unwrap();
    let body: String = sqlx::query_scalar("SELECT body FROM events WHERE kind = 'file_taken' ORDER BY seq LIMIT 1")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let taken: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(number(&taken["observed"], "uid"), u64::from(ANN), "the record says whose it was: {taken}");
}

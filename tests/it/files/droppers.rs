//! Somebody else drops files: what `docs/OPERATIONS.md` says of owners, modes and the group, done with two users. It takes
//! root to be two users.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::support::{Configured, Daemon, Site, eventually, list, number, quick_tenant, simulate};
use serde_json::Value;
use sqlx::{ConnectOptions, Connection};
use sweepd::simulator::fleet;

/// A user beside the service's: not root, and not it.
const ANN: u32 = 65_533;

/// Runs a line of shell as Ann, in these groups beside her own.
fn as_ann(groups: &str, line: &str) -> bool {
    let words = ["--reuid", "65533", "--regid", "65533", "--groups", groups, "sh", "-c", line];
    Command::new("setpriv").args(words).status().unwrap().success()
}

/// Gives a folder to the service, with this group and mode.
fn own(folder: &Path, service: u32, group: u32, mode: u32) {
    fs::create_dir_all(folder).unwrap();
    std::os::unix::fs::chown(folder, Some(service), Some(group)).unwrap();
    fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
}

/// A daemon whose state folder belongs to the service, as `sweepd.tmpfiles` and the unit's `UMask` have it. `None`
/// without root: only root can be two users.
fn daemon_of_the_service(site: Site) -> Option<(Daemon, u32)> {
    let mut daemon = Daemon::new(site);
    let service = daemon.run_as_somebody_else()?;
    own(&daemon.site.state(), service, service, 0o750);
    own(&daemon.site.spool(""), service, service, 0o750);
    own(&daemon.site.spool("incoming"), service, service, 0o3770);
    fs::set_permissions(daemon.site.path(), Permissions::from_mode(0o755)).unwrap();
    let with_umask = ["sh", "-c", "umask 027 && exec \"$0\" \"$@\""].map(str::to_owned);
    daemon.through = with_umask.into_iter().chain(std::mem::take(&mut daemon.through)).collect();
    Some((daemon, service))
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_group_do_not_move_what_others_drop() {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(46, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let Some((mut daemon, service)) = daemon_of_the_service(site) else {
        return eprintln!("SKIPPED: only root can be two users");
    };
    let incoming = daemon.site.spool("incoming");
    // As an older version has left it.
    fs::set_permissions(&incoming, Permissions::from_mode(0o2770)).unwrap();
    daemon.start().await;
    eventually("word of it", || daemon.has_logged("the drop folder is not sticky").then_some(())).await;
    assert!(daemon.terminate().await.success());
    fs::set_permissions(&incoming, Permissions::from_mode(0o3770)).unwrap();
    daemon.start().await;
    assert!(!daemon.has_logged("is not sticky"));

    let bobs = incoming.join("bobs.part");
    fs::write(&bobs, "not whole yet").unwrap();
    std::os::unix::fs::chown(&bobs, Some(ANN + 1), Some(service)).unwrap();
    fs::set_permissions(&bobs, Permissions::from_mode(0o660)).unwrap();
    let (group, bobs) = (service.to_string(), bobs.to_str().unwrap());
    assert!(!as_ann(&group, &format!("mv {bobs} {bobs}.csv 2> /dev/null")));
    assert!(!as_ann(&group, &format!("rm -f {bobs} 2> /dev/null")));
}

/// Two tenants, each with a group of droppers of its own.
#[tokio::test(flavor = "multi_thread")]
async fn droppers_of_one_tenant_read_and_reach_no_other() {
    const GROUPS: [u32; 2] = [61_001, 61_002];
    let (contoso, fabrikam) = (quick_tenant(fleet(1, 1, "nobody")), quick_tenant(fleet(2, 1, "nobody")));
    let simulator = simulate(47, vec![contoso.clone(), fabrikam.clone()]).await;
    let configured = [Configured::of("contoso", &contoso), Configured::of("fabrikam", &fabrikam)];
    let Some((mut daemon, service)) = daemon_of_the_service(Site::new(&simulator, &configured, "")) else {
        return eprintln!("SKIPPED: only root can be two users");
    };
    for (tenant, group) in ["contoso", "fabrikam"].into_iter().zip(GROUPS) {
        own(&daemon.site.spool("incoming").join(tenant), service, group, 0o3770);
    }
    // The service reads what either group drops; the droppers pass to their own folders.
    let at = daemon.through.iter().position(|word| word == "--clear-groups").unwrap();
    daemon.through.splice(at..=at, ["--groups".to_owned(), GROUPS.map(|group| group.to_string()).join(",")]);
    for folder in [daemon.site.state(), daemon.site.spool(""), daemon.site.spool("incoming")] {
        fs::set_permissions(folder, Permissions::from_mode(0o751)).unwrap();
    }
    daemon.start().await;
    for place in ["processed", "rejected", "results"] {
        fs::set_permissions(daemon.site.spool(place), Permissions::from_mode(0o751)).unwrap();
    }
    daemon.told(&["pause"]);
    let drop = |tenant: &str, name: &str, content: &str| {
        let target = daemon.site.spool("incoming").join(tenant).join(name);
        format!("umask 027 && printf '{content}\\n' > {0}.part && mv {0}.part {0}", target.to_str().unwrap())
    };
    let id = fleet(3, 1, "fleet")[0].id.to_string();
    let groups = GROUPS.map(|group| group.to_string());
    assert!(as_ann(&groups[0], &drop("contoso", "list.txt", &id)));
    assert_eq!(number(&daemon.receipt("processed/contoso/list.txt").await, "queued"), 1);
    assert!(!as_ann(&groups[0], &format!("{{ {}; }} 2> /dev/null", drop("fabrikam", "list.txt", &id))));
    assert!(as_ann(&groups[0], &drop("contoso", "useless.txt", "nonsense")));
    daemon.receipt("rejected/contoso/useless.txt").await;
    for relative in [
        "processed/contoso/list.txt",
        "processed/contoso/list.txt.receipt.json",
        "rejected/contoso/useless.txt",
        "rejected/contoso/useless.txt.receipt.json",
    ] {
        let read = format!("cat {} > /dev/null 2>&1", daemon.site.spool(relative).to_str().unwrap());
        assert!(as_ann(&groups[0], &read), "her own: {relative}");
        assert!(!as_ann(&groups[1], &read), "another tenant's: {relative}");
    }
    // The top is no way around: whoever may write there names no tenant.
    let named = format!("{{\"tenant\":\"fabrikam\",\"machines\":[\"{id}\"]}}");
    daemon.site.put("named.json", &named);
    let receipt = daemon.receipt("rejected/named.json").await;
    assert!(receipt["reason"].as_str().unwrap().contains("intake.named_tenants"), "{receipt}");
    // Unless the operator says so.
    let text = fs::read_to_string(daemon.site.config()).unwrap();
    daemon.site.write_config(&text.replace("[intake]", "[intake]\nnamed_tenants = true"));
    assert!(daemon.terminate().await.success());
    daemon.start().await;
    daemon.site.put("again.json", &named);
    assert_eq!(number(&daemon.receipt("processed/again.json").await, "queued"), 1);
}

/// What a dropper puts there by the hundred costs a few lines, and nobody else's readiness.
#[tokio::test(flavor = "multi_thread")]
async fn noise_of_a_dropper_is_bounded_and_leaves_the_daemon_ready() {
    const USELESS: u64 = 60;
    let options = [quick_tenant(fleet(1, 1, "nobody")), quick_tenant(fleet(2, 1, "nobody"))];
    let simulator = simulate(48, options.to_vec()).await;
    let configured = [Configured::of("contoso", &options[0]), Configured::of("fabrikam", &options[1])];
    let site = Site::new(&simulator, &configured, "max_files_per_hour = 70");
    let Some((mut daemon, service)) = daemon_of_the_service(site) else {
        return eprintln!("SKIPPED: only root can be two users");
    };
    for (tenant, mode) in [("contoso", 0o3770), ("fabrikam", 0o000)] {
        own(&daemon.site.spool("incoming").join(tenant), service, service, mode);
    }
    daemon.start().await;
    daemon.told(&["pause"]);
    let group = service.to_string();
    let incoming = daemon.site.spool("incoming/contoso");
    let many = "cd $0 && umask 027 && for n in $(seq 300); do ln -s /nowhere $n.lst; done; for n in $(seq 60); do echo useless $n > $n.part; mv $n.part $n.txt; done";
    assert!(as_ann(&group, &many.replace("$0", incoming.to_str().unwrap())));
    eventually("end of them", || (daemon.site.names_in("rejected/contoso").len() as u64 == 2 * USELESS).then_some(()))
        .await;
    let lines = |daemon: &Daemon, what: &str| daemon.log().iter().filter(|line| line["message"] == what).count();
    assert_eq!(lines(&daemon, "rejected"), 20);
    eventually("word of the links", || daemon.has_logged("no regular file").then_some(())).await;
    assert!(daemon.log().iter().filter(|line| line.to_string().contains("no regular file")).count() <= 2);
    eventually("readiness in spite of fabrikam's folder", || (daemon.get("/readyz").0 == 200).then_some(())).await;

    // Ten more that can be used are taken; what is over waits.
    let lists: String = (0..15).map(|n| fleet(100 + n, 1, "list")[0].id.to_string() + " ").collect();
    let more = format!(
        "cd {} && umask 027 && for id in {lists}; do echo $id > $id.part; mv $id.part list-$id.txt; done",
        incoming.to_str().unwrap()
    );
    assert!(as_ann(&group, &more));
    eventually("word of those that wait", || daemon.has_logged("files wait: their owner drops more").then_some(()))
        .await;
    eventually("the ten", || (daemon.jobs().len() == 10).then_some(())).await;
    let waiting = incoming
        .read_dir()
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("list-"));
    assert_eq!(waiting.count(), 5);
    assert!(daemon.get("/metrics").1.contains("sweepd_intake_over_limit_files 5"));

    // At its end it says how many there were; the record adds up.
    assert!(daemon.terminate().await.success());
    assert!(daemon.has_logged("more files were rejected"));
    let record = daemon.told(&["audit", "export"]);
    let rejected: Vec<Value> = record
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["kind"] == "file_rejected")
        .map(|event| serde_json::from_str(event["body"].as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(rejected.len(), 21, "twenty, and the rest together");
    assert_eq!(rejected.iter().map(|body| body["files"].as_u64().unwrap_or(1)).sum::<u64>(), USELESS);
    assert!(rejected.iter().all(|body| number(body, "uid") == u64::from(ANN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_the_group_drops_files_and_reads_receipts_and_nobody_else_does() {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(46, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let Some((mut daemon, service)) = daemon_of_the_service(site) else {
        return eprintln!("SKIPPED: only root can be two users");
    };
    let (state, incoming, service) = (daemon.site.state(), daemon.site.spool("incoming"), service.to_string());
    daemon.start().await;
    daemon.told(&["pause"]);

    let lists = tempfile::tempdir().unwrap();
    fs::set_permissions(lists.path(), Permissions::from_mode(0o755)).unwrap();
    let source = lists.path().join("fleet.txt");
    fs::write(&source, list(&fleet(2, 3, "fleet"))).unwrap();
    let copy = |umask: &str, name: &str| {
        let target = incoming.join(name);
        format!(
            "umask {umask} && cat {} > {}.part && mv {1}.part {1}",
            source.to_str().unwrap(),
            target.to_str().unwrap()
        )
    };
    assert!(!as_ann("65533", &copy("022", "stranger.txt")), "who is not in the group may not even pass");
    assert!(as_ann(&service, &copy("027", "fleet.txt")));
    assert_eq!(number(&daemon.receipt("processed/fleet.txt").await, "queued"), 3);

    let taken = fs::metadata(daemon.site.spool("processed/fleet.txt")).unwrap();
    assert_eq!(taken.uid().to_string(), service, "our own copy: she can change it no more");
    let may_read = |groups: &str, relative: &str| {
        as_ann(groups, &format!("cat {} > /dev/null 2>&1", daemon.site.spool(relative).to_str().unwrap()))
    };
    assert!(may_read(&service, "processed/fleet.txt.receipt.json") && may_read(&service, "processed/fleet.txt"));
    assert!(!may_read("65533", "processed/fleet.txt.receipt.json"), "nobody else reads it");
    assert!(
        !as_ann(&service, &format!("cat {} > /dev/null 2>&1", state.join("sweepd.db").to_str().unwrap())),
        "nor the queue"
    );
    assert!(!as_ann(
        &service,
        &format!("touch {} 2> /dev/null", daemon.site.spool("processed/mine").to_str().unwrap())
    ));

    // With a umask that leaves nothing to the group, the service cannot read it, and says so.
    assert!(as_ann(&service, &copy("077", "closed.txt")));
    eventually("word of it", || daemon.has_logged("Permission denied").then_some(())).await;
    assert!(incoming.join("closed.txt").exists());

    // `sweepd submit` leaves something to the group whatever her umask is.
    let id = fleet(3, 1, "submitted")[0].id.to_string();
    let (binary, config) = (daemon.site.path().join("sweepd"), daemon.site.config());
    let submit =
        format!("umask 077 && {} --config {} submit --wait {id}", binary.to_str().unwrap(), config.to_str().unwrap());
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

/// A tenant's own group, of which the service is no member: a folder that a dropper has put in the way of the daemon's.
#[tokio::test(flavor = "multi_thread")]
async fn a_droppers_folder_never_becomes_the_daemons() {
    const GROUP: u32 = 61_001;
    let (contoso, fabrikam) = (quick_tenant(fleet(1, 1, "nobody")), quick_tenant(fleet(2, 1, "nobody")));
    let simulator = simulate(48, vec![contoso.clone(), fabrikam.clone()]).await;
    let configured = [Configured::of("contoso", &contoso), Configured::of("fabrikam", &fabrikam)];
    let Some((mut daemon, service)) = daemon_of_the_service(Site::new(&simulator, &configured, "")) else {
        return eprintln!("SKIPPED: only root can be two users");
    };
    let theirs = daemon.site.spool("incoming/contoso");
    own(&theirs, service, GROUP, 0o3770);
    for folder in [daemon.site.state(), daemon.site.spool(""), daemon.site.spool("incoming")] {
        fs::set_permissions(folder, Permissions::from_mode(0o751)).unwrap();
    }
    let hers = theirs.join(".sweepd-shared.tmp");
    assert!(as_ann(&GROUP.to_string(), &format!("mkdir -m 0777 {}", hers.to_str().unwrap())));
    daemon.start().await;
    eventually("word of it", || daemon.has_logged("cannot get the group of their tenant's").then_some(())).await;
    for place in ["processed", "rejected", "results"] {
        let found = fs::metadata(daemon.site.spool(place).join("contoso")).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o022), (service, 0), "{place}");
    }
    assert_eq!(fs::metadata(hers).unwrap().uid(), ANN);
    assert_eq!(daemon.log_text().matches("cannot get the group of their tenant's").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_drops_too_much_of_waits_and_hides_nobody_elses() {
    const MANY: usize = 4500;
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(49, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "max_files_per_hour = 3");
    let Some((mut daemon, service)) = daemon_of_the_service(site) else {
        return eprintln!("SKIPPED: only root can be two users");
    };
    let incoming = daemon.site.spool("incoming");
    for (n, machine) in fleet(4, MANY, "many").iter().enumerate() {
        let path = incoming.join(format!("{n:04}.txt"));
        fs::write(&path, machine.id.to_string()).unwrap();
        std::os::unix::fs::chown(path, Some(ANN), Some(service)).unwrap();
    }
    daemon.start().await;
    daemon.told(&["pause"]);
    // More are older than a look tells of; root's own are newer.
    for n in 0..5 {
        daemon.site.put(&format!("roots-{n}.txt"), list(&fleet(5 + n, 1, "roots")));
    }
    for n in 0..5 {
        assert_eq!(number(&daemon.receipt(&format!("processed/roots-{n}.txt")).await, "queued"), 1, "no limit");
    }
    let taken = ["0000.txt", "0001.txt", "0002.txt"];
    for name in taken {
        daemon.receipt(&format!("processed/{name}")).await;
    }
    let waiting = format!("sweepd_intake_over_limit_files {}\n", MANY - taken.len());
    eventually("their number", || daemon.get("/metrics").1.contains(&waiting).then_some(())).await;
    let about = |line: &Value| line["message"].as_str().is_some_and(|message| message.contains("max_files_per_hour"));
    let lines: Vec<_> = daemon.log().into_iter().filter(about).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((number(&lines[0], "owner"), lines[0]["until"].is_string()), (u64::from(ANN), true), "{lines:?}");
    assert_eq!(daemon.site.waiting_files().len(), MANY - taken.len());
    assert_eq!(daemon.get("/readyz").1.matches("drop folder").count(), 0);
}

//! Commands of root in folders of the service user: they work as that user, so that a name which leads elsewhere by the
//! time it is used opens nothing that is root's. It takes root to be two users.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Configured, Daemon, Output, Site, eventually, list, number, quick_tenant, simulate, text};
use serde_json::Value;
use sweepd::simulator::{SimulatedMachine, Simulator, fleet};

const MARKER: &str = "marker";

/// A folder of root's that no other user may enter.
fn roots_own() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    folder
}

/// A state folder of the service user's, in a folder of root's, with a database: a daemon ran there as that user. The
/// configuration is everybody's to read, the secret root's alone. `None` where this test is not root.
async fn scene() -> Option<(Simulator, Daemon, Vec<SimulatedMachine>, u32)> {
    let machines = fleet(91, 6, "roots");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(91, vec![tenant.clone()]).await;
    let mut daemon = Daemon::new(Site::new(&simulator, &[Configured::of("contoso", &tenant)], ""));
    let Some(service) = daemon.run_as_somebody_else() else {
        eprintln!("skipped: needs root");
        return None;
    };
    daemon.start().await;
    daemon.told(&["pause"]);
    daemon.site.put("first.txt", list(&machines[..2]));
    daemon.receipt("processed/first.txt").await;
    assert!(daemon.terminate().await.success());
    let (path, secret) = (daemon.site.path().to_owned(), daemon.site.path().join("contoso-secret"));
    for (roots, mode) in [(&path, 0o755), (&daemon.site.config(), 0o644), (&secret, 0o600)] {
        chown(roots, Some(0), Some(0)).unwrap();
        fs::set_permissions(roots, Permissions::from_mode(mode)).unwrap();
    }
    // The test itself, as root, has dropped the list.
    for path in below(&daemon.site.state()) {
        std::os::unix::fs::lchown(&path, Some(service), Some(service)).unwrap();
    }
    // From here on, root starts it.
    daemon.through.clear();
    Some((simulator, daemon, machines, service))
}

/// A folder and all that is in it.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

fn assert_all_is_the_services(daemon: &Daemon, service: u32, after: &str) {
    for path in below(&daemon.site.state()) {
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (service, service), "{} after {after}", path.to_str().unwrap());
    }
}

/// Runs a line of shell as the service user.
fn as_service(service: u32, line: &str) -> std::process::Output {
    let id = service.to_string();
    let words = ["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", line];
    Command::new("setpriv").args(words).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_of_root_leaves_a_file_of_roots_behind() {
    let Some((_simulator, daemon, machines, service)) = scene().await else { return };
    let own = roots_own();
    let [source, backup] = ["machines.txt", "backup.db"].map(|name| own.path().join(name));
    fs::write(&source, list(&machines[2..4])).unwrap();
    let [source, backup] = [&source, &backup].map(|path| path.to_str().unwrap().to_owned());
    let id = machines[4].id.to_string();
    // The drop folder is gone: `submit` makes it anew.
    fs::remove_dir_all(daemon.site.spool("")).unwrap();
    let sweep = text(&daemon.lines(&["sweep", "list"])[0], "id").to_owned();
    for command in [
        &["submit", &source][..],
        &["submit", &id, "--priority", "high"],
        &["submit", "-", "--dry-run"],
        &["status"],
        &["forecast", "--machines", "10"],
        &["sweep", "list"],
        &["sweep", "show", &sweep],
        &["sweep", "export", &sweep],
        &["sweep", "cancel", &sweep, "--yes"],
        &["sweep", "retry", &sweep, "--yes"],
        &["job", "list"],
        &["job", "show", "1"],
        &["action", "list"],
        &["action", "export"],
        &["pause"],
        &["resume"],
        &["reconcile", "--yes"],
        &["audit", "verify"],
        &["audit", "export"],
        &["check"],
        &["check", "--online"],
        &["backup", &backup],
        &["restore", &backup, "--yes"],
    ] {
        let output = daemon.command_with_input(command, &list(&machines[5..]));
        assert_eq!(output.code, 0, "{command:?}: {}", output.stderr);
        assert_all_is_the_services(&daemon, service, &format!("{command:?}"));
    }
    let made = fs::metadata(&backup).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o777), (0, 0o600), "what root asked for is root's");
    assert_eq!(fs::read_dir(own.path()).unwrap().count(), 2, "and nothing is left beside it");
    let events = daemon.told(&["audit", "export"]);
    let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let restored = events.rfind(|event| event["kind"] == "restored").unwrap();
    let body: Value = serde_json::from_str(text(&restored, "body")).unwrap();
    assert_eq!(number(&body["by"], "uid"), 0, "the record says who it was: {restored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_started_by_root_is_the_service_user_and_keeps_what_only_root_may_read() {
    let Some((_simulator, mut daemon, machines, service)) = scene().await else { return };
    daemon.told(&["resume"]);
    daemon.start().await;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let numbers = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let id = service.to_string();
    for key in ["Uid:", "Gid:"] {
        assert_eq!(numbers(key), [&*id, &*id, &*id, &*id], "{key} real, effective, saved, of files");
    }
    assert_eq!(numbers("CapEff:"), ["0000000000000000"]);
    assert_eq!(numbers("CapPrm:"), ["0000000000000000"]);
    daemon.site.put("second.txt", list(&machines[2..]));
    // The secret was read before: it signs in.
    daemon.all_final(machines.len()).await;
    assert!(daemon.has_logged("root started the daemon in a folder of another user"), "{}", daemon.log_text());
    daemon.hang_up();
    eventually("word that the secret is root's", || daemon.has_logged("was started by root").then_some(())).await;
    let line = daemon.log().into_iter().find(|line| line.to_string().contains("was started by root")).unwrap();
    assert!(line.to_string().contains("Permission denied") && line.to_string().contains("restart it"), "{line}");
    assert!(daemon.terminate().await.success(), "and it went on under the old configuration");
    let not_ours = |path: &PathBuf| !path.ends_with("second.txt");
    for path in below(&daemon.site.state()).into_iter().filter(not_ours) {
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), service, "{}", path.to_str().unwrap());
    }
}

/// The service user, or who has taken it over, puts links where root's commands will work.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_state_folder_leads_no_command_of_root_out_of_it() {
    let Some((_simulator, mut daemon, machines, service)) = scene().await else { return };
    let own = roots_own();
    let marker = own.path().join("marker.txt");
    fs::write(&marker, MARKER).unwrap();
    fs::set_permissions(&marker, Permissions::from_mode(0o600)).unwrap();
    let (state, incoming) = (daemon.site.state(), daemon.site.spool("incoming"));
    let backup = daemon.site.path().join("backup.db");
    daemon.told(&["backup", backup.to_str().unwrap()]);
    let id = machines[0].id.to_string();
    let plant = |name: &Path, target: &Path| {
        let line = format!("rm -rf {0} && ln -s {1} {0}", name.to_str().unwrap(), target.to_str().unwrap());
        let output = as_service(service, &line);
        assert!(output.status.success(), "{output:?}");
    };
    let [linked, made] = ["linked.txt", "made-by-root"].map(|name| [state.join(name), own.path().join(name)]);
    let [linked, folder] = [linked[0].to_str().unwrap().to_owned(), state.join("folder").to_str().unwrap().to_string()];
    let in_folder = format!("{folder}/backup.db");
    let backup = backup.to_str().unwrap();
    let untouched = |after: &str| {
        let found = fs::symlink_metadata(&marker).unwrap();
        let seen = (found.uid(), found.gid(), found.mode() & 0o7777, fs::read_to_string(&marker).unwrap());
        assert_eq!(seen, (0, 0, 0o600, MARKER.to_owned()), "{after}");
        let names: Vec<_> = fs::read_dir(own.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["marker.txt"], "nothing was made beside it by {after}");
        assert_eq!(fs::metadata(own.path()).unwrap().uid(), 0, "{after}");
    };
    for (name, target, commands) in [
        // What is opened or made by a fixed name.
        (state.join("sweepd.lock"), &made[1], &[&["restore", backup, "--yes"][..], &["run"]][..]),
        (state.join("sweepd.head"), &made[1], &[&["run"]]),
        (state.join("sweepd.db-wal"), &marker, &[&["pause"], &["restore", backup, "--yes"]]),
        (state.join("sweepd.db.backup.unfinished"), &marker, &[&["backup", backup]]),
        (state.join(".restoring.db"), &marker, &[&["restore", backup, "--yes"]]),
        (incoming.clone(), &own.path().to_owned(), &[&["submit", &id]]),
        // What root names, in a folder of the service user's.
        (PathBuf::from(&linked), &marker, &[&["submit", &linked], &["restore", &linked, "--yes"]]),
        (PathBuf::from(&folder), &own.path().to_owned(), &[&["backup", &in_folder]]),
    ] {
        plant(&name, target);
        for command in commands {
            let what = format!("{command:?} through {}", name.to_str().unwrap());
            if command[0] == "run" {
                daemon.launch();
                let has_come = |daemon: &mut Daemon| daemon.has_ended().is_some() || daemon.has_logged("\"ready\"");
                eventually("end or readiness", || has_come(&mut daemon).then_some(())).await;
                daemon.kill_if_running();
            } else {
                let Output { stdout, stderr, .. } = daemon.command(command);
                assert!(!stderr.contains(&format!("{MARKER}:")) && !stdout.contains(MARKER), "{what}: {stderr}");
            }
            untouched(&what);
        }
        fs::remove_file(&name).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_hands_in_files_of_an_administrators_home() {
    const ANN: u32 = 54_321;
    let Some((_simulator, daemon, machines, service)) = scene().await else { return };
    let home = tempfile::tempdir().unwrap();
    let [source, backup] = ["machines.txt", "backup.db"].map(|name| home.path().join(name));
    fs::write(&source, list(&machines[2..4])).unwrap();
    for path in [home.path(), &source] {
        chown(path, Some(ANN), Some(ANN)).unwrap();
    }
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    daemon.told(&["submit", source.to_str().unwrap()]);
    daemon.told(&["backup", backup.to_str().unwrap()]);
    daemon.told(&["restore", backup.to_str().unwrap(), "--yes"]);
    assert_all_is_the_services(&daemon, service, "them");
    assert_eq!(fs::metadata(&backup).unwrap().uid(), 0);

    // Several at once wait for each other's copy in the state folder.
    let names = ["one.db", "two.db", "three.db"].map(|name| home.path().join(name));
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| daemon.told(&["backup", name.to_str().unwrap()]));
        }
    });
    assert!(names.iter().all(|name| fs::metadata(name).unwrap().len() > 0));
    assert_all_is_the_services(&daemon, service, "several");

    // What fails leaves no copy that looks like one.
    let failed = home.path().join("failed.db");
    fs::write(daemon.site.state().join("sweepd.db"), "no database at all").unwrap();
    let output = daemon.command(&["backup", failed.to_str().unwrap()]);
    assert_eq!(output.code, 78, "{}", output.stderr);
    assert!(output.stderr.contains("failed.db is left behind"), "{}", output.stderr);
    assert_eq!(fs::metadata(&failed).unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_into_the_daemon_and_it_leaves_no_core() {
    let tenant = quick_tenant(fleet(92, 1, "hidden"));
    let simulator = simulate(92, vec![tenant.clone()]).await;
    let mut daemon = Daemon::new(Site::new(&simulator, &[Configured::of("contoso", &tenant)], ""));
    let service = daemon.run_as_somebody_else();
    daemon.start().await;
    let process = format!("/proc/{}", daemon.pid());
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // The kernel gives what is in a process's folder to root where the process must not be looked into.
    let shown = fs::metadata(format!("{process}/environ")).unwrap().uid();
    assert_eq!(shown, 0, "a process of another user than root, whose memory is root's alone");
    let Some(service) = service else {
        return eprintln!("skipped: needs root to be a second process of the same user");
    };
    for part in ["mem", "environ", "maps"] {
        let output = as_service(service, &format!("exec cat {process}/{part}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("Permission denied"), "{part}: {said}");
    }
}

/// The package's script, on file systems of its own: nothing of this machine is within its reach.
#[test]
fn a_purge_deletes_nothing_below_a_mount_point() {
    const BEFORE: &str = "
        set -eu
        mount -t tmpfs none /etc
        mount -t tmpfs none /var/lib
        mkdir -p /etc/sweepd/tenants.d /var/lib/elsewhere/deeper \
            '/var/lib/sweepd/spool/incoming/a b' '/var/lib/sweepd/spool/processed/[x]' /var/lib/sweepd/empty
        echo marker > /var/lib/elsewhere/deeper/kept
        echo marker > /var/lib/linked-to
        for name in sweepd.db .hidden '-rf' 'spool/incoming/a b/list.txt' 'spool/processed/[x]/list.txt'; do
            echo gone > \"/var/lib/sweepd/$name\"
        done
        ln -s ../linked-to /var/lib/sweepd/link
        ln -s ../elsewhere /var/lib/sweepd/folder-link
        echo gone > /etc/sweepd/sweepd.toml
    ";
    const AFTER: &str = "
        sh \"$0\" purge 2>&1 || echo failed
        cd /
        find /etc/sweepd /var/lib/sweepd /var/lib/elsewhere /var/lib/linked-to ! -type d 2>/dev/null | sort
        find /etc/sweepd /var/lib/sweepd -type d 2>/dev/null | sort
    ";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb/postrm");
    let purged = |mounts: &str| {
        let line = format!("{BEFORE}\n{mounts}\n{AFTER}");
        let mut command = Command::new("unshare");
        let output = command.args(["--mount", "sh", "-c", &line, script]).stderr(Stdio::piped()).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let outside = ["/var/lib/elsewhere/deeper/kept", "/var/lib/linked-to"];
    let Some(nothing) = purged("") else {
        return eprintln!("skipped: needs root, and mounts of its own");
    };
    assert_eq!(lines(&nothing), outside, "all of it is gone, and nothing else");

    // A bind mount of the same file system is none to `rm --one-file-system`.
    let mounted = purged("mount --bind /var/lib/elsewhere /var/lib/sweepd/spool/incoming").unwrap();
    let kept = lines(&mounted);
    assert!(kept[0].contains("/var/lib/sweepd is kept") && kept[0].contains("mounted"), "{mounted}");
    let expected = [
        outside[0],
        outside[1],
        "/var/lib/sweepd/spool/incoming/deeper/kept",
        "/var/lib/sweepd",
        "/var/lib/sweepd/spool",
        "/var/lib/sweepd/spool/incoming",
        "/var/lib/sweepd/spool/incoming/deeper",
    ];
    assert_eq!(kept[1..], expected.map(str::to_owned), "{mounted}");

    // The top itself, and one that lies in another.
    for mounts in [
        "mount --bind /var/lib/elsewhere /var/lib/sweepd",
        "mkdir -p '/var/lib/sweepd/spool/in coming'; mount --bind /var/lib/elsewhere '/var/lib/sweepd/spool/in coming'",
        "mount -t tmpfs none /var/lib/sweepd/empty; mkdir /var/lib/sweepd/empty/deeper
         echo marker > /var/lib/sweepd/empty/deeper/kept",
        "mount --bind /var/lib/elsewhere /etc/sweepd",
    ] {
        let left = purged(mounts).unwrap();
        let kept = lines(&left).iter().filter(|line| line.ends_with("/deeper/kept")).count();
        assert_eq!(kept, 2, "{mounts}: {left}");
        assert!(left.contains("is kept") && !left.contains("failed"), "{mounts}: {left}");
        let is_gone = |file: &str| !left.contains(file) || mounts.contains("/var/lib/sweepd/spool/incoming");
        assert!(is_gone("sweepd.db") && is_gone("list.txt"), "{mounts}: {left}");
    }
}

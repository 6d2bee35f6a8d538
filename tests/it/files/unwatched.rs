//! inotify is a hint, the look at the folder is the truth: nothing is missed where the kernel has told too much, or
//! tells nothing.

use std::fs;
use std::process::Command;

use crate::support::{Configured, Daemon, Site, eventually, list, number, quick_tenant, simulate};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sweepd::simulator::{Simulator, fleet};

async fn scene() -> (Simulator, Daemon) {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(44, vec![tenant.clone()]).await;
    let daemon = Daemon::new(Site::new(&simulator, &[Configured::of("contoso", &tenant)], ""));
    (simulator, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_found_though_the_kernel_had_more_to_tell_than_it_keeps() {
    let (_simulator, mut daemon) = scene().await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let kept: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let process = Pid::from_raw(daemon.pid().try_into().unwrap());
    kill(process, Signal::SIGSTOP).unwrap();
    let passing = daemon.site.spool("incoming/.passing");
    // At least its creation and its end are told of, unlike what comes after so many of them.
    for _ in 0..=kept / 2 {
        fs::write(&passing, "").unwrap();
        fs::remove_file(&passing).unwrap();
    }
    daemon.site.put("after.txt", list(&fleet(2, 3, "after")));
    fs::write(daemon.site.spool("incoming/written.txt"), list(&fleet(3, 4, "written"))).unwrap();
    kill(process, Signal::SIGCONT).unwrap();
    assert_eq!(number(&daemon.receipt("processed/after.txt").await, "queued"), 3);
    assert_eq!(number(&daemon.receipt("processed/written.txt").await, "queued"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_inotify_files_are_found_by_looking() {
    const WITHOUT: &str = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let (_simulator, mut daemon) = scene().await;
    let words = ["unshare", "--user", "--map-root-user", "sh", "-c", WITHOUT];
    if !Command::new(words[0]).args(&words[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: a namespace without inotify cannot be made here");
    }
    daemon.through = words.iter().chain(&[env!("CARGO_BIN_EXE_sweepd")]).map(|&word| word.to_owned()).collect();
    daemon.start().await;
    eventually("word of it", || daemon.has_logged("the drop folder cannot be watched").then_some(())).await;
    daemon.told(&["pause"]);
    daemon.site.put("moved.txt", list(&fleet(2, 3, "moved")));
    fs::write(daemon.site.spool("incoming/written.txt"), list(&fleet(3, 4, "written"))).unwrap();
    assert_eq!(number(&daemon.receipt("processed/moved.txt").await, "queued"), 3);
    assert_eq!(number(&daemon.receipt("processed/written.txt").await, "queued"), 4);
    eventually("readiness as with it", || (daemon.get("/readyz").0 == 200).then_some(())).await;
}

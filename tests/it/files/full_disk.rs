//! A disk that is really full, on a small file system of its own: files stay where they are, nothing is lost, and it
//! goes on by itself when there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Configured, Daemon, Site, assert_adds_up, assert_scanned_once, eventually, list, number, quick_tenant, seen,
    simulate, text,
};
use serde_json::Value;
use sweepd::simulator::fleet;

/// A file system of 64 MiB, until this is dropped.
struct Small(PathBuf);

impl Small {
    /// `None` where this may not be done.
    fn at(folder: PathBuf) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(&folder).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    /// Fills it but for so many bytes. Returns what has to go to make room.
    fn fill(&self, but_for: u64) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
        file.set_len(file.metadata().unwrap().len() - but_for).unwrap();
        ballast
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

const LINES: usize = 20_000;

/// What takes more room in the database than is left to it.
const HUGE: usize = 60_000;

fn waits(daemon: &Daemon, name: &str) -> bool {
    let path = Path::new("incoming").join(name);
    daemon.site.spool(path.to_str().unwrap()).exists()
}

/// By default it stops before the disk is full. With next to nothing that is kept for the daemon, and some room, it runs
/// into the wall while it writes.
async fn survives_a_full_disk(into_the_wall: bool) {
    let machines = fleet(1, 6, "full");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(45, vec![tenant.clone()]).await;
    let min_free = if into_the_wall { "min_free = \"1\"" } else { "" };
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], &format!("hold_above = 0\n{min_free}"));
    let Some(small) = Small::at(site.state()) else {
        return eprintln!("SKIPPED: only root may mount a small file system");
    };
    let mut daemon = Daemon::new(site);
    daemon.start().await;
    daemon.site.put("first.txt", list(&machines[..3]));
    daemon.all_final(3).await;
    daemon.told(&["pause"]);

    // Dropped from a folder on the same disk, as a full one lets nobody write.
    let aside = daemon.site.state().join("aside");
    fs::create_dir(&aside).unwrap();
    let long = fleet(2, LINES, "long");
    fs::write(aside.join("short.txt"), list(&machines[3..])).unwrap();
    fs::write(aside.join("long.txt"), list(&long)).unwrap();
    fs::write(aside.join("useless.txt"), "nothing\n").unwrap();
    let ballast = small.fill(if into_the_wall { 256 << 10 } else { 0 });
    for name in ["short.txt", "long.txt", "useless.txt"] {
        fs::rename(aside.join(name), daemon.site.spool("incoming").join(name)).unwrap();
    }
    let word = if into_the_wall { "database or disk is full" } else { "no file is taken: the disk is short" };
    eventually("word of it", || daemon.has_logged(word).then_some(())).await;
    assert!(waits(&daemon, "long.txt"), "it stays where it is");
    if !into_the_wall {
        assert!(waits(&daemon, "short.txt") && waits(&daemon, "useless.txt"));
        eventually("word of it to probes", || (daemon.get("/readyz").0 == 503).then_some(())).await;
        assert!(daemon.get("/metrics").1.contains("sweepd_intake_stopped 1"));
        let waits = daemon.status()["tenants"]["contoso"]["waiting_for"].to_string();
        assert!(waits.contains("is full"), "{waits}");
    }
    fs::remove_file(ballast).unwrap();

    let short = daemon.receipt("processed/short.txt").await;
    assert_eq!((text(&short, "status"), number(&short, "queued")), ("taken", 3), "{short}");
    let taken = daemon.receipt("processed/long.txt").await;
    assert_adds_up(&taken);
    assert_eq!((text(&taken, "status"), number(&taken, "queued")), ("taken", LINES as u64), "{taken}");
    assert_eq!(text(&daemon.receipt("rejected/useless.txt").await, "status"), "rejected");
    assert_eq!(daemon.site.waiting_files(), Vec::<PathBuf>::new());
    let queued = |status: &Value| number(&status["tenants"]["contoso"]["jobs"], "queued");
    assert_eq!(queued(&daemon.status()), 3 + LINES as u64, "each once");
    eventually("word that it is ready again", || (daemon.get("/readyz").0 == 200).then_some(())).await;
    daemon.told(&["sweep", "cancel", text(&taken, "sweep_id"), "--yes"]);
    daemon.told(&["resume"]);
    daemon.results("", text(&short, "sweep_id")).await;
    assert_scanned_once(&seen(&simulator), &machines);
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_grows_short_within_a_long_file_stops_it_before_it_is_full() {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(47, vec![tenant.clone()]).await;
    let keys = "hold_above = 0\nmin_free = \"8MiB\"";
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], keys);
    let Some(small) = Small::at(site.state()) else {
        return eprintln!("SKIPPED: only root may mount a small file system");
    };
    let mut daemon = Daemon::new(site);
    daemon.start().await;
    daemon.told(&["pause"]);
    let aside = daemon.site.state().join("aside");
    fs::write(&aside, list(&fleet(2, HUGE, "huge"))).unwrap();
    let ballast = small.fill(11 << 20);
    fs::rename(aside, daemon.site.spool("incoming/huge.txt")).unwrap();
    eventually("word of it", || daemon.has_logged("the file stays where it is").then_some(())).await;
    assert!(waits(&daemon, "huge.txt") && !daemon.has_logged("is full"), "{}", daemon.log_text());
    fs::remove_file(ballast).unwrap();
    let taken = daemon.receipt("processed/huge.txt").await;
    assert_eq!((text(&taken, "status"), number(&taken, "queued")), ("taken", HUGE as u64), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_taking_and_it_goes_on_by_itself() {
    survives_a_full_disk(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_while_a_file_is_taken_loses_nothing() {
    survives_a_full_disk(true).await;
}

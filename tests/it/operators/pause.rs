//! `pause` and `resume`: nothing is sent, nothing is lost, following goes on, a restart changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Behind, Configured, Daemon, Site, assert_scanned_once, eventually, list, number, quick_tenant, scan_arrivals, seen,
    simulate, simulate_under, text,
};
use sweepd::simulator::{Simulator, TenantOptions, fleet};

const REASON: &str = "change freeze 42";
const BEFORE: usize = 3;
const AFTER: usize = 9;

/// Waits until the tenant's actions were listed a few times more: the lane had its chances.
async fn looked_again(simulator: &Simulator) {
    let listed = || seen(simulator).calls["list_actions"].arrivals;
    let target = listed() + 4;
    eventually("looks at the tenant's actions", || (listed() >= target).then_some(())).await;
}

fn assert_paused(daemon: &Daemon) {
    let status = daemon.status();
    let tenant = &status["tenants"]["contoso"];
    assert_eq!(tenant["paused"], true, "{status}");
    assert_eq!(tenant["paused_reason"], REASON, "{status}");
    assert_eq!(tenant["eta"], serde_json::Value::Null, "a paused tenant has no end in sight: {status}");
    assert_eq!(number(&tenant["jobs"], "queued"), AFTER as u64, "{status}");
}

/// Waits until the lane says that it waits for the end of the pause.
async fn told_of_the_pause(daemon: &Daemon) {
    eventually("word of the pause", || {
        text(&daemon.status()["tenants"]["contoso"], "waiting_for").contains(REASON).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_tenant_sends_nothing_until_it_is_resumed() {
    let machines = fleet(5, BEFORE + AFTER, "paused");
    let tenant = TenantOptions {
        action_duration: (Duration::from_secs(3), Duration::from_secs(2)),
        ..quick_tenant(machines.clone())
    };
    let simulator = simulate(5, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let (before, after) = machines.split_at(BEFORE);
    daemon.site.put("before.txt", list(before));
    eventually("first calls", || (scan_arrivals(&simulator, 0) == BEFORE).then_some(())).await;

    let told = daemon.lines(&["pause", "--reason", REASON]);
    assert_eq!((&told[0]["paused"], &told[0]["changed"]), (&true.into(), &true.into()), "{told:?}");
    daemon.site.put("after.txt", list(after));
    let receipt = daemon.receipt("processed/after.txt").await;
    assert_eq!(number(&receipt, "queued"), AFTER as u64, "files are taken all the same");
    let first = daemon.receipt("processed/before.txt").await;
    let results = daemon.results("", text(&first, "sweep_id")).await;
    assert_eq!(number(&results["states"], "succeeded"), BEFORE as u64, "following goes on: {results}");
    assert_paused(&daemon);
    told_of_the_pause(&daemon).await;

    assert!(daemon.terminate().await.success());
    assert_paused(&daemon);
    let shown = daemon.told(&["status"]);
    assert!(shown.contains("  paused    since ") && shown.contains(REASON), "also while no daemon runs: {shown}");
    daemon.start().await;
    looked_again(&simulator).await;
    assert_paused(&daemon);
    daemon.kill();
    daemon.start().await;
    looked_again(&simulator).await;
    assert_paused(&daemon);
    told_of_the_pause(&daemon).await;
    assert_eq!(scan_arrivals(&simulator, 0), BEFORE, "nothing is sent");

    let told = daemon.lines(&["resume"]);
    assert_eq!((&told[0]["paused"], &told[0]["changed"]), (&false.into(), &true.into()), "{told:?}");
    daemon.all_final(machines.len()).await;
    assert_eq!(daemon.status()["tenants"]["contoso"]["paused"], false);
    assert_scanned_once(&seen(&simulator), &machines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_with_a_duration_ends_by_itself() {
    let machines = fleet(6, 2, "for");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(6, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    for (wrong, why) in [("soon", "not a duration"), ("0s", "is zero")] {
        let refused = daemon.command(&["pause", "--for", wrong]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    let told = daemon.lines(&["pause", "--for", "1h", "--reason", &format!("{REASON}\x1b[2J")]);
    assert!(told[0]["until"].is_string(), "{told:?}");
    let shown = daemon.told(&["status"]);
    assert!(shown.contains(REASON) && !shown.contains('\x1b'), "a reason cannot steer the terminal: {shown:?}");
    daemon.site.put("list.txt", list(&machines));
    daemon.receipt("processed/list.txt").await;
    let status = daemon.status();
    assert_eq!(status["tenants"]["contoso"]["paused_until"], told[0]["until"], "{status}");
    assert_eq!(scan_arrivals(&simulator, 0), 0);
    // The new end counts, and the reason stays.
    let told = daemon.lines(&["pause", "--for", "1s"]);
    assert_eq!(told[0]["changed"], false, "{told:?}");
    daemon.all_final(machines.len()).await;
    let status = daemon.status();
    assert_eq!(status["tenants"]["contoso"]["paused"], false, "{status}");
    assert_eq!(status["tenants"]["contoso"]["paused_until"], serde_json::Value::Null);
}

/// A machine that boots in 2036 must not end a change freeze, or the pause after a restore, before it knows better.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_years_ahead_of_the_servers_ends_no_pause() {
    let machines = fleet(7, 2, "ahead");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate_under(Arc::new(Behind), 7, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let told = daemon.lines(&["pause", "--for", "1s"]);
    daemon.site.put("list.txt", list(&machines));
    daemon.receipt("processed/list.txt").await;
    assert!(daemon.terminate().await.success());
    eventually("the end by this machine's clock", || {
        (daemon.status()["at"].as_str() > told[0]["until"].as_str()).then_some(())
    })
    .await;
    daemon.start().await;
    looked_again(&simulator).await;
    assert_eq!(daemon.status()["tenants"]["contoso"]["paused_until"], told[0]["until"], "{}", daemon.status());
    assert_eq!(scan_arrivals(&simulator, 0), 0, "by the server's clock there are three years left");
    daemon.told(&["resume"]);
    daemon.all_final(machines.len()).await;
}

//! Another process holds the database's write lock: everything waits for it, and says so; then it goes on.

use crate::support::{Configured, Daemon, Site, eventually, list, quick_tenant, simulate, text};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use sweepd::simulator::fleet;

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_another_process_are_what_everything_waits_for() {
    let machines = fleet(31, 2, "locked");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(31, vec![tenant.clone()]).await;
    let mut daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    let database = SqliteConnectOptions::new().filename(daemon.site.state().join("sweepd.db"));
    let mut other = database.connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();

    // Nobody has anything to write: it is found all the same.
    let me = format!("process {} ", std::process::id());
    eventually("word of it in the log", || daemon.has_logged("holds the database's write lock").then_some(())).await;
    assert!(daemon.has_logged(&me), "{}", daemon.log_text());
    let (code, ready) = daemon.get("/readyz");
    assert!(code == 503 && ready.contains("the database takes no writes") && ready.contains(&me), "{code} {ready}");
    assert_eq!(daemon.get("/healthz").0, 200);
    assert!(daemon.get("/metrics").1.contains("sweepd_database_stopped 1"));
    daemon.site.put("list.txt", list(&machines));
    for status in [daemon.status(), serde_json::from_str(&daemon.get("/api/status").1).unwrap()] {
        let waits = text(&status["tenants"]["contoso"], "waiting_for");
        assert!(waits.starts_with("the database to take writes again") && waits.contains(&me), "{waits}");
    }

    other.close().await.unwrap();
    daemon.all_final(2).await;
    eventually("word that it is over", || daemon.has_logged("the database can be written to again").then_some(()))
        .await;
    eventually("that it is ready", || (daemon.get("/readyz").0 == 200).then_some(())).await;
    assert!(daemon.terminate().await.success());
}

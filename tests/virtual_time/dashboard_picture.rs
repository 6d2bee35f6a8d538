//! The pictures of the dashboard in `docs/`: the real page in a real browser, over the database of a simulated
//! morning. `cargo test --test virtual_time dashboard_picture -- --ignored` makes them anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::world::{BEGIN, Death, Setup, World};
use sweepd::clock::Clock;
use sweepd::domain::id::{SweepId, TenantName};
use sweepd::domain::sweep::{OnPending, Priority, ScanType, Source};
use sweepd::domain::time::Wall;
use sweepd::health::Health;
use sweepd::metrics::Metrics;
use sweepd::simulator::{MachineKind, SimulatedMachine, fleet};
use sweepd::store::Store;
use sweepd::store::sweeps::{Chunk, Completion, NewJob, NewSweep};
use sweepd::store::tenants::{Operator, Sending};
use sweepd::web::{Burndown, Server, Shown};
use tokio_util::sync::CancellationToken;

const MACHINES: usize = 3050;

/// Queues a sweep between two lives of the daemon.
async fn queue(store: &Store, tenant: &str, name: &str, machines: &[SimulatedMachine], scan: ScanType, at: Wall) {
    let urgent = name.starts_with("incident");
    let new = NewSweep {
        id: SweepId(uuid::Uuid::from_u64_pair((at.0.unsigned_abs() << 16) | 0x7000, 0x8000_0000_0000_0000)),
        tenant: store.tenant(&tenant.parse().unwrap()).await.unwrap(),
        name: name.to_owned(),
        source: if urgent { Source::Submit } else { Source::File },
        file: name.to_owned(),
        sha256: format!("{:064x}", at.0),
        file_uid: None,
        received_at: at,
    };
    let job = |(line, machine): (u64, &SimulatedMachine)| NewJob {
        line,
        machine: machine.id,
        name: Some(machine.name.clone().into()),
        scan,
        priority: if urgent { Priority::Urgent } else { Priority::Normal },
        not_before: None,
        on_pending: OnPending::Skip,
        comment: Arc::from("weekly"),
    };
    let jobs = (1..).zip(machines).map(job).collect();
    let filed_as = format!("processed/{name}");
    let complete =
        move |_, _| Completion { receipt: "{}".to_owned(), held: scan == ScanType::Full, filed_as, unasked: None };
    store.take_sweep(new, Chunk { jobs, ..Chunk::default() }, at, complete).await.unwrap();
}

/// A morning: a list of workstations since 11:46 in Berlin, servers that are held, an incident, a tenant that is paused.
fn morning() -> World {
    let mut setup = Setup::backlog(MACHINES, Duration::from_millis(300));
    setup.tenant.all_succeed = false;
    for (n, machine) in setup.tenant.machines.iter_mut().enumerate() {
        machine.kind = match n % 90 {
            17 | 60 => MachineKind::ForeignScanPending,
            33 if n % 4 == 0 => MachineKind::OldClient,
            71 if n % 5 == 0 => MachineKind::UnsupportedPlatform,
            _ => MachineKind::Normal,
        };
    }
    let machines = setup.tenant.machines.clone();
    let mut world = World::new(setup);
    let grace = Death::Stopped(Duration::from_secs(30));
    assert!(!world.live(BEGIN + Duration::from_mins(8), grace));
    world.ask(async |store| {
        let at = BEGIN + Duration::from_mins(8);
        queue(&store, "contoso", "servers-full.json", &fleet(9, 1240, "server"), ScanType::Full, at).await;
        let other = fleet(10, 320, "fabrikam");
        queue(&store, "fabrikam", "branch-offices.csv", &other, ScanType::Quick, at + Duration::from_mins(2)).await;
        let pause = Sending::Paused(Some("change freeze 42".to_owned()), Some(BEGIN + Duration::from_mins(190)));
        let operator = Operator { uid: 0, login_uid: None, host: "sweepd".to_owned() };
        store.set_paused(&"fabrikam".parse().unwrap(), pause, operator, at).await.unwrap();
    });
    assert!(!world.live(BEGIN + Duration::from_mins(66), grace));
    world.ask(async |store| {
        let at = BEGIN + Duration::from_mins(66);
        queue(&store, "contoso", "incident 4711", &machines[MACHINES - 60..], ScanType::Quick, at).await;
    });
    assert!(!world.live(BEGIN + Duration::from_mins(70), grace));
    world
}

/// The queues as they were, from the calls that were made.
fn burndown(world: &World) -> Burndown {
    let mut calls: Vec<Wall> = world.ledger().attempts.iter().filter_map(|call| Wall::parse(&call.at)).collect();
    calls.sort_unstable();
    let burndown = Burndown::default();
    let (now, boot) = (world.clock.wall(), world.clock.boot());
    for minute in 0..=70 {
        let at = BEGIN + Duration::from_mins(minute);
        let sent = calls.partition_point(|call| *call <= at);
        let left = u64::try_from(MACHINES.saturating_sub(sent)).unwrap();
        let contoso = "contoso".parse::<TenantName>().unwrap();
        burndown.measured(vec![(contoso, left)], at, boot - now.since(at));
    }
    burndown
}

#[test]
#[ignore = "makes the pictures of the documentation, and wants Chromium"]
fn make_the_pictures() {
    let world = morning();
    let burndown = burndown(&world);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(photograph(&world, burndown));
}

async fn photograph(world: &World, burndown: Burndown) {
    let clock: Arc<dyn Clock> = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let store = world.open().await;
    let terms = ["contoso", "fabrikam"].map(|name| (name.parse().unwrap(), sweepd::domain::forecast::Terms::default()));
    let shown = Shown {
        view: store.view(),
        terms: Arc::new(RwLock::new(BTreeMap::from(terms))),
        disabled: Arc::default(),
        health: Health::new(Arc::clone(&clock), Duration::from_mins(1)),
        metrics: Metrics::default(),
        burndown,
        clock,
    };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &[]).await.unwrap();
    let url = format!("http://{}/", server.address().unwrap());
    tokio::spawn(server.serve(shown, CancellationToken::new()));
    let browser = Browser::start(1200, 1000).unwrap();
    browser.open(&url);
    browser.until("the page", "document.querySelector('#word').textContent === 'Live'").await;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for (name, scheme) in [("dashboard", "light"), ("dashboard-dark", "dark")] {
        browser.screen(1200, 1180, scheme);
        // The charts are drawn anew for another width.
        let drawn = "[...document.querySelectorAll('.plot')].every(one => Math.abs(one.viewBox.baseVal.width - one.clientWidth) < 2)";
        browser.until("the charts", drawn).await;
        std::fs::write(docs.join(format!("{name}.png")), browser.picture()).unwrap();
    }
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new(), "nothing is in the console");
}

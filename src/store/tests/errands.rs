//! Calls that a command makes beside the daemon.

use super::*;
use crate::domain::id::SlotId;
use crate::domain::ledger::{Admission, CallKind, HOUR, MARGIN, Used, Window};
use crate::store::errands::{Errand, NotNow};

const LIST: CallKind = CallKind::ListActions;

async fn slot(bench: &Bench, boot_id: &str, now: Boot) -> Result<SlotId, NotNow> {
    let errand = Errand {
        budget: bench.budget,
        kind: LIST,
        limits: bench.limits,
        longest_pause: Duration::from_mins(61),
        boot_id: BootId(boot_id.to_owned()),
        boot: now,
        at: at(0),
    };
    bench.store.errand_slot(errand).await.unwrap()
}

fn full(window: Window) -> NotNow {
    NotNow::Full(Admission::WhenSettled(window))
}

#[tokio::test]
async fn a_commands_call_counts_like_the_daemons_own() {
    let mut bench = Bench::with_machines(&[]).await;
    bench.limits = limits(2, 2);
    let stamp = Stamp { epoch: Epoch(1), boot_id: this_boot(), boot: boot(0), at: at(0) };
    bench.store.take_slot(bench.budget, LIST, bench.limits, stamp.clone()).await.unwrap().unwrap();
    let taken = slot(&bench, "boot-1", boot(1)).await.unwrap();
    assert_eq!(slot(&bench, "boot-1", boot(2)).await, Err(full(Window::Hour)));
    let daemon = bench.store.take_slot(bench.budget, LIST, bench.limits, stamp).await.unwrap();
    assert_eq!(daemon, Err(Admission::WhenSettled(Window::Hour)), "the daemon waits for it");
    bench.settle_read(taken, boot(3), 3).await.unwrap();
    assert_eq!(bench.store.answered(bench.budget, LIST, boot(3)).await.unwrap(), Used { minute: 1, hour: 1 });
}

#[tokio::test]
async fn a_command_that_is_killed_leaves_its_slot_to_the_next_start() {
    let mut bench = Bench::with_machines(&[]).await;
    bench.limits = limits(1, 1);
    slot(&bench, "boot-1", boot(1)).await.unwrap();
    bench.restart(birth(100)).await;
    let until = boot(100) + GRACE + HOUR + MARGIN;
    assert_eq!(slot(&bench, "boot-1", boot(200)).await, Err(NotNow::Full(Admission::NotBefore(until, Window::Hour))));
}

#[tokio::test]
async fn before_the_daemon_ran_on_this_boot_every_earlier_call_counts_as_made_now() {
    let mut bench = Bench::with_machines(&[]).await;
    bench.limits = limits(2, 3);
    let first = slot(&bench, "boot-1", boot(0)).await.unwrap();
    bench.settle_read(first, boot(1), 1).await.unwrap();
    // On a younger clock that slot lies far ahead, on an older one far behind: both say nothing.
    for now in [Boot(5_000), boot(1_000_000)] {
        let ours = slot(&bench, "boot-2", now).await.unwrap();
        assert_eq!(slot(&bench, "boot-2", now).await, Err(full(Window::Minute)));
        bench.settle_read(ours, now, 1).await.unwrap();
    }
    let later = boot(1_000_000) + Duration::from_mins(2);
    slot(&bench, "boot-2", later).await.unwrap();
    assert_eq!(slot(&bench, "boot-2", later).await, Err(full(Window::Minute)));
}

#[tokio::test]
async fn looking_leaves_the_tenants_budget_as_the_daemon_has_it() {
    let bench = Bench::with_machines(&[]).await;
    let name = "contoso".parse().unwrap();
    let tenant = bench.store.tenant(&name).await.unwrap();
    let before = bench.store.budget(tenant, "directory/app").await.unwrap();
    let (row, budget) = bench.store.errand_budget(&name, "directory/new app").await.unwrap();
    assert_eq!((row, bench.store.budget_of(tenant).await.unwrap()), (tenant, Some(before)));
    assert_ne!(budget, before);
    assert_eq!(bench.store.errand_budget(&name, "directory/app").await.unwrap(), (tenant, before));
}

#[tokio::test]
async fn a_silence_that_defender_asked_for_is_kept_by_commands_too() {
    let bench = Bench::with_machines(&[]).await;
    let asked = Silence::default().throttled(boot(0), Some(Duration::from_mins(5)), Duration::from_mins(61));
    let taken = slot(&bench, "boot-1", boot(0)).await.unwrap();
    let note = bench.silence(LIST, asked, 0);
    bench.store.settle_read(bench.tenant, taken, boot(0), at(0), serde_json::json!({}), note).await.unwrap();
    assert_eq!(slot(&bench, "boot-1", boot(299)).await, Err(NotNow::Silent(boot(300))));
    assert!(slot(&bench, "boot-1", boot(300)).await.is_ok());
    // Of another boot nobody knows when it began.
    let other = Boot(77_000);
    assert_eq!(slot(&bench, "boot-2", other).await, Err(NotNow::Silent(other + Duration::from_mins(5))));
}

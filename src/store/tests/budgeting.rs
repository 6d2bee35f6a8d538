//! The ledger on disk: whose it is, how old its slots are, and that it says what the arithmetic says.

use super::*;
use crate::domain::job::Reason;
use crate::domain::ledger::memory::Slots;
use crate::domain::ledger::{Admission, HOUR, MARGIN, Used, Window};
use crate::domain::share::Foreign;
use crate::domain::time::ServerTime;
use crate::simulator::chance::Chance;

fn refused() -> Outcome {
    Outcome::Refused(Reason::UnknownMachine)
}

#[tokio::test]
async fn a_tenant_that_is_renamed_and_a_second_one_with_its_registration_spend_one_budget() {
    let mut bench = Bench::with_machines(&[1]).await;
    bench.limits = limits(1, 1);
    bench.call(1).await;
    bench.tenant = bench.store.tenant(&"contoso-emea".parse().unwrap()).await.unwrap();
    bench.budget = bench.store.budget(bench.tenant, "directory/app").await.unwrap();
    bench.sweep(quick(&[2])).await;
    assert!(matches!(bench.claim(2).await, Claimed::Wait(Admission::WhenSettled(Window::Hour))));
    assert_eq!(bench.number("SELECT count(DISTINCT budget_id) FROM tenants").await, 1);
    bench.budget = bench.store.budget(bench.tenant, "directory/another app").await.unwrap();
    bench.call(3).await;
}

/// A slot that settled on an earlier boot, and the start of a new one 20 s after its kernel's.
async fn over_a_reboot(seen_before: Option<ServerTime>) -> Bench {
    let mut bench = Bench::with_machines(&[1, 2, 3]).await;
    bench.limits = limits(1, 1);
    if let Some(seen) = seen_before {
        bench.store.server_time(&this_boot(), bench.budget, seen, GRACE).await.unwrap();
    }
    let claim = bench.call(100).await;
    bench.settle(&claim, refused(), 101).await;
    bench.restart(Birth { boot: Boot(20_000), boot_id: BootId("boot-2".to_owned()), ..birth(99_999_999) }).await;
    bench
}

async fn admission(bench: &Bench, now: Boot) -> Admission {
    bench.store.admission(bench.budget, CallKind::Scan, bench.limits, now).await.unwrap()
}

#[tokio::test]
async fn the_age_of_a_slot_over_a_reboot_is_told_by_the_sign_in_and_never_by_the_wall_clock() {
    // On the old boot, at 50 s, the server had `at(0)`.
    let before = ServerTime { asked: boot(50), answered: boot(50), date: at(0) };
    let bench = over_a_reboot(Some(before)).await;
    // This machine's wall clock says that three years have passed; nothing is older than this start.
    let from_boot = Admission::NotBefore(Boot(80_000) + HOUR + MARGIN, Window::Hour);
    assert_eq!(admission(&bench, Boot(30_000)).await, from_boot);
    // The sign-in says that half an hour has passed: 51 s after the server's `at(0)`, less what the
    // servers' clocks may lie apart on both sides, and the second that a date is cut to.
    let now = ServerTime { asked: Boot(29_000), answered: Boot(30_000), date: at(1800 + 51) };
    bench.store.server_time(&BootId("boot-2".to_owned()), bench.budget, now, GRACE).await.unwrap();
    let settled = Boot(30_000) - Duration::from_secs(1800 - 5);
    assert_eq!(admission(&bench, Boot(30_000)).await, Admission::NotBefore(settled + HOUR + MARGIN, Window::Hour));
    // A later sign-in on the same boot changes nothing more.
    let later = ServerTime { asked: Boot(40_000), answered: Boot(40_000), date: at(999_999) };
    bench.store.server_time(&BootId("boot-2".to_owned()), bench.budget, later, GRACE).await.unwrap();
    assert_eq!(admission(&bench, Boot(40_000)).await, Admission::NotBefore(settled + HOUR + MARGIN, Window::Hour));
}

#[tokio::test]
async fn a_server_whose_time_goes_back_or_was_never_seen_makes_no_slot_older() {
    let from_boot = Admission::NotBefore(Boot(80_000) + HOUR + MARGIN, Window::Hour);
    let before = ServerTime { asked: boot(50), answered: boot(50), date: at(0) };
    for (before, date) in [(Some(before), at(-50_000)), (None, at(50_000))] {
        let bench = over_a_reboot(before).await;
        let now = ServerTime { asked: Boot(29_000), answered: Boot(30_000), date };
        bench.store.server_time(&BootId("boot-2".to_owned()), bench.budget, now, GRACE).await.unwrap();
        let told = admission(&bench, Boot(30_000)).await;
        let Admission::NotBefore(free, _) = told else { panic!("{told:?}") };
        assert!(
            free <= Boot(30_000) + GRACE + HOUR + MARGIN && free >= Boot(30_000) + HOUR + MARGIN,
            "{told:?} {from_boot:?}"
        );
    }
}

#[tokio::test]
async fn a_boot_clock_that_jumps_between_two_starts_makes_no_slot_older() {
    for runs in [true, false] {
        let mut bench = Bench::with_machines(&[1, 2, 3]).await;
        bench.limits = limits(1, 1);
        let seen =
            |at_boot: i64, date: i64| ServerTime { asked: boot(at_boot), answered: boot(at_boot), date: at(date) };
        let tell = async |bench: &Bench, seen: ServerTime| {
            bench.store.server_time(&this_boot(), bench.budget, seen, GRACE).await.unwrap()
        };
        assert_eq!(tell(&bench, seen(50, 0)).await, Duration::ZERO);
        bench.store.server_runs(&this_boot(), bench.budget, runs).await.unwrap();
        let claim = bench.call(100).await;
        bench.settle(&claim, refused(), 101).await;
        // Ten seconds later by the server's clock, two hours later by our own: an hour would have passed.
        bench.restart(birth(7260)).await;
        assert_eq!(admission(&bench, boot(7260)).await, Admission::Open);
        let ahead = tell(&bench, seen(7260, 60)).await;
        assert_eq!(ahead, Duration::from_secs(if runs { 7151 } else { 0 }));
        let told = admission(&bench, boot(7260)).await;
        if runs {
            // 7,150 s, and five more for what a date is cut to and servers may lie apart.
            assert_eq!(told, Admission::NotBefore(boot(101 + 7155) + HOUR + MARGIN, Window::Hour));
            assert_eq!(tell(&bench, seen(7270, 70)).await, Duration::ZERO, "and once is enough");
        } else {
            assert_eq!(told, Admission::Open, "a server whose clock stands still is not asked");
        }
    }
}

#[tokio::test]
async fn a_boot_clock_that_goes_back_and_comes_again_frees_nothing() {
    let mut bench = Bench::with_machines(&[1, 2, 3]).await;
    bench.limits = limits(2, 2);
    let seen = |at_boot: i64, date: i64| ServerTime { asked: boot(at_boot), answered: boot(at_boot), date: at(date) };
    bench.store.server_time(&this_boot(), bench.budget, seen(90_000, 0), GRACE).await.unwrap();
    let claim = bench.call(90_001).await;
    bench.settle(&claim, refused(), 90_002).await;
    // One more is on the wire when the daemon is killed.
    bench.call(90_003).await;
    // A day back, and killed before the sign-in; then the true clock again, a minute later in all.
    bench.restart(birth(3_600)).await;
    bench.restart(birth(90_063)).await;
    bench.store.server_time(&this_boot(), bench.budget, seen(90_064, 64), GRACE).await.unwrap();
    let told = admission(&bench, boot(90_064)).await;
    let Admission::NotBefore(free, Window::Hour) = told else { panic!("{told:?}") };
    assert!(free >= boot(90_002) + HOUR && free <= boot(90_002 + 6) + HOUR + MARGIN, "{told:?}");
    // What was lost counts from the sign-in, and no later one makes it younger.
    let youngest = (boot(90_064) + GRACE).0;
    assert_eq!(bench.number("SELECT max(settles_boot) FROM slots").await, youngest);
    bench.store.server_time(&this_boot(), bench.budget, seen(92_000, 2_000), GRACE).await.unwrap();
    let later = bench.number("SELECT max(settles_boot) FROM slots").await;
    assert!(later <= youngest + 6_000, "{later} {youngest}");
}

#[tokio::test]
async fn a_jump_takes_no_grace_from_a_call_that_was_given_up() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let seen = |at_boot: i64, date: i64| ServerTime { asked: boot(at_boot), answered: boot(at_boot), date: at(date) };
    bench.store.server_time(&this_boot(), bench.budget, seen(50, 0), GRACE).await.unwrap();
    let lost = bench.call(100).await;
    bench.settle(&lost, Outcome::Unknown, 101).await;
    // A second later by the server's clock, an hour by ours: it may still arrive.
    let now = boot(101 + 3600);
    bench.store.server_time(&this_boot(), bench.budget, seen(101 + 3600, 52), GRACE).await.unwrap();
    assert_eq!(bench.number("SELECT max(settles_boot) FROM slots").await, (now + GRACE).0);
}

#[tokio::test]
async fn an_age_is_carried_over_two_reboots_without_a_sign_in_between() {
    let before = ServerTime { asked: boot(50), answered: boot(50), date: at(0) };
    let mut bench = over_a_reboot(Some(before)).await;
    bench.restart(Birth { boot: Boot(5_000), boot_id: BootId("boot-3".to_owned()), ..birth(5) }).await;
    let now = ServerTime { asked: Boot(6_000), answered: Boot(6_000), date: at(7200) };
    bench.store.server_time(&BootId("boot-3".to_owned()), bench.budget, now, GRACE).await.unwrap();
    assert_eq!(admission(&bench, Boot(6_000)).await, Admission::Open);
}

#[tokio::test]
async fn what_others_spend_is_noted_and_known_after_a_restart() {
    let mut bench = Bench::new().await;
    let seen = Foreign { minute: 42, hour: 630 };
    bench.store.note_foreign(bench.budget, CallKind::Scan, Foreign { minute: 1, hour: 2 }, at(1)).await.unwrap();
    bench.store.note_foreign(bench.budget, CallKind::Scan, seen, at(2)).await.unwrap();
    bench.restart(birth(10)).await;
    assert_eq!(bench.store.learnt(bench.budget).await.unwrap()[&CallKind::Scan].last_429, at(2));
    let known = bench.store.foreign(bench.budget).await.unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [(CallKind::Scan, seen)]);
}

#[tokio::test]
async fn at_a_429_only_answered_calls_are_ours_and_old_slots_are_forgotten() {
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    let old = bench.call(0).await;
    bench.settle(&old, refused(), 1).await;
    let recent = bench.call(3000).await;
    bench.settle(&recent, refused(), 3001).await;
    bench.call(3050).await;
    let now = boot(3055);
    assert_eq!(bench.store.answered(bench.budget, CallKind::Scan, now).await.unwrap(), Used { minute: 1, hour: 2 });
    assert_eq!(bench.store.used(bench.budget, CallKind::Scan, now).await.unwrap(), Used { minute: 2, hour: 3 });
    bench.store.forget_old_slots(bench.budget, boot(7300)).await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM slots").await, 2, "the one on the wire and the recent one");
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_keeps_nothing_waiting_but_what_has_a_time_of_its_own() {
    let bench = Bench::new().await;
    let timed = NewJob { not_before: Some(at(90_000)), ..job(2, machine(2)) };
    bench.sweep(vec![NewJob { on_pending: OnPending::Wait, ..job(1, machine(1)) }, timed]).await;
    bench.feed(&[scan("foreign", machine(1), ActionStatus::Pending, "", 0)], 1).await;
    assert!(matches!(bench.claim(80_000).await, Claimed::Nothing));
    assert_eq!(bench.store.next_parked(bench.tenant).await.unwrap(), Some(at(80_900)));
    bench.store.release_parks(bench.tenant, at(10)).await.unwrap();
    assert!(bench.store.has_ready(bench.tenant).await.unwrap(), "it is judged again");
    assert_eq!(bench.store.next_parked(bench.tenant).await.unwrap(), Some(at(90_000)));
    assert!(matches!(bench.claim(11).await, Claimed::Nothing), "and waits again: the action is still there");
}

#[tokio::test]
async fn the_ledger_on_disk_says_what_the_ledger_in_memory_says() {
    for seed in 0..6 {
        let mut bench = Bench::new().await;
        let mut chance = Chance::new(seed);
        let limits = limits(1 + chance.below(3), 3 + chance.below(4));
        let (mut slots, mut wire, mut now) = (Slots::default(), Vec::new(), 0_i64);
        for _ in 0..120 {
            let gap = [20, 20, 20, 1500][chance.below(4) as usize];
            now += i64::from(chance.below(gap));
            let expected = slots.admission(limits, boot(now));
            match chance.below(10) {
                0 => {
                    bench.restart(birth(now)).await;
                    slots.lose(boot(now) + GRACE);
                    wire.clear();
                }
                1..=4 if !wire.is_empty() => {
                    let settles = boot(now) + if chance.below(4) == 0 { GRACE } else { Duration::ZERO };
                    bench.settle_read(wire.remove(0), settles, now).await.unwrap();
                    slots.settle(settles);
                }
                _ => {
                    let taken = bench.store.take_slot(bench.budget, CallKind::GetAction, limits, bench.stamp(now));
                    match taken.await.unwrap() {
                        Ok(slot) => {
                            assert_eq!(expected, Admission::Open, "seed {seed} at {now}");
                            slots.take();
                            wire.push(slot);
                        }
                        Err(wait) => assert_eq!(wait, expected, "seed {seed} at {now}"),
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_used_is_told_as_of_one_moment_and_never_above_the_limit() {
    let mut bench = Bench::with_machines(&[1, 2, 3, 4, 5]).await;
    bench.limits = limits(2, 4);
    for n in 0..2 {
        let claim = bench.call(100 + n).await;
        bench.settle(&claim, refused(), 100 + n).await;
    }
    // The clock was read; before the count is done, a slot comes free and is taken again.
    let read = boot(160);
    bench.call(161).await;
    let used = async |now| bench.store.used(bench.budget, CallKind::Scan, now).await.unwrap();
    assert_eq!(used(read).await, Used { minute: 2, hour: 2 });
    assert_eq!(used(boot(161)).await, Used { minute: 2, hour: 3 });
}

#[tokio::test]
async fn slots_of_an_earlier_boot_count_however_late_on_its_clock_they_were_taken() {
    let bench = over_a_reboot(None).await;
    let used = bench.store.used(bench.budget, CallKind::Scan, Boot(20_000)).await.unwrap();
    assert_eq!(used, Used { minute: 1, hour: 1 });
}

#[tokio::test]
async fn a_command_whose_boot_clock_is_far_behind_the_daemons_does_not_find_the_budget_unused() {
    let mut bench = Bench::with_machines(&[1, 2, 3]).await;
    bench.limits = limits(2, 4);
    for at in [5_000, 5_090, 5_100] {
        let claim = bench.call(at).await;
        bench.settle(&claim, refused(), at).await;
    }
    let used = bench.store.used(bench.budget, CallKind::Scan, boot(40)).await.unwrap();
    assert_eq!(used, Used { minute: 2, hour: 3 }, "as of the last call that was taken");
}

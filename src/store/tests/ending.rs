//! When it ends, as it is told from what is on disk: by `status`, and by `forecast`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ordering::{numbered, sweep_of};
use super::*;
use crate::domain::budgets::{Budgets, CallBudget};
use crate::domain::forecast::{Bound, Outlook, Schedule, Terms};
use crate::domain::ledger::{HOUR, MARGIN, Pace};
use crate::store::tenants::Waiting;
use crate::web::forecast::{self, Forecast, wall};
use crate::web::report::{self, Now, Report};

fn terms() -> Terms {
    Terms { rise_after: RISE_AFTER, ..Terms::default() }
}

fn now(seconds: i64) -> Now {
    Now { at: at(seconds), boot: boot(seconds) }
}

/// When the last of so many calls is answered, by a budget that is idle at second 0.
fn after(calls: u64) -> Wall {
    let schedule = Schedule::of(Outlook::idle(Limits::DOCUMENTED, Pace::Burst), boot(0), calls);
    at(0) + schedule.answered(calls).since(boot(0))
}

impl Bench {
    async fn queue(&self, machines: Range<u64>, priority: Priority) -> SweepRow {
        self.take(sweep_of(machines, priority), false).await
    }

    async fn report(&self, seconds: i64, running: bool) -> Report {
        let terms = BTreeMap::from([("contoso".parse().unwrap(), terms())]);
        report::read(&self.store, &terms, now(seconds), running).await.unwrap()
    }

    /// The ends of the sweeps by age, and the end of all.
    async fn etas(&self, seconds: i64) -> (Vec<Option<Wall>>, Option<Wall>) {
        let report = self.report(seconds, true).await;
        let time = |eta: &Option<String>| eta.as_deref().map(|eta| Wall::parse(eta).unwrap());
        (report.sweeps.iter().map(|sweep| time(&sweep.eta)).collect(), time(&report.tenants["contoso"].eta))
    }

    async fn forecast(&self, more: u64, seconds: i64) -> Forecast {
        forecast::read(&self.store, self.tenant, &terms(), more, now(seconds), true).await.unwrap()
    }
}

#[tokio::test]
async fn each_sweep_has_an_end_of_its_own() {
    let bench = Bench::new().await;
    bench.queue(0..3000, Priority::Normal).await;
    bench.queue(5000..5050, Priority::Urgent).await;
    bench.queue(6000..6100, Priority::Low).await;
    let (sweeps, all) = bench.etas(0).await;
    assert_eq!(sweeps, [Some(after(3050)), Some(after(50)), Some(after(3150))]);
    assert_eq!(all, Some(after(3150)));
    let forecast = bench.forecast(200, 0).await;
    assert_eq!((forecast.queued, forecast.ends.queue.map(|end| wall(end, now(0)))), (3150, Some(after(3150))));
    let more = forecast.ends.more.unwrap();
    assert_eq!((wall(more, now(0)), more.bound), (after(3250), Bound::Hour), "before what is low");
}

#[tokio::test]
async fn a_joined_machine_counts_in_one_place_of_the_queue() {
    let bench = Bench::new().await;
    bench.queue(0..300, Priority::Normal).await;
    bench.queue(250..350, Priority::Normal).await;
    bench.queue(0..10, Priority::Urgent).await;
    assert_eq!(bench.etas(0).await.0, [Some(after(300)), Some(after(350)), Some(after(10))]);
    assert_eq!(bench.forecast(0, 0).await.queued, 350);
}

#[tokio::test]
async fn nothing_is_told_of_what_has_no_end_in_sight() {
    let bench = Bench::new().await;
    bench.take(sweep_of(0..10, Priority::Normal), true).await;
    let taking = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    bench.store.add_chunk(bench.tenant, taking, sweep_of(20..30, Priority::Normal), at(0)).await.unwrap();
    bench.queue(40..50, Priority::Normal).await;
    let expected = (vec![None, None, Some(after(10))], Some(after(10)));
    assert_eq!(bench.etas(0).await, expected, "one is held, one is not whole");
    let stopped = bench.report(0, false).await;
    assert_eq!((&stopped.tenants["contoso"].eta, &stopped.sweeps[2].eta), (&None, &None), "no daemon runs");
    let name = "contoso".parse().unwrap();
    let pause = super::Sending::Paused(None, None);
    bench.store.set_paused(&name, pause, operator(), at(0)).await.unwrap();
    assert_eq!(bench.etas(0).await, (vec![None, None, None], None), "it is paused");
    assert_eq!(bench.forecast(0, 0).await.ends.queue.map(|end| wall(end, now(0))), Some(after(10)), "once resumed");
}

#[tokio::test]
async fn a_sweep_of_which_all_is_sent_waits_for_answers_only() {
    let bench = Bench::with_machines(&[1]).await;
    bench.accepted("a1", 1).await;
    assert_eq!(bench.etas(2).await, (vec![None], None));
}

#[tokio::test]
async fn a_sweep_for_later_ends_later_and_delays_nobody() {
    let bench = Bench::new().await;
    let tonight = at(8 * 3600);
    let mut chunk = sweep_of(0..1501, Priority::High);
    chunk.jobs.iter_mut().for_each(|job| job.not_before = Some(tonight));
    bench.take(chunk, false).await;
    // A lane with nothing to send waits for the time of the next job: that keeps no other back.
    let waiting = Waiting { what: "the time of what is queued".to_owned(), until: Some(tonight) };
    bench.store.set_waiting(bench.tenant, waiting).await.unwrap();
    let later = Some(tonight + HOUR + MARGIN);
    assert_eq!(bench.etas(0).await, (vec![later], later));
    assert_eq!(bench.forecast(100, 0).await.ends.more.map(|end| wall(end, now(0))), Some(after(100)));
    bench.queue(5000..5200, Priority::Normal).await;
    bench.store.set_waiting(bench.tenant, Waiting { what: "nothing".to_owned(), until: None }).await.unwrap();
    assert_eq!(bench.etas(0).await, (vec![later, Some(after(200))], later));
}

#[tokio::test]
async fn a_lane_that_is_held_ends_later() {
    let bench = Bench::new().await;
    bench.queue(0..100, Priority::Normal).await;
    bench.throttled(1, 600).await;
    let (sweeps, all) = bench.etas(2).await;
    assert_eq!((sweeps, all), (vec![Some(at(600))], Some(at(600))));
    // A wait that is in no hold, such as for a sign-in.
    let waiting = Waiting { what: "the sign-in, which fails".to_owned(), until: Some(at(900)) };
    bench.store.set_waiting(bench.tenant, waiting).await.unwrap();
    assert_eq!(bench.etas(2).await.1, Some(at(900)));
    let down = forecast::read(&bench.store, bench.tenant, &terms(), 0, now(2), false).await.unwrap();
    assert_eq!(down.ends.queue.map(|end| wall(end, now(2))), Some(at(600)), "the sign-in is tried at a start");
}

#[tokio::test]
async fn what_calls_took_and_what_is_spent_is_reckoned_with() {
    let mut bench = Bench::new().await;
    bench.limits = limits(2, 20);
    bench.queue(0..6, Priority::Normal).await;
    for seconds in [0, 1] {
        let claim = bench.call(seconds).await;
        bench.settle(&claim, Outcome::Refused(crate::domain::job::Reason::UnknownMachine), seconds + 3).await;
    }
    let budgets = Budgets { scan: CallBudget::of(bench.limits), ..Budgets::default() };
    let terms = Terms { budgets, ..terms() };
    let forecast = forecast::read(&bench.store, bench.tenant, &terms, 0, now(5), true).await.unwrap();
    // Two calls a window, that settled 3 and 4 s after the beginning; each takes 3 s.
    let end = boot(4) + (MARGIN + Duration::from_mins(1)) * 2 + Duration::from_secs(3) * 2;
    assert_eq!(forecast.ends.queue.unwrap().at, end);
}

#[tokio::test]
async fn one_urgent_machine_of_a_long_sweep_is_still_one_of_that_sweep() {
    let bench = Bench::new().await;
    let mut chunk = sweep_of(0..200, Priority::Normal);
    chunk.jobs[199].priority = Priority::Urgent;
    let sweep = bench.take(chunk, false).await;
    bench.queue(300..310, Priority::High).await;
    assert_eq!(bench.etas(0).await.0, [Some(after(210)), Some(after(11))]);
    assert_eq!(bench.call(0).await.job.machine, numbered(199));
    assert_eq!(bench.store.withdraw(sweep, at(1)).await.unwrap(), 199);
    let unsent = bench.store.unsent(bench.tenant).await.unwrap();
    assert_eq!(
        unsent.iter().map(|sweep| sweep.own.clone()).collect::<Vec<_>>(),
        [BTreeMap::from([(Priority::High, 10)])]
    );
}

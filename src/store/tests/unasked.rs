//! What files bring within an hour is counted together, by clocks that may be set.

use super::*;
use crate::store::sweeps::Machines;
use crate::store::unasked::{Asked, Waiting};

/// Takes a file at `now`, unasked or held. Returns what it was found to ask for.
async fn take(bench: &Bench, jobs: Vec<NewJob>, held: bool, now: &Stamp) -> Asked {
    let (tell, told) = std::sync::mpsc::channel();
    let completion = Completion { unasked: (!held).then(|| now.clone()), ..completion(held) };
    bench.store.forget_unasked(now).await.unwrap();
    let chunk = Chunk { jobs, ..Chunk::default() };
    let decide = move |_: Counts, asked: Asked| {
        tell.send(asked).unwrap();
        completion
    };
    bench.store.take_sweep(bench.new_sweep(), chunk, now.at, decide).await.unwrap();
    told.recv().unwrap()
}

fn full(machines: &[u8]) -> Vec<NewJob> {
    quick(machines).into_iter().map(|job| NewJob { scan: ScanType::Full, ..job }).collect()
}

fn within(asked: Asked) -> (u64, u64) {
    let Machines { quick, full } = asked.within_the_hour;
    (quick, full)
}

#[tokio::test]
async fn the_files_of_an_hour_are_counted_together_and_no_machine_twice() {
    let bench = Bench::new().await;
    let first = take(&bench, quick(&[1, 2, 3]), false, &bench.stamp(0)).await;
    assert_eq!((first.alone, within(first)), (Machines { quick: 3, full: 0 }, (3, 0)));
    let second = take(&bench, full(&[1, 2]), false, &bench.stamp(1800)).await;
    assert_eq!((second.alone, within(second)), (Machines { quick: 0, full: 2 }, (3, 2)));
    let again = take(&bench, quick(&[3, 4]), false, &bench.stamp(2000)).await;
    assert_eq!((again.alone, within(again)), (Machines { quick: 2, full: 0 }, (4, 2)), "3 is in the queue already");
    assert_eq!(within(take(&bench, quick(&[5]), false, &bench.stamp(3599)).await), (5, 2));
    assert_eq!(within(take(&bench, quick(&[6]), false, &bench.stamp(3600)).await), (3, 2), "the first is an hour old");
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_is_held_counts_for_nobody_else_until_somebody_joins_it() {
    let bench = Bench::new().await;
    take(&bench, quick(&[1, 2, 3]), true, &bench.stamp(0)).await;
    assert_eq!(within(take(&bench, quick(&[4]), false, &bench.stamp(1)).await), (1, 0));
    // Joining would let machines go that are held.
    assert_eq!(within(take(&bench, quick(&[1, 2]), false, &bench.stamp(2)).await), (3, 0));
}

#[tokio::test]
async fn what_waits_is_counted_with_its_first_and_its_last_time() {
    let bench = Bench::new().await;
    let later = |machines: &[u8], times: &[Option<Wall>]| -> Vec<NewJob> {
        quick(machines).into_iter().zip(times).map(|(job, at)| NewJob { not_before: *at, ..job }).collect()
    };
    let now = bench.stamp(100);
    let (past, soon, late) = (at(50), at(200), at(300));
    let all = later(&[1, 2, 3, 4, 5], &[None, Some(past), Some(soon), Some(late), Some(late)]);
    let expected = Waiting { machines: 3, earliest: Some(soon), latest: Some(late) };
    assert_eq!(take(&bench, all, false, &now).await.waiting, expected);
    // Of two requests for one machine the earlier time counts.
    let joining = later(&[4, 5, 6], &[Some(at(400)), None, Some(at(400))]);
    let expected = Waiting { machines: 2, earliest: Some(late), latest: Some(at(400)) };
    assert_eq!(take(&bench, joining, false, &now).await.waiting, expected);
    assert_eq!(take(&bench, later(&[7], &[Some(past)]), false, &now).await.waiting, Waiting::default());
}

#[tokio::test]
async fn other_tenants_files_do_not_count() {
    let bench = Bench::new().await;
    take(&bench, quick(&[1, 2, 3]), false, &bench.stamp(0)).await;
    let other = bench.store.tenant(&"fabrikam".parse().unwrap()).await.unwrap();
    let sweep = bench.store.begin_sweep(NewSweep { tenant: other, ..bench.new_sweep() }).await.unwrap();
    assert_eq!(within(bench.store.asked(other, sweep, at(0)).await.unwrap()), (0, 0));
}

#[tokio::test]
async fn no_step_of_the_wall_clock_shortens_or_lengthens_the_hour() {
    let bench = Bench::new().await;
    take(&bench, quick(&[1]), false, &bench.stamp(0)).await;
    let day = 86_400;
    let ahead = Stamp { at: at(day), ..bench.stamp(10) };
    assert_eq!(within(take(&bench, quick(&[2]), false, &ahead).await), (2, 0), "set ahead, it is seconds old");
    let behind = Stamp { at: at(-day), ..bench.stamp(3600) };
    assert_eq!(within(take(&bench, quick(&[3]), false, &behind).await), (2, 0), "set back, the first is an hour old");
}

#[tokio::test]
async fn after_a_boot_the_hour_goes_on() {
    let bench = Bench::new().await;
    take(&bench, quick(&[1]), false, &bench.stamp(0)).await;
    let boot_id = BootId("boot-2".to_owned());
    let soon = Stamp { boot: Boot(60_000), boot_id: boot_id.clone(), ..bench.stamp(300) };
    assert_eq!(within(take(&bench, quick(&[2]), false, &soon).await), (2, 0));
    // Up for an hour, whatever the wall clock says.
    let later = Stamp { boot: Boot(3_600_000), boot_id, ..bench.stamp(-86_400) };
    assert_eq!(within(take(&bench, quick(&[3]), false, &later).await), (2, 0), "the one of the boot before is past");
}

#[tokio::test]
async fn what_the_hour_brought_is_not_read_again_for_each_file() {
    let bench = Bench::new().await;
    let steps = async |statement: String| {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
                .bind("boot")
                .bind(0)
                .bind(0)
                .fetch_all(&mut *bench.store.reader().await.unwrap())
                .await
                .unwrap();
        plan.into_iter().map(|step| step.3).filter(|step| step.contains("unasked")).collect::<Vec<_>>()
    };
    let past = steps(crate::store::unasked::PAST.to_owned()).await;
    assert!(past.len() == 3 && past.iter().all(|step| step.starts_with("SEARCH")), "{past:?}");
    // The sums are kept with every row that comes or goes.
    for n in 1..=5 {
        take(&bench, quick(&[n]), false, &bench.stamp(i64::from(n))).await;
    }
    let sums = "SELECT sum(quick) * 1000 + sum(full) FROM unasked";
    assert_eq!(bench.number(sums).await, 5000);
    assert_eq!(bench.number("SELECT quick * 1000 + full FROM unasked_sums").await, 5000);
    assert_eq!(within(take(&bench, full(&[9]), false, &bench.stamp(3603)).await), (2, 1));
    assert_eq!(bench.number(sums).await, bench.number("SELECT quick * 1000 + full FROM unasked_sums").await);
}

//! How files become jobs, join open ones, and end.

use super::*;
use crate::domain::job::Reason;
use crate::store::sweeps::LeftOut;

fn jobs(jobs: Vec<NewJob>) -> Chunk {
    Chunk { jobs, ..Chunk::default() }
}

async fn state(bench: &Bench, sweep: SweepRow) -> String {
    bench.store.all_sweeps().await.unwrap().into_iter().find(|found| found.n == sweep).unwrap().state
}

/// Has the next job refused, which ends it.
async fn end_next(bench: &Bench, seconds: i64) {
    let claim = bench.call(seconds).await;
    bench.settle(&claim, Outcome::Refused(Reason::UnknownMachine), seconds + 1).await;
}

#[tokio::test]
async fn every_line_is_counted_once() {
    let bench = Bench::with_machines(&[1]).await;
    let left = LeftOut { line: 5, machine: machine(9), name: None, reason: "not_onboarded".to_owned() };
    let chunk = Chunk { jobs: quick(&[1, 2, 2, 3, 1]), left_out: vec![left], left_out_again: 3, refused: 2 };
    let sweep = bench.take(chunk, false).await;
    let expected = Counts { lines: 11, queued: 2, joined: 1, duplicates: 5, not_eligible: 1, refused: 2 };
    assert_eq!(bench.counts(sweep).await, expected);
    assert_eq!(bench.store.left_out(sweep, 0, 10).await.unwrap().len(), 1);
    bench.assert_whole().await;
}

#[tokio::test]
async fn who_is_left_out_by_one_line_and_asked_for_by_another_counts_once() {
    let left = |line, n| LeftOut { line, machine: machine(n), name: None, reason: "not_onboarded".to_owned() };
    let file = || Chunk {
        jobs: vec![job(3, machine(1)), job(4, machine(2))],
        left_out: vec![left(1, 1), left(2, 2), left(5, 3)],
        ..Chunk::default()
    };
    // 1 has a new job, 2 an open one; 3 has one of somebody else.
    let expected = Counts { lines: 5, queued: 1, joined: 1, duplicates: 2, not_eligible: 1, refused: 0 };
    let short = Bench::with_machines(&[2, 3]).await;
    let sweep = short.take(file(), false).await;
    assert_eq!(short.counts(sweep).await, expected);
    let long = Bench::with_machines(&[2, 3]).await;
    let pieces = long.store.begin_sweep(long.new_sweep()).await.unwrap();
    assert_eq!(long.store.add_chunk(long.tenant, pieces, file(), at(1)).await.unwrap(), expected);
    for (bench, sweep) in [(&short, sweep), (&long, pieces)] {
        let left: Vec<_> = bench.store.left_out(sweep, 0, 10).await.unwrap().iter().map(|left| left.machine).collect();
        assert_eq!(left, [machine(3)]);
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn chunks_count_as_one_file() {
    let bench = Bench::with_machines(&[1]).await;
    let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    let add =
        async |machines: &[u8]| bench.store.add_chunk(bench.tenant, sweep, jobs(quick(machines)), at(1)).await.unwrap();
    assert_eq!(add(&[1, 2]).await, Counts { lines: 2, queued: 1, joined: 1, ..Counts::default() });
    let all = add(&[3, 2, 1]).await;
    assert_eq!(all, Counts { lines: 5, queued: 2, joined: 1, duplicates: 2, ..Counts::default() });
    bench.assert_whole().await;
}

#[tokio::test]
async fn nothing_is_sent_of_a_file_that_is_not_whole() {
    let bench = Bench::new().await;
    let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    bench.store.add_chunk(bench.tenant, sweep, jobs(quick(&[1, 2])), at(1)).await.unwrap();
    assert!(!bench.store.has_ready(bench.tenant).await.unwrap());
    assert!(matches!(bench.claim(2).await, Claimed::Nothing));
    assert_eq!(bench.store.next_parked(bench.tenant).await.unwrap(), None);
    bench.store.complete_sweep(bench.tenant, sweep, completion(false), at(3)).await.unwrap();
    assert!(matches!(bench.claim(4).await, Claimed::Nothing));
    bench.store.release_sweep(sweep, at(5)).await.unwrap();
    assert_eq!(bench.call(6).await.job.machine, machine(1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_held_sweep_waits_for_an_operator() {
    let bench = Bench::new().await;
    let sweep = bench.take(jobs(quick(&[1])), true).await;
    assert_eq!(state(&bench, sweep).await, "held");
    assert!(matches!(bench.claim(1).await, Claimed::Nothing));
    assert!(bench.store.let_go(sweep, bench.tenant, operator(), at(2)).await.unwrap());
    assert!(!bench.store.let_go(sweep, bench.tenant, operator(), at(3)).await.unwrap());
    assert_eq!(state(&bench, sweep).await, "open");
    bench.call(4).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_job_waits_for_its_time() {
    let bench = Bench::new().await;
    bench.sweep(vec![NewJob { not_before: Some(at(100)), ..job(1, machine(1)) }]).await;
    assert!(matches!(bench.claim(1).await, Claimed::Nothing));
    assert_eq!(bench.store.next_parked(bench.tenant).await.unwrap(), Some(at(100)));
    assert_eq!(bench.store.unpark_due(bench.tenant, at(99)).await.unwrap(), 0);
    assert_eq!(bench.store.unpark_due(bench.tenant, at(100)).await.unwrap(), 1);
    bench.call(100).await;
}

#[tokio::test]
async fn joining_lets_the_higher_priority_and_the_earlier_time_win() {
    let bench = Bench::new().await;
    let wish = |priority, not_before: Option<i64>| {
        vec![NewJob { priority, not_before: not_before.map(at), ..job(1, machine(1)) }]
    };
    bench.sweep(wish(Priority::Normal, Some(100))).await;
    bench.sweep(wish(Priority::Urgent, Some(200))).await;
    assert_eq!(bench.job_of(machine(1)).await.priority, "urgent");
    assert_eq!(bench.store.next_parked(bench.tenant).await.unwrap(), Some(at(100)));
    bench.sweep(wish(Priority::Low, Some(50))).await;
    assert_eq!(bench.job_of(machine(1)).await.priority, "urgent");
    assert_eq!(bench.store.next_parked(bench.tenant).await.unwrap(), Some(at(50)));
    bench.sweep(wish(Priority::Low, None)).await;
    let claim = bench.call(1).await;
    assert_eq!(claim.job.machine, machine(1));
    assert_eq!(bench.job_of(machine(1)).await.sweep_ids.len(), 4);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_held_sweep_wishes_nothing_until_it_is_let_go() {
    let bench = Bench::new().await;
    bench.sweep(vec![NewJob { priority: Priority::Low, not_before: Some(at(100)), ..job(1, machine(1)) }]).await;
    let held = vec![NewJob { priority: Priority::Urgent, ..job(1, machine(1)) }];
    let sweep = bench.take(jobs(held), true).await;
    assert_eq!(bench.job_of(machine(1)).await.priority, "low");
    assert!(matches!(bench.claim(1).await, Claimed::Nothing));
    bench.store.let_go(sweep, bench.tenant, operator(), at(2)).await.unwrap();
    assert_eq!(bench.job_of(machine(1)).await.priority, "urgent");
    bench.call(3).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_sweep_that_is_let_go_has_its_own_earlier_time_back() {
    let bench = Bench::new().await;
    let held = bench.take(jobs(quick(&[1])), true).await;
    // Somebody else asks for the same machine, later than the held sweep does.
    bench.sweep(vec![NewJob { not_before: Some(at(9000)), ..job(1, machine(1)) }]).await;
    assert!(matches!(bench.claim(1).await, Claimed::Nothing));
    bench.store.let_go(held, bench.tenant, operator(), at(2)).await.unwrap();
    bench.call(3).await;
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_job_that_was_sent_is_joined_unchanged() {
    let bench = Bench::with_machines(&[1]).await;
    bench.accepted("a1", 1).await;
    let sweep = bench.sweep(vec![NewJob { priority: Priority::Urgent, ..job(1, machine(1)) }]).await;
    assert_eq!(bench.counts(sweep).await.joined, 1);
    let job = bench.job_of(machine(1)).await;
    assert_eq!((job.state.as_str(), job.priority.as_str()), ("accepted", "normal"));
    bench.assert_whole().await;
}

#[tokio::test]
async fn quick_and_full_never_merge() {
    let bench = Bench::with_machines(&[1]).await;
    let sweep = bench.sweep(vec![NewJob { scan: ScanType::Full, ..job(1, machine(1)) }]).await;
    assert_eq!(bench.counts(sweep).await.queued, 1);
    assert_eq!(bench.jobs().await.len(), 2);
    bench.assert_whole().await;
}

#[tokio::test]
async fn both_sweeps_of_a_job_end_with_it() {
    let bench = Bench::new().await;
    let own = bench.sweep(quick(&[1, 2])).await;
    let joined = bench.sweep(quick(&[2])).await;
    end_next(&bench, 1).await;
    assert_eq!((state(&bench, own).await, state(&bench, joined).await), ("open".to_owned(), "open".to_owned()));
    end_next(&bench, 3).await;
    assert_eq!((state(&bench, own).await, state(&bench, joined).await), ("done".to_owned(), "done".to_owned()));
    assert_eq!(bench.last_events(2).await, ["sweep_finished", "sweep_finished"]);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_finished_machine_can_be_asked_for_again() {
    let bench = Bench::with_machines(&[1]).await;
    end_next(&bench, 1).await;
    let again = bench.sweep(quick(&[1])).await;
    assert_eq!(bench.counts(again).await.queued, 1);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_sweep_without_a_machine_is_done_at_once() {
    let bench = Bench::new().await;
    let sweep = bench.take(Chunk { refused: 3, ..Chunk::default() }, false).await;
    assert_eq!(state(&bench, sweep).await, "done");
    bench.assert_whole().await;
}

#[tokio::test]
async fn withdrawing_ends_what_is_queued_and_leaves_what_was_sent() {
    let bench = Bench::new().await;
    let sweep = bench.sweep(quick(&[1, 2, 3])).await;
    bench.accepted("a1", 1).await;
    assert_eq!(bench.store.withdraw(sweep, at(5)).await.unwrap(), 2);
    let job = bench.job_of(machine(3)).await;
    assert_eq!((job.state.as_str(), job.reason.as_deref()), ("cancelled", Some("withdrawn")));
    assert_eq!(bench.job_of(machine(1)).await.state, "accepted");
    assert_eq!(state(&bench, sweep).await, "open");
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_leaves_others_alone() {
    let bench = Bench::new().await;
    let other = bench.sweep(quick(&[1])).await;
    let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    bench.store.add_chunk(bench.tenant, sweep, jobs(quick(&[1, 2, 3])), at(1)).await.unwrap();
    assert_eq!(bench.store.abandon_sweep(sweep, at(2)).await.unwrap(), 2);
    assert_eq!(state(&bench, sweep).await, "done");
    assert_eq!(bench.job_of(machine(2)).await.state, "cancelled");
    let joined = bench.job_of(machine(1)).await;
    assert_eq!((joined.state.as_str(), joined.sweep_ids.len()), ("queued", 1));
    bench.assert_whole().await;
    end_next(&bench, 3).await;
    assert_eq!(state(&bench, other).await, "done");
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_another_sweep_asked_for_too_is_not_withdrawn() {
    let bench = Bench::new().await;
    let own = bench.sweep(quick(&[1, 2])).await;
    let other = bench.sweep(quick(&[2])).await;
    assert_eq!(bench.store.withdraw(own, at(1)).await.unwrap(), 1);
    assert_eq!(bench.job_of(machine(1)).await.state, "cancelled");
    assert_eq!(bench.job_of(machine(2)).await.state, "queued");
    assert_eq!(bench.job_of(machine(2)).await.sweep_ids.len(), 2, "it still counts in both");
    bench.assert_whole().await;
    // Nobody is left who wants it.
    assert_eq!(bench.store.withdraw(other, at(2)).await.unwrap(), 1);
    assert_eq!((state(&bench, own).await, state(&bench, other).await), ("done".to_owned(), "done".to_owned()));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_sweep_that_withdrew_its_wish_inherits_nothing() {
    let bench = Bench::new().await;
    let own = bench.sweep(quick(&[1])).await;
    let joined = bench.sweep(quick(&[1])).await;
    assert_eq!(bench.store.withdraw(joined, at(1)).await.unwrap(), 0);
    assert_eq!(bench.job_of(machine(1)).await.state, "queued");
    assert_eq!(bench.store.withdraw(own, at(2)).await.unwrap(), 1);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_held_sweep_that_inherits_keeps_its_machines_hidden() {
    let bench = Bench::new().await;
    let own = bench.sweep(quick(&[1])).await;
    let held = bench.take(jobs(quick(&[1])), true).await;
    assert_eq!(bench.store.withdraw(own, at(1)).await.unwrap(), 0);
    assert!(matches!(bench.claim(2).await, Claimed::Nothing), "only a held sweep wants it");
    bench.store.let_go(held, bench.tenant, operator(), at(3)).await.unwrap();
    end_next(&bench, 4).await;
    assert_eq!((state(&bench, own).await, state(&bench, held).await), ("done".to_owned(), "done".to_owned()));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_held_sweep_that_is_withdrawn_is_done() {
    let bench = Bench::new().await;
    let held = bench.take(jobs(quick(&[1, 2])), true).await;
    assert_eq!(bench.store.withdraw(held, at(1)).await.unwrap(), 2);
    assert_eq!(state(&bench, held).await, "done");
    assert_eq!(bench.last_events(1).await, ["sweep_finished"]);
    assert!(!bench.store.let_go(held, bench.tenant, operator(), at(2)).await.unwrap());
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_file_that_is_given_up_leaves_behind_what_others_asked_for() {
    let bench = Bench::new().await;
    let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    bench.store.add_chunk(bench.tenant, sweep, jobs(quick(&[1, 2, 3])), at(1)).await.unwrap();
    let other = bench.sweep(quick(&[1, 2])).await;
    let sent = bench.accepted("a1", 2).await;
    assert_eq!(bench.store.abandon_sweep(sweep, at(4)).await.unwrap(), 1);
    bench.assert_whole().await;
    let mark = sent.attempt.mark("weekly");
    bench.feed(&[scan("a1", machine(1), ActionStatus::Succeeded, &mark, 5)], 6).await;
    assert_eq!(bench.job_of(machine(1)).await.state, "succeeded");
    end_next(&bench, 7).await;
    assert_eq!((state(&bench, sweep).await, state(&bench, other).await), ("done".to_owned(), "done".to_owned()));
    bench.assert_whole().await;
}

#[tokio::test]
async fn the_same_content_is_known_while_its_sweep_is_open() {
    let bench = Bench::new().await;
    let new = bench.new_sweep();
    let sha = new.sha256.clone();
    let id = new.id;
    let sweep = bench.store.take_sweep(new, jobs(quick(&[1])), at(0), |_, _| completion(false)).await.unwrap();
    let known = bench.store.known_sweep(bench.tenant, &sha).await.unwrap().unwrap();
    assert_eq!((known.n, known.id), (sweep, id));
    let other = bench.store.tenant(&"fabrikam".parse().unwrap()).await.unwrap();
    assert!(bench.store.known_sweep(other, &sha).await.unwrap().is_none());
    bench.store.sweep_filed(sweep).await.unwrap();
    end_next(&bench, 1).await;
    assert!(bench.store.known_sweep(bench.tenant, &sha).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_crash_left_half_done_is_found() {
    let bench = Bench::new().await;
    let taking = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    let whole = bench.sweep(quick(&[1])).await;
    let found = async || {
        bench.store.half_done_sweeps().await.unwrap().into_iter().map(|(sweep, _)| sweep.n).collect::<Vec<_>>()
    };
    assert_eq!(found().await, [taking, whole]);
    // Replaced by something else, only what was not whole is given up.
    let overwritten = async |file: &str| bench.store.overwritten_sweeps(bench.tenant, file, "another").await.unwrap();
    assert_eq!(overwritten("weekly.txt").await, [taking]);
    assert_eq!(overwritten("daily.txt").await, Vec::<SweepRow>::new());
    bench.store.sweep_filed(whole).await.unwrap();
    assert_eq!(found().await, [taking]);
    bench.store.complete_sweep(bench.tenant, taking, completion(false), at(1)).await.unwrap();
    bench.store.sweep_filed(taking).await.unwrap();
    assert_eq!(found().await, Vec::<SweepRow>::new(), "it had no machine: nothing is left to release");
}

#[tokio::test]
async fn the_jobs_of_a_sweep_are_read_a_page_at_a_time_those_it_joined_among_them() {
    let bench = Bench::new().await;
    bench.sweep(quick(&[3, 4])).await;
    let sweep = bench.sweep(quick(&[1, 2, 3, 4, 5])).await;
    let (mut read, mut after) = (Vec::new(), 0);
    loop {
        let page = bench.store.jobs_of_sweep(sweep, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = last.id;
        read.extend(page.into_iter().map(|job| job.machine_id));
    }
    assert_eq!(read, [3, 4, 1, 2, 5].map(|n| machine(n).to_string()), "by age, each once");
}

//! Lists, and how what is meant is found in them.

use super::*;
use crate::store::View;
use crate::store::lists::{actions_statement, jobs_statement};

#[tokio::test]
async fn a_long_list_begins_at_once() {
    let bench = Bench::with_machines(&[1]).await;
    let tenant = Some("contoso".parse().unwrap());
    for state in [None, Some("Succeeded"), Some("succeeded")] {
        let state = state.map(ToOwned::to_owned);
        for wanted in [
            Wanted { state: state.clone(), ..Wanted::default() },
            Wanted { tenant: tenant.clone(), state: state.clone(), ..Wanted::default() },
        ] {
            let plan = bench.plan(actions_statement(&wanted)).await;
            assert!(!plan.contains("TEMP B-TREE"), "{wanted:?} is sorted before its first row: {plan}");
        }
    }
    let everything = bench.plan(jobs_statement(&Wanted::default())).await;
    assert!(!everything.contains("TEMP B-TREE"), "{everything}");
}

#[tokio::test]
async fn what_is_open_is_listed_without_reading_what_has_ended() {
    let bench = Bench::with_machines(&[1]).await;
    let with = |state: &str| Wanted { state: Some(state.to_owned()), ..Wanted::default() };
    for state in ["Pending", "InProgress"] {
        let plan = bench.plan(actions_statement(&with(state))).await;
        assert!(plan.contains("actions USING INDEX actions_open"), "{plan}");
    }
    for state in ["sending", "accepted"] {
        let plan = bench.plan(jobs_statement(&with(state))).await;
        assert!(plan.contains("jobs USING INDEX jobs_moving"), "{plan}");
    }
    bench.accepted("a1", 5).await;
    let mut listed = Vec::new();
    let each = |job: JobLine| {
        listed.push(job.state);
        Ok(())
    };
    bench.store.jobs(&with("accepted"), each).await.unwrap().unwrap();
    assert_eq!(listed, ["accepted"]);
}

#[tokio::test]
async fn sweeps_are_found_by_the_beginning_of_their_ids() {
    let bench = Bench::new().await;
    for _ in 0..3 {
        bench.sweep(quick(&[1])).await;
    }
    let all = bench.store.all_sweeps().await.unwrap();
    let found = async |beginning: &str, most: usize| {
        let found = bench.store.sweeps_beginning(beginning, most).await.unwrap();
        found.into_iter().map(|sweep| sweep.n).collect::<Vec<_>>()
    };
    for sweep in &all {
        assert_eq!(found(&sweep.id.to_string(), 9).await, [sweep.n], "a whole id is its own beginning");
    }
    let alike = &all[0].id.to_string()[..8];
    assert_eq!(found(alike, 9).await.len(), 3);
    assert_eq!(found(alike, 2).await.len(), 2, "so many at most");
    assert!(found("ffff", 9).await.is_empty() && found("%", 9).await.is_empty());
    let plan = bench.plan(crate::store::status::sweeps_beginning()).await;
    assert!(plan.contains("SEARCH sweeps USING INDEX") && !plan.contains("B-TREE"), "{plan}");
}

#[tokio::test]
async fn machines_are_found_by_the_beginning_of_their_ids() {
    let bench = Bench::with_machines(&[0x1a, 0x1b, 0x2c]).await;
    let theirs = scan("theirs", machine(0x3d), ActionStatus::Pending, "by hand", 1);
    bench.feed(&[theirs], 2).await;
    let claim = bench.call(5).await;
    assert_eq!(claim.job.machine, machine(0x1a));
    bench.settle(&claim, Outcome::Missing, 6).await;
    let found = async |digits: &str, most| bench.store.machines_beginning(digits, most).await.unwrap();
    assert_eq!(found("1", 9).await, [machine(0x1a), machine(0x1b)]);
    assert_eq!(found("1a1", 9).await, [machine(0x1a)], "one that has ended, or is looked up");
    assert_eq!(found("3d", 9).await, [machine(0x3d)], "one of which there is an action alone");
    assert_eq!(found("", 3).await.len(), 3, "no more than are wanted");
    assert_eq!(found("ff", 9).await, []);
    assert_eq!(found(&machine(0x2c).to_string(), 9).await, [machine(0x2c)]);
    assert_eq!(found(&(machine(0x2c).to_string() + "2"), 9).await, []);
}

#[tokio::test]
async fn what_ended_last_comes_first() {
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    for seconds in [10, 20, 30] {
        let claim = bench.call(seconds).await;
        let mark = claim.attempt.mark("weekly");
        let done = scan(&format!("a{seconds}"), claim.job.machine, ActionStatus::Failed, &mark, seconds).action;
        bench.settle(&claim, Outcome::Created(done), seconds + 1).await;
    }
    let last = async |since, most| {
        let ended = bench.store.last_ended(bench.tenant, State::Failed, at(since), most).await.unwrap();
        ended.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(last(0, 2).await, [at(31), at(21)]);
    assert_eq!(last(11, 9).await, [at(31), at(21)], "and not what ended before");
}

#[tokio::test]
async fn a_database_is_looked_at_without_a_daemon_and_without_a_writer() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let folder = bench.folder.path();
    let count = async || {
        let view = View::open_existing(folder).await.unwrap().unwrap();
        let jobs = view.tenants_status().await.unwrap()[0].jobs[&State::Queued];
        view.close().await;
        jobs
    };
    assert_eq!(count().await, 2, "beside who writes");
    bench.store.close().await;
    assert_eq!(count().await, 2, "and when nobody does");
    let empty = tempfile::tempdir().unwrap();
    assert!(View::open_existing(empty.path()).await.unwrap().is_none());
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0, "and nothing is made");
}

//! Which job goes next: urgent ones, what has waited long, and what it costs to find out.

use super::*;

/// A machine that no other test has.
pub fn numbered(n: u64) -> MachineId {
    let mut bytes = [0xee; 20];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    MachineId::from_bytes(bytes)
}

pub fn sweep_of(machines: std::ops::Range<u64>, priority: Priority) -> Chunk {
    let jobs = (1..).zip(machines).map(|(line, n)| NewJob { priority, ..job(line, numbered(n)) });
    Chunk { jobs: jobs.collect(), ..Chunk::default() }
}

#[tokio::test]
async fn an_urgent_sweep_gets_the_next_slots_of_a_long_queue() {
    let bench = Bench::new().await;
    bench.take(sweep_of(0..5000, Priority::Normal), false).await;
    assert_eq!(bench.call(1).await.job.machine, numbered(0));
    // All that was queued before has risen as far as it can.
    let days = 100 * 86_400;
    let urgent = sweep_of(9000..9050, Priority::Urgent);
    bench.store.take_sweep(bench.new_sweep(), urgent, at(days), |_, _| completion(false)).await.unwrap();
    for n in 9000..9050 {
        assert_eq!(bench.call(days + 1).await.job.machine, numbered(n));
    }
    assert_eq!(bench.call(days + 1).await.job.machine, numbered(1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_job_that_waits_long_rises_above_younger_ones() {
    let bench = Bench::new().await;
    let take = async |machine, priority, hours: i64| {
        let chunk = sweep_of(machine..machine + 1, priority);
        bench.store.take_sweep(bench.new_sweep(), chunk, at(hours * 3600), |_, _| completion(false)).await.unwrap()
    };
    take(1, Priority::Low, 0).await;
    take(2, Priority::Normal, 23).await;
    assert_eq!(bench.call(23 * 3600).await.job.machine, numbered(2), "it has not risen yet");
    take(3, Priority::Normal, 24).await;
    take(4, Priority::High, 24).await;
    assert_eq!(bench.call(24 * 3600).await.job.machine, numbered(4));
    assert_eq!(bench.call(24 * 3600).await.job.machine, numbered(1), "it is as good as normal, and older");
    assert_eq!(bench.job_of(numbered(1)).await.priority, "low", "what was asked for stays");
    assert_eq!(bench.call(24 * 3600).await.job.machine, numbered(3));
    bench.assert_whole().await;
}

#[tokio::test]
async fn finding_the_next_job_reads_no_more_of_a_longer_queue() {
    let bench = Bench::new().await;
    let explain = format!("EXPLAIN QUERY PLAN {}", crate::store::jobs::oldest_ready());
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(explain))
        .bind(bench.tenant)
        .fetch_all(&mut *bench.store.reader().await.unwrap())
        .await
        .unwrap();
    let steps: Vec<_> = plan.iter().map(|step| step.3.as_str()).filter(|step| step.contains("jobs")).collect();
    assert_eq!(steps.len(), 5, "{steps:?}");
    assert!(steps.iter().all(|step| step.contains("INTEGER PRIMARY KEY") || step.contains("jobs_ready")), "{steps:?}");
    assert!(!plan.iter().any(|step| step.3.contains("SCAN") || step.3.contains("B-TREE")), "{plan:?}");
}

#[tokio::test]
async fn zero_for_rise_after_is_never() {
    let bench = Bench::new().await;
    bench.take(sweep_of(1..2, Priority::Low), false).await;
    bench.take(sweep_of(2..3, Priority::Normal), false).await;
    let ask = Ask { rise_after: Duration::ZERO, ..bench.ask(1000 * 86_400) };
    let Claimed::Call(claim) = bench.store.claim(ask).await.unwrap() else { panic!("a call was expected") };
    assert_eq!(claim.job.machine, numbered(2));
}

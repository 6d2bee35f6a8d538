//! Long files are taken in two passes, and come to the same as short ones.

use proptest::prelude::*;

use super::*;
use crate::store::long_files::Keys;
use crate::store::sweeps::LeftOut;

fn chunk(jobs: &[NewJob]) -> Chunk {
    Chunk { jobs: jobs.to_vec(), ..Chunk::default() }
}

async fn append(bench: &Bench, sweep: SweepRow, jobs: &[NewJob], keys: &mut Keys) {
    bench.store.append_lines(bench.tenant, sweep, chunk(jobs), keys, at(0)).await.unwrap();
}

async fn open(bench: &Bench, sweep: SweepRow, keys: Keys) {
    bench.store.open_lines(bench.tenant, sweep, keys).await.unwrap();
}

async fn complete(bench: &Bench, sweep: SweepRow) {
    bench.store.complete_sweep(bench.tenant, sweep, completion(false), at(1)).await.unwrap();
    bench.store.release_sweep(sweep, at(1)).await.unwrap();
}

/// Everything that is to be the same whichever way a file came in. A row's id is not.
async fn queue(bench: &Bench) -> Vec<String> {
    let one = |job: JobLine| {
        let JobLine { machine_id, scan_type, priority, state, sweep_ids, .. } = job;
        format!("{machine_id} {scan_type} {priority} {state} {sweep_ids:?}")
    };
    bench.jobs().await.into_iter().map(one).collect()
}

/// Lines of a file: few machines, so that they meet.
fn lines() -> impl Strategy<Value = Vec<NewJob>> {
    let line = (1..12_u8, prop::bool::weighted(0.2), 0..3_i64, prop::option::of(Just("pc")));
    prop::collection::vec(line, 1..30).prop_map(|lines| {
        (1..)
            .zip(lines)
            .map(|(line, (n, full, rank, name))| NewJob {
                scan: if full { ScanType::Full } else { ScanType::Quick },
                priority: Priority::from_rank(rank),
                name: name.map(Into::into),
                ..job(line, machine(n))
            })
            .collect()
    })
}

/// Takes the same file whole, and in pieces with a kill after so many; both into a queue that has others.
async fn both_ways(before: Vec<NewJob>, file: Vec<NewJob>, piece: usize, killed_after: usize) {
    let (whole, pieces) = (Bench::new().await, Bench::new().await);
    for bench in [&whole, &pieces] {
        bench.sweep(before.clone()).await;
        bench.call(1).await;
    }
    let short = whole.sweep(file.clone()).await;
    let long = pieces.store.begin_sweep(pieces.new_sweep()).await.unwrap();
    let mut keys = Keys::default();
    for (n, some) in file.chunks(piece).enumerate() {
        append(&pieces, long, some, &mut keys).await;
        if n == killed_after {
            // Of two batches, the first was opened; of the second nobody knows.
            open(&pieces, long, std::mem::take(&mut keys)).await;
        }
    }
    drop(keys);
    let mut after = 0;
    loop {
        let (keys, last) = pieces.store.appended_lines(long, after, 7).await.unwrap();
        let Some(last) = last else { break };
        open(&pieces, long, keys).await;
        after = last;
    }
    complete(&pieces, long).await;
    pieces.assert_whole().await;
    assert_eq!(pieces.counts(long).await, whole.counts(short).await);
    assert_eq!(
        pieces.store.asked(pieces.tenant, long, at(0)).await.unwrap(),
        whole.store.asked(whole.tenant, short, at(0)).await.unwrap()
    );
    assert_eq!(queue(&pieces).await, queue(&whole).await, "the same machines, in the same order");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_long_file_comes_to_the_same_as_a_short_one_however_it_is_cut(
        before in lines(), file in lines(), piece in 1..12_usize, killed_after in 0..4_usize
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(both_ways(before, file, piece, killed_after));
    }
}

#[tokio::test]
async fn what_is_withdrawn_between_the_passes_leaves_the_machine_to_whoever_has_it() {
    let bench = Bench::with_machines(&[1]).await;
    let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    append(&bench, sweep, &quick(&[1, 2]), &mut Keys::default()).await;
    bench.store.abandon_sweep(sweep, at(1)).await.unwrap();
    let again = bench.sweep(quick(&[1])).await;
    assert_eq!(bench.counts(again).await.joined, 1, "it is still open");
    bench.assert_whole().await;
}

#[tokio::test]
async fn nobody_joins_what_is_not_opened_yet() {
    let bench = Bench::new().await;
    let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    let mut keys = Keys::default();
    append(&bench, sweep, &quick(&[1, 2]), &mut keys).await;
    let urgent = bench.sweep(quick(&[1])).await;
    assert_eq!(bench.counts(urgent).await.queued, 1, "it does not wait for a file that is not whole");
    open(&bench, sweep, keys).await;
    complete(&bench, sweep).await;
    assert_eq!((bench.counts(sweep).await.queued, bench.counts(sweep).await.joined), (1, 1));
    bench.assert_whole().await;
}

#[tokio::test]
async fn what_is_said_of_one_line_alone_is_kept_for_it() {
    let bench = Bench::new().await;
    let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
    let plain = job(1, machine(1));
    let commented = NewJob { line: 2, machine: machine(2), comment: "of this one".into(), ..plain.clone() };
    let later = NewJob { line: 3, machine: machine(3), not_before: Some(at(7)), ..plain.clone() };
    let mut keys = Keys::default();
    let left = |line: u64| LeftOut { line, machine: machine(9), name: None, reason: "why".to_owned() };
    let other = NewJob { machine: machine(4), ..plain.clone() };
    for (line, jobs) in [(4, vec![plain.clone(), commented]), (6, vec![other, later])] {
        let some = Chunk { jobs, left_out: vec![left(line), left(line + 1)], refused: 1, ..Chunk::default() };
        bench.store.append_lines(bench.tenant, sweep, some, &mut keys, at(0)).await.unwrap();
    }
    open(&bench, sweep, keys).await;
    let counts = bench.counts(sweep).await;
    assert_eq!((counts.lines, counts.queued, counts.not_eligible, counts.refused), (10, 4, 4, 2));
    let rows: Vec<(String, Option<i64>)> = sqlx::query_as("SELECT comment, not_before FROM jobs ORDER BY id")
        .fetch_all(&mut *bench.store.reader().await.unwrap())
        .await
        .unwrap();
    let said = rows.iter().map(|(comment, not_before)| (comment.as_str(), *not_before)).collect::<Vec<_>>();
    let plain = &*plain.comment;
    assert_eq!(said, [(plain, None), ("of this one", None), (plain, None), (plain, Some(at(7).0))]);
}

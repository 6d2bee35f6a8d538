//! Counts add up, whatever happens in whatever order.

use proptest::prelude::*;

use super::*;
use crate::domain::job::Reason;
use crate::store::attempts::Looked;
use crate::store::settle::Look;

/// A machine, its priority, and how many seconds it is to wait.
type Asked = (u8, u8, Option<u8>);

/// Something that can happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Sweep { asked: Vec<Asked>, full: bool, wait: bool, held: bool },
    Begin(Vec<Asked>),
    Abandon,
    LetGo,
    Withdraw(u8),
    Claim,
    Answer(u8),
    Look(bool),
    Feed(u8, u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let asked = prop::collection::vec((1_u8..6, 0_u8..4, prop::option::weighted(0.2, any::<u8>())), 1..6);
    prop_oneof![
        1 => asked.clone().prop_map(Step::Begin),
        1 => Just(Step::Abandon),
        3 => (asked, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(asked, full, wait, held)| Step::Sweep { asked, full, wait, held }),
        1 => Just(Step::LetGo),
        1 => (0_u8..8).prop_map(Step::Withdraw),
        6 => Just(Step::Claim),
        6 => (0_u8..9).prop_map(Step::Answer),
        2 => any::<bool>().prop_map(Step::Look),
        4 => (0_u8..6, 0_u8..4).prop_map(|(which, status)| Step::Feed(which, status)),
        1 => Just(Step::Restart),
    ]
}

/// The state of one run: what is on the wire, and which calls had an effect.
struct Run {
    bench: Bench,
    now: i64,
    calls: Vec<Claim>,
    marks: Vec<(MachineId, String)>,
    sweeps: Vec<SweepRow>,
    begun: Vec<SweepRow>,
}

impl Run {
    fn next_id(&self) -> String {
        format!("a{}", self.bench.ids.get())
    }

    fn jobs(&self, asked: &[Asked]) -> Vec<NewJob> {
        let job = |(line, (n, rank, wait)): (u64, &Asked)| NewJob {
            priority: Priority::from_rank(i64::from(*rank)),
            not_before: wait.map(|seconds| at(self.now + i64::from(seconds))),
            ..job(line, machine(*n))
        };
        (1..).zip(asked).map(job).collect()
    }

    async fn answer(&mut self, kind: u8) {
        let Some(claim) = self.calls.pop() else { return };
        let mark = claim.attempt.mark("weekly");
        let machine = claim.job.machine;
        let action = |comment: &str, status| scan(&self.next_id(), machine, status, comment, self.now).action;
        let outcome = match kind {
            0 | 1 => Outcome::Created(action(&mark, ActionStatus::Pending)),
            2 => Outcome::Created(action(&mark, ActionStatus::Succeeded)),
            3 => Outcome::Busy(Some(action("by hand", ActionStatus::InProgress))),
            4 => Outcome::Busy(None),
            5 => Outcome::Refused(Reason::UnknownMachine),
            6 => Outcome::Throttled(Told::default()),
            7 => Outcome::Malformed,
            _ => Outcome::Unknown,
        };
        self.marks.push((machine, mark));
        self.bench.settle(&claim, outcome, self.now).await;
    }

    async fn look(&mut self, finds: bool) {
        let Some((asked, _)) = self.bench.store.next_question(self.bench.tenant).await.unwrap() else { return };
        self.now += 700;
        let found =
            scan(&self.next_id(), asked.machine, ActionStatus::Pending, &asked.attempt.mark("weekly"), self.now);
        let look = Look::Read(if finds { vec![found] } else { Vec::new() });
        let (at, boot) = (at(self.now), boot(self.now));
        let looked = Looked { tenant: self.bench.tenant, asked, began: boot, at, boot, look };
        self.bench.store.take_look(looked, policy()).await.unwrap();
    }

    /// Everything that is open in one status; and, now and then, the action of a call that was
    /// thought to have had no effect.
    async fn feed(&mut self, which: u8, status: u8) {
        let status = [ActionStatus::InProgress, ActionStatus::Succeeded, ActionStatus::Failed, ActionStatus::TimeOut]
            [usize::from(status)]
        .clone();
        let known: Vec<(String, Option<Vec<u8>>, String)> = sqlx::query_as(
            "SELECT id, machine, coalesce(raw ->> '$.requestorComment', '') FROM actions
             WHERE status IN ('Pending', 'InProgress')",
        )
        .fetch_all(&mut *self.bench.store.reader().await.unwrap())
        .await
        .unwrap();
        let mut seen = Vec::new();
        for (id, bytes, comment) in known {
            let machine = MachineId::from_bytes(bytes.unwrap().try_into().unwrap());
            seen.push(scan(&id, machine, status.clone(), &comment, self.now));
        }
        if let Some((machine, mark)) = self.marks.get(usize::from(which)) {
            seen.push(scan(&format!("late{which}"), *machine, status, mark, self.now));
        }
        self.bench.feed(&seen, self.now).await;
    }

    async fn take(&mut self, step: Step) {
        self.now += 70;
        match step {
            Step::Sweep { asked, full, wait, held } => {
                let scan = if full { ScanType::Full } else { ScanType::Quick };
                let on_pending = if wait { OnPending::Wait } else { OnPending::Skip };
                let jobs = self.jobs(&asked).into_iter().map(|job| NewJob { scan, on_pending, ..job }).collect();
                let sweep = self.bench.take(Chunk { jobs, ..Chunk::default() }, held).await;
                self.sweeps.push(sweep);
            }
            Step::Begin(asked) => {
                let bench = &self.bench;
                let sweep = bench.store.begin_sweep(bench.new_sweep()).await.unwrap();
                let chunk = Chunk { jobs: self.jobs(&asked), ..Chunk::default() };
                bench.store.add_chunk(bench.tenant, sweep, chunk, at(self.now)).await.unwrap();
                self.begun.push(sweep);
            }
            Step::Abandon => {
                if let Some(sweep) = self.begun.pop() {
                    self.bench.store.abandon_sweep(sweep, at(self.now)).await.unwrap();
                }
            }
            Step::LetGo => {
                for sweep in &self.sweeps {
                    let bench = &self.bench;
                    bench.store.let_go(*sweep, bench.tenant, operator(), at(self.now)).await.unwrap();
                }
            }
            Step::Withdraw(which) => {
                if let Some(sweep) = self.sweeps.get(usize::from(which)) {
                    self.bench.store.withdraw(*sweep, at(self.now)).await.unwrap();
                }
            }
            Step::Claim => {
                self.bench.store.unpark_due(self.bench.tenant, at(self.now)).await.unwrap();
                if let Claimed::Call(claim) = self.bench.claim(self.now).await {
                    self.calls.push(*claim);
                }
            }
            Step::Answer(kind) => self.answer(kind).await,
            Step::Look(finds) => self.look(finds).await,
            Step::Feed(which, status) => self.feed(which, status).await,
            Step::Restart => {
                self.calls.clear();
                self.bench.restart(birth(self.now)).await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_always_equal_a_recount(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let bench = Bench::new().await;
            let mut run = Run { bench, now: 0, calls: Vec::new(), marks: Vec::new(), sweeps: Vec::new(), begun: Vec::new() };
            for step in steps {
                run.take(step).await;
                run.bench.assert_whole().await;
            }
        });
    }
}

//! The silence that a 429 asks for: whose it is, how long it is known, and when it is over.

use super::*;
use crate::domain::job::Reason;
use crate::domain::lane::Hold;
use crate::store::tenants::Held;

const ABSURD: Duration = Duration::MAX;

fn boot_2(seconds: i64) -> Birth {
    Birth { boot: Boot(5000), boot_id: BootId("boot-2".to_owned()), ..birth(seconds) }
}

impl Bench {
    /// When the silence of a kind of call ends, as it is on disk, and how many there were in a row.
    async fn silent(&self, kind: CallKind) -> Option<(Boot, u32)> {
        self.store.learnt(self.budget).await.unwrap().get(&kind).and_then(|learnt| learnt.silence)
    }

    /// A call for the list of actions that was answered; `change` is what that meant for its silence.
    async fn listed(&self, change: silence::Change, seconds: i64) {
        let kind = CallKind::ListActions;
        let taken = self.store.take_slot(self.budget, kind, self.limits, self.stamp(seconds)).await.unwrap();
        let (note, body) = (self.silence(kind, change, seconds), serde_json::json!({}));
        self.store.settle_read(self.tenant, taken.unwrap(), boot(seconds), at(seconds), body, note).await.unwrap();
    }
}

#[tokio::test]
async fn a_pause_that_defender_asked_for_outlives_the_restart_and_the_boot() {
    let mut bench = Bench::with_machines(&[1]).await;
    bench.throttled(2, 302).await;
    let mut list = Silence::default();
    list.throttled(boot(3), None, ABSURD);
    bench.listed(list.throttled(boot(63), None, ABSURD), 63).await;
    let both = (Some((boot(302), 1)), Some((boot(183), 2)));
    assert_eq!((bench.silent(CallKind::Scan).await, bench.silent(CallKind::ListActions).await), both);
    assert_eq!(bench.silent(CallKind::GetAction).await, None, "every kind has its own");

    bench.restart(birth(70)).await;
    assert_eq!((bench.silent(CallKind::Scan).await, bench.silent(CallKind::ListActions).await), both);

    bench.restart(boot_2(80)).await;
    let both = (Some((Boot(305_000), 1)), Some((Boot(125_000), 2)));
    let after = (bench.silent(CallKind::Scan).await, bench.silent(CallKind::ListActions).await);
    assert_eq!(after, both, "their length from this start");
    bench.restart(Birth { boot: Boot(9000), ..boot_2(84) }).await;
    assert_eq!(bench.silent(CallKind::Scan).await, Some((Boot(305_000), 1)), "once");
}

#[tokio::test]
async fn a_silence_belongs_to_the_registration_whatever_its_tenant_is_called() {
    let mut bench = Bench::with_machines(&[1]).await;
    bench.throttled(2, 302).await;
    bench.tenant = bench.store.tenant(&"contoso-emea".parse().unwrap()).await.unwrap();
    bench.budget = bench.store.budget(bench.tenant, "directory/app").await.unwrap();
    assert_eq!(bench.silent(CallKind::Scan).await, Some((boot(302), 1)));
    let standstill = bench.store.standstill(bench.tenant).await.unwrap();
    assert_eq!((standstill.silent_until, standstill.hold), (Some(boot(302)), None));
    bench.budget = bench.store.budget(bench.tenant, "directory/another app").await.unwrap();
    assert_eq!(bench.silent(CallKind::Scan).await, None);
}

#[tokio::test]
async fn a_second_shorter_429_of_a_call_on_the_wire_shortens_nothing_on_disk() {
    let bench = Bench::with_machines(&[1, 2, 3]).await;
    bench.throttled(2, 302).await;
    // As the memory has it, such an answer changes nothing; but answers may be written in another order.
    bench.throttled(3, 20).await;
    assert_eq!(bench.silent(CallKind::Scan).await, Some((boot(302), 1)));
    bench.throttled(4, 400).await;
    assert_eq!(bench.silent(CallKind::Scan).await, Some((boot(400), 1)));
}

#[tokio::test]
async fn it_goes_with_the_first_answer_after_it_and_with_no_earlier_one() {
    let bench = Bench::with_machines(&[1]).await;
    bench.throttled(2, 302).await;
    let (mut silence, stood) = (Silence::default(), Duration::from_mins(5));
    bench.listed(silence.throttled(boot(3), None, ABSURD), 3).await;
    bench.listed(silence::Change::Over(stood), 62).await;
    assert!(bench.silent(CallKind::ListActions).await.is_some(), "another silence was written down before");
    bench.listed(silence::Change::Over(stood), 63).await;
    assert_eq!(bench.silent(CallKind::ListActions).await, None);
    assert_eq!(bench.silent(CallKind::Scan).await, Some((boot(302), 1)), "of its kind alone");
    assert_eq!(
        bench.number("SELECT count(*) FROM events WHERE kind = 'lane_stopped'").await,
        1,
        "a list stops no lane"
    );
}

#[tokio::test]
async fn a_shared_silence_begins_and_ends_on_the_record_of_every_tenant_that_keeps_it() {
    let bench = Bench::with_machines(&[1, 2]).await;
    let fabrikam = bench.store.tenant(&"fabrikam".parse().unwrap()).await.unwrap();
    assert_eq!(bench.store.budget(fabrikam, "directory/app").await.unwrap(), bench.budget);
    let northwind = bench.store.tenant(&"northwind".parse().unwrap()).await.unwrap();
    bench.store.budget(northwind, "directory/another app").await.unwrap();
    bench.throttled(2, 302).await;
    let claim = bench.call(400).await;
    let over = bench.silence(CallKind::Scan, silence::Change::Over(Duration::from_mins(6)), 401);
    let settlement = bench.settlement(&claim, Outcome::Refused(Reason::UnknownMachine), 401);
    bench.store.settle(Settlement { silence: Some(over), ..settlement }, policy()).await.unwrap();
    for (kind, count) in [
        ("stopped", "SELECT count(*) * 10 + count(DISTINCT tenant_id) FROM events WHERE kind = 'lane_stopped'"),
        ("resumed", "SELECT count(*) * 10 + count(DISTINCT tenant_id) FROM events WHERE kind = 'lane_resumed'"),
    ] {
        assert_eq!(bench.number(count).await, 22, "{kind}: one for each of the two");
    }
    let northwinds = "SELECT count(*) FROM events JOIN tenants ON tenants.id = tenant_id WHERE name = 'northwind'";
    assert_eq!(bench.number(northwinds).await, 0);
    assert!(bench.store.verify_record().await.unwrap().is_ok());
}

#[tokio::test]
async fn what_else_holds_a_lane_is_known_after_a_restart_and_probed_at_once() {
    let mut bench = Bench::with_machines(&[1]).await;
    let claim = bench.call(1).await;
    let held = Some(Held { why: Hold::Forbidden, until: boot(3600) });
    let settlement = Settlement { held, ..bench.settlement(&claim, Outcome::Forbidden(Denial::Unnamed), 2) };
    bench.store.settle(settlement, policy()).await.unwrap();
    assert_eq!(bench.store.standstill(bench.tenant).await.unwrap().hold.map(|(_, until)| until), Some(boot(3600)));
    bench.restart(boot_2(10)).await;
    assert_eq!(bench.store.lane_memory(bench.tenant).await.unwrap().hold, Some(Hold::Forbidden));
    assert_eq!(bench.store.standstill(bench.tenant).await.unwrap().hold.map(|(_, until)| until), Some(Boot(5000)));
}

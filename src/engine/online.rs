//! A look at a tenant from outside the daemon: it signs in, reads one row of each list that sweepd
//! needs, and says which permission is missing. It starts no scan.
//!
//! The daemon may be running: each read takes a slot of the same ledger first, and is on record.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::lane::reads;
use super::{Ids, client_of};
use crate::clock::{Clock, local};
use crate::config::{Network, Tenant};
use crate::defender::{Claims, Client, Read, SignInError, Token, Wire};
use crate::domain::id::{MachineId, SlotId, TenantName};
use crate::domain::ledger::{Admission, CallKind};
use crate::domain::permission::{Asked, Finding, NEEDS, judge};
use crate::domain::silence::{Change, Silence};
use crate::domain::time::{Boot, BootId, Wall};
use crate::store::errands::{Errand, NotNow};
use crate::store::events::{Kind, Subject};
use crate::store::slots::BudgetRow;
use crate::store::tenants::{Operator, TenantRow, sign_in_body};
use crate::store::throttles::{Learnt, SilenceNote};
use crate::store::{Store, StoreError};

/// Where the reads of a look are counted.
#[derive(Clone, Debug)]
pub enum Counted {
    /// In the daemon's ledger, on record as this operator's.
    In(Store, Operator),
    /// Nowhere: no daemon has a database yet, whose budget they could overdraw.
    Nowhere,
    /// They could not be: so none is made.
    Refused(String),
}

/// What every look shares.
pub struct Looker<'a> {
    /// What carries the calls.
    pub wire: Arc<dyn Wire>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
    /// This boot.
    pub boot_id: BootId,
    /// How calls leave this machine.
    pub network: &'a Network,
    /// Where the reads are counted.
    pub counted: Counted,
    /// An operator has had enough: what is on the wire is given up.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Looker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looker").field("counted", &self.counted).finish_non_exhaustive()
    }
}

/// What a look at a tenant has found.
#[derive(Clone, Debug)]
pub struct Looked {
    /// What the token says of itself, if it can be read; or why there is none.
    pub signed_in: Result<Option<Claims>, SignInError>,
    /// What the sign-in server's clock had when ours had the other, if it told.
    pub clocks: Option<(Wall, Wall)>,
    /// Each feature; none when the sign-in failed.
    pub findings: Vec<Finding>,
    /// What could not be counted or recorded as it should be.
    pub troubles: Vec<String>,
}

/// A tenant's place in the ledger.
#[derive(Clone, Copy)]
struct Place {
    tenant: TenantRow,
    budget: BudgetRow,
}

/// An action and a machine that no tenant has, for a tenant that shows none: 404 to a read of them shows that the
/// permission is there, and 403 that it is not. Microsoft's pages differ on which permission that is.
const NO_ACTION: &str = "00000000-0000-4000-8000-000000000000";
const NO_MACHINE: MachineId = MachineId::from_bytes([0; 20]);

/// One look under way.
struct Look<'a> {
    looker: &'a Looker<'a>,
    tenant: &'a Tenant,
    place: Option<Place>,
    client: Client,
    troubles: Vec<String>,
}

impl Looker<'_> {
    /// Looks at one tenant.
    pub async fn look(&self, name: &TenantName, tenant: &Tenant) -> Looked {
        let client = client_of(tenant, &self.wire, &self.clock, &self.ids, None);
        let mut look = Look { looker: self, tenant, place: None, client, troubles: Vec::new() };
        if self.stop.is_cancelled() {
            let interrupted = look.interrupted();
            return look.ended(Err(interrupted));
        }
        look.find_place(name).await;
        look.run().await
    }
}

impl Look<'_> {
    async fn find_place(&mut self, name: &TenantName) {
        let Counted::In(store, _) = &self.looker.counted else { return };
        match store.errand_budget(name, &self.tenant.registration()).await {
            Ok((tenant, budget)) => self.place = Some(Place { tenant, budget }),
            Err(error) => self.troubles.push(format!("the ledger cannot be used: {error}")),
        }
    }

    async fn run(mut self) -> Looked {
        let signed_in = self.unless_stopped(self.client.token()).await;
        let signed_in = signed_in.unwrap_or_else(|| Err(self.interrupted()));
        let failed = signed_in.as_ref().err().map(|error| error.message.as_str());
        let body = self.by_operator(sign_in_body(failed));
        self.record(body).await;
        let signed_in = match signed_in {
            Ok(signed_in) => signed_in,
            Err(error) => return self.ended(Err(error)),
        };
        let clocks = signed_in.server_time.map(|seen| {
            let boot = self.looker.clock.boot();
            (seen.now(boot), self.looker.clock.wall())
        });
        let claims = signed_in.token.claims();
        let findings = self.findings(&signed_in.token, claims.as_ref()).await;
        Looked { clocks, findings, ..self.ended(Ok(claims)) }
    }

    fn ended(self, signed_in: Result<Option<Claims>, SignInError>) -> Looked {
        Looked { signed_in, clocks: None, findings: Vec::new(), troubles: self.troubles }
    }

    fn interrupted(&self) -> SignInError {
        SignInError {
            message: "interrupted".to_owned(),
            until: self.looker.clock.boot(),
            fresh: true,
            unreachable: false,
        }
    }

    async fn findings(&mut self, token: &Token, claims: Option<&Claims>) -> Vec<Finding> {
        let client = self.client.clone();
        let (listed, action) = match self.read(CallKind::ListActions, client.any_action(token)).await {
            Ok(Read::Got(id)) => (Asked::Allowed, id),
            // Everything has an address; even in Defender's words this is not the one of its API.
            Ok(Read::Absent) => (
                Asked::Unreachable("404 for the list of actions, which is always there (is api_url right?)".to_owned()),
                None,
            ),
            Ok(other) => (asked(other), None),
            Err(why) => (Asked::Not(why), None),
        };
        let action = action.as_deref().unwrap_or(NO_ACTION);
        let single = self.ask(CallKind::GetAction, client.get_action(token, action)).await;
        let (machines, machine) = match self.read(CallKind::ListMachines, client.any_machine(token)).await {
            Ok(Read::Got(id)) => (Asked::Allowed, id),
            Ok(other) => (asked(other), None),
            Err(why) => (Asked::Not(why), None),
        };
        let machine = machine.unwrap_or(NO_MACHINE);
        let known = self.ask(CallKind::GetMachine, client.get_machine(token, machine)).await;
        let roles = claims.map(|claims| claims.roles.as_slice());
        let finding = |need: crate::domain::permission::Need| {
            let asked = match need.call {
                CallKind::ListActions => &listed,
                CallKind::GetAction => &single,
                CallKind::ListMachines => &machines,
                CallKind::GetMachine => &known,
                CallKind::Scan => &Asked::Not("no scan is started to find out".to_owned()),
                CallKind::CancelAction => &Asked::Not("no action is cancelled to find out".to_owned()),
            };
            judge(need, roles, asked)
        };
        NEEDS.into_iter().map(finding).collect()
    }

    async fn ask<T>(&mut self, kind: CallKind, call: impl Future<Output = Read<T>>) -> Asked {
        match self.read(kind, call).await {
            Ok(answer) => asked(answer),
            Err(why) => Asked::Not(why),
        }
    }

    /// Makes a read once the ledger has admitted it; the error says why it was not made. Nothing waits
    /// for a window: whoever checks wants to know now.
    async fn read<T>(&mut self, kind: CallKind, call: impl Future<Output = Read<T>>) -> Result<Read<T>, String> {
        let (store, place) = match (&self.looker.counted, self.place) {
            (Counted::Refused(why), _) => return Err(why.clone()),
            (Counted::In(..), None) => return Err("the ledger cannot be used".to_owned()),
            (Counted::Nowhere, _) => return self.unless_stopped(call).await.ok_or_else(|| "interrupted".to_owned()),
            (Counted::In(store, _), Some(place)) => (store.clone(), place),
        };
        if self.looker.stop.is_cancelled() {
            return Err("interrupted".to_owned());
        }
        let (slot, learnt) = match self.slot(&store, place, kind).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(why)) => return Err(why),
            Err(error) => return Err(format!("the ledger cannot be used: {error}")),
        };
        let clock = Arc::clone(&self.looker.clock);
        let began = clock.boot();
        let answer = self.unless_stopped(call).await.unwrap_or_else(|| Read::Failed("interrupted".to_owned()));
        let ended = clock.boot();
        // What was given up may still arrive.
        let lost = matches!(answer, Read::Failed(_));
        let settles = if lost { ended + self.looker.network.unknown_grace } else { ended };
        let body = self.by_operator(reads::body(kind, &answer, ended.since(began)));
        let note = self.heard(place, kind, learnt, &answer, ended);
        if let Err(error) = store.settle_read(place.tenant, slot, settles, clock.wall(), body, note).await {
            self.troubles.push(format!("the end of a call could not be recorded: {error}"));
        }
        Ok(answer)
    }

    /// The silence that a 429 asks for: a daemon that starts keeps it, and so does the next look.
    fn heard<T>(&self, place: Place, kind: CallKind, learnt: Learnt, answer: &Read<T>, now: Boot) -> SilenceNote {
        let longest = self.tenant.budgets.longest_pause;
        let change = match answer {
            Read::Throttled(told) => {
                let mut silence = learnt
                    .silence
                    .map_or_else(Silence::default, |(until, strikes)| Silence::resumed(until, strikes, now, longest));
                silence.throttled(now, told.wait, longest)
            }
            _ => Change::None,
        };
        SilenceNote { budget: place.budget, kind, change, boot_id: self.looker.boot_id.clone(), boot: now }
    }

    /// A slot, with what is known of its kind of call; or why there is none, in words.
    async fn slot(
        &self,
        store: &Store,
        place: Place,
        kind: CallKind,
    ) -> Result<Result<(SlotId, Learnt), String>, StoreError> {
        let clock = &self.looker.clock;
        let learnt = store.learnt(place.budget).await?.get(&kind).copied().unwrap_or_default();
        let (boot, wall) = (clock.boot(), clock.wall());
        let errand = Errand {
            budget: place.budget,
            kind,
            limits: self.tenant.budgets.of(kind).beside(learnt.foreign).limits(),
            longest_pause: self.tenant.budgets.longest_pause,
            boot_id: self.looker.boot_id.clone(),
            boot,
            at: wall,
        };
        let until = |at: Boot| format!(" until {}", local(wall + at.since(boot), wall));
        Ok(match store.errand_slot(errand).await? {
            Ok(slot) => Ok((slot, learnt)),
            Err(NotNow::Silent(at)) => Err(format!("Defender has asked for silence (429){}", until(at))),
            Err(NotNow::Full(admission)) => {
                let until = if let Admission::NotBefore(at, _) = admission { until(at) } else { String::new() };
                Err(format!("the budget of {} is used up{until}", kind.as_str()))
            }
        })
    }

    /// Puts something on the tenant's record, where there is one.
    async fn record(&mut self, body: serde_json::Value) {
        let (Counted::In(store, _), Some(place)) = (&self.looker.counted, self.place) else { return };
        let at = self.looker.clock.wall();
        if let Err(error) = store.record(at, Kind::CallMade, Subject::tenant(place.tenant), body).await {
            self.troubles.push(format!("the sign-in could not be recorded: {error}"));
        }
    }

    /// What goes on record, with who asked.
    fn by_operator(&self, mut body: serde_json::Value) -> serde_json::Value {
        if let (Counted::In(_, operator), Some(body)) = (&self.looker.counted, body.as_object_mut()) {
            body.insert("by".to_owned(), json!(operator));
        }
        body
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // In this order: after a stop nothing begins.
            biased;
            () = self.looker.stop.cancelled() => None,
            done = work => Some(done),
        }
    }
}

/// What the end of a read says about the permission.
fn asked<T>(answer: Read<T>) -> Asked {
    match answer {
        // 404 in Defender's words: of machines, when none was seen lately; of a single one, when lists and reads
        // disagree.
        Read::Got(_) | Read::Absent => Asked::Allowed,
        Read::Forbidden { said, wants } => Asked::Forbidden { said: one_line(&said), wants },
        Read::Unauthorized => Asked::Unauthorized,
        Read::Throttled(_) => Asked::Not("Defender throttles the read that would show it (429)".to_owned()),
        Read::Refused(said) => Asked::Not(format!("Defender does not understand the read: {}", one_line(&said))),
        Read::Failed(why) | Read::NotSent(why) => Asked::Unreachable(one_line(&why)),
    }
}

/// What a server said, as a terminal may show it.
pub fn one_line(said: &str) -> String {
    said.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

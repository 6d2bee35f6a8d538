//! The state of one tenant, and who gets to it: no IO, no clock, no async. Time comes in with each
//! request; what happened since is worked out then.

use std::collections::{BTreeMap, HashMap};

use super::action::{Asked, Fate, SimulatedAction};
use super::calls::Call;
use super::chance::Chance;
use super::exchange::{Delivery, Refusal, Request, Response};
use super::faults::{Fault, Faults};
use super::fleet::{MachineKind, SimulatedMachine};
use super::metadata;
use super::options::{TenantOptions, Trust};
use super::sign_in::SignIn;
use super::windows::{Full, Verdict, Windows};
use crate::domain::id::MachineId;
use crate::domain::ledger::CallKind;
use crate::domain::sweep::ScanType;
use crate::domain::time::Wall;

/// A simulated tenant: its directory, its machines, its actions.
#[derive(Debug)]
pub struct Tenant {
    pub(super) options: TenantOptions,
    /// Where the links of lists point.
    pub(super) base_url: String,
    pub(super) started: Wall,
    pub(super) sign_in: SignIn,
    pub(super) windows: BTreeMap<CallKind, Windows>,
    pub(super) faults: Faults,
    pub(super) machines: HashMap<MachineId, Machine>,
    pub(super) actions: Vec<SimulatedAction>,
    pub(super) by_id: HashMap<String, usize>,
    pub(super) counts: Counts,
    chance: Chance,
}

/// A machine, what it draws, and what it does.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) known: SimulatedMachine,
    pub(super) chance: Chance,
    /// Its newest action: the only one that may be open, since a busy machine takes no other.
    newest: Option<usize>,
    /// How many of its actions the public API created.
    pub(super) scans: u32,
}

/// What the report counts beside the windows.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) foreign_scans: usize,
    pub(super) existing_returned: u64,
    pub(super) cancelled: u64,
    pub(super) scan_calls: BTreeMap<String, u32>,
    pub(super) refused: BTreeMap<String, u64>,
}

impl Tenant {
    /// A tenant that begins at `now`. `base_url` is the address under which it is served.
    pub fn new(options: TenantOptions, seed: u64, now: Wall, base_url: &str) -> Self {
        let own = options.tenant_id.as_bytes();
        let machine = |known: &SimulatedMachine| Machine {
            known: known.clone(),
            chance: Chance::of(seed, known.id.bytes()),
            newest: None,
            scans: 0,
        };
        let mut tenant = Self {
            base_url: base_url.to_owned(),
            started: now,
            sign_in: SignIn::default(),
            windows: CallKind::ALL
                .iter()
                .map(|kind| {
                    let windows = Windows::new(options.limits_of(*kind), options.count_rejected);
                    (*kind, windows.shaped(options.windows))
                })
                .collect(),
            faults: Faults::new(Chance::of(seed.wrapping_add(1), own)),
            machines: options.machines.iter().map(|known| (known.id, machine(known))).collect(),
            actions: Vec::new(),
            by_id: HashMap::new(),
            counts: Counts::default(),
            chance: Chance::of(seed, own),
            options,
        };
        let busy = tenant.options.machines.iter().filter(|known| known.kind == MachineKind::ForeignScanPending);
        for id in busy.map(|known| known.id).collect::<Vec<_>>() {
            tenant.start_foreign_scan(now, id);
        }
        tenant
    }

    /// Answers a request, faults aside.
    pub fn handle(&mut self, now: Wall, request: &Request) -> Response {
        match self.receive(now, request) {
            Ok(call) => self.perform(now, &call, request),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Answers a request as the faults in force have it.
    pub fn exchange(&mut self, now: Wall, request: &Request) -> Delivery {
        let call = match self.receive(now, request) {
            Ok(call) => call,
            Err(refusal) => return Delivery::Answer(self.refuse(&refusal)),
        };
        match self.faults.strike(call.target(), call.names()) {
            None => Delivery::Answer(self.perform(now, &call, request)),
            Some(fault) => {
                let answer = fault.has_effect().then(|| self.perform(now, &call, request));
                fault.deliver(answer, request.bearer().unwrap_or_default())
            }
        }
    }

    /// Something is to go wrong.
    pub fn add_fault(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// Nothing is to go wrong any more.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// An analyst starts a full scan in the portal. A busy or unknown machine takes none.
    pub fn start_foreign_scan(&mut self, now: Wall, machine: MachineId) {
        let asked = Asked {
            requestor: "analyst@contoso.example".to_owned(),
            comment: "Checking an alert".to_owned(),
            source: "Portal",
            scan: ScanType::Full,
        };
        if self.open_action(now, machine).is_none() && self.create(now, machine, asked).is_some() {
            self.counts.foreign_scans += 1;
        }
    }

    /// The analyst cancels every scan that was started in the portal and has not ended.
    pub fn cancel_foreign_scans(&mut self, now: Wall) {
        for action in self.actions.iter_mut().filter(|action| !action.is_public()) {
            // One that has ended stays as it is.
            action.cancel(now, "analyst@contoso.example", "Nothing was found").ok();
        }
    }

    /// Somebody else who uses the same app registration makes a call. Returns whether there was room.
    pub fn call_by_a_stranger(&mut self, now: Wall, kind: CallKind) -> bool {
        self.windows.get_mut(&kind).is_some_and(|windows| windows.arrive_foreign(now) == Verdict::Admitted)
    }

    /// When each call of this kind arrived, those of strangers aside.
    pub fn arrivals(&self, kind: CallKind) -> &[Wall] {
        self.windows.get(&kind).map_or(&[], Windows::seen)
    }

    /// Ends every token, as an administrator may.
    pub fn revoke_tokens(&mut self) {
        self.sign_in.revoke();
    }

    /// From now on only this secret is right. Tokens that were issued stay good, as at Entra.
    pub fn set_client_secret(&mut self, secret: &str) {
        secret.clone_into(&mut self.options.client_secret);
    }

    /// From now on the application may sign in with these, and the secret.
    pub fn set_trust(&mut self, trust: Trust) {
        self.options.trust = trust;
    }

    /// Whether this tenant issued the token of the request, or has the identity that it names.
    pub(super) fn is_meant_by(&self, request: &Request) -> bool {
        if request.path == metadata::PATH {
            return metadata::check(request, &self.options).is_ok();
        }
        request.bearer().is_some_and(|token| self.sign_in.knows(token))
    }

    /// The call that a request makes, if it may be made: a live token, a role, room in the windows.
    fn receive(&mut self, now: Wall, request: &Request) -> Result<Call, Refusal> {
        self.counts.requests += 1;
        let call = Call::of(request)?;
        if let Call::Scan(machine) = &call {
            *self.counts.scan_calls.entry(machine.clone()).or_default() += 1;
        }
        let Some(kind) = call.kind() else {
            return Ok(call);
        };
        let allowed = self.authorise(now, kind, request);
        let Some(windows) = self.windows.get_mut(&kind) else {
            return Ok(call);
        };
        if allowed.is_err() {
            windows.turn_away(now);
        }
        allowed?;
        match windows.arrive(now) {
            Verdict::Admitted => Ok(call),
            Verdict::Throttled(full) => Err(throttled(&full)),
        }
    }

    fn authorise(&self, now: Wall, kind: CallKind, request: &Request) -> Result<(), Refusal> {
        if !request.bearer().is_some_and(|token| self.sign_in.is_live(token, now)) {
            return Err(unauthorized());
        }
        // API/run-av-scan.md, API/cancel-machine-action.md, API/get-machine-action-object.md,
        // API/get-machines.md, API/get-machine-by-id.md.
        let roles: &[&str] = match kind {
            CallKind::Scan | CallKind::CancelAction => &["Machine.Scan"],
            CallKind::ListActions | CallKind::GetAction | CallKind::ListMachines | CallKind::GetMachine => {
                &["Machine.Read.All", "Machine.ReadWrite.All"]
            }
        };
        if self.options.roles.iter().any(|role| roles.contains(&role.as_str())) {
            return Ok(());
        }
        let message = format!(
            "The application does not have any of the required application permissions ({}) to access the resource.",
            roles.join(", ")
        );
        Err(Refusal::new(403, "Forbidden", message))
    }

    fn perform(&mut self, now: Wall, call: &Call, request: &Request) -> Response {
        let answer = match call {
            Call::SignIn => {
                return self.sign_in.answer(now, request, &self.options, &self.base_url, &mut self.chance);
            }
            Call::Scan(machine) => self.scan(now, machine, request),
            Call::ListActions => self.list_actions(now, request),
            Call::GetAction(id) => self.get_action(now, id),
            Call::CancelAction(id) => self.cancel_action(now, id, request),
            Call::ListMachines => self.list_machines(request),
            Call::GetMachine(id) => self.get_machine(id),
        };
        answer.unwrap_or_else(|refusal| self.refuse(&refusal))
    }

    fn refuse(&mut self, refusal: &Refusal) -> Response {
        let code = if refusal.code.is_empty() { "(odata)" } else { refusal.code };
        *self.counts.refused.entry(code.to_owned()).or_default() += 1;
        refusal.answer(&self.chance.uuid().to_string())
    }

    /// What makes the machine busy.
    pub(super) fn open_action(&self, now: Wall, machine: MachineId) -> Option<&SimulatedAction> {
        let action = self.actions.get(self.machines.get(&machine)?.newest?)?;
        action.seen(now).status.is_open().then_some(action)
    }

    /// Creates an action on a machine that exists and is not busy.
    pub(super) fn create(&mut self, now: Wall, id: MachineId, asked: Asked) -> Option<&SimulatedAction> {
        let machine = self.machines.get_mut(&id)?;
        let options = &self.options;
        let fate = match (asked.source, machine.known.kind) {
            ("Portal", _) => Fate::pending_for(options.foreign_scan_duration),
            (_, MachineKind::Inactive) => Fate::of_an_absent_machine(options.absent_for),
            _ => Fate::draw(&mut machine.chance, options.action_duration, options.all_succeed),
        };
        let named = (id.to_string(), machine.known.name.clone());
        let action = SimulatedAction::new(&mut machine.chance, now, named, asked, fate);
        let index = self.actions.len();
        machine.newest = Some(index);
        machine.scans += u32::from(action.is_public());
        self.by_id.insert(action.id.clone(), index);
        self.actions.push(action);
        self.actions.last()
    }
}

/// The answer to whoever has no token that is good here.
pub(super) fn unauthorized() -> Refusal {
    Refusal::new(401, "Unauthorized", "The access token is missing, has expired or is not valid.")
}

/// The wording and the code, a string, as observed (minemeld README); `Retry-After` as documented
/// (API/common-errors.md).
fn throttled(full: &Full) -> Refusal {
    let seconds = full.wait.as_millis().div_ceil(1000);
    let window = full.window.as_secs();
    let message = format!(
        "API calls quota exceeded! Maximum allowed {} per {:02}:{:02}:00 for the key \
         Destination+TenantID+AppID. You can send requests again in {seconds} seconds.",
        full.limit,
        window / 3600,
        window / 60 % 60,
    );
    Refusal { retry_after: u64::try_from(seconds).ok(), ..Refusal::new(429, "429", message) }
}

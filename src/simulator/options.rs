//! What a simulation is made of.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use uuid::Uuid;

use super::chance::Chance;
use super::fleet::SimulatedMachine;
use super::windows::Shape;
use crate::domain::ledger::{CallKind, Limits};

/// A simulation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 is any.
    pub listen: SocketAddr,
    /// The tenants, each with its own sign-in; they share one address.
    pub tenants: Vec<TenantOptions>,
    /// Everything random follows from it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tenants: Vec::new(), seed: 0 }
    }
}

/// One tenant, with the one application that may sign in.
#[derive(Clone, Debug)]
pub struct TenantOptions {
    /// The directory's id.
    pub tenant_id: Uuid,
    /// The application's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// What else it may sign in with.
    pub trust: Trust,
    /// Its name: the `requestor` of its actions.
    pub app_name: String,
    /// Its permissions, such as `Machine.Scan`.
    pub roles: Vec<String>,
    /// The machines that exist.
    pub machines: Vec<SimulatedMachine>,
    /// The limits of the scan call.
    pub limits: Limits,
    /// The limits of each other kind of call.
    pub other_limits: Limits,
    /// Whether calls that are answered with 429 fill the windows too (unknown of Defender).
    pub count_rejected: bool,
    /// How the windows are laid (unknown of Defender too).
    pub windows: Shape,
    /// How long an action is Pending, and how long in progress; each scattered by half by the seed.
    pub action_duration: (Duration, Duration),
    /// How long an action of a machine that stays away is Pending before it times out.
    pub absent_for: Duration,
    /// How long a scan of somebody else stays Pending.
    pub foreign_scan_duration: Duration,
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// How long a new action is missing from lists (observed in elastic/kibana PR 237109).
    pub list_lag: Duration,
    /// No action fails, times out or is cancelled by itself.
    pub all_succeed: bool,
    /// How many rows a list returns at most.
    pub page_size: usize,
    /// What else the list of actions does.
    pub lists: Lists,
}

/// What the list of actions does where the documents are silent.
#[derive(Clone, Copy, Debug)]
pub struct Lists {
    /// Whether it may be filtered and sorted by last update: undocumented, and observed.
    pub by_update: bool,
    /// Of every so many actions one is shown as it was so long ago: parts of an index may lag.
    pub late: Option<(usize, Duration)>,
    /// Pages of more rows than this are answered with 500.
    pub longest: usize,
}

impl Default for Lists {
    fn default() -> Self {
        Self { by_update: true, late: None, longest: usize::MAX }
    }
}

/// What an application may sign in with beside its secret: nothing, unless it is said.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates that are registered with it, as DER.
    pub certificates: Vec<Vec<u8>>,
    /// Somebody else's tokens.
    pub federated: Option<Federated>,
    /// The ids of the identities that this machine has, for its metadata service.
    pub identities: Vec<String>,
}

/// Whose tokens stand for the application: all three must fit, letter by letter.
#[derive(Clone, Debug)]
pub struct Federated {
    /// Who signs them.
    pub issuer: String,
    /// For whom.
    pub subject: String,
    /// To whom.
    pub audience: String,
    /// The issuer's public RSA key, as PKCS#1. (Entra fetches it from the issuer.)
    pub key: Vec<u8>,
}

impl TenantOptions {
    /// A tenant as documented: its limits, its page size, tokens for an hour, all permissions that
    /// sweepd asks for. Ids follow from the machines, so that different fleets make different
    /// tenants.
    pub fn new(machines: Vec<SimulatedMachine>) -> Self {
        let named: Vec<u8> = machines.iter().flat_map(|machine| *machine.id.bytes()).collect();
        let mut chance = Chance::of(0, &named);
        Self {
            tenant_id: chance.uuid(),
            client_id: chance.uuid().to_string(),
            client_secret: "simulated-secret".to_owned(),
            trust: Trust::default(),
            app_name: "sweepd (simulated)".to_owned(),
            roles: vec!["Machine.Scan".to_owned(), "Machine.Read.All".to_owned()],
            machines,
            limits: Limits::DOCUMENTED,
            other_limits: Limits::DOCUMENTED,
            count_rejected: false,
            windows: Shape::Sliding,
            action_duration: (Duration::from_secs(5), Duration::from_secs(15)),
            // Last update 3 d 0 h 14 min after creation, twice (Elastic's fixtures).
            absent_for: Duration::from_mins(3 * 24 * 60 + 14),
            foreign_scan_duration: Duration::from_mins(10),
            token_lifetime: Duration::from_secs(3599),
            list_lag: Duration::ZERO,
            all_succeed: false,
            page_size: 10_000,
            lists: Lists::default(),
        }
    }

    pub(super) const fn limits_of(&self, kind: CallKind) -> Limits {
        match kind {
            CallKind::Scan => self.limits,
            _ => self.other_limits,
        }
    }
}

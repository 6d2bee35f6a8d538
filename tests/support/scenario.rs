//! What happens to a world, from a seed: limits and latencies, faults and stalls, kills and clocks.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sweepd::domain::ledger::{CallKind, Limits};
use sweepd::domain::time::Wall;
use sweepd::simulator::windows::Shape;
use sweepd::simulator::{
    Chance, Fault, FaultKind, MachineKind, Network, SimulatedMachine, Stall, Target, TenantOptions, fleet,
};

use super::world::{BEGIN, Death, Setup, World, good_network};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// When the wall clock is set right again, whatever happened to it.
const NOTICED: Duration = Duration::from_hours(4);

/// What happens at some time.
#[derive(Clone, Copy, Debug)]
pub enum Incident {
    /// The daemon dies and is started again after a while.
    Death(Death, Duration),
    /// It is killed twenty times within a minute.
    Deaths,
    /// Somebody sets the wall clock while the daemon runs.
    WallSet(WallError),
    /// The daemon is killed, and somebody sets the wall clock before the next start.
    WallSetBetween(WallError),
    /// The daemon is killed, and both clocks jump by so many milliseconds before the next start.
    Jump(i64),
    /// The same while it runs.
    JumpRunning(i64),
    /// SIGSTOP, and SIGCONT after a while.
    Stopped(Duration),
    /// The machine sleeps: neither it nor its network does anything.
    Suspended(Duration),
    /// The machine is switched off and boots after a while, its wall clock wrong.
    Reboot(Duration, WallError),
}

/// How wrong a wall clock is.
#[derive(Clone, Copy, Debug)]
pub enum WallError {
    /// It is right again.
    None,
    /// Ahead of what it should be by so many milliseconds.
    Ahead(i64),
    /// It says that it is 1970.
    Epoch,
}

impl WallError {
    fn at(self, world: Wall) -> Wall {
        match self {
            Self::None => world,
            Self::Ahead(by) => Wall(world.0 + by),
            Self::Epoch => Wall(0),
        }
    }
}

/// A plan for a world.
#[derive(Debug)]
pub struct Scenario {
    pub seed: u64,
    pub limits: Limits,
    pub tenant: TenantOptions,
    pub network: Network,
    pub faults: Vec<Fault>,
    /// Calls an hour of a stranger with the same app registration, and whether they come evenly.
    pub stranger: Option<(u32, bool)>,
    /// Whether jobs wait for what makes a machine busy.
    pub waits: bool,
    /// In order.
    pub incidents: Vec<(Wall, Incident)>,
}

fn between(chance: &mut Chance, range: Range<u32>) -> u32 {
    range.start + chance.below(range.end - range.start)
}

fn seconds(chance: &mut Chance, range: Range<u32>) -> Duration {
    SECOND * between(chance, range)
}

fn one_in(chance: &mut Chance, n: u32) -> bool {
    chance.below(n) == 0
}

fn pick<T: Copy>(chance: &mut Chance, from: &[T]) -> T {
    from[usize::try_from(chance.below(u32::try_from(from.len()).unwrap())).unwrap()]
}

/// Mostly small ones, so that hours cost few calls; twice in fifty seeds the documented ones.
fn limits(chance: &mut Chance, seed: u64) -> Limits {
    if seed.is_multiple_of(25) {
        return Limits::DOCUMENTED;
    }
    let minute = between(chance, 3..21);
    let hour = between(chance, 10..101).max(minute);
    Limits::new(NonZeroU32::new(minute).unwrap(), NonZeroU32::new(hour).unwrap()).unwrap()
}

/// More machines than three hours are enough for; of the documented limits, more than one.
fn machines(chance: &mut Chance, seed: u64, limits: Limits) -> Vec<SimulatedMachine> {
    let hour = limits.per_hour.get();
    let count = if limits == Limits::DOCUMENTED { hour + 20 } else { 3 * hour + 1 + chance.below(hour) };
    let mut machines = fleet(seed, usize::try_from(count).unwrap(), "contoso");
    for machine in &mut machines {
        machine.kind = match chance.below(40) {
            0 => MachineKind::UnsupportedPlatform,
            1 => MachineKind::OldClient,
            2 => MachineKind::Inactive,
            3 | 4 => MachineKind::ForeignScanPending,
            _ => MachineKind::Normal,
        };
    }
    machines
}

fn latency(chance: &mut Chance) -> (Duration, Duration) {
    let milliseconds = Duration::from_millis;
    pick(
        chance,
        &[
            (milliseconds(20), milliseconds(300)),
            (milliseconds(300), 3 * SECOND),
            (SECOND, 10 * SECOND),
            (Duration::ZERO, 30 * SECOND),
        ],
    )
}

fn faults(chance: &mut Chance) -> Vec<Fault> {
    const SCAN: Target = Target::Call(CallKind::Scan);
    let status = |code: u16, effect: bool, headers: &[(&str, &str)], body: &str| FaultKind::Status {
        code,
        body: body.to_owned(),
        effect,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let date = ("Date", "Mon, 12 Oct 2026 10:00:00 GMT");
    let not_found = "{\"error\":{\"code\":\"ResourceNotFound\",\"message\":\"Machine was not found\"}}";
    let in_words = "{\"error\":{\"code\":\"429\",\"message\":\"You can send requests again in 45 seconds.\"}}";
    let kinds = [
        status(500, false, &[], ""),
        status(502, true, &[], "<html>"),
        status(503, false, &[("Retry-After", "30")], ""),
        status(401, false, &[], ""),
        status(404, false, &[], not_found),
        status(429, false, &[("Retry-After", "17")], ""),
        status(429, false, &[("Retry-After", "Mon, 12 Oct 2026 10:01:30 GMT"), date], ""),
        status(429, false, &[("Retry-After", "-3"), date], in_words),
        status(429, false, &[("Retry-After", "soon")], ""),
        FaultKind::ResetBeforeEffect,
        FaultKind::ResetAfterEffect,
        FaultKind::Hang { effect: false },
        FaultKind::Hang { effect: true },
        FaultKind::Truncated,
        FaultKind::Garbage,
        FaultKind::Empty,
        FaultKind::Delay { millis: 20_000 },
    ];
    let mut faults = Vec::new();
    for kind in kinds {
        if one_in(chance, 5) {
            let target = pick(chance, &[SCAN, SCAN, Target::Any, Target::SignIn]);
            faults.push(Fault::always(target, kind).with_probability(0.002 + 0.02 * chance.share()));
        }
    }
    faults
}

/// Within the first three and a half hours.
fn sometime(chance: &mut Chance) -> Wall {
    BEGIN + SECOND * chance.below(12_600)
}

fn stalls(chance: &mut Chance) -> Vec<Stall> {
    let mut stalls: Vec<Stall> = Vec::new();
    for _ in 0..chance.below(4) {
        let from = sometime(chance);
        let length = if one_in(chance, 3) { seconds(chance, 20..300) } else { 100 * SECOND };
        stalls.push(Stall { from, until: from + length, connects: !one_in(chance, 4) });
    }
    stalls
}

/// While nothing gets through, as often as at any other time: then the most is under way.
fn some_bad_time(chance: &mut Chance, stalls: &[Stall]) -> Wall {
    let at = sometime(chance);
    match stalls {
        [_, ..] if one_in(chance, 2) => pick(chance, stalls).from + SECOND * chance.below(90),
        _ => at,
    }
}

fn wall_error(chance: &mut Chance) -> WallError {
    use WallError::{Ahead, Epoch, None};
    pick(chance, &[None, Ahead(HOUR), Ahead(-HOUR), Ahead(DAY), Ahead(-DAY), Ahead(3650 * DAY), Epoch])
}

fn incident(chance: &mut Chance) -> Incident {
    let down = if one_in(chance, 2) { Duration::ZERO } else { seconds(chance, 1..120) };
    match chance.below(13) {
        0 => Incident::Death(Death::Killed, down),
        1 => Incident::Death(Death::KilledCalling, Duration::ZERO),
        2 | 3 => Incident::Death(Death::KilledWriting(u16::try_from(chance.below(40)).unwrap()), down),
        4 => Incident::Death(Death::Stopped(seconds(chance, 0..60)), down),
        5 => Incident::Deaths,
        6 => Incident::WallSet(wall_error(chance)),
        7 => Incident::WallSetBetween(wall_error(chance)),
        8 => Incident::Stopped(10 * MINUTE),
        9 => Incident::Suspended(10 * MINUTE),
        10 => Incident::JumpRunning(pick(chance, &[HOUR, DAY, HOUR / 6, 90_000])),
        11 => Incident::Jump(pick(chance, &[HOUR, HOUR, -HOUR, DAY, -DAY, 3650 * DAY, 90_000])),
        _ => Incident::Reboot(seconds(chance, 20..300), wall_error(chance)),
    }
}

/// In order, and apart, as [`Network::stalls`] have to be.
fn apart(mut stalls: Vec<Stall>) -> Vec<Stall> {
    stalls.sort_by_key(|stall| stall.from);
    let mut apart: Vec<Stall> = Vec::new();
    for stall in stalls {
        match apart.last_mut().filter(|last| stall.from <= last.until) {
            Some(last) => last.until = last.until.max(stall.until),
            None => apart.push(stall),
        }
    }
    apart
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed, b"scenario");
        let chance = &mut chance;
        let limits = limits(chance, seed);
        let mut tenant = TenantOptions::new(machines(chance, seed, limits));
        tenant.limits = limits;
        tenant.list_lag = if one_in(chance, 3) { seconds(chance, 1..30) } else { Duration::ZERO };
        tenant.count_rejected = one_in(chance, 4);
        tenant.windows = if one_in(chance, 4) { Shape::Fixed } else { Shape::Sliding };
        // A call that is made twice meets a busy machine, or one that is free again.
        tenant.action_duration = pick(chance, &[(SECOND, SECOND), (20 * SECOND, MINUTE), (5 * MINUTE, 10 * MINUTE)]);
        tenant.absent_for = 3 * 60 * MINUTE;
        let mut stalls = stalls(chance);
        let mut incidents: Vec<_> =
            (0..between(chance, 2..9)).map(|_| (some_bad_time(chance, &stalls), incident(chance))).collect();
        incidents.sort_by_key(|(at, _)| *at);
        for (at, incident) in &incidents {
            if let Incident::Suspended(time) = incident {
                stalls.push(Stall { from: *at, until: *at + *time, connects: false });
            }
        }
        let network = Network {
            latency: latency(chance),
            refused: if one_in(chance, 3) { 0.03 } else { 0.0 },
            lost: if one_in(chance, 3) { 0.02 } else { 0.0 },
            stalls: apart(stalls),
            ..good_network(Duration::ZERO)
        };
        let stranger = one_in(chance, 4).then(|| (limits.per_hour.get() / 4 + 1, one_in(chance, 2)));
        let faults = if one_in(chance, 4) { Vec::new() } else { faults(chance) };
        Self { seed, limits, tenant, network, faults, stranger, waits: one_in(chance, 4), incidents }
    }

    /// The world of this scenario, at its beginning.
    pub fn world(&self) -> World {
        let world = World::new(Setup {
            seed: self.seed,
            tenant: self.tenant.clone(),
            limits: self.limits,
            network: self.network.clone(),
            keys: format!("on_pending = \"{}\"", if self.waits { "wait" } else { "skip" }),
            limit_keys: String::new(),
            sections: "[follow_up]\ninterval = \"2m\"\ngive_up_after = \"2h\"\n".to_owned(),
            reload: None,
            uptime: SECOND * u32::try_from(self.seed % 7000).unwrap(),
        });
        for fault in &self.faults {
            world.wire.with_tenant(|tenant| tenant.add_fault(fault.clone()));
        }
        if let Some((per_hour, evenly)) = self.stranger {
            world.wire.add_stranger(CallKind::Scan, per_hour, evenly);
        }
        world
    }

    /// How much longer than the fastest time the calls may take, if that can be said: not when a
    /// stranger spends the same budget, or Defender says so.
    ///
    /// After a reboot, or a jump of the boot clock, the ledger may hold slots that are really free, for an hour at most; that much
    /// once more for latency, faults and stalls; the rest is for what each incident costs itself.
    pub fn delay(&self) -> Option<Duration> {
        let is_reboot = |incident: &Incident| {
            matches!(incident, Incident::Reboot(..) | Incident::Jump(..) | Incident::JumpRunning(..))
        };
        let reboots = u32::try_from(self.incidents.iter().filter(|(_, incident)| is_reboot(incident)).count()).unwrap();
        let incidents = u32::try_from(self.incidents.len()).unwrap();
        let is_throttling = |fault: &Fault| matches!(fault.kind, FaultKind::Status { code: 429, .. });
        let is_shared = self.stranger.is_some() || self.faults.iter().any(is_throttling);
        (!is_shared).then(|| 60 * MINUTE * (1 + reboots) + 15 * MINUTE * incidents)
    }

    /// Lives through it all, at the longest until `deadline`. Returns whether all was done by then.
    pub fn run(&self, world: &mut World, deadline: Wall) -> bool {
        self.let_happen(world);
        for (at, incident) in &self.incidents {
            // What came late since the one before took its time happens at once.
            let at = (*at).max(world.clock.world() + SECOND);
            let died = match incident {
                Incident::Death(death, down) => Self::die(world, at, *death, *down),
                Incident::Deaths => (0..20_u32).all(|n| Self::die(world, at + 3 * SECOND * n, Death::Killed, SECOND)),
                Incident::WallSetBetween(error) => {
                    let died = Self::die(world, at, Death::KilledCalling, SECOND);
                    world.clock.set_wall(error.at(world.clock.world()));
                    died
                }
                Incident::Jump(by) => {
                    let died = Self::die(world, at, Death::KilledCalling, SECOND);
                    world.clock.jump(*by);
                    died
                }
                Incident::Reboot(down, error) => {
                    let died = Self::die(world, at, Death::Killed, *down);
                    world.reboot(error.at(world.clock.world()));
                    world.rest(10 * SECOND);
                    died
                }
                Incident::WallSet(_) | Incident::JumpRunning(_) | Incident::Stopped(_) | Incident::Suspended(_) => true,
            };
            if !died {
                return true;
            }
        }
        world.live(deadline, Death::Killed)
    }

    /// Returns whether it came to that.
    fn die(world: &mut World, at: Wall, death: Death, down: Duration) -> bool {
        if world.live(at, death) {
            return false;
        }
        world.rest(down);
        true
    }

    /// What happens without the daemon's end.
    fn let_happen(&self, world: &World) {
        // Sooner or later somebody notices that it is not 1970: ages by the wall clock end then.
        let clock = Arc::clone(&world.clock);
        world.clock.at(BEGIN + NOTICED, move || clock.set_wall(clock.world()));
        for (at, incident) in self.incidents.iter().copied() {
            let clock = Arc::clone(&world.clock);
            match incident {
                Incident::WallSet(error) => {
                    world.clock.at(at, move || clock.set_wall(error.at(clock.world())));
                }
                Incident::JumpRunning(by) => world.clock.at(at, move || clock.jump(by)),
                Incident::Stopped(time) | Incident::Suspended(time) => world.clock.at(at, move || clock.freeze(time)),
                _ => {}
            }
        }
    }
}

//! Whatever happens, from thousands of seeds: no window of ours is overfull.

use super::*;

/// Anything at all, from a seed; limits are small, so that hours take few calls.
fn anything(seed: u64) -> Scenario {
    let mut chance = Chance::new(seed ^ 0xabcd);
    let some = |n| NonZeroU32::new(n).unwrap();
    let per_minute = 2 + chance.below(20);
    let configured = Limits::new(some(per_minute), some(per_minute + chance.below(100))).unwrap();
    let hourly = configured.per_hour.get();
    let granted = if chance.below(3) == 0 { configured.without_reserve(40) } else { configured };
    Scenario {
        seed,
        configured,
        granted,
        stranger: match chance.below(6) {
            0 => Stranger::Even(hourly.div_ceil(2)),
            1 => Stranger::AtRandom(hourly.div_ceil(2)),
            2 => Stranger::InBursts(per_minute.div_ceil(2)),
            3 => Stranger::Stubborn(hourly.div_ceil(3)),
            _ => Stranger::Nobody,
        },
        says: [Says::Seconds, Says::WindowOnly, Says::Nothing][chance.below(3) as usize],
        counts: [Counts::Sliding, Counts::Fixed][chance.below(2) as usize],
        latency: Duration::from_millis([20, 700, 3_000, 30_000][chance.below(4) as usize]),
        lost: [0, 0, 20, 4][chance.below(4) as usize],
        // Twenty restarts a minute, a few an hour, or none.
        kills: [Duration::ZERO, SECOND * 3, Duration::from_mins(11)][chance.below(3) as usize],
        hours: 3,
        spread: [Spread::Burst, Spread::Even][chance.below(2) as usize],
    }
}

#[test]
fn in_thousands_of_runs_no_window_of_ours_is_overfull_whatever_happens() {
    for seed in 0..3000 {
        let scenario = anything(seed);
        let seen = Core::new(scenario.clone()).run();
        let most = scenario.configured;
        assert!(seen.worst_minute <= most.per_minute.get() as usize, "{scenario:?} {seen:?}");
        assert!(seen.worst_hour <= most.per_hour.get() as usize, "{scenario:?} {seen:?}");
        assert!(seen.calls > 0, "{scenario:?} stood still");
    }
}

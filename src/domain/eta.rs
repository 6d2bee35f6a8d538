//! When will it be done? The fastest legal schedule, from what the budget still holds.

use std::collections::VecDeque;
use std::time::Duration;

use super::ledger::{HOUR, Limits, MARGIN, MINUTE};
use super::time::{Boot, millis};

/// Calls simulated one by one; beyond two hour windows the schedule repeats itself.
const EXACT: u64 = 200_000;

/// When the last of `remaining` calls can be made, `held` being the times at which the slots of
/// the last hour settled, oldest first.
pub fn last_call(limits: Limits, held: &[Boot], remaining: u64, now: Boot) -> Boot {
    let minute = limits.per_minute.get() as usize;
    let hour = u64::from(limits.per_hour.get());
    let whole_hours = remaining.saturating_sub(1) / hour;
    // Whole windows are added at the end: the schedule of one hour is that of the hour before,
    // shifted by the window.
    let (exact, shifted) =
        if whole_hours > 1 { (remaining - (whole_hours - 1) * hour, whole_hours - 1) } else { (remaining, 0) };
    let exact = exact.min(EXACT);
    let mut recent: VecDeque<Boot> = held.iter().copied().collect();
    let mut at = now;
    for _ in 0..exact {
        for (limit, window) in [(minute, MINUTE), (limits.per_hour.get() as usize, HOUR)] {
            if let Some(blocking) = recent.len().checked_sub(limit).and_then(|index| recent.get(index)) {
                at = at.max(*blocking + window + MARGIN);
            }
        }
        recent.push_back(at);
        if recent.len() > limits.per_hour.get() as usize {
            recent.pop_front();
        }
    }
    let window = millis(HOUR + MARGIN);
    let shift = i64::try_from(shifted).unwrap_or(i64::MAX).saturating_mul(window);
    at + Duration::from_millis(u64::try_from(shift).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn minutes(calls: u64) -> u64 {
        last_call(Limits::DOCUMENTED, &[], calls, Boot(0)).since(Boot(0)).as_secs() / 60
    }

    #[test]
    fn an_idle_budget_gives_the_documented_times() {
        assert_eq!(minutes(100), 0);
        assert_eq!(minutes(120), 1);
        assert_eq!(minutes(1500), 14);
        assert_eq!(minutes(1501), 60);
        assert_eq!(minutes(5000), 184);
        assert_eq!(minutes(10_000), 369);
        assert_eq!(minutes(60_000) / 60, 39);
    }

    #[test]
    fn what_is_already_spent_delays_the_rest() {
        let held = vec![Boot(0); 1500];
        let done = last_call(Limits::DOCUMENTED, &held, 1, Boot(60_000));
        assert_eq!(done, Boot(0) + HOUR + MARGIN);
    }

    #[test]
    fn nothing_left_is_done_now() {
        assert_eq!(last_call(Limits::DOCUMENTED, &[], 0, Boot(5)), Boot(5));
    }

    #[test]
    fn equal_limits_are_bound_by_the_hour() {
        let one = NonZeroU32::MIN;
        let limits = Limits { per_minute: one, per_hour: one };
        assert_eq!(last_call(limits, &[], 3, Boot(0)), Boot(0) + (HOUR + MARGIN) * 2);
    }
}

//! A stranger who has spent the hour and left: how long it is until we know.

use super::*;

/// At a 429 that blames the hour little of it may be ours, and a share of half an hour or less remains.
/// The silence is that of the steps by which more is tried, and never an hour's.
#[test]
fn a_stranger_who_is_gone_costs_no_silent_hour() {
    for calls in [1400, 1000, 600] {
        for says in [Says::Seconds, Says::WindowOnly, Says::Nothing] {
            let run = Core::new(Scenario { stranger: Stranger::Gone(calls), says, hours: 2, ..documented(3) }).run();
            let (silence, used) = (run.silence, run.hour_after);
            assert!(
                silence <= MINUTE * 21 && used >= 500,
                "{calls} {says:?}: silent for {silence:?}, then {used} calls"
            );
            assert!(run.throttled <= 12, "{calls} {says:?}: {} of {} met a 429", run.throttled, run.calls);
        }
    }
}

//! When one job is called again after an answer that was no success: the pace of a single machine, whatever
//! its lane does.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LAST_PAUSE: Duration = Duration::from_mins(15);
const FIRST_PAUSE_UNCOUNTED: Duration = Duration::from_secs(5);
const LAST_PAUSE_UNCOUNTED: Duration = Duration::from_mins(5);

/// How long a job rests after the attempt with this number, which counted, from one.
pub fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LAST_PAUSE)
}

/// How long a job rests that goes back uncounted, `before` of its attempts having gone back like this one: the first
/// time not at all, since what was wrong with the token or the lane may be mended at once.
pub fn pause_uncounted(before: u32) -> Option<Duration> {
    let doubled = before.checked_sub(1)?;
    Some(FIRST_PAUSE_UNCOUNTED.saturating_mul(1 << doubled.min(16)).min(LAST_PAUSE_UNCOUNTED))
}

/// What becomes of a job whose machine Defender has refused in words that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRefusal {
    /// Back to the queue, and not called again before this has passed.
    Again(Duration),
    /// It is rejected.
    Final,
}

/// Decides on a job after its `attempts`-th call, of at most `max_attempts`, was refused. `before` says whether an
/// earlier call for it was refused or forbidden. A no may pass, so one more call is made, and no other. The list of
/// actions has to be read in between, so the pause is no longer than `horizon`, by which that list has caught up.
pub fn after_refusal(before: bool, attempts: u32, max_attempts: u32, horizon: Duration) -> AfterRefusal {
    if before || attempts >= max_attempts { AfterRefusal::Final } else { AfterRefusal::Again(FIRST_PAUSE.min(horizon)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pause: Duration) -> u64 {
        pause.as_secs()
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        assert_eq!([0, 1, 2, 4, 5, 99].map(|n| seconds(pause(n))), [30, 30, 60, 240, 480, 900]);
        assert_eq!(pause_uncounted(0), None);
        assert_eq!([1, 2, 6, 7, 99].map(|n| pause_uncounted(n).map(seconds)), [5, 10, 160, 300, 300].map(Some));
    }

    #[test]
    fn a_refused_machine_is_called_once_more_at_most() {
        let horizon = Duration::from_mins(10);
        let again = |seconds| AfterRefusal::Again(Duration::from_secs(seconds));
        assert_eq!(after_refusal(false, 1, 5, horizon), again(30));
        assert_eq!(after_refusal(false, 0, 5, Duration::from_secs(4)), again(4), "a probe; a short horizon is kept");
        assert_eq!(after_refusal(true, 2, 5, horizon), AfterRefusal::Final);
        assert_eq!(after_refusal(false, 1, 1, horizon), AfterRefusal::Final);
    }
}

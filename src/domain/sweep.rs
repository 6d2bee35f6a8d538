//! What a request for scans says: scan type, priority, what to do about a busy machine.

/// The `ScanType` of `runAntiVirusScan` (Defender documents exactly these two).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScanType {
    /// Where malware usually starts from; minutes.
    Quick,
    /// Every file; hours of load on the machine. Satisfies a request for Quick, never the reverse.
    Full,
}

/// Which job goes first; within one priority, age decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// After everything else.
    Low,
    /// What most sweeps have.
    #[default]
    Normal,
    /// Before what is routine.
    High,
    /// Next.
    Urgent,
}

/// What to do with a machine that has a pending action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnPending {
    /// End the job as `skipped: pending_action`.
    #[default]
    Skip,
    /// Keep the job queued until the action has ended.
    Wait,
}

/// Where a sweep came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A dropped file.
    File,
    /// `sweepd submit`.
    Submit,
    /// `sweepd sweep retry`.
    Retry,
    /// A schedule that fired.
    Schedule,
}

impl Source {
    /// Where a sweep came from whose file has this owner, and claims to be submitted by this user. The service user and
    /// root may say for whom they act; anybody else for themselves alone.
    pub const fn of_file(claimed_uid: Option<u32>, owner: u32, service: u32) -> Self {
        match claimed_uid {
            Some(claimed) if owner == service || owner == 0 || owner == claimed => Self::Submit,
            _ => Self::File,
        }
    }
}

/// A word that is none of those that are allowed, with the allowed ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not one of: {allowed}")]
pub struct UnknownWord {
    word: String,
    allowed: String,
}

/// Gives an enum its words: `as_str`, `Display`, `FromStr` in any case, and `ALL`.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that files, tables and JSON use.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::sweep::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wanted = text.trim();
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.as_str().eq_ignore_ascii_case(wanted))
                    .ok_or_else(|| $crate::domain::sweep::UnknownWord::new(wanted, &[$($word),+]))
            }
        }
    };
}
pub(crate) use words;

impl UnknownWord {
    /// The `word` that was read, cut to something printable, and what would have been right.
    pub fn new(word: &str, allowed: &[&str]) -> Self {
        let word = word.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { word, allowed: allowed.join(", ") }
    }
}

words!(ScanType { Quick = "Quick", Full = "Full" });
words!(Priority { Low = "low", Normal = "normal", High = "high", Urgent = "urgent" });
words!(OnPending { Skip = "skip", Wait = "wait" });
words!(Source { File = "file", Submit = "submit", Retry = "retry", Schedule = "schedule" });

impl Priority {
    /// The rank that the queue is ordered by: larger goes first.
    pub const fn rank(self) -> i64 {
        match self {
            Self::Low => 0,
            Self::Normal => 1,
            Self::High => 2,
            Self::Urgent => 3,
        }
    }

    /// The priority with this rank; unknown ranks read as normal.
    pub const fn from_rank(rank: i64) -> Self {
        match rank {
            0 => Self::Low,
            2 => Self::High,
            3 => Self::Urgent,
            _ => Self::Normal,
        }
    }
}

/// The longest comment that intake accepts, in characters. Defender documents no limit; longer
/// ones are refused at intake rather than by a call.
pub const COMMENT_MAX: usize = 1000;

/// A comment as it may be sent: control characters become blanks.
pub fn clean_comment(comment: &str) -> Result<String, CommentTooLong> {
    let length = comment.chars().count();
    if length > COMMENT_MAX {
        return Err(CommentTooLong { length });
    }
    Ok(comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned())
}

/// Why a comment was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the comment has {length} characters; at most {COMMENT_MAX} are accepted")]
pub struct CommentTooLong {
    length: usize,
}

/// How many machines a sweep may ask for before it is held until an operator lets it go (`intake.hold_above`,
/// `intake.hold_full_above`); 0 holds none.
#[derive(Clone, Copy, Debug)]
pub struct HoldAbove {
    /// Of all scans.
    pub all: u64,
    /// Of Full scans.
    pub full: u64,
}

impl HoldAbove {
    /// Why a sweep of so many scans is held, if it is. `when` says which scans these are, after a blank; empty: its own.
    pub fn why(self, quick: u64, full: u64, when: &str) -> Option<String> {
        let above = |n: u64, limit: u64| limit > 0 && n > limit;
        let all = quick.saturating_add(full);
        if above(all, self.all) {
            return Some(format!("{all} machines{when}, more than hold_above = {}", self.all));
        }
        above(full, self.full).then(|| format!("{full} Full scans{when}, more than hold_full_above = {}", self.full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_errors_name_the_choices() {
        assert_eq!("FULL".parse(), Ok(ScanType::Full));
        assert_eq!(" urgent ".parse(), Ok(Priority::Urgent));
        let error = "deep".parse::<ScanType>().unwrap_err();
        assert_eq!(error.to_string(), "`deep` is not one of: Quick, Full");
    }

    #[test]
    fn ranks_keep_the_order_of_priorities() {
        for pair in Priority::ALL.windows(2) {
            assert!(pair[0].rank() < pair[1].rank());
        }
        for priority in Priority::ALL {
            assert_eq!(Priority::from_rank(priority.rank()), *priority);
        }
    }

    #[test]
    fn who_asks_is_who_owns_the_file() {
        const SERVICE: u32 = 998;
        for (claimed, owner, expected) in [
            (None, 1001, Source::File),
            (None, SERVICE, Source::File),
            (Some(1001), 1001, Source::Submit),
            (Some(0), 1001, Source::File),
            (Some(SERVICE), 1001, Source::File),
            (Some(1002), 1001, Source::File),
            // They act for others: `submit` by root hands its file to the service user.
            (Some(1001), SERVICE, Source::Submit),
            (Some(1001), 0, Source::Submit),
            (Some(0), 0, Source::Submit),
        ] {
            assert_eq!(Source::of_file(claimed, owner, SERVICE), expected, "{claimed:?} {owner}");
        }
    }

    #[test]
    fn comments_lose_control_characters_and_are_bounded() {
        assert_eq!(clean_comment("a\r\nb\u{7}").unwrap(), "a  b");
        assert!(clean_comment(&"é".repeat(COMMENT_MAX)).is_ok());
        assert!(clean_comment(&"é".repeat(COMMENT_MAX + 1)).is_err());
    }
}

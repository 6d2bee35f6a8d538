//! Faults on order: what goes wrong, for which calls, how often.
//!
//! A fault strikes a call that was admitted: behind the token, the roles and the limits, before
//! the body is looked at. So a call that is refused anyway does not use a fault up, and a call
//! that is struck has arrived and counts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chance::Chance;
use super::exchange::{Delivery, Manner, Response};
use crate::domain::ledger::CallKind;

/// A rule: which calls go wrong, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which calls.
    pub on: Target,
    /// How many of them; without it, all.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many calls pass before the first is struck.
    #[serde(default)]
    pub skip: u32,
    /// How likely a call is struck that could be, from 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// Only calls that name this in their path: the id of a machine, or of an action.
    #[serde(default)]
    pub about: Option<String>,
    /// What happens.
    pub kind: FaultKind,
}

const fn always() -> f64 {
    1.0
}

impl Fault {
    /// The next such call goes wrong.
    pub const fn once(on: Target, kind: FaultKind) -> Self {
        Self { on, times: Some(1), skip: 0, probability: 1.0, about: None, kind }
    }

    /// Every such call goes wrong.
    pub const fn always(on: Target, kind: FaultKind) -> Self {
        Self { on, times: None, skip: 0, probability: 1.0, about: None, kind }
    }

    /// As many calls go wrong.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// So many calls pass first.
    #[must_use]
    pub const fn skipping(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// Only those that name this in their path.
    #[must_use]
    pub fn about(mut self, id: &impl fmt::Display) -> Self {
        self.about = Some(id.to_string());
        self
    }

    /// Only this share of them.
    #[must_use]
    pub const fn with_probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }
}

/// Which calls a fault is meant for: `any`, `sign_in`, or a kind of call, in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// Every call of the API, whatever its kind; not the sign-in.
    Any,
    /// The sign-in.
    SignIn,
    /// One kind of call.
    Call(CallKind),
}

impl Target {
    fn means(self, call: Self) -> bool {
        self == call || (self == Self::Any && call != Self::SignIn)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Any => "any",
            Self::SignIn => "sign_in",
            Self::Call(kind) => kind.as_str(),
        })
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl FromStr for Target {
    type Err = crate::domain::sweep::UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "sign_in" => Ok(Self::SignIn),
            kind => kind.parse().map(Self::Call),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = crate::domain::sweep::UnknownWord;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What goes wrong. *Effect* is what the call asks for: the action exists afterwards, or is
/// cancelled, although the caller is not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Another answer.
    Status {
        /// Its status code.
        code: u16,
        /// Its body; `{bearer}` in it stands for the token of the call, as an error page may repeat it.
        #[serde(default)]
        body: String,
        /// Whether the call has its effect all the same.
        #[serde(default)]
        effect: bool,
        /// Its headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// The connection is reset; nothing has happened.
    ResetBeforeEffect,
    /// The connection is reset; the effect is there.
    ResetAfterEffect,
    /// No answer, ever.
    Hang {
        /// Whether the call has its effect all the same.
        effect: bool,
    },
    /// The effect is there; half of the answer is sent, then the connection ends.
    Truncated,
    /// The effect is there; the answer's body is a page.
    Garbage,
    /// The effect is there; the answer's body is no text either.
    Noise,
    /// The effect is there; the answer has no body.
    Empty,
    /// The effect is there at once; the answer takes a while.
    Delay {
        /// How long.
        millis: u64,
    },
    /// The effect is there; the answer that tells so comes under another status.
    Restated {
        /// Its status code.
        code: u16,
    },
    /// The effect is there; the answer comes a byte a second.
    TrickleHead,
    /// The effect is there; the answer's head comes at once, its body a byte a second.
    TrickleBody,
    /// The effect is there; half of the answer is sent, and nothing more.
    HangInBody,
    /// The effect is there; the answer is a gigabyte.
    Gigabyte,
    /// The effect is there; the answer is small, and unpacks to more than anybody has room for.
    GzipBomb,
    /// The effect is there, and the answer. The connection stays open, and whoever sends on it again is
    /// reset: a pool would have kept it.
    Stale,
    /// As this, but nothing has happened.
    WithoutEffect(Box<FaultKind>),
}

impl FaultKind {
    /// Whether the call does what it asked for.
    pub const fn has_effect(&self) -> bool {
        match self {
            Self::Status { effect, .. } | Self::Hang { effect } => *effect,
            Self::ResetBeforeEffect | Self::WithoutEffect(_) => false,
            Self::ResetAfterEffect
            | Self::Truncated
            | Self::Garbage
            | Self::Noise
            | Self::Empty
            | Self::Delay { .. }
            | Self::Restated { .. }
            | Self::TrickleHead
            | Self::TrickleBody
            | Self::HangInBody
            | Self::Gigabyte
            | Self::GzipBomb
            | Self::Stale => true,
        }
    }

    /// The same, but nothing has happened.
    #[must_use]
    pub fn without_effect(self) -> Self {
        Self::WithoutEffect(Box::new(self))
    }
}

impl FaultKind {
    /// What becomes of the answer of a call that was struck; there is none when the call was kept
    /// from its effect. `bearer` is its token.
    pub(super) fn deliver(self, answer: Option<Response>, bearer: &str) -> Delivery {
        let body = |answer: Response, body: &[u8]| {
            let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
            Delivery::Answer(Response { headers, body: body.to_vec(), ..answer })
        };
        match (self, answer) {
            (Self::Status { code, body, headers, .. }, _) => {
                let body = body.replace("{bearer}", bearer).into_bytes();
                Delivery::Answer(Response { status: code, headers, body })
            }
            (Self::Hang { .. }, _) => Delivery::Never,
            (Self::WithoutEffect(kind), _) => kind.deliver(Some(nothing_happened()), bearer),
            (Self::ResetBeforeEffect | Self::ResetAfterEffect, _) | (_, None) => Delivery::Reset,
            (Self::Truncated, Some(answer)) => Delivery::Truncated(answer),
            (Self::Garbage, Some(answer)) => {
                body(answer, b"<html><body>The service says nothing of use.</body></html>")
            }
            (Self::Noise, Some(answer)) => body(answer, b"\0\xff\xfe{\x80\x1b[2J\r\n\xc3("),
            (Self::Empty, Some(answer)) => Delivery::Answer(Response { body: Vec::new(), ..answer }),
            (Self::Delay { millis }, Some(answer)) => Delivery::Late(Duration::from_millis(millis), answer),
            (Self::Restated { code }, Some(answer)) => Delivery::Answer(Response { status: code, ..answer }),
            (Self::TrickleHead, Some(answer)) => Delivery::ByHand(answer, Manner::HeadTrickles),
            (Self::TrickleBody, Some(answer)) => Delivery::ByHand(answer, Manner::BodyTrickles),
            (Self::HangInBody, Some(answer)) => Delivery::ByHand(answer, Manner::BodyHangs),
            (Self::Gigabyte, Some(answer)) => Delivery::ByHand(answer, Manner::Gigabyte),
            (Self::GzipBomb, Some(answer)) => Delivery::ByHand(answer, Manner::GzipBomb),
            (Self::Stale, Some(answer)) => Delivery::Stale(answer),
        }
    }
}

/// What stands for the answer of a call that was kept from its effect: JSON, but no action.
fn nothing_happened() -> Response {
    Response::json(201, &serde_json::json!({ "@odata.context": "https://gateway.example/$metadata", "title": null }))
}

/// The rules in force, in the order in which they were given; the first that applies strikes.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    rules: Vec<Fault>,
    chance: Chance,
    struck: u64,
}

impl Faults {
    pub(super) const fn new(chance: Chance) -> Self {
        Self { rules: Vec::new(), chance, struck: 0 }
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.rules.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// How many calls were struck so far.
    pub(super) const fn struck(&self) -> u64 {
        self.struck
    }

    /// What strikes this call, if anything; `names` is the id in its path. A rule that lets the call pass, by
    /// `skip` or by chance, leaves it to the next one.
    pub(super) fn strike(&mut self, call: Target, names: Option<&str>) -> Option<FaultKind> {
        for rule in &mut self.rules {
            let is_about = rule.about.is_none() || rule.about.as_deref() == names;
            if !rule.on.means(call) || !is_about || rule.times == Some(0) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.probability < 1.0 && self.chance.share() >= rule.probability {
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            self.struck += 1;
            return Some(rule.kind.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCAN: Target = Target::Call(CallKind::Scan);

    fn faults(rules: impl IntoIterator<Item = Fault>) -> Faults {
        let mut faults = Faults::new(Chance::new(1));
        rules.into_iter().for_each(|rule| faults.add(rule));
        faults
    }

    #[test]
    fn rules_count_what_they_let_pass_and_what_they_strike() {
        let mut faults = faults([Fault::once(SCAN, FaultKind::Empty).skipping(2).times(2)]);
        let struck: Vec<bool> = (0..6).map(|_| faults.strike(SCAN, None).is_some()).collect();
        assert_eq!(struck, [false, false, true, true, false, false]);
        assert_eq!(faults.struck(), 2);
    }

    #[test]
    fn any_means_every_call_but_the_sign_in() {
        let mut any = faults([Fault::always(Target::Any, FaultKind::Garbage)]);
        assert!(any.strike(SCAN, None).is_some());
        assert!(any.strike(Target::Call(CallKind::ListActions), None).is_some());
        assert_eq!(any.strike(Target::SignIn, None), None);
        any.clear();
        assert_eq!(any.strike(SCAN, None), None);
        let mut scan = faults([Fault::always(SCAN, FaultKind::Garbage)]);
        assert_eq!(scan.strike(Target::Call(CallKind::GetAction), None), None);
    }

    #[test]
    fn a_rule_about_one_id_lets_all_others_pass() {
        let mut faults = faults([Fault::once(SCAN, FaultKind::Empty).about(&"b")]);
        let struck = [None, Some("a"), Some("b"), Some("b")].map(|names| faults.strike(SCAN, names).is_some());
        assert_eq!(struck, [false, false, true, false]);
    }

    #[test]
    fn probability_strikes_about_that_share() {
        let mut faults = faults([Fault::always(SCAN, FaultKind::Empty).with_probability(0.3)]);
        let struck = (0..10_000).filter(|_| faults.strike(SCAN, None).is_some()).count();
        assert!((2_800..3_200).contains(&struck), "{struck}");
    }

    #[test]
    fn rules_are_read_from_json() {
        let fault: Fault =
            serde_json::from_str(r#"{"on": "scan", "times": 2, "kind": {"status": {"code": 503, "effect": true}}}"#)
                .unwrap();
        let status = FaultKind::Status { code: 503, body: String::new(), effect: true, headers: Vec::new() };
        assert_eq!(fault, Fault::once(SCAN, status).times(2));
        let fault: Fault = serde_json::from_str(r#"{"on": "sign_in", "kind": "reset_before_effect"}"#).unwrap();
        assert_eq!(fault, Fault::always(Target::SignIn, FaultKind::ResetBeforeEffect));
        let fault: Fault =
            serde_json::from_str(r#"{"on": "scan", "about": "ab", "kind": {"without_effect": "hang_in_body"}}"#)
                .unwrap();
        assert_eq!(fault, Fault::always(SCAN, FaultKind::HangInBody.without_effect()).about(&"ab"));
        assert!(serde_json::from_str::<Fault>(r#"{"on": "scans", "kind": "empty"}"#).is_err());
    }
}

//! A day of trouble, in virtual time: what the log says of it is read by somebody.

use std::cell::RefCell;
use std::sync::Once;
use std::time::Duration;

use crate::support::world::{BEGIN, Death, Setup, World};
use sweepd::domain::ledger::CallKind;
use sweepd::simulator::{Fault, FaultKind, Target};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};

const DAY: Duration = Duration::from_hours(24);
const HEAD: &str = "the record's head";

/// What an operator sees who has not asked for more.
struct Log;

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

thread_local! {
    /// What this thread has logged, while somebody listens.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("sweepd") {
            HEARD.with_borrow_mut(|heard| {
                if let Some(heard) = heard {
                    let mut message = Message(String::new());
                    event.record(&mut message);
                    heard.push(message.0);
                }
            });
        }
    }
}

/// Listens to every thread of this process. A subscriber of one thread misses what others, which have none, were the first
/// to reach: whether anybody listens there is remembered for all.
fn listen() {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| {
        let all = tracing_subscriber::registry().with(LevelFilter::INFO).with(Log);
        tracing::subscriber::set_global_default(all).unwrap();
    });
}

/// Every message of a day in which these calls are answered like this.
fn day(faults: &[Fault]) -> Vec<String> {
    let sections = "[follow_up]\ninterval = \"3m\"\ngive_up_after = \"10d\"\n".to_owned();
    let mut world = World::new(Setup { sections, ..Setup::backlog(40, Duration::from_millis(200)) });
    for fault in faults {
        world.wire.with_tenant(|tenant| tenant.add_fault(fault.clone()));
    }
    listen();
    HEARD.set(Some(Vec::new()));
    world.live(BEGIN + DAY, Death::Killed);
    HEARD.take().unwrap()
}

fn status(code: u16) -> FaultKind {
    FaultKind::Status { code, body: "no".to_owned(), effect: false, headers: Vec::new() }
}

/// The lines of a day, but for the record's head, which is told every hour: so many at the most, and what the first
/// of its trouble says.
fn holds(faults: &[Fault], at_most: usize, first: &str) {
    let lines = day(faults);
    let heads = lines.iter().filter(|line| line.starts_with(HEAD)).count();
    assert!((24..=25).contains(&heads), "{heads} heads in a day of {faults:?}");
    let lines: Vec<_> = lines.iter().filter(|line| !line.starts_with(HEAD)).collect();
    println!("{faults:?}: {} lines", lines.len());
    assert!(lines.iter().any(|line| line.contains(first)), "{faults:?}: {lines:#?}");
    assert!(lines.len() <= at_most, "{} lines in a day of {faults:?}: {lines:#?}", lines.len());
    assert!(lines.iter().any(|line| line.contains(" times since ")), "it is summed up: {lines:#?}");
}

const SCAN: Target = Target::Call(CallKind::Scan);

#[test]
fn a_day_without_a_sign_in_is_ten_lines() {
    holds(&[Fault::always(Target::SignIn, status(503))], 10, "the sign-in failed");
}

#[test]
fn a_day_of_scan_calls_that_are_forbidden_or_not_answered_is_a_dozen_lines() {
    holds(&[Fault::always(SCAN, status(403))], 13, "Defender forbids the scan call (403)");
    holds(&[Fault::always(SCAN, status(503))], 13, "no answer that can be read");
}

#[test]
fn a_day_of_throttling_is_twenty_lines() {
    let kind = match status(429) {
        FaultKind::Status { code, body, effect, .. } => {
            FaultKind::Status { code, body, effect, headers: vec![("Retry-After".to_owned(), "60".to_owned())] }
        }
        other => other,
    };
    holds(&[Fault::always(Target::Any, kind)], 20, "Defender throttles");
}

#[test]
fn a_day_of_a_list_that_comes_and_goes_is_less_than_two_lines_an_hour() {
    // What is not sent keeps the list in use.
    let unsent = Fault::always(SCAN, status(403));
    let fault = Fault::always(Target::Call(CallKind::ListActions), status(503)).with_probability(0.7);
    holds(&[unsent, fault], 48, "the list of actions cannot be read");
}

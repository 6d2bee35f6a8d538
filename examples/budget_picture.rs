//! Draws how sweepd uses the budget: the real engine and SQLite in virtual time, 5,000 machines at the
//! documented limits, with a kill and a stall of the network in it. Above the calls that arrived in the last
//! minute, below in the last hour, as the server counts them.
//!
//! `cargo run --example budget_picture [PATH]` writes the picture, to `docs/budget.svg` by default.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "whoever runs an example reads what went wrong")]

#[path = "../tests/support/world.rs"]
mod world;

use std::fmt::Write as _;
use std::time::Duration;

use sweepd::domain::ledger::{CallKind, HOUR, Limits, MINUTE};
use sweepd::domain::time::Wall;
use sweepd::simulator::Stall;
use world::{BEGIN, Death, Setup, World};

const MACHINES: usize = 5000;
const LATENCY: Duration = Duration::from_millis(300);
/// The kill falls with the next call that leaves after this.
const KILL: Duration = Duration::from_secs(5 * 60 + 15);
/// How long nobody lives before the restart.
const DOWN: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(3600 + 5 * 60 + 15);
const STALLED: Duration = Duration::from_secs(100);

/// The picture has one point for so much time: the highest count in it, so that no peak is lost.
const SAMPLE: Duration = Duration::from_secs(15);

/// One panel of the picture.
struct Panel<'a> {
    heading: &'a str,
    window: Duration,
    limit: u32,
    /// How far up the axis goes, and how far apart its ticks are.
    top: u32,
    tick: u32,
    /// Where the panel begins, from above.
    y: f64,
}

/// Where everything lies, in pixels.
const LEFT: f64 = 56.0;
const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 170.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#57606a}.h{font-size:14px;font-weight:600;fill:#24292f}\
.g{stroke:#d0d7de}.a{stroke:#8c959f}.l{stroke:#cf222e;stroke-width:1.5;stroke-dasharray:6 4}.lt{fill:#cf222e}\
.m{stroke:#9a6700;stroke-width:1.5}.mt{fill:#9a6700}.c{fill:#0969da;fill-opacity:.18;stroke:#0969da;stroke-width:1.2}\
.bg{fill:#ffffff}\
@media (prefers-color-scheme:dark){text{fill:#9198a1}.h{fill:#f0f6fc}.g{stroke:#30363d}.a{stroke:#656c76}\
.l{stroke:#ff7b72}.lt{fill:#ff7b72}.m{stroke:#d29922}.mt{fill:#d29922}.c{fill:#58a6ff;stroke:#58a6ff}.bg{fill:#0d1117}}";

fn run() -> (World, Duration) {
    let mut setup = Setup::backlog(MACHINES, LATENCY);
    let from = BEGIN + STALL;
    setup.network.stalls = vec![Stall { from, until: from + STALLED, connects: true }];
    let mut world = World::new(setup);
    assert!(!world.live(BEGIN + KILL, Death::KilledCalling), "nothing was left to be killed");
    let killed = world.age();
    world.rest(DOWN);
    assert!(world.live(BEGIN + Duration::from_hours(12), Death::Killed), "{}", world.status());
    (world, killed)
}

/// The highest number of arrivals in the closed window that ends in each sample, up to `end`.
fn counts(arrivals: &[Wall], window: Duration, end: Wall) -> Vec<usize> {
    let within = |now: Wall| {
        let opened = arrivals.partition_point(|at| now.since(*at) > window);
        arrivals.partition_point(|at| *at <= now).saturating_sub(opened)
    };
    let mut counts = Vec::new();
    let mut now = BEGIN;
    while now <= end {
        // A count only rises with an arrival.
        let before = arrivals.partition_point(|at| *at <= now - SAMPLE);
        let arrived = arrivals.iter().skip(before).take_while(|at| **at <= now);
        counts.push(arrived.map(|at| within(*at)).fold(within(now), usize::max));
        now = now + SAMPLE;
    }
    counts
}

/// With a comma before the last three digits.
fn grouped(count: u32) -> String {
    if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
}

fn x(after: Duration, hours: f64) -> f64 {
    LEFT + after.as_secs_f64() / 3600.0 / hours * WIDTH
}

impl Panel<'_> {
    fn y_of(&self, count: f64) -> f64 {
        self.y + HEIGHT * (1.0 - count / f64::from(self.top))
    }

    fn draw(&self, svg: &mut String, arrivals: &[Wall], marks: &[(Duration, &str)], half_hours: u32) {
        let hours = f64::from(half_hours) / 2.0;
        let (right, bottom) = (LEFT + WIDTH, self.y + HEIGHT);
        let mut put = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        put(format!(r#"<text class="h" x="{LEFT}" y="{}">{}</text>"#, self.y - 26.0, self.heading));
        for count in (0..=self.top / self.tick).map(|n| n * self.tick) {
            let y = self.y_of(f64::from(count));
            put(format!(r#"<path class="g" d="M{LEFT} {y:.1}H{right}"/>"#));
            put(format!(r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 8.0, y + 4.0, grouped(count)));
        }
        for n in 0..=half_hours {
            let x = x(Duration::from_mins(30) * n, hours);
            put(format!(r#"<path class="a" d="M{x:.1} {bottom}v5"/>"#));
            let at = f64::from(n) / 2.0;
            put(format!(r#"<text x="{x:.1}" y="{}" text-anchor="middle">{at} h</text>"#, bottom + 19.0));
        }
        let end = BEGIN + Duration::from_mins(30) * half_hours;
        let mut line = format!("M{LEFT} {bottom}");
        let mut after = Duration::ZERO;
        for count in counts(arrivals, self.window, end) {
            let count = u32::try_from(count).expect("a few thousand calls");
            write!(line, "L{:.1} {:.1}", x(after, hours), self.y_of(f64::from(count))).expect("a string takes it");
            after += SAMPLE;
        }
        put(format!(r#"<path class="c" d="{line}V{bottom}Z"/>"#));
        put(format!(r#"<path class="a" d="M{LEFT} {}V{bottom}H{right}" fill="none"/>"#, self.y));
        let y = self.y_of(f64::from(self.limit));
        put(format!(r#"<path class="l" d="M{LEFT} {y:.1}H{right}"/>"#));
        let text = format!("limit {}", grouped(self.limit));
        put(format!(r#"<text class="lt" x="{right}" y="{:.1}" text-anchor="end">{text}</text>"#, y - 5.0));
        for (at, label) in marks {
            let x = x(*at, hours);
            put(format!(r#"<path class="m" d="M{x:.1} {}V{bottom}"/>"#, self.y - 6.0));
            put(format!(r#"<text class="mt" x="{:.1}" y="{}">{label}</text>"#, x + 4.0, self.y - 4.0));
        }
    }
}

fn picture(arrivals: &[Wall], marks: &[(Duration, &str)], told: &str) -> String {
    let last = arrivals.last().map_or(Duration::ZERO, |last| last.since(BEGIN));
    let half_hours = u32::try_from(last.as_secs().div_ceil(30 * 60)).expect("a run of hours");
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 540\" role=\"img\" \
         aria-labelledby=\"title desc\">\n<title id=\"title\">Calls in the sliding minute and hour</title>\n\
         <desc id=\"desc\">{told}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"bg\" width=\"900\" height=\"540\" rx=\"6\"/>\n"
    );
    let limits = Limits::DOCUMENTED;
    let minute = Panel {
        heading: "calls that arrived in the last 60 s",
        window: MINUTE,
        limit: limits.per_minute.get(),
        top: 125,
        tick: 25,
        y: 52.0,
    };
    let hour = Panel {
        heading: "calls that arrived in the last 3,600 s",
        window: HOUR,
        limit: limits.per_hour.get(),
        top: 1750,
        tick: 250,
        y: 322.0,
    };
    minute.draw(&mut svg, arrivals, marks, half_hours);
    hour.draw(&mut svg, arrivals, marks, half_hours);
    svg.push_str("</svg>\n");
    svg
}

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| "docs/budget.svg".to_owned());
    let (world, killed) = run();
    let arrivals = world.wire.with_tenant(|tenant| tenant.arrivals(CallKind::Scan).to_vec());
    let report = world.wire.with_tenant(|tenant| tenant.report(world.clock.world()));
    let scan = report.calls.get("scan").expect("there were scan calls");
    let (minute, hour) = (scan.worst_minute, scan.worst_hour);
    let took = arrivals.last().expect("calls arrived").since(BEGIN).as_secs();
    let took = format!("{} h {:02} min {:02} s", took / 3600, took / 60 % 60, took % 60);
    let calls = arrivals.len();
    let told = format!(
        "{calls} calls to {MACHINES} machines arrived within {took}. The fullest sliding minute held {minute} calls \
         of 100 allowed, the fullest sliding hour {hour} of 1,500. sweepd was killed and started again after {} s; \
         after {} s the network stood still for {} s.",
        killed.as_secs(),
        STALL.as_secs(),
        STALLED.as_secs()
    );
    let svg = picture(&arrivals, &[(killed, "kill -9, restart"), (STALL, "network stalls for 100 s")], &told);
    std::fs::write(&path, svg).expect("the picture can be written");
    println!("worst minute {minute}, worst hour {hour}, {calls} calls in {took}, {} with 429; {path}", scan.throttled);
}

//! What `status --watch` shows: budgets, what each tenant waits for, sweeps, and what failed last.

use std::io::{self, Write as _};

use super::{Seen, paused, unknown, unknown_statuses};
use crate::cli::forecast::spell;
use crate::cli::output::{local, local_or_dash};
use crate::cli::table::{Table, cut, id, name, number, padded, state, whole, wrapped};
use crate::cli::terminal::{Ink, Paint, Size, tame};
use crate::domain::share::Foreign;
use crate::domain::time::{Wall, seconds_left};
use crate::web::overview::LastFailure;
use crate::web::report::{Report, TenantReport};

/// How long a gauge is, in characters.
const GAUGE: u64 = 24;
/// Where the words of a tenant begin.
const INDENT: usize = 14;
/// Where nobody tells how wide lines may be.
const READABLE: usize = 110;

/// How much of a whole is there, drawn.
pub fn bar(part: u64, all: u64, width: u64) -> String {
    let full = part * width / all.max(1);
    let bar: String = (0..width).map(|at| if at < full { '#' } else { '.' }).collect();
    format!("[{bar}]")
}

/// Everything, as it stands at `now`; in a pipe without a size.
pub fn lines(
    seen: &Seen,
    trouble: Option<&str>,
    now: Wall,
    size: Option<Size>,
    paint: Paint,
) -> io::Result<Vec<String>> {
    let width = size.map_or(READABLE, |size| size.columns);
    let mut head = heading(seen, trouble, width, paint);
    let mut tenants = Vec::new();
    for (name, told) in &seen.report.tenants {
        tenant(&mut tenants, name, told, now, width, paint);
    }
    let sweeps = sweeps(&seen.report, size, paint)?;
    let failures = failures(&seen.failures, size, paint)?;
    let sections = [tenants, sweeps, failures];
    let room = size.map(|size| size.lines.saturating_sub(head.len()));
    for (section, lines) in room.map_or(sections.clone(), |room| fitted(sections, room, width)).into_iter().enumerate()
    {
        if section > 0 && lines.is_empty() {
            continue;
        }
        head.extend(lines);
    }
    if let Some(size) = size.filter(|size| head.len() > size.lines) {
        head.truncate(size.lines.saturating_sub(1));
        head.push(cut("… more lines: see `sweepd status`", width));
    }
    Ok(head)
}

fn heading(seen: &Seen, trouble: Option<&str>, width: usize, paint: Paint) -> Vec<String> {
    let Report { at, daemon, .. } = &seen.report;
    let mut lines = vec![paint.ink(Ink::Heading, cut(&format!("sweepd at {}", local(at)), width)).to_string()];
    let mut warn = |text: String| {
        let inked = |line: String| paint.ink(Ink::Attention, line).to_string();
        lines.extend(wrapped(&tame(&text), width).into_iter().map(inked));
    };
    if let Some(trouble) = trouble {
        warn(format!("This is old: {trouble}; trying again."));
    }
    if !daemon.running {
        warn("The daemon is not running: nothing moves until it is started.".to_owned());
    }
    if let Some(why) = &daemon.intake_stopped {
        warn(format!("No file is taken: {why}."));
    }
    if let Some(why) = &daemon.database_stopped {
        warn(format!("The database takes no writes: {why}."));
    }
    lines.push(String::new());
    lines
}

/// A label and what belongs to it, in as many lines as that takes.
fn labelled(lines: &mut Vec<String>, label: &str, text: &str, ink: Ink, width: usize, paint: Paint) {
    for (n, line) in wrapped(&tame(text), width.saturating_sub(INDENT).max(20)).into_iter().enumerate() {
        let label = padded(if n == 0 { label } else { "" }, INDENT - 2, false);
        lines.push(format!("  {label}{}", paint.ink(ink, line)));
    }
}

fn tenant(lines: &mut Vec<String>, name: &str, told: &TenantReport, now: Wall, width: usize, paint: Paint) {
    let jobs: Vec<_> = told.jobs.iter().filter(|(_, n)| **n > 0).map(|(state, n)| format!("{n} {state}")).collect();
    let jobs = if jobs.is_empty() { "no jobs".to_owned() } else { jobs.join(" · ") };
    lines.push(paint.ink(Ink::Heading, cut(name, width)).to_string());
    labelled(lines, "jobs", &jobs, Ink::Plain, width, paint);
    for window in ["minute", "hour"] {
        let Some(gauge) = told.budget.get("scan").and_then(|windows| windows.get(window)) else { continue };
        let bar = bar(gauge.used.into(), gauge.limit.into(), GAUGE);
        let ink = if gauge.used >= gauge.limit { Ink::Attention } else { Ink::Plain };
        let text = format!("{bar} {} of {} calls", gauge.used, gauge.limit);
        labelled(lines, &format!("this {window}"), &text, ink, width, paint);
    }
    if let Some(Foreign { minute, hour }) = told.foreign.get("scan").filter(|foreign| **foreign != Foreign::default()) {
        let text = format!("about {minute} a minute and {hour} an hour, with the same app registration");
        labelled(lines, "others", &text, Ink::Plain, width, paint);
    }
    if let Some(paused) = paused(told) {
        labelled(lines, "paused", &paused, Ink::Attention, width, paint);
    }
    let left = |at: &String| {
        let wait = Wall::parse(at)?.since(now);
        (!wait.is_zero()).then(|| format!(" (in {})", spell(seconds_left(wait))))
    };
    let until = told.waiting_until.as_ref().and_then(left).unwrap_or_default();
    let ink = if told.waiting_for == "nothing" { Ink::Plain } else { Ink::Attention };
    labelled(lines, "waits for", &format!("{}{until}", told.waiting_for), ink, width, paint);
    if let Some(unknown) = unknown_statuses(told) {
        labelled(lines, "status", &unknown, Ink::Attention, width, paint);
    }
    if let Some(eta) = &told.eta {
        let until = left(eta).unwrap_or_default();
        labelled(lines, "all sent", &format!("about {}{until}", local(eta)), Ink::Plain, width, paint);
    }
    if let Some(why) = unknown(told) {
        labelled(lines, "all sent", &format!("unknown: {why}"), Ink::Plain, width, paint);
    }
    lines.push(String::new());
}

fn split(table: Table, mut out: Vec<u8>) -> io::Result<Vec<String>> {
    table.end(&mut out)?;
    out.write_all(b"\n")?;
    Ok(String::from_utf8_lossy(&out).lines().map(str::to_owned).collect())
}

fn sweeps(report: &Report, size: Option<Size>, paint: Paint) -> io::Result<Vec<String>> {
    if report.sweeps.is_empty() {
        return Ok(vec!["No sweep in progress.".to_owned(), String::new()]);
    }
    let columns = [
        id("SWEEP"),
        name("NAME"),
        name("TENANT").rank(4),
        state("STATE").rank(1),
        whole("FINAL"),
        number("OPEN").rank(2),
        number("TOTAL").rank(5),
        whole("ALL SENT ABOUT").rank(3),
    ];
    let mut table = Table::with(&columns, size.map(|size| size.columns), paint);
    let mut out = Vec::new();
    for sweep in &report.sweeps {
        let done = sweep.total.saturating_sub(sweep.open);
        let cells = vec![
            sweep.id.clone(),
            sweep.name.clone(),
            sweep.tenant.clone(),
            sweep.state.clone(),
            format!("{} {:>3} %", bar(done, sweep.total, 10), done * 100 / sweep.total.max(1)),
            sweep.open.to_string(),
            sweep.total.to_string(),
            local_or_dash(sweep.eta.as_ref()),
        ];
        table.row(&mut out, cells)?;
    }
    split(table, out)
}

fn failures(failures: &[LastFailure], size: Option<Size>, paint: Paint) -> io::Result<Vec<String>> {
    if failures.is_empty() {
        return Ok(Vec::new());
    }
    let columns = [
        whole("FAILED LAST").rank(1),
        id("MACHINE"),
        name("TENANT").rank(3),
        state("STATE"),
        name("REASON"),
        name("MESSAGE").rank(2),
    ];
    let mut table = Table::with(&columns, size.map(|size| size.columns), paint);
    let mut out = Vec::new();
    for failed in failures {
        let cells = vec![
            local(&failed.at),
            failed.machine_id.clone(),
            failed.tenant.clone(),
            failed.state.clone(),
            failed.reason.clone().unwrap_or_default(),
            failed.message.clone().unwrap_or_default(),
        ];
        table.row(&mut out, cells)?;
    }
    split(table, out)
}

/// At least so many lines are left of each section, whatever the room: of tenants, of sweeps, of failures.
const LEAST: [usize; 3] = [6, 3, 1];

/// The sections within so many lines, with a word about what is missing: failures give way first, tenants last.
fn fitted(mut sections: [Vec<String>; 3], room: usize, width: usize) -> [Vec<String>; 3] {
    let mut surplus = sections.iter().map(Vec::len).sum::<usize>().saturating_sub(room);
    for (lines, least) in sections.iter_mut().zip(LEAST).rev() {
        let gone = surplus.min(lines.len().saturating_sub(least));
        if gone > 0 {
            lines.truncate(lines.len() - gone - 1);
            lines.push(cut(&format!("… {} lines more: see `sweepd status`", gone + 1), width));
            surplus -= gone;
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::domain::forecast::Terms;
    use crate::web::report::{self, SweepReport};

    const NOW: Wall = Wall(1_795_350_000_000);

    fn seen(tenants: usize, sweeps: usize) -> Seen {
        let terms = (0..tenants).map(|n| (format!("tenant-{n}").parse().unwrap(), Terms::default()));
        let mut report = report::empty(&terms.collect::<BTreeMap<_, _>>(), NOW, false);
        for told in report.tenants.values_mut() {
            told.waiting_for = "minute window: next call at 12:34:56".to_owned();
            told.waiting_until = Some(Wall(NOW.0 + 33_500).rfc3339());
            told.budget.get_mut("scan").unwrap().get_mut("minute").unwrap().used = 50;
        }
        let sweep = |n: usize| SweepReport {
            id: format!("01a2033c-9c6b-739e-8aa6-{n:012}"),
            name: "ワークステーション\x1b[2J".to_owned(),
            tenant: "tenant-0".to_owned(),
            source: "file".to_owned(),
            state: "open".to_owned(),
            total: 200,
            open: 50,
            received_at: NOW.rfc3339(),
            eta: None,
        };
        report.sweeps = (0..sweeps).map(sweep).collect();
        let failed = LastFailure {
            at: NOW.rfc3339(),
            tenant: "tenant-0".to_owned(),
            machine_id: "59f89aa11ebe3c7bb2245664d1658c63b2ffdbf1".to_owned(),
            name: None,
            state: "failed".to_owned(),
            reason: Some("attempts_exhausted".to_owned()),
            message: Some("HTTP 502: Bad Gateway".to_owned()),
        };
        Seen { report, failures: vec![failed] }
    }

    fn told(seen: &Seen, size: Option<Size>) -> Vec<String> {
        lines(seen, None, NOW, size, Paint::NONE).unwrap()
    }

    #[test]
    fn gauges_progress_waits_and_failures_are_told() {
        let text = told(&seen(1, 1), None).join("\n");
        for words in [
            "[############............] 50 of 100 calls",
            "waits for   minute window: next call at 12:34:56 (in 34 s)",
            "[#######...]  75 %",
            "attempts_exhausted",
            "HTTP 502: Bad Gateway",
            "daemon is not running",
        ] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        assert!(!text.contains('\x1b'), "{text}");
        assert_eq!(bar(0, 0, 4), "[....]");
        assert_eq!(bar(9, 4, 4), "[####]");
    }

    #[test]
    fn whatever_stands_in_the_way_is_told_and_no_word_of_it_steers_the_terminal() {
        let mut seen = seen(1, 0);
        seen.report.daemon.intake_stopped = Some("the disk is short".to_owned());
        let tenant = seen.report.tenants.get_mut("tenant-0").unwrap();
        tenant.waiting_for = "`sweepd resume`: paused: lunch\u{9b}2J".to_owned();
        tenant.waiting_until = Some(NOW.rfc3339());
        tenant.eta_unknown = Some("the sign-in fails".to_owned());
        tenant.foreign.insert("scan", Foreign { minute: 7, hour: 80 });
        let window = tenant.budget.get_mut("scan").unwrap().get_mut("minute").unwrap();
        window.used = window.limit;
        let text = told(&seen, None).join("\n");
        for words in [
            "No file is taken: the disk is short.",
            "paused: lunch\u{fffd}2J\n",
            "all sent    unknown: the sign-in fails",
            "about 7 a minute and 80 an hour",
        ] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        let painted = lines(&seen, None, NOW, None, Paint::ALL).unwrap().join("\n");
        assert!(painted.contains("\x1b[33m[########################] 100 of 100 calls"), "{painted}");
        assert!(!painted.contains("\x1b[33m[........................] 0 of 1500"), "{painted}");
    }

    #[test]
    fn it_fits_whatever_size_the_terminal_has_and_says_what_is_missing() {
        for (tenants, sweeps) in [(1, 1), (20, 3), (2, 60)] {
            let seen = seen(tenants, sweeps);
            for columns in (40..140).step_by(7) {
                for rows in [8, 12, 24, 50] {
                    let lines = told(&seen, Some(Size { columns, lines: rows }));
                    assert!(lines.len() <= rows, "{} lines of {rows}", lines.len());
                    let wide = lines.iter().find(|line| line.width() > columns);
                    assert!(wide.is_none(), "wider than {columns}: {wide:?}");
                    let text = lines.join("\n");
                    assert!(
                        tenants + sweeps < 20 || text.contains("lines more") || text.contains("more lines"),
                        "{text}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_called_old() {
        let text = lines(&seen(1, 0), Some("the disk is gone"), NOW, None, Paint::NONE).unwrap().join("\n");
        assert!(text.contains("This is old: the disk is gone; trying again."), "{text}");
    }
}

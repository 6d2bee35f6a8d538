//! What `submit` says of its input: how many machines it holds, how they are to be scanned, and when.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use crate::app::{Exit, Failure};
use crate::cli::Context;
use crate::cli::output::{json_line, local, print};
use crate::domain::sweep::ScanType;
use crate::domain::time::Wall;
use crate::intake::formats::{Refusal, Row};
use crate::intake::receipt::{Receipt, Status};

/// How and when a machine is to be scanned, where that is said of it, or of all machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wishes {
    pub scan: Option<ScanType>,
    pub not_before: Option<Wall>,
}

/// What the input holds.
#[derive(Default)]
pub struct Parsed {
    pub rows: u64,
    pub not_eligible: u64,
    pub refusals: Vec<Refusal>,
    pub physical_lines: u64,
    pub loose_quotes: u64,
    /// How many machines have which wishes of their own. What holds for all of them may follow them in the file.
    wishes: BTreeMap<Wishes, u64>,
}

/// How the machines are to be scanned.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scans {
    quick: u64,
    full: u64,
    /// So many are to be scanned later.
    waiting: u64,
    earliest: Option<Wall>,
    latest: Option<Wall>,
}

impl Parsed {
    /// One more machine.
    pub fn add(&mut self, row: &Row) {
        self.rows += 1;
        let wishes = Wishes { scan: row.scan_type, not_before: row.not_before };
        *self.wishes.entry(wishes).or_default() += 1;
    }

    /// How the machines are to be scanned, given what holds for those that say nothing themselves.
    pub fn scans(&self, for_all: Wishes, default: ScanType, now: Wall) -> Scans {
        let mut scans = Scans::default();
        for (own, n) in &self.wishes {
            match own.scan.or(for_all.scan).unwrap_or(default) {
                ScanType::Quick => scans.quick += n,
                ScanType::Full => scans.full += n,
            }
            if let Some(at) = own.not_before.or(for_all.not_before).filter(|at| *at > now) {
                scans.waiting += n;
                scans.earliest = Some(scans.earliest.map_or(at, |earliest| earliest.min(at)));
                scans.latest = scans.latest.max(Some(at));
            }
        }
        scans
    }
}

/// How many wait, and until when, in words.
fn waiting_words(waiting: u64, earliest: Option<&str>, latest: Option<&str>) -> String {
    match (earliest.map(local), latest.map(local)) {
        (Some(earliest), Some(latest)) if earliest != latest => {
            format!("{waiting} not before {earliest}, the last not before {latest}")
        }
        (Some(earliest), _) => format!("{waiting} not before {earliest}"),
        (None, _) => "none has to wait".to_owned(),
    }
}

/// What a dry run found.
pub fn dry_run(context: &Context, parsed: &Parsed, scans: &Scans, warnings: &[String]) -> Result<(), Failure> {
    let refused = parsed.refusals.len() as u64;
    let lines = parsed.rows + parsed.not_eligible + refused;
    let (earliest, latest) = (scans.earliest.map(Wall::rfc3339), scans.latest.map(Wall::rfc3339));
    print(|out| {
        if context.json {
            let report = json!({ "physical_lines": parsed.physical_lines, "lines": lines, "machines": parsed.rows, "not_eligible": parsed.not_eligible,
                "refused": refused, "quick": scans.quick, "full": scans.full, "waiting": scans.waiting,
                "earliest_not_before": earliest, "latest_not_before": latest, "refusals": parsed.refusals,
                "warnings": warnings, "dry_run": true });
            return json_line(out, &report);
        }
        writeln!(
            out,
            "{lines} lines of {}: {} machines, {} not eligible, {refused} refused; nothing was queued",
            physical(parsed.physical_lines),
            parsed.rows,
            parsed.not_eligible
        )?;
        let waiting = waiting_words(scans.waiting, earliest.as_deref(), latest.as_deref());
        writeln!(out, "{} Quick and {} Full scans; {waiting}", scans.quick, scans.full)
    })
}

/// A number of physical lines, in words.
fn physical(lines: u64) -> String {
    format!("{lines} physical line{}", if lines == 1 { "" } else { "s" })
}

/// What a receipt says.
pub fn taken(context: &Context, receipt: &Receipt) -> Result<(), Failure> {
    print(|out| {
        if context.json {
            return json_line(out, receipt);
        }
        writeln!(
            out,
            "{}: {} lines: {} queued, {} joined, {} duplicates, {} not eligible, {} refused",
            receipt.sweep_id.as_deref().unwrap_or("no sweep"),
            receipt.lines,
            receipt.queued,
            receipt.joined,
            receipt.duplicates,
            receipt.not_eligible,
            receipt.refused
        )?;
        if receipt.quick + receipt.full > 0 {
            let times = (receipt.earliest_not_before.as_deref(), receipt.latest_not_before.as_deref());
            let waiting = waiting_words(receipt.waiting, times.0, times.1);
            writeln!(out, "{} Quick and {} Full scans; {waiting}", receipt.quick, receipt.full)?;
        }
        receipt.reason.iter().chain(&receipt.warnings).try_for_each(|words| writeln!(out, "{words}"))
    })?;
    if receipt.status == Status::Rejected {
        return Err(Failure::new(Exit::Input, receipt.reason.clone().unwrap_or_else(|| "rejected".to_owned())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_of_all_complete_those_of_each() {
        let mut parsed = Parsed::default();
        for (scan, not_before, n) in [
            (None, None, 3),
            (Some(ScanType::Full), None, 2),
            (Some(ScanType::Quick), Some(Wall(50)), 4),
            (None, Some(Wall(200)), 5),
        ] {
            parsed.wishes.insert(Wishes { scan, not_before }, n);
        }
        let now = Wall(100);
        let expected = Scans { quick: 12, full: 2, waiting: 5, earliest: Some(Wall(200)), latest: Some(Wall(200)) };
        assert_eq!(parsed.scans(Wishes::default(), ScanType::Quick, now), expected);
        let for_all = Wishes { scan: Some(ScanType::Full), not_before: Some(Wall(150)) };
        let expected = Scans { quick: 4, full: 10, waiting: 10, earliest: Some(Wall(150)), latest: Some(Wall(200)) };
        assert_eq!(parsed.scans(for_all, ScanType::Quick, now), expected);
    }
}

//! What comes back when a sweep's last machine is final: one row a machine, as CSV and as JSON.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::receipt::write_whole;

/// A machine of a finished sweep.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names are those of `job list`")]
pub struct ResultRow {
    pub machine_id: String,
    pub name: Option<String>,
    pub state: String,
    pub reason: Option<String>,
    /// The reason in words, or what the action says of its error, where there is more to say.
    pub detail: Option<String>,
    pub scan_type: Option<String>,
    pub action_id: Option<String>,
    pub blocking_action_id: Option<String>,
    pub requestor: Option<String>,
    pub attempts: i64,
    pub created_at: Option<String>,
    pub finished_at: Option<String>,
}

/// What stands above the rows of the JSON file.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names speak")]
pub struct Summary {
    pub sweep_id: String,
    pub name: String,
    pub tenant: String,
    pub machines: usize,
    pub states: std::collections::BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    results: &'a [ResultRow],
}

/// What begins a formula; the wide ones do where Chinese or Japanese is written.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// A cell that no spreadsheet runs as a formula.
pub fn inert(cell: &str) -> String {
    if cell.starts_with(FORMULA) { format!("'{cell}") } else { cell.to_owned() }
}

const HEADER: [&str; 12] = [
    "machine_id",
    "name",
    "state",
    "reason",
    "detail",
    "scan_type",
    "action_id",
    "blocking_action_id",
    "requestor",
    "attempts",
    "created_at",
    "finished_at",
];

/// Writes `<sweep id>.csv` and `<sweep id>.json` into `folder`.
pub fn write(folder: &Path, summary: &Summary, rows: &[ResultRow]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    write_whole(&folder.join(format!("{}.csv", summary.sweep_id)), |out| csv(out, rows))?;
    write_whole(&folder.join(format!("{}.json", summary.sweep_id)), |out| {
        serde_json::to_writer_pretty(&mut *out, &Document { summary, results: rows })?;
        out.write_all(b"\n")
    })
}

/// Writes the rows as CSV.
fn csv(out: &mut dyn Write, rows: &[ResultRow]) -> io::Result<()> {
    let mut table = Csv::new(out)?;
    rows.iter().try_for_each(|row| table.row(row))?;
    table.end()
}

/// Rows as CSV, with a header.
#[derive(Debug)]
pub struct Csv<W: Write>(csv::Writer<W>);

impl<W: Write> Csv<W> {
    /// The header.
    pub fn new(out: W) -> io::Result<Self> {
        let mut table = csv::Writer::from_writer(out);
        table.write_record(HEADER)?;
        Ok(Self(table))
    }

    /// One more row.
    pub fn row(&mut self, row: &ResultRow) -> io::Result<()> {
        let text = |cell: &Option<String>| inert(cell.as_deref().unwrap_or_default());
        self.0.write_record([
            inert(&row.machine_id),
            text(&row.name),
            inert(&row.state),
            text(&row.reason),
            text(&row.detail),
            text(&row.scan_type),
            text(&row.action_id),
            text(&row.blocking_action_id),
            text(&row.requestor),
            row.attempts.to_string(),
            text(&row.created_at),
            text(&row.finished_at),
        ])?;
        Ok(())
    }

    /// Sees the last of them out.
    pub fn end(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_a_spreadsheet_would_run_are_made_inert() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=1", "＝1+1", "＋1", "－1", "＠SUM(A1)"] {
            assert!(inert(formula).starts_with('\''), "{formula:?}");
        }
        assert_eq!(inert("pc-1"), "pc-1");
    }
}

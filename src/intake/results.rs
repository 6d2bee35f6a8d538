//! What comes back when a sweep's last machine is final: one row a machine, as CSV and as JSON.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::receipt::{Aside, write_aside};

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
    pub machines: u64,
    pub states: BTreeMap<String, u64>,
}

/// A file of results that is on disk, and does not have its name yet; and how many machines it shows in each state.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names speak")]
pub struct Written {
    pub file: Aside,
    pub states: BTreeMap<String, u64>,
}

/// Rows as they come, some at a time: there may be a million.
pub type Pages<'a> = dyn Iterator<Item = io::Result<Vec<ResultRow>>> + 'a;

#[derive(Serialize)]
struct Document<'a, 'b> {
    #[serde(flatten)]
    summary: &'a Summary,
    results: Streamed<'a, 'b>,
}

/// Rows that are read while they are written.
struct Streamed<'a, 'b> {
    pages: RefCell<&'a mut Pages<'b>>,
    states: RefCell<&'a mut BTreeMap<String, u64>>,
    /// What ended the reading: serde keeps no more of it than its words.
    failed: &'a Cell<Option<io::Error>>,
}

impl Serialize for Streamed<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut pages, mut states) = (self.pages.borrow_mut(), self.states.borrow_mut());
        let mut rows = serializer.serialize_seq(None)?;
        for page in &mut **pages {
            let page = page.map_err(|error| {
                let told = S::Error::custom(&error);
                self.failed.set(Some(error));
                told
            })?;
            for row in &page {
                count(&mut states, row);
                rows.serialize_element(row)?;
            }
        }
        rows.end()
    }
}

fn count(states: &mut BTreeMap<String, u64>, row: &ResultRow) {
    match states.get_mut(&row.state) {
        Some(n) => *n += 1,
        None => drop(states.insert(row.state.clone(), 1)),
    }
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

/// Writes `<sweep id>.csv` for `folder`.
pub fn write_csv(folder: &Path, sweep_id: &str, pages: &mut Pages<'_>) -> io::Result<Written> {
    std::fs::create_dir_all(folder)?;
    let mut states = BTreeMap::new();
    let file = write_aside(&folder.join(format!("{sweep_id}.csv")), |out| {
        let mut table = Csv::new(out)?;
        for page in pages {
            for row in &page? {
                count(&mut states, row);
                table.row(row)?;
            }
        }
        table.end()
    })?;
    Ok(Written { file, states })
}

/// Writes `<sweep id>.json` for `folder`.
pub fn write_json(folder: &Path, summary: &Summary, pages: &mut Pages<'_>) -> io::Result<Written> {
    std::fs::create_dir_all(folder)?;
    let mut states = BTreeMap::new();
    let file = write_aside(&folder.join(format!("{}.json", summary.sweep_id)), |out| {
        let failed = Cell::new(None);
        let results = Streamed { pages: RefCell::new(pages), states: RefCell::new(&mut states), failed: &failed };
        let written = serde_json::to_writer_pretty(&mut *out, &Document { summary, results });
        written.map_err(|error| failed.take().unwrap_or_else(|| error.into()))?;
        out.write_all(b"\n")
    })?;
    Ok(Written { file, states })
}

/// What went wrong with what is written to: as an error of CSV, a closed pipe or a full disk is not known as such.
pub fn unwrapped(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Rows as CSV, with a header.
#[derive(Debug)]
pub struct Csv<W: Write>(csv::Writer<W>);

impl<W: Write> Csv<W> {
    /// The header.
    pub fn new(out: W) -> io::Result<Self> {
        let mut table = csv::Writer::from_writer(out);
        table.write_record(HEADER).map_err(unwrapped)?;
        Ok(Self(table))
    }

    /// One more row.
    pub fn row(&mut self, row: &ResultRow) -> io::Result<()> {
        let text = |cell: &Option<String>| inert(cell.as_deref().unwrap_or_default());
        let written = self.0.write_record([
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
        ]);
        written.map_err(unwrapped)
    }

    /// Sees the last of them out.
    pub fn end(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str) -> ResultRow {
        ResultRow {
            machine_id: "a".repeat(40),
            name: None,
            state: state.to_owned(),
            reason: None,
            detail: None,
            scan_type: None,
            action_id: None,
            blocking_action_id: None,
            requestor: None,
            attempts: 1,
            created_at: None,
            finished_at: None,
        }
    }

    #[test]
    fn results_are_written_while_they_are_read_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let pages = || [vec![row("succeeded"), row("failed")], vec![row("succeeded")]].into_iter().map(Ok);
        let csv = write_csv(dir.path(), "1", &mut pages()).unwrap();
        let expected = BTreeMap::from([("succeeded".to_owned(), 2), ("failed".to_owned(), 1)]);
        assert_eq!(csv.states, expected);
        let summary = Summary {
            sweep_id: "1".to_owned(),
            name: "weekly".to_owned(),
            tenant: "contoso".to_owned(),
            machines: 3,
            states: csv.states,
        };
        let json = write_json(dir.path(), &summary, &mut pages()).unwrap();
        assert_eq!(json.states, expected);
        assert!(!dir.path().join("1.csv").exists() && !dir.path().join("1.json").exists(), "they have no names yet");
        csv.file.reveal().unwrap();
        json.file.reveal().unwrap();
        let text = std::fs::read_to_string(dir.path().join("1.json")).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&read["machines"], read["results"].as_array().unwrap().len()), (&serde_json::json!(3), 3));
        assert!(text.starts_with("{\n  \"sweep_id\": \"1\",") && text.ends_with("]\n}\n"), "{text}");
        assert_eq!(std::fs::read_to_string(dir.path().join("1.csv")).unwrap().lines().count(), 4);
    }

    #[test]
    fn rows_whose_reading_breaks_off_become_no_results() {
        let dir = tempfile::tempdir().unwrap();
        let broken = || [Ok(vec![row("succeeded")]), Err(io::Error::other("gone"))].into_iter();
        let summary = Summary {
            sweep_id: "1".to_owned(),
            name: String::new(),
            tenant: String::new(),
            machines: 2,
            states: BTreeMap::new(),
        };
        assert_eq!(write_csv(dir.path(), "1", &mut broken()).unwrap_err().to_string(), "gone");
        assert_eq!(write_json(dir.path(), &summary, &mut broken()).unwrap_err().to_string(), "gone");
    }

    #[test]
    fn cells_that_a_spreadsheet_would_run_are_made_inert() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=1", "＝1+1", "＋1", "－1", "＠SUM(A1)"] {
            assert!(inert(formula).starts_with('\''), "{formula:?}");
        }
        assert_eq!(inert("pc-1"), "pc-1");
    }
}

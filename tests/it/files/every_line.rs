//! Every line of every file is accounted for: two hundred files of every format, encoding, separator and line's end, of
//! which it is known beforehand what each line comes to, through the real binary, its database, and back as results.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Configured, Daemon, Dice, Site, eventually, number, quick_tenant, simulate, text};
use serde_json::{Value, json};
use sweepd::simulator::{SimulatedMachine, fleet};

const FILES: u64 = 200;
const SEED: u64 = 5_202_611;

/// As many machines as make duplicates and joins common.
const MACHINES: usize = 14;

/// What a line is to come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// A scan of this machine; a Full one where the format can say so.
    Scan(usize, bool),
    LeftOut(usize),
    Refused,
    /// A blank line or a comment.
    Nothing,
}

/// What is known of a file before it is dropped.
#[derive(Default)]
struct Known {
    lines: u64,
    /// Machine and scan type, which are a job or a join.
    scans: BTreeSet<(String, bool)>,
    duplicates: u64,
    left_out: Vec<String>,
    refused: Vec<u64>,
}

impl Known {
    fn count(&mut self, line: u64, entry: Entry, machines: &[SimulatedMachine], full: bool) {
        match entry {
            Entry::Nothing => return,
            Entry::Refused => self.refused.push(line),
            Entry::LeftOut(machine) => {
                let id = machines[machine].id.to_string();
                let is_new = !self.left_out.contains(&id);
                self.duplicates += u64::from(!is_new);
                self.left_out.extend(is_new.then_some(id));
            }
            Entry::Scan(machine, _) => {
                let is_new = self.scans.insert((machines[machine].id.to_string(), full));
                self.duplicates += u64::from(!is_new);
            }
        }
        self.lines += 1;
    }

    /// A machine that is left out in one line and asked for in another is asked for.
    fn whole(mut self) -> Self {
        let before = self.left_out.len();
        self.left_out.retain(|id| ![false, true].iter().any(|full| self.scans.contains(&(id.clone(), *full))));
        self.duplicates += (before - self.left_out.len()) as u64;
        self
    }
}

struct Writer<'a> {
    dice: &'a mut Dice,
    machines: &'a [SimulatedMachine],
    text: String,
    known: Known,
    end: &'static str,
}

impl Writer<'_> {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.dice.below(from.len() as u64)).unwrap()]
    }

    fn entries(&mut self) -> Vec<Entry> {
        // Some are longer than one chunk.
        let n = if self.dice.below(40) == 0 { 2700 } else { self.dice.below(30) };
        let machine = |dice: &mut Dice| usize::try_from(dice.below(MACHINES as u64)).unwrap();
        let entry = |dice: &mut Dice| match dice.below(10) {
            0..=5 => Entry::Scan(machine(dice), dice.below(4) == 0),
            6 => Entry::LeftOut(machine(dice)),
            7 => Entry::Refused,
            _ => Entry::Nothing,
        };
        (0..n).map(|_| entry(self.dice)).collect()
    }

    /// The line that is written next.
    fn line(&self) -> u64 {
        1 + self.text.matches('\n').count() as u64
    }

    fn id(&mut self, machine: usize) -> String {
        let id = self.machines[machine].id.to_string();
        if self.dice.below(3) == 0 { id.to_uppercase() } else { id }
    }

    fn list(&mut self) {
        for entry in self.entries() {
            let entry = if let Entry::LeftOut(machine) = entry { Entry::Scan(machine, false) } else { entry };
            self.known.count(self.line(), entry, self.machines, false);
            let line = match entry {
                Entry::Scan(machine, _) | Entry::LeftOut(machine) => {
                    let id = self.id(machine);
                    self.pick(&["@", " @\t", "\"@\"", "'@' # why", "@ #", "\t\"@\""]).replace('@', &id)
                }
                Entry::Refused => self.pick(&["nonsense", "1e5b", "\0", "no#t\u{7}"]).to_owned(),
                Entry::Nothing => self.pick(&["", " \t", "# nobody", " #"]).to_owned(),
            };
            self.text += &line;
            self.text += self.end;
        }
    }

    fn table(&mut self) {
        let separator = self.pick(&[",", ";", "\t"]);
        let id = self.pick(&["machine_id", "Machine-Id", "Device ID", "DeviceId", "MdatpDeviceId", "id"]);
        let id = self
            .pick(&[id.to_owned(), id.to_uppercase(), format!("\"{id}\"")].each_ref().map(String::as_str))
            .to_owned();
        let status = self.pick(&["Onboarding Status", "OnboardingStatus", "onboarding_status"]);
        let scan_type = self.pick(&["SCAN_TYPE", "ScanType", "scan type", "Scan-Type"]);
        let before = self.pick(&["", self.end]);
        self.text += before;
        self.text += &["Device Name", &id, "other", status, scan_type, "priority"].join(separator);
        self.text += self.end;
        for entry in self.entries() {
            let line = self.line();
            let full = matches!(entry, Entry::Scan(_, true));
            self.known.count(line, entry, self.machines, full);
            let name = self.pick(&["pc", "", "\"pc, 7; or\t8\"", "\"pc \"\"7\"\"\"", "\"pc\nroom 8\"", "\" \r\n\""]);
            let onboarded = self.pick(&["", "Onboarded", "ONBOARDED", "\"onboarded\""]);
            let fields: [&str; 6] = match entry {
                Entry::Nothing => {
                    let blank = self.pick(&["", "  "]);
                    self.text += blank;
                    self.text += self.end;
                    continue;
                }
                Entry::Scan(machine, full) => {
                    let id = self.id(machine);
                    let id = self.pick(&["@", " @ ", "\"@\"", "'@'"]).replace('@', &id);
                    let scan = if full { self.pick(&["Full", "FULL", "\"full\""]) } else { self.pick(&["", "quick"]) };
                    [name, id.leak(), "\"\"", onboarded, scan, self.pick(&["", "low", "URGENT"])]
                }
                Entry::LeftOut(machine) => {
                    let (id, status) =
                        (self.id(machine), self.pick(&["Can be onboarded", "Unsupported", "\"x, y; z\t\""]));
                    [name, id.leak(), "", status, "", ""]
                }
                Entry::Refused => {
                    let id: &str = self.id(0).leak();
                    let wrong = [["12", "", ""], ["", "", ""], [id, "Deep", ""], [id, "", "asap"]];
                    let [id, scan, priority] = self.pick(&wrong);
                    [name, id, "x", onboarded, scan, priority]
                }
            };
            self.text += &fields.join(separator);
            self.text += self.end;
        }
    }

    /// A machine as JSON; `full` is what the document says of all of them.
    fn object(&mut self, entry: Entry, full: bool) -> String {
        let key = self.pick(&["machine_id", "MACHINEID", "Device ID", "deviceId", "MdatpDeviceId", "Id"]);
        let scan_type = self.pick(&["scan_type", "ScanType", "Scan Type"]);
        match entry {
            Entry::Scan(machine, wants) => {
                let id = self.id(machine);
                let scan = match (wants, full) {
                    (false, true) => self.pick(&["QUICK", "Quick"]),
                    (true, false) => self.pick(&["Full", "full"]),
                    _ if self.dice.below(2) == 0 => return format!("\" {id}\\u0020\""),
                    (true, true) => "",
                    (false, false) => "quick",
                };
                format!("{{\"{key}\": \"{id}\", \"{scan_type}\":\"{scan}\",\"x\":[{{\"id\":7}}], \"priority\":null}}")
            }
            Entry::LeftOut(machine) => {
                let why = self.pick(&["\"Onboarding Status\":\"Unsupported\"", "\"mergedIntoMachineId\":\"other\""]);
                format!("{{{why},\"{key}\":\"{}\"}}", self.id(machine))
            }
            Entry::Refused => {
                let id = self.id(1);
                let wrong =
                    ["null", "12", "[\"@\"]", "\"x\"", "{}", "{\"id\":7}", "{\"id\":\"@\",\"priority\":\"asap\"}"];
                self.pick(&wrong).replace('@', &id)
            }
            Entry::Nothing => String::new(),
        }
    }

    fn json_lines(&mut self) {
        for entry in self.entries() {
            self.known.count(self.line(), entry, self.machines, matches!(entry, Entry::Scan(_, true)));
            let line = if entry == Entry::Refused && self.dice.below(2) == 0 {
                self.pick(&["{", "nonsense", "{} {}"]).to_owned()
            } else {
                self.object(entry, false)
            };
            self.text += &line;
            self.text += self.end;
        }
    }

    fn document(&mut self, n: u64) {
        let entries: Vec<_> = self.entries().into_iter().filter(|entry| *entry != Entry::Nothing).collect();
        let full = self.dice.below(3) == 0;
        let objects: Vec<_> = entries.iter().map(|entry| self.object(*entry, full)).collect();
        for (line, entry) in (1..).zip(&entries) {
            self.known.count(line, *entry, self.machines, matches!(entry, Entry::Scan(_, true)));
        }
        let machines = objects.join(&format!(" ,{}", self.end));
        self.text = match self.dice.below(4) {
            0 if !full => format!("[{machines}]"),
            1 if !full => format!("{{\"@odata.context\":\"x\",\"value\":[{machines}],{}\"Count\":{n}}}", self.end),
            2 if !full => format!("{{\"Stats\":{{\"id\":[1]}},\"Schema\":[],\"Results\":[{machines}]}}"),
            _ => {
                let scan = if full { "\"FULL\"" } else { "null" };
                format!("{{\"name\":\"{n}\",{}\"machines\":[{machines}],\"scan_type\":{scan}}}", self.end)
            }
        };
    }
}

fn encoded(text: &str, encoding: u64) -> Vec<u8> {
    let units = |to: fn(u16) -> [u8; 2]| std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(to).collect();
    match encoding {
        0 => text.as_bytes().to_vec(),
        1 => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        2 => units(u16::to_le_bytes),
        _ => units(u16::to_be_bytes),
    }
}

/// The `n`-th file: its name, its content, and what its lines come to.
fn file(dice: &mut Dice, machines: &[SimulatedMachine], n: u64) -> (String, Vec<u8>, Known) {
    let (format, encoding) = (n % 4, n / 4 % 4);
    let end = if dice.below(2) == 0 { "\n" } else { "\r\n" };
    let mut writer = Writer { dice, machines, text: String::new(), known: Known::default(), end };
    match format {
        0 => writer.list(),
        1 => writer.table(),
        2 => writer.json_lines(),
        _ => writer.document(n),
    }
    // No two are alike: none is called already taken. A last line of blanks is none, and has no end.
    writer.text += &" ".repeat(usize::try_from(n).unwrap());
    // What lists, tables and documents hold shows without an ending too.
    let shows = format != 2 && writer.dice.below(4) == 0;
    let ending = if shows { "" } else { [".txt", ".CSV", ".jsonl", ".json"][usize::try_from(format).unwrap()] };
    (format!("{n}{ending}"), encoded(&writer.text, encoding), writer.known.whole())
}

/// The receipt says what was known.
fn assert_accounted_for(receipt: &Value, known: &Known, what: &str) {
    let counts = ["lines", "duplicates", "not_eligible", "refused"].map(|count| number(receipt, count));
    let expected = [known.lines, known.duplicates, known.left_out.len() as u64, known.refused.len() as u64];
    assert_eq!(counts, expected, "{what}: {receipt}");
    let lines: Vec<u64> =
        receipt["refusals"].as_array().unwrap().iter().map(|refusal| number(refusal, "line")).collect();
    assert_eq!(lines, known.refused[..known.refused.len().min(1000)], "{what}: {receipt}");
    if text(receipt, "status") == "taken" {
        let wanted = number(receipt, "queued") + number(receipt, "joined");
        assert_eq!(wanted, known.scans.len() as u64, "{what}: {receipt}");
    }
}

/// The results hold each machine that was queued, joined or left out, and no other.
fn assert_comes_back(results: &Value, known: &Known, what: &str) {
    let mut rows: Vec<(&str, bool)> = Vec::new();
    let mut left_out: Vec<&str> = Vec::new();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for row in results["results"].as_array().unwrap() {
        *states.entry(text(row, "state")).or_default() += 1;
        match row["scan_type"].as_str() {
            Some(scan) => rows.push((text(row, "machine_id"), scan == "Full")),
            None => left_out.push(text(row, "machine_id")),
        }
    }
    rows.sort_unstable();
    let wanted: Vec<_> = known.scans.iter().map(|(id, full)| (id.as_str(), *full)).collect();
    assert_eq!(rows, wanted, "{what}");
    assert_eq!(left_out, known.left_out, "{what}");
    assert_eq!(number(results, "machines"), (wanted.len() + left_out.len()) as u64, "{what}");
    assert_eq!(results["states"], json!(states), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_two_hundred_files_comes_to_what_was_known_of_it() {
    let machines = fleet(SEED, MACHINES, "line");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(SEED, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "hold_above = 0\nhold_full_above = 0");
    let daemon = Daemon::started(site).await;
    daemon.told(&["pause"]);
    let mut dice = Dice(SEED);
    let files: Vec<_> = (0..FILES).map(|n| file(&mut dice, &machines, n)).collect();
    for (name, content, _) in &files {
        daemon.site.put(name, content);
    }
    eventually("end of them", || daemon.site.waiting_files().is_empty().then_some(())).await;
    let (mut queued, mut sweeps, mut all) = (0, BTreeMap::new(), BTreeSet::new());
    for (name, _, known) in &files {
        let what = format!("{name} of seed {SEED}");
        let is_useful = known.lines > known.refused.len() as u64;
        let place = if is_useful { "processed" } else { "rejected" };
        assert!(daemon.site.spool(&format!("{place}/{name}")).exists(), "{what} is not in {place}/");
        let receipt = daemon.receipt(&format!("{place}/{name}")).await;
        // Of what is empty, or blank, nothing is counted.
        assert_accounted_for(&receipt, known, &what);
        if is_useful {
            queued += number(&receipt, "queued");
            all.extend(known.scans.iter().cloned());
            sweeps.insert(text(&receipt, "sweep_id").to_owned(), known);
        }
    }
    assert!(sweeps.len() > 150, "{} of {FILES} were taken: this shows little", sweeps.len());
    assert_eq!((queued, daemon.jobs().len()), (all.len() as u64, all.len()), "a job for each, whoever asked for it");
    daemon.told(&["resume"]);
    for (sweep, known) in sweeps {
        let results = daemon.results("", &sweep).await;
        assert_comes_back(&results, known, &format!("sweep {sweep} of seed {SEED}"));
        let table = csv::Reader::from_path(daemon.site.spool(&format!("results/{sweep}.csv")));
        assert_eq!(table.unwrap().records().map(Result::unwrap).count() as u64, number(&results, "machines"));
    }
}

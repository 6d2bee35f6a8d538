//! `sweepd submit`: a file for the drop folder, so that it works while the daemon is down, and
//! takes the same way as every other file.

mod report;

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use self::report::{Parsed, Wishes};
use super::output::{json_line, print, say};
use super::terminal::tame;
use super::{Context, Work, become_owner, operator, owner_of, pause};
use crate::app::{Exit, Failure};
use crate::config::Config;
use crate::domain::id::TenantName;
use crate::domain::shown::ShownPath;
use crate::domain::sweep::{OnPending, Priority, ScanType, clean_comment};
use crate::domain::time::Wall;
use crate::engine::{Ids, RandomIds};
use crate::intake::folder::{Folder, Place, receipt_name};
use crate::intake::formats::{self, Header, LeftOutFor, Line, NAME_MAX, Options, Row, Unusable, WHERE_IDS_ARE};
use crate::intake::receipt::Receipt;
use crate::process::{Named, Owner};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file in any format of the drop folder, `-` for standard input, or machine ids
    #[arg(required = true, value_name = "FILE|-|ID")]
    input: Vec<String>,
    /// Whose machines these are; may be left out when there is one tenant, or a default
    #[arg(long)]
    tenant: Option<String>,
    /// quick or full
    #[arg(long)]
    scan: Option<ScanType>,
    /// What Defender shows beside each scan, before our mark
    #[arg(long)]
    comment: Option<String>,
    /// low, normal, high or urgent
    #[arg(long)]
    priority: Option<Priority>,
    /// Not before this time, RFC 3339 with an offset
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    /// What to call the sweep
    #[arg(long)]
    name: Option<String>,
    /// What to do with machines that have a pending action: skip or wait
    #[arg(long)]
    on_pending: Option<OnPending>,
    /// Wait for the receipt
    #[arg(long)]
    wait: bool,
    /// Read and report, and queue nothing
    #[arg(long)]
    dry_run: bool,
}

const LOOK: Duration = Duration::from_millis(200);

/// Where the machines stand.
enum Input {
    Piped,
    File(Named),
    /// Machines, as arguments.
    Ids,
}

impl Input {
    /// What is meant; a file that only root may read is open when this returns.
    fn of(words: &[String], owner: Option<&Owner>) -> Result<Self, Failure> {
        match words {
            [one] if one == "-" => Ok(Self::Piped),
            ids if ids.iter().all(|word| formats::machines(word).is_ok()) => Ok(Self::Ids),
            [one] => {
                let path = Path::new(one);
                let is_missing = path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
                if is_missing && path.components().count() == 1 {
                    return Err(Failure::new(Exit::Failed, neither(one, "there is no such file")));
                }
                Named::to_read(path, owner).map(Self::File).map_err(|error| Failure::file(path, &error))
            }
            words => {
                let wrong = words.iter().find(|word| formats::machines(word).is_err());
                let wrong = wrong.map_or("", String::as_str);
                Err(Failure::new(Exit::Usage, neither(wrong, "several files take several calls")))
            }
        }
    }
}

/// Why a word is neither a file nor a machine; it may be the name of a device.
fn neither(word: &str, file: &str) -> String {
    let reason = formats::machines(word).err().unwrap_or_default();
    let is_name = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let remedy = match formats::named(word) {
        // That says where the other is.
        Some(formats::Named::Guid(_)) => String::new(),
        _ if is_name => {
            format!("; names of devices are not understood yet, so if this is one, give its id: {WHERE_IDS_ARE}")
        }
        _ => format!("; {WHERE_IDS_ARE}"),
    };
    format!("{}: no file and no machine id: {file}; {reason}{remedy}", tame(word))
}

/// Opens the input as whoever started this, then becomes the owner of the folders that the list goes into.
pub fn prepare(context: &Context, args: Args) -> Result<Work<'_>, Failure> {
    let config = context.plain_config()?;
    let owner = owner_of(&[&config.daemon.state_dir, &config.daemon.spool_dir.join("incoming")])?;
    let input = Input::of(&args.input, owner.as_ref())?;
    // Root's folder for temporary files may be root's alone.
    let machines = tempfile::tempfile()?;
    become_owner(owner.as_ref())?;
    Ok(Box::pin(async move { run(context, &config, &args, input, machines).await }))
}

async fn run(context: &Context, config: &Config, args: &Args, input: Input, mut machines: File) -> Result<(), Failure> {
    let (parsed, mut said) = {
        let mut out = BufWriter::new(&mut machines);
        let parsed = parse(args, input, config, &mut out)?;
        out.flush()?;
        parsed
    };
    let tenant = tenant(config, args.tenant.as_deref(), said.tenant.as_deref())?;
    let warnings = std::mem::take(&mut said.warnings).into_texts();
    let for_all = Wishes { scan: args.scan.or(said.scan_type), not_before: not_before(args)?.or(said.not_before) };
    let header = header(args, tenant.as_ref(), said, for_all)?;
    for warning in &warnings {
        say(format_args!("warning: {}", tame(warning)));
    }
    for refusal in parsed.refusals.iter().take(20) {
        say(format_args!("line {}: {}: {}", refusal.line, tame(&refusal.text), tame(&refusal.reason)));
    }
    if parsed.loose_quotes > 0 {
        let n = parsed.loose_quotes;
        say(format_args!(
            "{n} lines have a quote that is not closed on its line: it was read as text; check these lines"
        ));
    }
    if parsed.rows + parsed.not_eligible == 0 {
        let message =
            format!("nothing usable: {} lines refused; a machine id has 40 hexadecimal digits", parsed.refusals.len());
        return Err(Failure::new(Exit::Input, message));
    }
    if args.dry_run {
        let default_scan = tenant.and_then(|tenant| config.tenants.get(&tenant)).map(|tenant| tenant.default_scan);
        let scans = parsed.scans(for_all, default_scan.unwrap_or(ScanType::Quick), context.clock.wall());
        return report::dry_run(context, &parsed, &scans, &warnings);
    }
    let names: Vec<_> = config.tenants.keys().chain(config.disabled.keys()).cloned().collect();
    let folder = Folder::new(&config.daemon.spool_dir, &names);
    let place = tenant.filter(|_| folder.has_tenant_folders());
    let name = format!("submit-{}.json", RandomIds.sweep());
    drop_file(&folder, place.as_ref(), &name, &header, machines)?;
    if args.wait {
        let receipt = receipt(context, &folder, place.as_ref(), &name).await?;
        return report::taken(context, &receipt);
    }
    print(|out| {
        if context.json {
            let handed = json!({ "file": name, "physical_lines": parsed.physical_lines, "machines": parsed.rows,
                "refused": parsed.refusals.len() });
            return json_line(out, &handed);
        }
        writeln!(out, "{} machines handed over as {name}; the daemon takes them as soon as it runs", parsed.rows)
    })
}

/// Whose the machines are: what is asked for, which must not differ from what a document says, or the only one.
fn tenant(config: &Config, wanted: Option<&str>, said: Option<&str>) -> Result<Option<TenantName>, Failure> {
    if let (Some(wanted), Some(said)) = (wanted, said.filter(|said| wanted != Some(said))) {
        return Err(Failure::new(Exit::Usage, format!("the file names the tenant `{said}`, and --tenant `{wanted}`")));
    }
    if let Some(named) = wanted.or(said) {
        return Ok(pause::chosen(config, Some(named))?.pop());
    }
    let mut all = pause::chosen(config, None)?;
    match (all.len(), &config.intake.default_tenant) {
        (1, _) => Ok(all.pop()),
        (_, Some(default)) => Ok(Some(default.clone())),
        _ => {
            let names: Vec<_> = all.iter().map(TenantName::as_str).collect();
            Err(Failure::new(Exit::Usage, format!("which tenant? write --tenant with one of: {}", names.join(", "))))
        }
    }
}

/// What holds for all of the machines: what is asked for, else what a document that was read says.
fn header(
    args: &Args,
    tenant: Option<&TenantName>,
    said: Header,
    for_all: Wishes,
) -> Result<Map<String, Value>, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let mut header = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            header.insert(key.to_owned(), value);
        }
    };
    set("tenant", tenant.map(|tenant| tenant.as_str().into()));
    if let Some(length) = args.name.as_ref().map(|name| name.trim().chars().count()).filter(|n| *n > NAME_MAX) {
        return Err(usage(format!("the name has {length} characters; at most {NAME_MAX} are accepted")));
    }
    set("name", args.name.clone().or(said.name).map(Value::from));
    set("scan_type", for_all.scan.map(|scan| scan.as_str().into()));
    set("priority", args.priority.or(said.priority).map(|priority| priority.as_str().into()));
    set("on_pending", args.on_pending.or(said.on_pending).map(|on_pending| on_pending.as_str().into()));
    let comment = match &args.comment {
        Some(comment) => Some(clean_comment(comment).map_err(|error| usage(error.to_string()))?),
        None => said.comment,
    };
    set("comment", comment.map(Value::from));
    set("not_before", for_all.not_before.map(|at| at.rfc3339().into()));
    set("submitted_by", serde_json::to_value(operator()).ok());
    Ok(header)
}

/// The time that is asked for.
fn not_before(args: &Args) -> Result<Option<Wall>, Failure> {
    let read = |time: &String| {
        let message = format!("--not-before {time}: write it as 2026-11-30T22:00:00+01:00");
        Wall::parse(time).ok_or_else(|| Failure::new(Exit::Usage, message))
    };
    args.not_before.as_ref().map(read).transpose()
}

/// Reads the input in whichever format it has, and writes it as entries of a document. Also what a document that was
/// read says of all its machines.
fn parse(args: &Args, input: Input, config: &Config, out: &mut dyn Write) -> Result<(Parsed, Header), Failure> {
    let (name, input): (String, Box<dyn Read>) = match input {
        Input::Piped => (String::new(), Box::new(io::stdin())),
        Input::File(named) => {
            let path = named.path.clone();
            let file = named.into_reader().map_err(|error| Failure::file(&path, &error))?;
            (path.to_string_lossy().into_owned(), Box::new(BufReader::new(file)))
        }
        Input::Ids => ("ids.txt".to_owned(), Box::new(io::Cursor::new(args.input.join("\n")))),
    };
    let mut parsed = Parsed::default();
    let mut broken = None;
    let options = Options { only_onboarded: config.intake.only_onboarded };
    let read = formats::read(&name, input, &options, &mut |line| {
        let entry = match line {
            Line::Row(row) => {
                parsed.add(&row);
                entry(&row)
            }
            Line::NotEligible { machine, name, why, .. } => {
                parsed.not_eligible += 1;
                // The daemon judges by its own configuration, and names the reason again.
                let (key, value) = match &why {
                    LeftOutFor::NotOnboarded(status) => ("OnboardingStatus", status),
                    LeftOutFor::Merged(into) => ("mergedIntoMachineId", into),
                };
                json!({ "machine_id": machine.to_string(), "DeviceName": name, key: value })
            }
            Line::Refused(refusal) => {
                let text = Value::from(refusal.text.clone());
                parsed.refusals.push(refusal);
                text
            }
        };
        let first = parsed.rows + parsed.not_eligible + parsed.refusals.len() as u64 == 1;
        let separator: &[u8] = if first { b"" } else { b",\n" };
        out.write_all(separator).and_then(|()| serde_json::to_writer(&mut *out, &entry).map_err(Into::into)).map_err(
            |error: io::Error| {
                broken = Some(error);
                formats::Stop
            },
        )
    });
    match (read, broken) {
        (_, Some(error)) | (Err(Unusable::Read(error)), None) => Err(error.into()),
        (Err(unusable), None) => Err(Failure::new(Exit::Input, unusable.to_string())),
        (Ok(whole), None) => {
            parsed.physical_lines = whole.physical_lines;
            parsed.loose_quotes = whole.loose_quotes;
            Ok((parsed, whole.header))
        }
    }
}

fn entry(row: &Row) -> Value {
    let mut entry = Map::from_iter([("machine_id".to_owned(), Value::from(row.machine.to_string()))]);
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            entry.insert(key.to_owned(), value.into());
        }
    };
    set("DeviceName", row.name.as_ref().map(ToString::to_string));
    set("scan_type", row.scan_type.map(|scan| scan.to_string()));
    set("comment", row.comment.as_ref().map(ToString::to_string));
    set("priority", row.priority.map(|priority| priority.to_string()));
    set("not_before", row.not_before.map(Wall::rfc3339));
    set("on_pending", row.on_pending.map(|on_pending| on_pending.to_string()));
    set("tenant", row.tenant.as_ref().map(ToString::to_string));
    if entry.len() == 1 { row.machine.to_string().into() } else { entry.into() }
}

/// Writes the document beside the others under a name that is ignored, then renames it.
fn drop_file(
    folder: &Folder,
    tenant: Option<&TenantName>,
    name: &str,
    header: &Map<String, Value>,
    mut machines: File,
) -> Result<(), Failure> {
    let incoming = folder.incoming_file(tenant.map_or("", TenantName::as_str));
    let (target, unfinished) = (incoming.join(name), incoming.join(format!(".{name}.tmp")));
    let failed = |error: &io::Error| Failure::file(&incoming, error);
    if !incoming.exists() {
        make_folders(folder)?;
    }
    let file =
        std::fs::OpenOptions::new().write(true).create_new(true).open(&unfinished).map_err(|error| failed(&error))?;
    let written = write_document(file, header, &mut machines)
        .and_then(|()| std::fs::rename(&unfinished, &target).map_err(|error| failed(&error)));
    if written.is_err()
        && let Err(error) = std::fs::remove_file(&unfinished)
    {
        say(format_args!("{} stays behind: {error}", ShownPath::new(&unfinished)));
    }
    written
}

fn write_document(file: File, header: &Map<String, Value>, machines: &mut File) -> Result<(), Failure> {
    use std::io::Seek;
    // Whatever the umask: the service has to read it.
    file.set_permissions(Permissions::from_mode(0o640))?;
    let mut out = BufWriter::new(file);
    let mut head = serde_json::to_string(header).map_err(io::Error::from)?;
    head.pop();
    writeln!(out, "{head},\"machines\":[")?;
    machines.rewind()?;
    io::copy(machines, &mut out)?;
    out.write_all(b"\n]}\n")?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

/// Before the daemon's first start there is no drop folder yet.
fn make_folders(folder: &Folder) -> Result<(), Failure> {
    let missing: Vec<_> = folder.all().iter().flat_map(|path| path.ancestors().map(Path::to_owned)).collect();
    let mut missing: Vec<_> = missing.into_iter().filter(|path| !path.exists()).collect();
    // The upper ones first.
    missing.sort();
    missing.dedup();
    missing.iter().try_for_each(|path| {
        // As the daemon makes its state folder, which may be among them.
        DirBuilder::new().mode(0o750).create(path).map_err(|error| Failure::file(path, &error))
    })
}

async fn receipt(
    context: &Context,
    folder: &Folder,
    tenant: Option<&TenantName>,
    name: &str,
) -> Result<Receipt, Failure> {
    let name = receipt_name(name.as_ref());
    let places: Vec<PathBuf> =
        [Place::Processed, Place::Rejected].map(|place| folder.place(place, tenant).join(&name)).into();
    say("waiting for the daemon to take it…");
    loop {
        for path in &places {
            match std::fs::read(path) {
                Ok(text) => {
                    return serde_json::from_slice(&text)
                        .map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", ShownPath::new(&path))));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::file(path, &error)),
            }
        }
        context.clock.sleep_until(context.clock.boot() + LOOK).await;
    }
}

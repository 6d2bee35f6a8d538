//! What a drop folder may hold that nobody means well with: files that change under the reader, that cannot be read, that
//! are too long, too deep, or too many. Each ends in `rejected/` with a receipt, or stays with one warning and a
//! metric; the rest goes on.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Configured, Daemon, Site, assert_adds_up, eventually, first_state_of, list, number, quick_tenant, simulate, text,
};
use serde_json::Value;
use sweepd::simulator::{SimulatedMachine, Simulator, TenantOptions, fleet};

/// Takes a debug build a few seconds.
const HUGE: usize = 150_000;

/// A line that a debug build reads in seconds; 1 GiB where the build is optimised.
const LONG_LINE: u64 = if cfg!(debug_assertions) { 1 << 25 } else { 1 << 30 };

/// Files of one machine each; `cargo bench --bench intake` has a hundred thousand.
const MANY: usize = 1500;

async fn scene(tenants: &[&'static str], intake: &str) -> (Simulator, Daemon) {
    let options: Vec<TenantOptions> = (1..).zip(tenants).map(|(n, name)| quick_tenant(fleet(n, 1, name))).collect();
    let simulator = simulate(43, options.clone()).await;
    let configured: Vec<_> = tenants.iter().zip(&options).map(|(name, tenant)| Configured::of(name, tenant)).collect();
    let daemon = Daemon::new(Site::new(&simulator, &configured, intake));
    (simulator, daemon)
}

/// A value of a metric without labels.
fn metric(daemon: &Daemon, name: &str) -> u64 {
    let (_, metrics) = daemon.get("/metrics");
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}

fn machines_of(daemon: &Daemon, receipt: &Value) -> BTreeSet<String> {
    let ids =
        |job: &Value| job["sweep_ids"].as_array().unwrap().contains(&receipt["sweep_id"]) && job["state"] == "queued";
    daemon.jobs().iter().filter(|job| ids(job)).map(|job| text(job, "machine_id").to_owned()).collect()
}

fn ids(machines: &[SimulatedMachine]) -> BTreeSet<String> {
    machines.iter().map(|machine| machine.id.to_string()).collect()
}

/// Drops a file that takes a while, and returns once a part of it is in the database and the rest is not.
async fn begin_to_take(daemon: &Daemon, folder: &str, seed: u64) -> (String, Vec<SimulatedMachine>) {
    for round in 0..10 {
        let name = format!("changes-{seed}-{round}.txt");
        let machines = fleet(100 * seed + round, HUGE, "changes");
        daemon.site.put(&format!("{folder}/{name}"), list(&machines));
        if first_state_of(&daemon.site, &name).await == "taking" {
            return (name, machines);
        }
    }
    panic!("not one file was met while it was taken: this scenario shows nothing")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_counts_as_what_it_is_in_the_end() {
    let (_simulator, mut daemon) = scene(&["a", "b", "c"], "hold_above = 0").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let incoming = |folder: &str, name: &str| daemon.site.spool("incoming").join(folder).join(name);

    let (rewritten, _) = begin_to_take(&daemon, "a", 1).await;
    let new = fleet(7, 5, "new");
    fs::write(incoming("a", &rewritten), list(&new)).unwrap();
    let (truncated, old) = begin_to_take(&daemon, "b", 2).await;
    // In the middle of a line.
    OpenOptions::new().write(true).open(incoming("b", &truncated)).unwrap().set_len(41 * 4 + 7).unwrap();
    let (deleted, all) = begin_to_take(&daemon, "c", 3).await;
    fs::remove_file(incoming("c", &deleted)).unwrap();

    let receipt = daemon.receipt(&format!("processed/a/{rewritten}")).await;
    assert_adds_up(&receipt);
    assert_eq!((number(&receipt, "lines"), number(&receipt, "queued")), (5, 5), "{receipt}");
    assert_eq!(machines_of(&daemon, &receipt), ids(&new));

    let receipt = daemon.receipt(&format!("processed/b/{truncated}")).await;
    assert_adds_up(&receipt);
    assert_eq!((number(&receipt, "queued"), number(&receipt, "refused")), (4, 1), "{receipt}");
    assert_eq!(machines_of(&daemon, &receipt), ids(&old[..4]));

    // What was open is read to its end; its name is gone.
    let receipt = daemon.receipt(&format!("processed/c/{deleted}")).await;
    assert_adds_up(&receipt);
    assert_eq!(number(&receipt, "queued"), HUGE as u64, "{receipt}");
    assert_eq!(machines_of(&daemon, &receipt), ids(&all));
    assert!(daemon.site.waiting_files().is_empty());
    let sweeps = daemon.lines(&["sweep", "list"]);
    assert!(!sweeps.iter().any(|sweep| sweep["state"] == "taking"), "nothing stays half taken: {sweeps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_stays_with_one_warning_until_it_can() {
    let (_simulator, mut daemon) = scene(&["contoso"], "").await;
    daemon.run_as_somebody_else();
    daemon.start().await;
    daemon.told(&["pause"]);
    let closed = daemon.site.spool("incoming/closed.txt");
    let unfinished = closed.with_extension("tmp");
    fs::write(&unfinished, list(&fleet(1, 2, "closed"))).unwrap();
    fs::set_permissions(&unfinished, Permissions::from_mode(0o000)).unwrap();
    fs::rename(&unfinished, &closed).unwrap();
    daemon.site.put("open.txt", list(&fleet(2, 2, "open")));
    assert_eq!(number(&daemon.receipt("processed/open.txt").await, "queued"), 2);
    let warnings = |daemon: &Daemon| {
        let about = |line: &Value| line["file"].as_str().is_some_and(|file| file.ends_with("closed.txt"));
        daemon.log().into_iter().filter(about).collect::<Vec<_>>()
    };
    let first = eventually("a warning", || warnings(&daemon).pop()).await;
    assert!(first.to_string().contains("Permission denied"), "{first}");
    assert_eq!(metric(&daemon, "sweepd_intake_left_in_place_total"), 1);
    // It is tried again, and not told of again; then it can be read.
    daemon.site.put("later.txt", list(&fleet(3, 2, "later")));
    daemon.receipt("processed/later.txt").await;
    fs::set_permissions(&closed, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(number(&daemon.receipt("processed/closed.txt").await, "queued"), 2);
    let told: Vec<_> = warnings(&daemon).into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

/// Content of a length that nobody writes by hand, written piece by piece.
fn write_long(path: &Path, begin: &str, piece: &[u8], length: u64, end: &str) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(begin.as_bytes()).unwrap();
    for _ in 0..length / piece.len() as u64 {
        file.write_all(piece).unwrap();
    }
    file.write_all(end.as_bytes()).unwrap();
    file.into_inner().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_too_deep_or_no_text_is_rejected_and_costs_no_memory() {
    let (_simulator, mut daemon) = scene(&["contoso"], "max_file_size = \"2GiB\"").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let idle = daemon.memory("VmRSS:");
    let site = &daemon.site;
    // Written elsewhere, so that none is taken before it is whole.
    let aside = site.state().join("aside");
    fs::create_dir(&aside).unwrap();
    let megabyte = |byte: u8| vec![byte; 1 << 20];
    File::create(aside.join("nuls.txt")).unwrap().set_len(LONG_LINE).unwrap();
    write_long(&aside.join("line.csv"), "machine_id\n", &megabyte(b'a'), LONG_LINE / 8, "\n");
    write_long(&aside.join("blanks.txt"), "", &megabyte(b' '), LONG_LINE / 8, "");
    write_long(&aside.join("blank-lines.json"), "", &megabyte(b'\n'), LONG_LINE / 8, "");
    write_long(&aside.join("deep.json"), "{\"machines\":", &megabyte(b'['), 1 << 22, "");
    write_long(&aside.join("deep.jsonl"), "", &[b"[".repeat(4000), b"\n".to_vec()].concat(), 1 << 20, "");
    write_long(&aside.join("string.json"), "{\"machines\":[\"", &megabyte(b'a'), LONG_LINE / 8, "\"]}");
    write_long(&aside.join("quote.csv"), "machine_id\n\"", &megabyte(b'\n'), LONG_LINE / 8, "");
    let mut noise = crate::support::Dice(5);
    let noise: Vec<u8> = (0..1 << 16).flat_map(|_| noise.below(u64::MAX).to_le_bytes()).collect();
    for name in ["noise.txt", "noise.csv", "noise.json", "noise.jsonl", "noise"] {
        fs::write(aside.join(name), &noise).unwrap();
    }
    let names: Vec<_> =
        fs::read_dir(&aside).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in &names {
        fs::rename(aside.join(name), site.spool("incoming").join(name)).unwrap();
    }
    site.put("plain.txt", list(&fleet(7, 2, "plain")));
    for name in &names {
        let receipt = daemon.receipt(&format!("rejected/{name}")).await;
        assert_adds_up(&receipt);
        assert_eq!((text(&receipt, "status"), number(&receipt, "queued")), ("rejected", 0), "{receipt}");
        assert!(!text(&receipt, "reason").is_empty() && site.spool("rejected").join(name).exists(), "{receipt}");
        assert!(receipt.to_string().len() < 400_000, "{name}: {} bytes of receipt", receipt.to_string().len());
    }
    assert_eq!(number(&daemon.receipt("processed/plain.txt").await, "queued"), 2);
    assert!(daemon.site.waiting_files().is_empty());
    let over = daemon.memory("VmHWM:").saturating_sub(idle);
    assert!(over < 64, "{over} MiB over {idle} MiB when idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_left_alone() {
    let (_simulator, mut daemon) = scene(&["contoso"], "").await;
    daemon.start().await;
    let device = daemon.site.spool("incoming/device.txt");
    if !Command::new("mknod").arg(&device).args(["c", "1", "5"]).status().is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: a device can be made by root alone");
    }
    daemon.site.put("plain.txt", list(&fleet(7, 2, "plain")));
    assert_eq!(number(&daemon.receipt("processed/plain.txt").await, "queued"), 2);
    eventually("word of it", || daemon.has_logged("device.txt").then_some(())).await;
    assert!(device.exists() && daemon.log_text().matches("device.txt").count() == 1);
    assert_eq!(metric(&daemon, "sweepd_intake_left_in_place_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_small_files_are_taken_while_other_tenants_go_on() {
    let (_simulator, mut daemon) = scene(&["a", "b"], "hold_above = 0").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    // All of them are there when it begins to look.
    assert!(daemon.terminate().await.success());
    let machines = fleet(1, MANY, "many");
    for (n, machine) in machines.iter().enumerate() {
        daemon.site.put(&format!("a/{n}.txt"), machine.id.to_string());
    }
    daemon.site.put("b/one.txt", list(&fleet(2, 3, "one")));
    daemon.start().await;
    assert_eq!(number(&daemon.receipt("processed/b/one.txt").await, "queued"), 3);
    eventually("end of them", || daemon.site.waiting_files().is_empty().then_some(())).await;
    let sweeps = daemon.lines(&["sweep", "list"]);
    assert_eq!(sweeps.len(), MANY + 1, "a sweep for each");
    // The newest is first: so many of the others were taken after it.
    let after = sweeps.iter().position(|sweep| sweep["name"] == "one.txt").unwrap();
    assert!(after > MANY / 4, "it did not wait for all of them: {after}");
    let receipts = daemon.site.names_in("processed/a").iter().filter(|name| name.ends_with(".receipt.json")).count();
    assert_eq!(receipts, MANY);
    assert_eq!(number(&daemon.status()["tenants"]["a"]["jobs"], "queued"), MANY as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_vanish_and_return_lose_nothing() {
    let (_simulator, mut daemon) = scene(&["contoso"], "").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let (incoming, elsewhere) = (daemon.site.spool("incoming"), daemon.site.state().join("elsewhere"));
    fs::rename(&incoming, &elsewhere).unwrap();
    fs::remove_dir_all(daemon.site.spool("processed")).unwrap();
    eventually("folder", || incoming.is_dir().then_some(())).await;
    // Written while it was away: that is no event, and the folder is another one.
    fs::write(elsewhere.join("away.txt"), list(&fleet(8, 3, "away"))).unwrap();
    // It takes the place of the one that was made meanwhile, which is empty.
    fs::rename(&elsewhere, &incoming).unwrap();
    assert_eq!(number(&daemon.receipt("processed/away.txt").await, "queued"), 3);
    daemon.site.put("back.txt", list(&fleet(9, 2, "back")));
    assert_eq!(number(&daemon.receipt("processed/back.txt").await, "queued"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_in_place_is_taken_when_its_writer_has_closed_it() {
    let (_simulator, mut daemon) = scene(&["contoso"], "").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let incoming = daemon.site.spool("incoming");
    let machines = fleet(10, 40, "slow");
    // One has written half of it and thinks; the other has not begun, as in `report > list.txt`.
    let mut half = File::create(incoming.join("half.txt")).unwrap();
    half.write_all(list(&machines[..10]).as_bytes()).unwrap();
    // It does not notice that the daemon is killed meanwhile.
    daemon.kill();
    daemon.start().await;
    let mut empty = File::create(incoming.join("empty.txt")).unwrap();
    for (n, name) in ["one.txt", "two.txt"].into_iter().enumerate() {
        // They are younger: whenever they have settled, those have as well.
        fs::write(incoming.join(name), list(&fleet(11 + n as u64, 1, "other"))).unwrap();
        assert_eq!(number(&daemon.receipt(&format!("processed/{name}")).await, "queued"), 1);
    }
    assert_eq!(daemon.site.names_in("incoming"), ["empty.txt", "half.txt"]);
    half.write_all(list(&machines[10..20]).as_bytes()).unwrap();
    empty.write_all(list(&machines[20..]).as_bytes()).unwrap();
    drop((half, empty));
    for name in ["half.txt", "empty.txt"] {
        assert_eq!(number(&daemon.receipt(&format!("processed/{name}")).await, "queued"), 20, "{name}");
    }
    // One with a second name elsewhere stays: who has that name could change it.
    fs::write(daemon.site.path().join("linked"), list(&fleet(13, 3, "linked"))).unwrap();
    fs::hard_link(daemon.site.path().join("linked"), incoming.join("linked.txt")).unwrap();
    eventually("word of it", || daemon.has_logged("several names (hard links)").then_some(())).await;
    assert!(incoming.join("linked.txt").exists());
}

/// Content that is half a list, a table or a document: cut, repeated, and strewn with bytes.
fn jumble(dice: &mut crate::support::Dice, ids: &[SimulatedMachine]) -> Vec<u8> {
    const PIECES: [&str; 22] = [
        "\n",
        "\n",
        "\r\n",
        ",",
        ";",
        "\t",
        " ",
        "\"",
        "# why ",
        "machine_id",
        "id,priority\n",
        "low",
        "{",
        "}",
        "[",
        "]",
        ":",
        "\"id\":",
        "{\"machines\":[",
        "null",
        "\0",
        "\u{feff}",
    ];
    let mut content = Vec::new();
    for _ in 0..dice.below(60) {
        match dice.below(5) {
            0 => content.extend(ids[usize::try_from(dice.below(ids.len() as u64)).unwrap()].id.to_string().bytes()),
            1 => content.extend(format!("\"{}\"", ids[0].id).bytes()),
            2 => content.push(u8::try_from(dice.below(256)).unwrap()),
            _ => content.extend(PIECES[usize::try_from(dice.below(PIECES.len() as u64)).unwrap()].bytes()),
        }
    }
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_bytes_there_are_each_line_is_in_the_receipt_once() {
    let (_simulator, mut daemon) = scene(&["contoso"], "hold_above = 0").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let machines = fleet(5, 12, "any");
    let mut dice = crate::support::Dice(20_261_122);
    let names: Vec<String> =
        (0..150).map(|n| format!("{n}{}", ["", ".txt", ".csv", ".json", ".jsonl"][n % 5])).collect();
    for name in &names {
        let id = &machines[0].id;
        // Half of them begin as they should.
        let mut content = match (dice.below(2), name.rsplit('.').next().unwrap()) {
            (0, "csv") => format!("machine_id,priority\n{id},low\n").into_bytes(),
            (0, "json") => {
                format!("{{\"name\":\"{name}\",\"machines\":[\"{id}\",null,{{\"id\":\"x\"}}]}}").into_bytes()
            }
            (0, _) => format!("{id}\n").into_bytes(),
            _ => Vec::new(),
        };
        if !content.starts_with(b"{\"name") {
            content.extend(jumble(&mut dice, &machines));
            // No two are alike: none is called already taken.
            content.extend(format!("\n{name}").bytes());
        }
        daemon.site.put(name, content);
    }
    eventually("end of them", || daemon.site.waiting_files().is_empty().then_some(())).await;
    let (mut taken, mut queued) = (0, 0);
    for name in &names {
        let found = ["processed", "rejected"].map(|place| daemon.site.spool(&format!("{place}/{name}")).exists());
        assert_eq!(found.iter().filter(|there| **there).count(), 1, "{name}: {found:?}");
        let place = if found[0] { "processed" } else { "rejected" };
        let receipt = daemon.receipt(&format!("{place}/{name}")).await;
        assert_adds_up(&receipt);
        let listed = receipt["refusals"].as_array().unwrap().len() as u64;
        let most = if found[0] { 1000 } else { 5 };
        assert_eq!(listed, number(&receipt, "refused").min(most), "{receipt}");
        assert_eq!(listed + receipt["refusals_not_listed"].as_u64().unwrap_or(0), number(&receipt, "refused"));
        taken += u64::from(found[0]);
        queued += number(&receipt, "queued");
    }
    assert!(taken > 10 && taken < 140, "{taken} of 150 were taken: this shows little");
    assert_eq!(queued, daemon.jobs().len() as u64);
    assert!(queued <= machines.len() as u64, "a job for each machine, whatever asked for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn useless_files_and_links_cost_a_bounded_number_of_lines_and_events() {
    const USELESS: usize = 130;
    const ODD: u64 = 60;
    let (_simulator, mut daemon) = scene(&["contoso"], "").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let incoming = daemon.site.spool("incoming");
    let aside = daemon.site.path().join("aside");
    fs::create_dir(&aside).unwrap();
    for n in 0..300 {
        std::os::unix::fs::symlink("/nowhere", aside.join(format!("link-{n}.txt"))).unwrap();
    }
    for n in 0..USELESS {
        fs::write(aside.join(format!("useless-{n}.txt")), format!("useless {n}")).unwrap();
    }
    for n in 0..ODD {
        fs::write(aside.join(format!("odd-{n}.bak")), "marker").unwrap();
    }
    for entry in fs::read_dir(&aside).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), incoming.join(entry.file_name())).unwrap();
    }
    for n in 0..USELESS {
        let receipt = daemon.receipt(&format!("rejected/useless-{n}.txt")).await;
        assert_eq!(text(&receipt["refusals"][0], "text"), format!("useless {n}"));
    }
    let all = 300 + ODD;
    eventually("all that stays counted", || {
        (metric(&daemon, "sweepd_intake_left_in_place_total") == all).then_some(())
    })
    .await;
    let stays = || {
        fs::read_dir(&incoming)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("odd-"))
    };
    assert_eq!(stays().count() as u64, ODD);
    assert_eq!(daemon.get("/readyz").1.matches("drop folder").count(), 0);
    assert!(daemon.terminate().await.success());
    let log = daemon.log();
    let lines = |message: &str| log.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    assert_eq!(lines("rejected").len(), 20);
    let together = lines("more files were rejected; each has its receipt");
    let count: u64 = together.iter().map(|line| number(line, "files")).sum();
    assert!(count == USELESS as u64 - 20 && together.len() <= 2, "{together:?}");
    // At most 20 looks tell of links one by one.
    let odd = lines("left in place: it is no regular file").len();
    assert!((1..=20).contains(&odd), "{odd} lines about 300 links");
    let named =
        log.iter().filter(|line| text(line, "message").starts_with("left in place: lists are taken by their ending"));
    let named = named.count() as u64;
    let rest =
        lines("more files were not taken").into_iter().filter(|line| line["why"].to_string().contains("endings"));
    let rest: u64 = rest.map(|line| number(line, "count")).sum();
    assert!((1..=20).contains(&named) && named + rest == ODD, "{named} lines and {rest} together about {ODD} files");

    let events = daemon.lines(&["audit", "export"]).into_iter().filter(|event| event["kind"] == "file_rejected");
    let bodies: Vec<Value> = events.map(|event| serde_json::from_str(text(&event, "body")).unwrap()).collect();
    let (singly, together): (Vec<_>, Vec<_>) = bodies.iter().partition(|body| body["file"].is_string());
    assert_eq!(singly.len(), 20, "{bodies:?}");
    let count: u64 = together.iter().map(|body| number(body, "files")).sum();
    assert!(count == USELESS as u64 - 20 && together.len() <= 2, "{together:?}");
    assert!(text(together[0], "first").starts_with("useless-"), "{together:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_folder_that_cannot_be_read_is_that_tenants_trouble() {
    let (_simulator, mut daemon) = scene(&["a", "b"], "").await;
    daemon.start().await;
    daemon.told(&["pause"]);
    let folder = daemon.site.spool("incoming/a");
    fs::remove_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/nowhere", &folder).unwrap();
    eventually("its number", || (metric(&daemon, "sweepd_intake_unreadable_folders") == 1).then_some(())).await;
    daemon.site.put("b/list.txt", list(&fleet(3, 2, "list")));
    assert_eq!(number(&daemon.receipt("processed/b/list.txt").await, "queued"), 2);
    let (_, ready) = daemon.get("/readyz");
    assert!(!ready.contains("drop folder"), "{ready}");
    // Which droppers are kept apart cannot be seen: a file that names a tenant waits.
    let id = fleet(4, 1, "named")[0].id.to_string();
    daemon.site.put("named.json", format!("{{\"tenant\":\"b\",\"machines\":[\"{id}\"]}}"));
    eventually("word of it", || daemon.has_logged("cannot be seen: incoming/a/").then_some(())).await;
    fs::remove_file(&folder).unwrap();
    assert_eq!(number(&daemon.receipt("processed/named.json").await, "queued"), 1);
    eventually("its end", || (metric(&daemon, "sweepd_intake_unreadable_folders") == 0).then_some(())).await;
    assert_eq!(daemon.log_text().matches("a tenant's drop folder cannot be read").count(), 1);
}

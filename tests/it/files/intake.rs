//! The drop folder on the real binary: fair between tenants, safe from what people put there, and careful with the disk.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::support::{
    Configured, Daemon, Site, assert_adds_up, eventually, first_state_of, list, number, quick_tenant, simulate, text,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sweepd::clock::{Clock, SystemClock};
use sweepd::simulator::{Simulator, TenantOptions, fleet};

const HUGE: usize = 150_000;

async fn two(intake: &str) -> (Simulator, [TenantOptions; 2], Daemon) {
    let tenants = [quick_tenant(fleet(1, 1, "a")), quick_tenant(fleet(2, 1, "b"))];
    let simulator = simulate(41, tenants.to_vec()).await;
    let configured = [Configured::of("a", &tenants[0]), Configured::of("b", &tenants[1])];
    let daemon = Daemon::started(Site::new(&simulator, &configured, intake)).await;
    daemon.told(&["pause"]);
    (simulator, tenants, daemon)
}

async fn one(intake: &str) -> (Simulator, Daemon) {
    let tenant = quick_tenant(fleet(1, 1, "nobody"));
    let simulator = simulate(42, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], intake)).await;
    daemon.told(&["pause"]);
    (simulator, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_file_of_one_tenant_keeps_nobody_elses_waiting() {
    let (_simulator, _, daemon) = two("hold_above = 0").await;
    daemon.site.put("a/huge.txt", list(&fleet(3, HUGE, "huge")));
    assert_eq!(first_state_of(&daemon.site, "huge.txt").await, "taking");
    daemon.site.put("b/small.txt", list(&fleet(4, 5, "small")));
    let receipt = daemon.receipt("processed/b/small.txt").await;
    assert_eq!(number(&receipt, "queued"), 5, "{receipt}");
    let receipt = daemon.receipt("processed/a/huge.txt").await;
    assert_adds_up(&receipt);
    assert_eq!(number(&receipt, "queued"), HUGE as u64);
    // Whoever looks is late on a busy machine; the receipts are as old as they are.
    let told_at = |name: &str| fs::metadata(daemon.site.spool(name)).unwrap().modified().unwrap();
    let (small, huge) = ("processed/b/small.txt.receipt.json", "processed/a/huge.txt.receipt.json");
    assert!(told_at(small) < told_at(huge), "the small one did not wait for the huge one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_in_a_tenants_folder_is_taken_when_it_is_the_only_one() {
    let (simulator, tenants, mut daemon) = two("").await;
    assert!(daemon.terminate().await.success());
    daemon.site.put("a/left.txt", list(&fleet(5, 3, "left")));
    let only = Site::new(&simulator, &[Configured::of("a", &tenants[0])], "");
    let config = fs::read_to_string(only.config()).unwrap();
    daemon.site.write_config(&config.replace(only.path().to_str().unwrap(), daemon.site.path().to_str().unwrap()));
    daemon.start().await;
    let receipt = daemon.receipt("processed/left.txt").await;
    assert_eq!((text(&receipt, "tenant"), number(&receipt, "queued")), ("a", 3), "{receipt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_files_stay_where_they_are_and_everybody_is_told() {
    let (_simulator, daemon) = one("min_free = \"1000000TiB\"").await;
    daemon.site.put("list.txt", list(&fleet(6, 4, "waiting")));
    let why = |status: &Value| status["daemon"]["intake_stopped"].as_str().map(str::to_owned);
    eventually("word that no file is taken", || {
        let (code, ready) = daemon.get("/readyz");
        (code == 503 && ready.contains("no file is taken")).then_some(())
    })
    .await;
    assert!(why(&daemon.status()).is_some_and(|why| why.contains("intake.min_free")));
    assert!(daemon.told(&["status"]).contains("No file is taken"));
    assert!(daemon.get("/metrics").1.contains("sweepd_intake_stopped 1"));
    assert!(daemon.site.spool("incoming/list.txt").exists());
    // As when somebody has made room.
    let config = fs::read_to_string(daemon.site.config()).unwrap();
    daemon.site.write_config(&config.replace("1000000TiB", "1"));
    daemon.hang_up();
    assert_eq!(number(&daemon.receipt("processed/list.txt").await, "queued"), 4);
    eventually("word that files are taken again", || {
        daemon.get("/metrics").1.contains("sweepd_intake_stopped 0").then_some(())
    })
    .await;
    assert_eq!(why(&daemon.status()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_put_there_ends_as_rejected_or_stays_and_the_rest_goes_on() {
    let (_simulator, daemon) = one("max_file_size = \"1MiB\"").await;
    let incoming = daemon.site.spool("incoming");
    symlink("/etc/passwd", incoming.join("link.txt")).unwrap();
    nix::unistd::mkfifo(&incoming.join("pipe.txt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(incoming.join("folder.txt")).unwrap();
    // Closed at once: whoever has it open is waited for.
    fs::File::create(incoming.join("sparse.txt")).unwrap().set_len(1 << 40).unwrap();
    for name in [b"new\nline.txt".as_slice(), b"not \xff utf-8.txt", b"bell\x07.txt", &[b'x'; 251]] {
        let machines = list(&fleet(u64::try_from(name.len()).unwrap(), 2, "odd"));
        fs::write(incoming.join(OsStr::from_bytes(name)), machines).unwrap();
    }
    fs::write(incoming.join("noise.csv"), [0_u8, 255, 10, 0, 13, 34]).unwrap();
    daemon.site.put("plain.txt", list(&fleet(7, 2, "plain")));
    assert_eq!(number(&daemon.receipt("processed/plain.txt").await, "queued"), 2);
    for name in ["sparse.txt", "noise.csv"] {
        assert_eq!(text(&daemon.receipt(&format!("rejected/{name}")).await, "status"), "rejected");
    }
    eventually("end of what is odd", || (daemon.site.waiting_files().len() == 2).then_some(())).await;
    assert!(incoming.join("folder.txt").is_dir() && incoming.join("link.txt").is_symlink());
    assert_eq!(daemon.lines(&["sweep", "list"]).len(), 5, "four odd names and a plain one");
    assert!(daemon.get("/metrics").1.contains("sweepd_intake_left_in_place_total 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tools_make_of_lists_is_counted_and_named() {
    let (_simulator, daemon) = one("").await;
    daemon.told(&["pause"]);
    let ids: Vec<_> = fleet(12, 7, "odd").iter().map(|machine| machine.id.to_string()).collect();
    let rows = ["pc1", "\"24 inch", "pc3", "\"27 inch", "pc5"];
    let rows: Vec<_> = rows.iter().zip(&ids).map(|(name, id)| format!("{id},{name}\r")).collect();
    daemon.site.put("stray.csv", format!("Device ID,Device Name\r{}", rows.concat()));
    let receipt = daemon.receipt("processed/stray.csv").await;
    let counts = ["physical_lines", "lines", "queued", "refused"].map(|key| number(&receipt, key));
    assert_eq!(counts, [6, 5, 5, 0], "{receipt}");
    assert!(text(&receipt, "reason").starts_with("2 lines have a quote that is not closed"), "{receipt}");
    let sweep = text(&receipt, "sweep_id");
    let shown = daemon.lines(&["sweep", "show", sweep]).swap_remove(0);
    assert_eq!((number(&shown, "lines"), number(&shown, "physical_lines")), (5, 6), "{shown}");
    assert!(daemon.told(&["sweep", "show", sweep]).contains("5 counted, of 6 physical lines"));

    daemon.site.put("pairs.txt", format!("# two\n{},{}\n{}", ids[5], ids[6], ids[6]));
    let receipt = daemon.receipt("processed/pairs.txt").await;
    assert_adds_up(&receipt);
    let counts = ["physical_lines", "lines", "queued", "duplicates"].map(|key| number(&receipt, key));
    assert_eq!(counts, [3, 3, 2, 1], "{receipt}");
    for (name, content, word) in [
        ("header.csv", &b"machine_id,scan_type\n"[..], "a header line and no rows"),
        ("book.csv", b"PK\x03\x04marker", "the file is a zip archive"),
        ("guids.txt", b"2f3a6d0e-8f0c-4a52-9c39-0a5f0f3a9b1c\n", "in Entra or Intune"),
    ] {
        daemon.site.put(name, content);
        let receipt = daemon.receipt(&format!("rejected/{name}")).await;
        assert!(text(&receipt, "reason").contains(word), "{receipt}");
    }
    assert_eq!(number(&daemon.receipt("rejected/guids.txt").await, "physical_lines"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_vanishes_is_made_again() {
    let (_simulator, daemon) = one("").await;
    fs::remove_dir(daemon.site.spool("incoming")).unwrap();
    eventually("folder", || daemon.site.spool("incoming").is_dir().then_some(())).await;
    daemon.site.put("list.txt", list(&fleet(8, 3, "after")));
    assert_eq!(number(&daemon.receipt("processed/list.txt").await, "queued"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_says_whose_a_file_was_and_what() {
    let (_simulator, daemon) = one("").await;
    let content = list(&fleet(9, 3, "known"));
    daemon.site.put("list.txt", &content);
    let receipt = daemon.receipt("processed/list.txt").await;
    let owner = fs::metadata(daemon.site.spool("processed/list.txt")).unwrap();
    let database =
        sqlx::sqlite::SqliteConnectOptions::new().filename(daemon.site.state().join("sweepd.db")).read_only(true);
    let mut connection = sqlx::ConnectOptions::connect(&database).await.unwrap();
    let body: String = sqlx::query_scalar("SELECT body FROM events WHERE kind = 'file_taken'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let taken: Value = serde_json::from_str(&body).unwrap();
    let about = &taken["observed"];
    assert_eq!(
        (number(about, "uid"), number(about, "size")),
        (u64::from(owner.uid()), content.len() as u64),
        "{taken}"
    );
    assert!(text(about, "modified_at").ends_with('Z') && text(about, "changed_at").ends_with('Z'), "{taken}");
    assert_eq!(taken["receipt"]["sha256"], receipt["sha256"], "{taken}");
    let beside = Sha256::digest(fs::read(daemon.site.spool("processed/list.txt.receipt.json")).unwrap());
    let beside = beside.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(taken["receipt_sha256"], beside, "{taken}");
    let shown = daemon.lines(&["sweep", "show", text(&receipt, "sweep_id")]);
    assert_eq!((&shown[0]["observed"], &shown[0]["claimed"]), (about, &Value::Null), "{shown:?}");
}

/// Whoever may write to the drop folder may write any name into a file.
#[tokio::test(flavor = "multi_thread")]
async fn who_asked_is_what_was_observed_and_what_a_file_says_is_a_claim() {
    const ANN: u32 = 54_321;
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let (_simulator, daemon) = one("").await;
    let all = fleet(9, 5, "asked");
    let claim = |uid: u32| format!(r#"{{"uid":{uid},"login_uid":null,"host":"console"}}"#);
    for (n, (owner, said, source, word)) in [
        (ANN, claim(ANN), "submit", ""),
        (ANN, claim(0), "file", "submitted_by names user 0, and the file belongs to user 54321"),
        (0, claim(ANN), "submit", ""),
        (ANN, format!(r#"{{"uid":{ANN},"host":"console","why":"marker"}}"#), "file", "submitted_by is ignored"),
        (ANN, r#""root""#.to_owned(), "file", "submitted_by is ignored"),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, id) = (format!("{n}.json"), &all[n].id);
        let aside = daemon.site.path().join(&name);
        fs::write(&aside, format!(r#"{{"submitted_by":{said},"machines":["{id}"]}}"#)).unwrap();
        std::os::unix::fs::chown(&aside, Some(owner), None).unwrap();
        fs::rename(&aside, daemon.site.spool("incoming").join(&name)).unwrap();
        let receipt = daemon.receipt(&format!("processed/{name}")).await;
        assert_eq!(number(&receipt, "queued"), 1, "its machines are not refused: {receipt}");
        let reason = receipt["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with(word) && reason.is_empty() == word.is_empty(), "{receipt}");

        let sweep = text(&receipt, "sweep_id");
        let shown = daemon.lines(&["sweep", "show", sweep]).swap_remove(0);
        assert_eq!((text(&shown, "source"), number(&shown["observed"], "uid")), (source, owner.into()), "{shown}");
        let claimed = serde_json::from_str::<Value>(&said).unwrap();
        let kept = if word.contains("ignored") { &Value::Null } else { &claimed };
        assert_eq!(&shown["claimed"], kept, "{shown}");
        assert!(!shown.to_string().contains("marker"), "{shown}");
        let told = daemon.told(&["sweep", "show", sweep]);
        assert!(told.contains(&format!("observed  the file belonged to user {owner}, ")), "{told}");
        assert_eq!(told.contains("(the file says so itself)"), !kept.is_null(), "{told}");
        let taken =
            daemon.lines(&["audit", "export"]).into_iter().rfind(|event| event["kind"] == "file_taken").unwrap();
        let taken: Value = serde_json::from_str(text(&taken, "body")).unwrap();
        assert_eq!((text(&taken, "source"), &taken["claimed"]), (source, kept), "{taken}");
        assert_eq!(taken["observed"], shown["observed"], "{taken}");
    }
}

/// What is in the database, and cannot be put away for want of something: once it can be, its machines are sent for
/// without anybody's help.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_put_away_only_at_the_second_try_is_sent_for_then() {
    let (_simulator, daemon) = one("hold_above = 0").await;
    // In the way of its receipt.
    let in_the_way = daemon.site.spool("processed/.long.txt.receipt.json.tmp");
    fs::create_dir(&in_the_way).unwrap();
    let machines = fleet(10, 2500, "long");
    daemon.site.put("long.txt", list(&machines));
    eventually("word of it", || daemon.has_logged("the file stays where it is").then_some(())).await;
    assert!(daemon.site.spool("incoming/long.txt").exists());
    fs::remove_dir(&in_the_way).unwrap();
    let receipt = daemon.receipt("processed/long.txt").await;
    assert_eq!(number(&receipt, "queued"), 2500, "{receipt}");
    let database =
        sqlx::sqlite::SqliteConnectOptions::new().filename(daemon.site.state().join("sweepd.db")).read_only(true);
    let mut connection = sqlx::ConnectOptions::connect(&database).await.unwrap();
    let deadline = SystemClock.boot() + crate::support::PATIENCE;
    loop {
        let hidden: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE parked_until IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        if hidden == 0 {
            break;
        }
        assert!(SystemClock.boot() < deadline, "{hidden} jobs stay hidden");
        crate::support::pause(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_there_for_longer_than_it_is_kept_is_removed_and_what_waits_is_not() {
    let (_simulator, daemon) = one("").await;
    let config = fs::read_to_string(daemon.site.config()).unwrap();
    daemon.site.put("a.txt", list(&fleet(5, 3, "kept")));
    daemon.site.put("nonsense.txt", "what is this\n");
    daemon.receipt("processed/a.txt").await;
    daemon.receipt("rejected/nonsense.txt").await;
    daemon.site.put("unfinished.part", "it has not been taken");
    daemon.site.write_config(&format!("{config}\n[retention]\nspool = \"1s\"\n"));
    let count = |folder: &str| fs::read_dir(daemon.site.spool(folder)).unwrap().count();
    assert_eq!((count("processed"), count("rejected")), (2, 2));
    eventually("end of what was kept", || {
        // Each looks anew; by itself it is every minute.
        daemon.hang_up();
        (count("processed") + count("rejected") == 0).then_some(())
    })
    .await;
    assert!(daemon.site.spool("incoming/unfinished.part").exists());
    eventually("word of it", || daemon.has_logged("removed files of the spool folder").then_some(())).await;
    assert_eq!(number(&daemon.status()["tenants"]["contoso"]["jobs"], "queued"), 3, "what was taken stays taken");
}

/// Files of two tenants that lie side by side are taken at once, and useless ones of nobody: whatever names they come
/// to want, each keeps its content and gets its own receipt.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_to_want_one_name_are_all_kept() {
    const PAIRS: u8 = 20;
    let (_simulator, _, mut daemon) = two("hold_above = 0").await;
    assert!(daemon.terminate().await.success());
    let incoming = daemon.site.spool("incoming");
    let mut dropped = BTreeSet::new();
    for n in 0..PAIRS {
        for (tenant, letter) in [("a", 0xe8), ("b", 0xe9)] {
            let machines: Vec<_> =
                fleet(u64::from(n) * 256 + letter, 2, "any").iter().map(|m| m.id.to_string()).collect();
            let letter = u8::try_from(letter).unwrap();
            let useful = json!({ "tenant": tenant, "machines": machines }).to_string();
            let useless = format!("nothing of use in {n} of {tenant}\n");
            for (begin, content) in [(b'u', useful), (b'x', useless)] {
                // As text, the names of a pair are the same.
                fs::write(incoming.join(OsStr::from_bytes(&[begin, n + b'A', letter])), &content).unwrap();
                assert!(dropped.insert(content));
            }
        }
    }
    daemon.start().await;
    eventually("end of them", || daemon.site.waiting_files().is_empty().then_some(())).await;
    let mut kept = BTreeSet::new();
    for place in ["processed", "rejected"] {
        let names = daemon
            .site
            .names_in(place)
            .into_iter()
            .filter(|name| name.starts_with(['u', 'x']) && !name.contains("receipt"));
        for name in names {
            let content = fs::read_to_string(daemon.site.spool(&format!("{place}/{name}"))).unwrap();
            let receipt = daemon.receipt(&format!("{place}/{name}")).await;
            assert_eq!(text(&receipt, "sha256"), format!("{:x}", Sha256::digest(&content)), "{name}: {receipt}");
            assert!(kept.insert(content));
        }
    }
    assert_eq!(kept, dropped, "none took the place of another");
}

/// One tenant's results cannot be written: the others' are, and its own are once they can be, also after a kill. What
/// was written once is not written again.
#[tokio::test(flavor = "multi_thread")]
async fn results_that_cannot_be_written_wait_over_a_kill_and_keep_nobody_elses_back() {
    let (_simulator, tenants, mut daemon) = two("").await;
    let in_the_way = daemon.site.spool("results/a");
    fs::remove_dir(&in_the_way).unwrap();
    fs::write(&in_the_way, "").unwrap();
    let mut sweeps = Vec::new();
    for (name, tenant) in ["a", "b"].into_iter().zip(&tenants) {
        daemon.site.put(&format!("{name}/list.txt"), list(&tenant.machines));
        let receipt = daemon.receipt(&format!("processed/{name}/list.txt")).await;
        sweeps.push(text(&receipt, "sweep_id").to_owned());
    }
    daemon.told(&["resume", "--tenant", "a"]);
    eventually("word of it", || daemon.has_logged("results cannot be written").then_some(())).await;
    daemon.told(&["resume", "--tenant", "b"]);
    assert_eq!(number(&daemon.results("b", &sweeps[1]).await, "machines"), 1);
    // Until that is written down they may be written once more.
    let is_told = |line: &Value| line["sweep"] == sweeps[1].as_str() && line["totals"].is_string();
    eventually("word of them", || daemon.log().iter().any(is_told).then_some(())).await;
    fs::remove_file(daemon.site.spool(&format!("results/b/{}.json", sweeps[1]))).unwrap();
    daemon.kill();
    fs::remove_file(&in_the_way).unwrap();
    daemon.start().await;
    assert_eq!(number(&daemon.results("a", &sweeps[0]).await, "machines"), 1);
    daemon.site.put("b/next.txt", list(&fleet(11, 1, "next")));
    let next = daemon.receipt("processed/b/next.txt").await;
    daemon.results("b", text(&next, "sweep_id")).await;
    assert!(!daemon.site.names_in("results/b").contains(&format!("{}.json", sweeps[1])), "somebody has taken it away");
}

/// Directly in `incoming/`, whose a file is shows only when it is opened: two of one tenant may be opened at once. If they
/// say the same, one is taken.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_twice_at_once_is_taken_once() {
    const PAIRS: usize = 20;
    let (_simulator, _, mut daemon) = two("default_tenant = \"a\"\nhold_above = 0").await;
    assert!(daemon.terminate().await.success());
    for n in 0..PAIRS {
        let content = list(&fleet(300 + n as u64, 3, "same"));
        for name in ["one", "other"] {
            fs::write(daemon.site.spool(&format!("incoming/{n}-{name}.txt")), &content).unwrap();
        }
    }
    daemon.start().await;
    eventually("end of them", || daemon.site.waiting_files().is_empty().then_some(())).await;
    for n in 0..PAIRS {
        let mut found = Vec::new();
        for name in ["one", "other"] {
            let receipt = daemon.receipt(&format!("processed/{n}-{name}.txt")).await;
            found.push((text(&receipt, "status").to_owned(), number(&receipt, "queued"), receipt["sweep_id"].clone()));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!((found[0].0.as_str(), found[0].1), ("already_taken", 0), "{found:?}");
        assert_eq!((found[1].0.as_str(), found[1].1), ("taken", 3), "{found:?}");
        assert_eq!(found[0].2, found[1].2, "it is the one sweep");
    }
}

#![allow(clippy::disallowed_methods, reason = "folders of others, and with modes of others, are made")]

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::intake::listing::AT_ONCE;

const SETTLE: Duration = Duration::from_secs(2);

fn at(now: i64) -> Moment {
    Moment { now: Boot(now), wall: Wall(now), settle: SETTLE }
}

/// What was left for a reason: how many.
fn left(found: &Found, why: Why) -> u64 {
    found.left.iter().filter(|news| news.why == why).map(|news| news.count).sum()
}

/// A look that knows of nothing but these that it was renamed into place.
fn look(folder: &mut Folder, moved: &[&Path], settle: Duration, now: i64) -> Found {
    let mut moved = moved.iter().map(|path| path.to_path_buf()).collect();
    folder.look(&mut moved, Moment { now: Boot(now), wall: Wall(now), settle }, |_, _| false)
}

fn names(found: &Found) -> Vec<String> {
    found.ready.iter().map(Ready::relative).collect()
}

fn tenants(names: &[&str]) -> Vec<TenantName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn a_file_is_ready_when_it_was_moved_in_or_has_settled() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["contoso"]));
    folder.create().unwrap();
    let path = dir.path().join("incoming/list.txt");
    fs::write(&path, "one").unwrap();
    let first = look(&mut folder, &[], SETTLE, 0);
    assert!(names(&first).is_empty() && first.unsettled);
    assert!(names(&look(&mut folder, &[], SETTLE, 1999)).is_empty());
    fs::write(&path, "two lines").unwrap();
    assert!(names(&look(&mut folder, &[], SETTLE, 2500)).is_empty(), "it has grown");
    assert_eq!(names(&look(&mut folder, &[], SETTLE, 4500)), ["list.txt"]);
    let moved = dir.path().join("incoming/moved.csv");
    fs::write(&moved, "x").unwrap();
    assert_eq!(names(&look(&mut folder, &[&moved], SETTLE, 4501)), ["list.txt", "moved.csv"]);
}

#[test]
fn unfinished_names_are_ignored_and_odd_things_are_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
    folder.create().unwrap();
    let incoming = dir.path().join("incoming");
    for name in [".hidden", "x.tmp", "x.PART", "x.crdownload", "x~", "x.swp"] {
        fs::write(incoming.join(name), "x").unwrap();
    }
    fs::create_dir(incoming.join("folder")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", incoming.join("link.txt")).unwrap();
    fs::write(incoming.join("b/list.txt"), "x").unwrap();
    let everything = look(&mut folder, &[], Duration::ZERO, 0);
    assert_eq!(left(&everything, Why::NoFile), 2, "{everything:?}");
    let again = look(&mut folder, &[], Duration::ZERO, 1);
    assert!(again.left.is_empty());
    assert_eq!(names(&again), ["b/list.txt"]);
}

#[test]
fn a_tenants_folder_that_is_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
    folder.create().unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    fs::write(dir.path().join("state/sweepd.db"), "x").unwrap();
    fs::write(dir.path().join("incoming/b/list.txt"), "x").unwrap();
    fs::remove_dir(dir.path().join("incoming/a")).unwrap();
    std::os::unix::fs::symlink("../state", dir.path().join("incoming/a")).unwrap();
    look(&mut folder, &[], Duration::ZERO, 0);
    let found = look(&mut folder, &[], Duration::ZERO, 1);
    assert_eq!(names(&found), ["b/list.txt"], "the others go on");
    assert_eq!(found.unreadable.len(), 1, "{found:?}");
    assert!(!folder.incoming().contains(&dir.path().join("incoming/a")), "nor is it watched");
}

#[test]
fn of_any_number_of_files_the_oldest_are_told_and_the_others_in_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["contoso"]));
    folder.create().unwrap();
    let incoming = dir.path().join("incoming");
    let age = |name: &str, seconds: u64| {
        let file = fs::File::create(incoming.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    (0..AT_ONCE + 2).for_each(|n| age(&format!("{n}.txt"), 1_000_000 - n as u64));
    look(&mut folder, &[], SETTLE, 0);
    let found = look(&mut folder, &[], SETTLE, 2000);
    assert_eq!((found.ready.len(), folder.seen.len()), (AT_ONCE, AT_ONCE));
    assert!(found.unsettled, "there are more: they are looked for soon");
    assert_eq!(names(&found)[..2], [format!("{}.txt", AT_ONCE + 1), format!("{AT_ONCE}.txt")]);
    // What cannot be taken now makes way for the next.
    let put_off = |path: &Path, _: &Stat| path.ends_with(format!("{AT_ONCE}.txt"));
    let found = folder.look(&mut Moved::default(), at(2000), put_off);
    assert_eq!((found.ready.len(), names(&found).contains(&format!("{AT_ONCE}.txt"))), (AT_ONCE - 1, false));
    fs::remove_file(incoming.join(format!("{}.txt", AT_ONCE + 1))).unwrap();
    let found = look(&mut folder, &[], SETTLE, 4000);
    assert_eq!(names(&found).first(), Some(&format!("{}.txt", AT_ONCE - 1)), "what was put off has to settle");
    assert_eq!(names(&found).last().map(String::as_str), Some("1.txt"), "it settled while it waited");
}

#[test]
fn a_file_that_was_renamed_into_place_and_is_gone_says_nothing_of_the_next_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["contoso"]));
    folder.create().unwrap();
    let path = dir.path().join("incoming/list.txt");
    let mut moved = Moved::from_iter([path.clone()]);
    folder.look(&mut moved, at(0), |_, _| false);
    fs::write(&path, "half of it").unwrap();
    assert!(names(&folder.look(&mut moved, at(1), |_, _| false)).is_empty());
}

#[test]
fn what_is_left_in_the_folder_of_the_only_tenant_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    Folder::new(dir.path(), &tenants(&["a", "b"])).create().unwrap();
    for name in ["a/left.txt", "b/left.txt", "new.txt"] {
        fs::write(dir.path().join("incoming").join(name), "x").unwrap();
    }
    let mut folder = Folder::new(dir.path(), &tenants(&["a"]));
    look(&mut folder, &[], Duration::ZERO, 0);
    let found = look(&mut folder, &[], Duration::ZERO, 1);
    assert_eq!(names(&found), ["new.txt", "a/left.txt"]);
    let left = found.ready.last().unwrap();
    assert_eq!(folder.place(Place::Processed, left.folder.as_ref()), dir.path().join("processed"));
    assert!(folder.incoming().contains(&dir.path().join("incoming/a")));
}

#[test]
fn a_repeated_name_gets_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), &tenants(&["a"]));
    folder.create().unwrap();
    let free = |name: &str| folder.free_name(Place::Processed, None, OsStr::new(name), |_| false);
    assert_eq!(free("list.txt"), "list.txt");
    fs::write(dir.path().join("processed/list.txt"), "").unwrap();
    assert_eq!(free("list.txt"), "list.1.txt");
    fs::write(dir.path().join("processed/list.1.txt.receipt.json"), "").unwrap();
    assert_eq!(free("list.txt"), "list.2.txt");
    fs::write(dir.path().join("processed/plain"), "").unwrap();
    assert_eq!(free("plain"), "plain.1");
    let long = format!("{}.csv", "x".repeat(251));
    assert!(free(&long).len() <= 200 && free(&long).to_string_lossy().ends_with(".csv"));
    // Each of these becomes a character of three bytes.
    let noise = OsString::from_vec([vec![0xff; 200], b".csv".to_vec()].concat());
    let kept = folder.free_name(Place::Processed, None, &noise, |_| false).into_string().unwrap();
    assert!(kept.len() <= 200 && kept.ends_with("\u{fffd}.csv"), "{kept}");
}

#[test]
fn a_name_that_is_no_text_is_found_by_what_is_recorded_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), &tenants(&["a"]));
    folder.create().unwrap();
    let path = dir.path().join("incoming").join(OsString::from_vec(b"caf\xe9.txt".to_vec()));
    fs::write(&path, "x").unwrap();
    let found = folder.recorded("caf\u{fffd}.txt").unwrap();
    assert_eq!(found.dir.path().join(found.name), path);
    for gone in ["th\u{fffd}.txt", "a/list.txt", "../list.txt", "", "a/", "a/.."] {
        assert!(folder.recorded(gone).is_none(), "{gone}");
    }
}

#[test]
fn folders_that_are_made_let_the_group_put_files_and_replace_none() {
    let dir = tempfile::tempdir().unwrap();
    Folder::new(dir.path(), &tenants(&["a", "b"])).create().unwrap();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("incoming"), mode("incoming/a")), (0o3770, 0o3770));
    assert_eq!(mode("processed/a") & 0o3022, 0, "only the service writes there");
}

#[test]
fn a_tenants_folder_of_a_dropper_is_not_read() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
    folder.create().unwrap();
    let theirs = dir.path().join("incoming/a");
    for name in ["a/list.txt", "b/list.txt"] {
        fs::write(dir.path().join("incoming").join(name), "x").unwrap();
    }
    std::os::unix::fs::chown(&theirs, Some(12345), None).unwrap();
    look(&mut folder, &[], Duration::ZERO, 0);
    let found = look(&mut folder, &[], Duration::ZERO, 1);
    assert_eq!(names(&found), ["b/list.txt"]);
    assert!(found.unreadable[0].1.contains("belongs to the user 12345"), "{found:?}");
}

#[test]
fn a_folder_that_is_swapped_after_a_look_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["a"]));
    folder.create().unwrap();
    fs::write(dir.path().join("incoming/list.txt"), "real").unwrap();
    look(&mut folder, &[], Duration::ZERO, 0);
    let ready = look(&mut folder, &[], Duration::ZERO, 1).ready.remove(0);
    fs::create_dir(dir.path().join("secret")).unwrap();
    fs::write(dir.path().join("secret/list.txt"), "marker").unwrap();
    fs::rename(dir.path().join("incoming"), dir.path().join("kept")).unwrap();
    std::os::unix::fs::symlink("secret", dir.path().join("incoming")).unwrap();
    let text = std::io::read_to_string(ready.dir.file(&ready.name).unwrap()).unwrap();
    assert_eq!(text, "real", "what was listed is what is opened");
    let found = look(&mut folder, &[], Duration::ZERO, 2);
    assert!(found.ready.is_empty() && found.unreadable.len() == 1, "{found:?}");
}

#[test]
fn file_is_taken_by_its_ending_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["a"]));
    folder.create().unwrap();
    let taken = ["0.txt", "1.LIST", "2.csv", "3.Tsv", "4.json", "5.jsonl", "6.NDJSON", "7", "8.", "9.2026-12-01.csv"];
    let others = [
        "fleet.csv.sha1",
        "fleet.csv.1",
        "Thumbs.db",
        "~$list.xlsx",
        "x.bak",
        "x.uploading",
        "x.download",
        "hosts.2026-12-01",
        "x.csv ",
        "x.csv\u{200b}",
    ];
    for name in taken.iter().chain(&others) {
        fs::write(dir.path().join("incoming").join(name), "x").unwrap();
    }
    let not_text = std::ffi::OsString::from_vec(b"x.cs\xff".to_vec());
    fs::write(dir.path().join("incoming").join(not_text), "x").unwrap();
    let first = look(&mut folder, &[], Duration::ZERO, 0);
    assert_eq!(left(&first, Why::Ending), others.len() as u64 + 1);
    let named: Vec<_> = first.left.iter().flat_map(|news| &news.named).collect();
    assert!(named.contains(&&dir.path().join("incoming/Thumbs.db")), "{named:?}");
    let again = look(&mut folder, &[], Duration::ZERO, 1);
    let mut ready = names(&again);
    ready.sort();
    assert_eq!((ready, again.left), (taken.map(str::to_owned).to_vec(), vec![]), "each is reported once");
}

#[test]
fn unfinished_name_is_reported_once_it_is_a_day_old() {
    const DAY: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["a"]));
    folder.create().unwrap();
    let (part, hidden) = (dir.path().join("incoming/x.csv.filepart"), dir.path().join("incoming/.x"));
    fs::write(&part, "x").unwrap();
    fs::write(&hidden, "x").unwrap();
    let written = |path: &Path| {
        let (seconds, _) =
            Dir::trusted(path.parent().unwrap()).unwrap().look(path.file_name().unwrap()).unwrap().modified;
        seconds * 1000
    };
    let wall = written(&part);
    let mut look = |now: i64, wall: i64| {
        folder.look(&mut Moved::default(), Moment { now: Boot(now), wall: Wall(wall), settle: SETTLE }, |_, _| false)
    };
    assert!(look(0, wall).left.is_empty());
    fs::write(&part, "grown").unwrap();
    assert!(look(DAY - 1, wall).left.is_empty(), "no day by our clock");
    let found = look(DAY, wall);
    assert_eq!((found.left.len(), found.left[0].named.clone()), (1, vec![hidden]), "{found:?}");
    let found = look(2 * DAY - 1, wall);
    assert_eq!((found.left.len(), found.left[0].named.clone()), (1, vec![part]), "since it has grown");
    assert!(look(2 * DAY, wall).left.is_empty(), "once");

    // After a restart the time of the file counts, unless it is just being renamed.
    let mut folder = Folder::new(dir.path(), &tenants(&["a"]));
    let mut look = |now: i64| {
        folder.look(
            &mut Moved::default(),
            Moment { now: Boot(now), wall: Wall(wall + 2 * DAY), settle: SETTLE },
            |_, _| false,
        )
    };
    assert!(look(0).left.is_empty() && look(1999).left.is_empty());
    assert_eq!(left(&look(2000), Why::Unfinished), 2);
    assert!(look(4000).left.is_empty() && look(4000).ready.is_empty());
}

#[test]
fn any_number_of_links_is_told_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(dir.path(), &tenants(&["a"]));
    folder.create().unwrap();
    for n in 0..left::MOST + 500 {
        std::os::unix::fs::symlink("/nowhere", dir.path().join(format!("incoming/{n}.txt"))).unwrap();
    }
    let found = look(&mut folder, &[], Duration::ZERO, 0);
    assert_eq!(left(&found, Why::NoFile), left::MOST as u64 + 500);
    assert!(look(&mut folder, &[], Duration::ZERO, 1).left.is_empty(), "told once");
    std::os::unix::fs::symlink("/nowhere", dir.path().join("incoming/one-more.txt")).unwrap();
    assert_eq!(left(&look(&mut folder, &[], Duration::ZERO, 2), Why::NoFile), 1);
}

#[test]
fn a_tenants_folders_have_its_droppers_group() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
    folder.create().unwrap();
    assert!(!folder.are_apart().unwrap() && folder.share().is_empty());
    let theirs = Dir::trusted(&dir.path().join("incoming/a")).unwrap();
    theirs.share_with(12345, 0o3770).unwrap();
    assert!(folder.are_apart().unwrap());
    assert!(folder.share().is_empty(), "{:?}", folder.share());
    let found = |name: &str| {
        let path = dir.path().join(name);
        Dir::trusted(path.parent().unwrap()).unwrap().look(path.file_name().unwrap()).unwrap()
    };
    for kind in ["processed", "rejected", "results"] {
        let (a, b) = (found(&format!("{kind}/a")), found(&format!("{kind}/b")));
        assert_eq!((a.gid, a.mode), (12345, 0o2750), "{kind}");
        assert_ne!(b.gid, 12345, "{kind}");
        // What is written there: a receipt, a result.
        let path = dir.path().join(kind).join("a/list.csv");
        crate::intake::receipt::write_whole(&path, |out| out.write_all(b"x")).unwrap();
        let file = found(&format!("{kind}/a/list.csv"));
        assert_eq!((file.gid, file.mode), (12345, 0o640), "{kind}");
    }
}

fn set_mode(folder: &Path, mode: u32) {
    fs::File::open(folder).unwrap().set_permissions(fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn folders_that_the_daemon_makes_keep_no_tenant_apart() {
    // As an operator, an older version or a container has made `incoming/`.
    for mode in [0o755, 0o2770, 0o3770, 0o700] {
        let dir = tempfile::tempdir().unwrap();
        let incoming = dir.path().join("incoming");
        fs::create_dir(&incoming).unwrap();
        set_mode(&incoming, mode);
        let folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
        folder.create().unwrap();
        assert!(!folder.are_apart().unwrap(), "{mode:o}");
        let made = fs::metadata(incoming.join("a")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(made, 0o3000 | mode & 0o777, "sticky, whatever incoming/ is");
        set_mode(&incoming.join("a"), 0o3700);
        assert_eq!(folder.are_apart().unwrap(), mode != 0o700);
    }
}

#[test]
fn a_tenants_folder_that_cannot_be_seen_keeps_the_question_open() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), &tenants(&["a", "b"]));
    folder.create().unwrap();
    fs::rename(dir.path().join("incoming/a"), dir.path().join("elsewhere")).unwrap();
    assert!(folder.are_apart().unwrap_err().to_string().contains("incoming/a/"));
    set_mode(&dir.path().join("incoming/b"), 0o3700);
    assert!(folder.are_apart().unwrap(), "another one shows it");
}

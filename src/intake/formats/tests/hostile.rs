//! Files that nobody means to drop: broken, endless, or made to do harm.

use proptest::prelude::*;

use super::*;

/// Fails once what it holds has been read.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the disk is gone")),
            some => Ok(some),
        }
    }
}

#[test]
fn read_errors_are_told_apart_from_bad_content() {
    let rows = format!("\"{A}\",\n").repeat(5000);
    for (name, text) in [
        ("a.txt", rows.clone()),
        ("a.csv", format!("id\n{rows}")),
        ("a.json", format!("[{rows}")),
        ("a.jsonl", rows.clone()),
        ("a", String::new()),
    ] {
        let read = read(name, Failing(text.as_bytes()), &ALL, &mut |_| Ok(()));
        assert!(matches!(read, Err(Unusable::Read(_))), "{name}: {read:?}");
    }
}

#[test]
fn what_is_too_long_is_refused_as_one_line() {
    let long = "7".repeat(1 << 20);
    for (name, text) in [
        ("a.txt", format!("{long}\n{A}\n")),
        ("a.csv", format!("id\n{long}\n{A}\n")),
        ("a.csv", format!("id\n\"{long}\n{A}\n")),
        ("a.jsonl", format!("\"{long}\"\n\"{A}\"\n")),
        ("a.json", format!("[\"{long}\",\"{A}\"]")),
        ("a.json", format!("[{{\"id\":\"{B}\",\"x\":[\"{long}\",{{\"{long}\":1}}]}},\"{A}\"]")),
        ("a.json", format!("[[{}1],\"{A}\"]", "1,".repeat(1 << 18))),
    ] {
        let lines = short(name, &text);
        assert_eq!(lines.len(), 2, "{name}");
        assert!(lines[0].ends_with("!longer than 64 KiB"), "{name}: {}", lines[0]);
        assert!(lines[1].ends_with("1e5b"));
        let refused = &refusals(name, &text)[0];
        assert_eq!(refused.text.chars().count(), Refusal::TEXT_MAX);
        assert!(refused.text.ends_with('…'));
    }
    assert_eq!(short("a", &long).len(), 1, "a line without an end");
}

#[test]
fn hostile_documents_end_early() {
    for depth in [200, 1 << 20] {
        assert!(unusable("a", "[".repeat(depth)).contains("nested deeper than 100"));
        let entry = format!("{{\"machines\":[{{\"x\":{}", "{\"a\":".repeat(depth));
        assert!(unusable("a.json", entry).contains("nested deeper than 100"));
    }
    let long = "1,".repeat(1 << 17);
    assert_eq!(
        unusable("a.json", format!("{{\"submitted_by\":[{long}1]}}")),
        "`submitted_by`: it is longer than 64 KiB; correct it and drop the file again"
    );
    assert!(unusable("a.json", format!("{{\"name\":\"{long}\"}}")).contains("`name`: it is longer"));
    assert!(unusable("a.json", format!("{{\"{long}\":1}}")).contains("unknown key"));
    assert!(short("a.jsonl", "[".repeat(5000))[0].contains("not JSON: EOF"));
}

#[test]
fn refusals_are_printable() {
    let refused = &refusals("a.txt", "\u{1b}[31m\u{202e}x\ty\0\n")[0];
    assert_eq!(refused.text, "\u{fffd}[31m\u{fffd}x y\u{fffd}");
    assert!(serde_json::to_string(refused).unwrap().contains("\"line\":1"));
}

const NAMES: [&str; 6] = ["a", "a.txt", "a.csv", "a.tsv", "a.json", "a.jsonl"];

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for name in NAMES {
            drop(take(name, &bytes, ONBOARDED));
        }
    }

    #[test]
    fn no_text_that_nearly_fits_panics(
        parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "d83d", "\n", "\r\n", "#", " ", "\t", ";", "\0", "é", "\u{feff}",
            "id", "machine_id", "\"machines\"", "\"tenant\"", "\"id\":", A, "1e999", "null", "-",
        ]), 0..40),
        bom in prop::sample::select(vec![&b""[..], b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]),
    ) {
        let bytes = [bom, parts.concat().as_bytes()].concat();
        for name in NAMES {
            drop(take(name, &bytes, ONBOARDED));
        }
    }

    #[test]
    fn each_line_of_a_list_is_accounted_for(lines in prop::collection::vec("[ \t]{0,2}(#x|[0-9a-g]{1,3}|\0)?( #y)?", 0..30), crlf in any::<bool>()) {
        let text = lines.join(if crlf { "\r\n" } else { "\n" });
        let expected = lines.iter().filter(|line| {
            let line = line.trim_matches([' ', '\t']);
            !line.is_empty() && !line.starts_with('#')
        }).count();
        prop_assert_eq!(take("a.txt", text.as_bytes(), ALL).0.len(), expected);
    }
}

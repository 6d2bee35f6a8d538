//! Whole files of every format and encoding.

mod answers;
mod glued;
mod hostile;
mod options;

use super::*;

const A: &str = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07";
const B: &str = "7b1f4967d9728e5aa3c06a9e617a22a4a5a17378";

const ALL: Options = Options { only_onboarded: false };
const ONBOARDED: Options = Options { only_onboarded: true };

fn take(name: &str, input: &[u8], options: Options) -> (Vec<Line>, Result<Header, Unusable>) {
    let mut lines = Vec::new();
    let header = read(name, input, &options, &mut |line| {
        lines.push(line);
        Ok(())
    });
    (lines, header.map(|whole| whole.header))
}

/// The lines in short: `3 1e5b` a row, `3 -reason` one left out, `3 !reason` a refused one.
fn short(name: &str, input: impl AsRef<[u8]>) -> Vec<String> {
    let (lines, header) = take(name, input.as_ref(), ONBOARDED);
    header.unwrap();
    lines
        .into_iter()
        .map(|line| match line {
            Line::Row(row) => format!("{} {}", row.line, &row.machine.to_string()[..4]),
            Line::NotEligible { line, why, .. } => format!("{line} -{why}"),
            Line::Refused(refusal) => format!("{} !{}", refusal.line, refusal.reason),
        })
        .collect()
}

fn rows(name: &str, input: impl AsRef<[u8]>) -> Vec<Row> {
    let (lines, header) = take(name, input.as_ref(), ALL);
    header.unwrap();
    lines
        .into_iter()
        .map(|line| match line {
            Line::Row(row) => row,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn refusals(name: &str, input: impl AsRef<[u8]>) -> Vec<Refusal> {
    let (lines, header) = take(name, input.as_ref(), ALL);
    header.unwrap();
    lines
        .into_iter()
        .filter_map(|line| match line {
            Line::Refused(refusal) => Some(refusal),
            _ => None,
        })
        .collect()
}

fn unusable(name: &str, input: impl AsRef<[u8]>) -> String {
    take(name, input.as_ref(), ALL).1.unwrap_err().to_string()
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    let to_bytes = |unit: u16| {
        if big { unit.to_be_bytes() } else { unit.to_le_bytes() }
    };
    std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(to_bytes).collect()
}

#[test]
fn lists_count_physical_lines() {
    let text = format!("# fleet\r\n\r\n{A}\r\n \t\r\n  \"{B}\" # why\r\nnope\r\n\0\r\n{A}");
    let no_id = "not a machine id: 40 hexadecimal digits are expected";
    let expected = ["3 1e5b", "5 7b1f", &format!("6 !{no_id}"), &format!("7 !{no_id}"), "8 1e5b"];
    assert_eq!(short("fleet.txt", &text), expected);
    assert_eq!(short("fleet", &text), expected);
    assert_eq!(short("fleet.TXT", utf16(&text, false)), expected);
    assert_eq!(short("fleet.list", utf16(&text, true)), expected);
    assert_eq!(short("fleet", format!("\u{feff}{text}")), expected);
}

#[test]
fn however_many_blank_lines_stand_before_it_a_line_is_read() {
    let blank = "\n".repeat(2 * LINE_MAX);
    for (name, text) in [("a.txt", A.to_owned()), ("a.json", format!("[\"{A}\"]")), ("a.jsonl", format!("\"{A}\""))] {
        assert_eq!(short(name, format!("{blank}{text}")).len(), 1, "{name}");
    }
}

#[test]
fn what_stands_before_the_machines_does_not_count_as_their_length() {
    let machines = vec![format!("\"{A}\""); 3000].join(",");
    assert_eq!(short("a.json", format!("{{\"name\":\"x\",\"comment\":null,\"machines\":[{machines}]}}")).len(), 3000);
}

#[test]
fn comments_alone_are_no_lines() {
    assert!(short("a.txt", "# nobody\n").is_empty());
}

#[test]
fn undecodable_bytes_refuse_their_row_alone() {
    let mut list = format!("{A}\n").into_bytes();
    list.extend(b"\xff\xfe\xe9\n");
    list.extend(B.as_bytes());
    assert_eq!(short("a.txt", &list).len(), 3);
    assert_eq!(refusals("a.txt", &list)[0].line, 2);

    let csv = [b"id,Device Name,comment\n", A.as_bytes(), b",caf\xe9,\n", B.as_bytes(), b",,caf\xe9\n"].concat();
    let refused = refusals("a.csv", &csv);
    assert_eq!((refused.len(), refused[0].line), (1, 3));
    assert!(refused[0].reason.starts_with("comment: "), "{}", refused[0].reason);

    let odd = [utf16(&format!("{A}\n"), false), vec![b'x']].concat();
    assert_eq!(short("a.txt", &odd).len(), 2);
}

#[test]
fn the_portal_export_works_untouched() {
    let csv = include_bytes!("../../../tests/fixtures/intake/portal_export.csv");
    let lines = short("portal_export.csv", csv);
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[2], "4 -onboarding status is `Can be onboarded`");
    assert_eq!(lines[5].split(' ').next(), Some("7"));
    assert_eq!(refusals("portal_export.csv", csv).len(), 1);
    assert_eq!(short("no ending", csv), lines);
    let (all, _) = take("portal_export.csv", csv, ALL);
    assert!(!all.iter().any(|line| matches!(line, Line::NotEligible { .. })));
    let Line::Row(first) = &all[0] else { panic!() };
    assert_eq!(first.name.as_deref(), Some("fin-pc-01, lab"));
}

#[test]
fn the_other_fixtures_are_read() {
    let list = short("list.txt", include_bytes!("../../../tests/fixtures/intake/list.txt"));
    assert_eq!(list.len(), 5);
    assert!(list[3].starts_with("6 !"));
    let document = include_bytes!("../../../tests/fixtures/intake/document.json");
    let (lines, header) = take("document.json", document, ALL);
    let header = header.unwrap();
    assert_eq!(header.comment.as_deref(), Some("keys may follow the machines"));
    assert_eq!(header.on_pending, Some(OnPending::Wait));
    assert_eq!(lines.len(), 5);
    assert!(
        matches!(&lines[3], Line::Refused(refusal) if refusal.line == 4 && refusal.reason.starts_with("priority: "))
    );
    assert!(matches!(&lines[4], Line::Refused(refusal) if refusal.text == "42"));
}

#[test]
fn a_machine_may_say_itself_what_to_do_while_it_is_busy() {
    let document = format!(
        r#"{{"on_pending":"skip","machines":[{{"machine_id":"{A}","on_pending":"Wait"}},{{"machine_id":"{B}","on_pending":"no"}}]}}"#
    );
    let table = format!("machine_id,on_pending\n{A},wait\n{B},no\n");
    for (name, input) in [("a.json", document), ("a.csv", table)] {
        let mut lines = Vec::new();
        let mut keep = |line| {
            lines.push(line);
            Ok(())
        };
        read(name, input.as_bytes(), &Options::default(), &mut keep).unwrap();
        assert!(matches!(&lines[0], Line::Row(row) if row.on_pending == Some(OnPending::Wait)), "{lines:?}");
        assert!(matches!(&lines[1], Line::Refused(refusal) if refusal.reason.contains("skip, wait")), "{lines:?}");
    }
}

#[test]
fn csv_takes_every_separator_and_encoding() {
    for separator in [',', ';', '\t'] {
        let text = format!(
            "name,MACHINEID,Scan_Type,Priority,NOT_BEFORE,Comment\r\nx,{A},full,HIGH,2026-10-05T22:00:00+02:00,\"a\r\nb\"\r\ny,{B}"
        );
        let text = text.replace(',', &separator.to_string());
        for input in
            [text.clone().into_bytes(), format!("\u{feff}{text}").into_bytes(), utf16(&text, false), utf16(&text, true)]
        {
            for name in ["a.csv", "a.tsv", "a"] {
                let rows = rows(name, &input);
                assert_eq!(rows[0].scan_type, Some(ScanType::Full));
                assert_eq!(rows[0].priority, Some(Priority::High));
                assert_eq!(rows[0].not_before, Wall::parse("2026-10-05T20:00:00Z"));
                assert_eq!(rows[0].comment.as_deref(), Some("a b"));
                assert_eq!((rows[1].line, rows[1].scan_type, rows.len()), (4, None, 2));
            }
        }
    }
}

#[test]
fn csv_refuses_records_not_files() {
    let text = format!("x,id,priority\n1\n,,\n1,{A},asap\n1,{B},low,more,fields\n\"1,{A}\n2,{B}\n");
    assert_eq!(
        short("a.csv", text),
        [
            "2 !too short: the machine id (`id`) is field 2, the record ends with field 1",
            "3 !the machine id is empty",
            "4 !priority: `asap` is not one of: low, normal, high, urgent",
            "5 7b1f",
            "6 1e5b",
            "7 7b1f",
        ]
    );
}

#[test]
fn csv_needs_an_id_column() {
    let message = unusable("a.csv", "Host;Owner\nx;y\n");
    assert!(message.contains("names: Host, Owner") && message.contains("machine_id"), "{message}");
    for name in ["a.CSV", "a.tsv", "a.Tsv"] {
        assert!(unusable(name, "Host;Owner\nx;y\n").contains("names: Host, Owner"), "{name} is a table by its name");
    }
    assert!(unusable("a.csv", format!("id,{}", "x".repeat(1 << 17))).contains("header line"));
}

#[test]
fn onboarding_counts_only_where_it_is_given() {
    let text = format!("id,OnboardingStatus\n{A},\n{A},ONBOARDED\n{A},Unsupported\n{A}\n");
    assert_eq!(short("a.csv", text), ["2 1e5b", "3 1e5b", "4 -onboarding status is `Unsupported`", "5 1e5b"]);
    let text = format!("{{\"id\":\"{A}\",\"onboardingStatus\":\"CanBeOnboarded\"}}");
    assert_eq!(short("a.jsonl", text), ["1 -onboarding status is `CanBeOnboarded`"]);
}

#[test]
fn documents_give_a_header_and_count_machines() {
    let text = format!(
        r#"{{"tenant":"contoso","machines":["{A}",{{"id":7,"MachineId":"{B}","scan_type":null,"x":[{{}}]}},
        {{"machine_id":5}},{{}},null,[1],"x",{{"machine_id":"{A}","comment":7}}],
        "name":" n\u0007 ","scan_type":"FULL","priority":"urgent","not_before":"2026-10-05T22:00:00Z","submitted_by":{{"uid":0,"host":"h"}}}}"#
    );
    for input in [text.clone().into_bytes(), utf16(&text, false)] {
        let (lines, header) = take("a.json", &input, ALL);
        let header = header.unwrap();
        assert_eq!(header.tenant.as_deref(), Some("contoso"));
        assert_eq!(header.name.as_deref(), Some("n\u{fffd}"));
        assert_eq!((header.scan_type, header.priority), (Some(ScanType::Full), Some(Priority::Urgent)));
        assert_eq!(header.submitted_by.submitter().map(|by| (by.uid, by.host.as_str())), Some((0, "h")));
        assert!(header.not_before.is_some());
        assert_eq!(super::header("a", input.as_slice(), &ALL).unwrap(), header);
        assert!(
            matches!(&lines[1], Line::Row(row) if row.line == 2 && row.machine.to_string() == B && row.scan_type.is_none())
        );
        let refused: Vec<_> = refusals("a.json", &input).into_iter().map(|r| (r.line, r.text, r.reason)).collect();
        let expected = [
            (3, r#"{"machine_id":5}"#, "the machine id is a number; a string is expected"),
            (
                4,
                "{}",
                "no machine id; it is named by one of: machine_id, MachineId, Device ID, DeviceId, MdatpDeviceId, id",
            ),
            (5, "null", "a machine id or an object with one is expected, not null"),
            (6, "[1]", "a machine id or an object with one is expected, not an array"),
            (7, "x", "not a machine id: 40 hexadecimal digits are expected"),
            (8, &format!(r#"{{"machine_id":"{A}","comment":7}}"#), "comment: a string is expected, not a number"),
        ];
        assert_eq!(refused, expected.map(|(line, text, reason)| (line, text.to_owned(), reason.to_owned())));
    }
    assert_eq!(short("a", format!("[\"{A}\",\n\"{B}\"]")), ["1 1e5b", "2 7b1f"]);
    assert!(short("a.json", "{\"machines\":[]}").is_empty());
}

#[test]
fn what_is_wrong_with_a_document_is_named() {
    for (text, said) in [
        ("{\"machines\":[\"x\"}", "line 1, column 17"),
        ("{\"machines\":[]", "EOF"),
        ("{\"machines\":[]} x", "trailing characters"),
        ("{}", "no `machines`"),
        ("{\"machine\":[]}", "unknown key `machine` (did you mean machines?); known are tenant"),
        ("{\"machines\":{}}", "`machines`: invalid type: map, expected an array"),
        ("{\"machines\":[],\"machines\":[]}", "`machines` and `machines` both hold machines"),
        ("{\"tenant\":5}", "`tenant`: invalid type"),
        ("{\"scan_type\":\"deep\"}", "`scan_type`: `deep` is not one of: Quick, Full"),
        ("{\"on_pending\":\"x\"}", "`on_pending`: `x` is not one of: skip, wait"),
        ("{\"not_before\":\"x\"}", "`not_before`: `x` is no time"),
        (&format!("{{\"name\":\"{}\"}}", "x".repeat(201)), "`name`: has 201 characters"),
        ("5", "an object with `machines`"),
        ("id\n", "line 1, column"),
    ] {
        let message = unusable("a.json", text);
        assert!(message.contains(said), "{text}: {message}");
    }
}

#[test]
fn json_lines_stand_alone() {
    let text =
        format!("\"{A}\"\n\n{{\"machine_id\":\"{B}\",\"priority\":\"low\"}}\r\n{{\n[]\n{{\"id\":\"{A}\"}} x\n\"{B}\"");
    let lines = short("a.ndjson", text);
    assert_eq!(lines.len(), 6);
    assert_eq!((lines[0].as_str(), lines[1].as_str(), lines[5].as_str()), ("1 1e5b", "3 7b1f", "7 7b1f"));
    assert!(lines[2].starts_with("4 !not JSON: EOF"), "{}", lines[2]);
    assert!(lines[4].starts_with("6 !not JSON: trailing characters at column"), "{}", lines[4]);
}

#[test]
fn content_decides_where_the_ending_says_nothing() {
    for (text, format) in [
        (format!("\n {{\"id\":\"{A}\"}}\n{{\"id\":\"{B}\"}}"), Format::JsonLines),
        (format!("{{\"id\":\"{A}\"}}"), Format::JsonLines),
        (format!("{{\"machines\":[\"{A}\"]}}\n"), Format::Document),
        ("{\n\"machines\":[]}".to_owned(), Format::Document),
        (" [".to_owned(), Format::Document),
        ("\nDevice ID\n".to_owned(), Format::Table),
        (A.to_owned(), Format::List),
        ("\0\0".to_owned(), Format::List),
    ] {
        for name in ["-", "fleet", "fleet.dat", ".csv"] {
            assert_eq!(open(name, text.as_bytes()).unwrap().0, format, "{text:?}");
        }
        // A list may have the header line of a table.
        let text_file = if format == Format::Table { Format::Table } else { Format::List };
        assert_eq!(open("x.txt", text.as_bytes()).unwrap().0, text_file);
    }
}

#[test]
fn what_excel_saves_as_unicode_text_is_a_table() {
    let text = format!("Device Name\tDevice ID\tOnboarding Status\r\npc\t{A}\tOnboarded\r\n");
    let bytes: Vec<_> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert_eq!(short("devices.txt", bytes), ["2 1e5b"]);
    assert_eq!(short("devices.list", format!("machine_id\n{A}\n")), ["2 1e5b"], "the header is no line");
}

#[test]
fn nothing_is_said_to_be_nothing() {
    for input in [&b""[..], b"\n \t\r\n", b"\xef\xbb\xbf", b"\xff\xfe"] {
        for name in ["a", "a.txt", "a.csv", "a.json", "a.jsonl"] {
            assert!(unusable(name, input).contains("nothing in it"));
        }
    }
}

#[test]
fn the_receiver_ends_the_reading() {
    for (name, text) in [
        ("a.txt", format!("{A}\n{B}\n")),
        ("a.csv", format!("id\n{A}\n{B}\n")),
        ("a.json", format!("[\"{A}\",\"{B}\"]")),
        ("a.jsonl", format!("\"{A}\"\n\"{B}\"\n")),
    ] {
        let mut seen = 0;
        let read = read(name, text.as_bytes(), &ALL, &mut |_| {
            seen += 1;
            Err(Stop)
        });
        assert!(matches!(read, Err(Unusable::Stopped)));
        assert_eq!(seen, 1);
        assert_eq!(header(name, text.as_bytes(), &ALL).unwrap(), Header::default());
    }
}

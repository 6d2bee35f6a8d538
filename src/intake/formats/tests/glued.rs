//! What people's tools make of lists: stray quotes, files glued together, every line end, several ids on a line.

use proptest::prelude::*;

use super::*;

fn whole(name: &str, input: impl AsRef<[u8]>) -> Whole {
    read(name, input.as_ref(), &ALL, &mut |_| Ok(())).unwrap()
}

#[test]
fn stray_quotes_swallow_no_machine() {
    let text = format!("Device ID,Device Name\n{A},pc1\n{B},\"24 inch\n{A},pc3\n{B},\"27 inch\n{A},pc5\n");
    assert_eq!(short("a.csv", &text), ["2 1e5b", "3 7b1f", "4 1e5b", "5 7b1f", "6 1e5b"]);
    assert_eq!(rows("a.csv", &text)[1].name.as_deref(), Some("\"24 inch"));
    let Whole { physical_lines, loose_quotes, .. } = whole("a.csv", &text);
    assert_eq!((physical_lines, loose_quotes), (6, 2));
    let last = format!("id,name\n{A},\"never closed\n");
    assert_eq!((short("a.csv", &last), whole("a.csv", &last).loose_quotes), (vec!["2 1e5b".to_owned()], 1));
    // In the header; and a record of several lines that is refused says which.
    assert_eq!(
        short("a.csv", format!("id,\"scan_type\n{A},Full\n{B},Quick\"\n")),
        ["2 1e5b", "3 !scan_type: `Quick\"` is not one of: Quick, Full"]
    );
    let refused = refusals("a.csv", "id,name\nx,\"a\nb\"\n").remove(0);
    assert!(refused.line == 2 && refused.reason.ends_with(" (lines 2 to 3 are one record)"), "{refused:?}");
}

#[test]
fn every_line_end_counts_in_every_format() {
    for (name, lines) in [
        ("a.txt", vec![A.to_owned(), String::new(), B.to_owned(), "x".to_owned()]),
        ("a.csv", vec!["id,name".to_owned(), format!("{A},pc"), format!("{B},pc"), "x,pc".to_owned()]),
        ("a.jsonl", vec![format!("\"{A}\""), String::new(), format!("\"{B}\""), "\"x\"".to_owned()]),
    ] {
        let expected = short(name, lines.join("\n"));
        assert_eq!((expected.len(), expected[2].split(' ').next()), (3, Some("4")), "{name}");
        for end in ["\r\n", "\r"] {
            for last in ["", end] {
                let text = lines.join(end) + last;
                assert_eq!(short(name, &text), expected, "{name} {end:?}");
                assert_eq!(short(name, utf16(&text, true)), expected, "{name} {end:?}");
                assert_eq!(whole(name, &text).physical_lines, 4);
            }
        }
        let [a, b, c, d]: [String; 4] = lines.try_into().unwrap();
        assert_eq!(short(name, format!("{a}\r{b}\r\n{c}\n{d}")), expected, "{name}, mixed");
    }
    let document = format!("[\"{A}\",\r\"{B}\",\r\n\"x\"\r]");
    assert_eq!((short("a.json", &document).len(), whole("a.json", &document).physical_lines), (3, 4));
    assert!(unusable("a.json", format!("[\"{A}\",\r\"{B}\",\r\n!")).contains("line 3, column 1"));
}

#[test]
fn header_without_rows_is_said_to_be_one() {
    for text in ["machine_id", "machine_id\n", "sep=;\r\nname;id\r\n \r\n", "#TYPE x\nid\nid\n", "\"id\r"] {
        let message = unusable("a.csv", text);
        assert!(message.contains("a header line and no rows"), "{text:?}: {message}");
    }
}

#[test]
fn glued_files_are_read_as_one() {
    for (text, expected) in [
        // The second has a mark, and its columns in another order.
        (format!("\u{feff}id,name\n{A},pc\n\u{feff}Device Name,Domain,Device ID\npc,x,{B}\n"), "2 1e5b,4 7b1f"),
        (format!("id,name\n{A},pc\nid,name\n{B},pc\n"), "2 1e5b,4 7b1f"),
        (format!("#TYPE a\nid\n{A}\n#TYPE b\nid\n{B}\n"), "3 1e5b,6 7b1f"),
        (format!("sep=;\nid;name\n{A};pc\nsep=,\nname,id\npc,{B}\n"), "3 1e5b,6 7b1f"),
        (format!("id,name\r\n{A},pc\r\n\u{1a}id,name\r\n{B},pc\r\n\u{1a}"), "2 1e5b,4 7b1f"),
        // A cell that is called as a column is none of a header.
        (format!("id,name\n{A},id\n12,7\n"), "2 1e5b,3 !not a machine id: 40 hexadecimal digits are expected"),
    ] {
        assert_eq!(short("a.csv", &text).join(","), expected, "{text:?}");
        assert_eq!(short("a.csv", utf16(&text, false)).join(","), expected, "{text:?}");
    }
    for text in [format!("{A}\n{B}\n\u{1a}"), format!("{A}\r\n\u{feff}{B}\u{1a}"), format!("{A}\u{feff}{B}")] {
        assert_eq!(short("a.txt", &text).len(), 2, "{text:?}");
    }
}

#[test]
fn several_machines_on_a_line_are_as_many_lines() {
    let text = format!("{A},{B} # both\n{A};\t{B}\nhttps://security.microsoft.com/machines/v2/{B}?tid=x,y\n{A},pc-1\n");
    assert_eq!(short("a.txt", &text)[..5], ["1 1e5b", "1 7b1f", "2 1e5b", "2 7b1f", "3 7b1f"]);
    assert!(short("a.txt", &text)[5].starts_with("4 !`pc-1` beside a machine id"), "{:?}", short("a.txt", &text));
}

#[test]
fn column_and_key_of_other_microsoft_tools_are_known() {
    assert_eq!(short("a.csv", format!("MdatpDeviceId,id\n{A},7\n")), ["2 1e5b"]);
    assert_eq!(short("a.jsonl", format!("{{\"mdatpDeviceId\":\"{A}\",\"id\":\"7\"}}")), ["1 1e5b"]);
    let csv =
        format!("Device ID\nsecurity.microsoft.com/machines/{A}/overview\n2f3a6d0e-8f0c-4a52-9c39-0a5f0f3a9b1c\n");
    assert_eq!(short("a.csv", &csv)[0], "2 1e5b");
    assert!(refusals("a.csv", &csv)[0].reason.contains("Entra or Intune"));
}

#[test]
fn what_is_no_text_is_named_whatever_it_is_called() {
    for name in ["a", "a.csv", "a.txt", "a.json"] {
        assert!(unusable(name, b"PK\x03\x04marker").contains("zip archive"), "{name}");
        assert!(unusable(name, b"%PDF-1.7\nmarker").contains("PDF"), "{name}");
    }
    assert_eq!(short("a.txt", format!("PK\n{A}\n")).len(), 2);
}

/// A row whose machine stands in one of its cells, and where somebody has put a quote too many.
#[derive(Clone, Debug)]
struct Wide {
    cells: Vec<usize>,
    id: usize,
    stray: Option<prop::sample::Index>,
}

fn wide(strays: bool) -> impl Strategy<Value = Wide> {
    let stray =
        if strays { prop::option::weighted(0.4, any::<prop::sample::Index>()).boxed() } else { Just(None).boxed() };
    (prop::collection::vec(0..8_usize, 5), 0..4_usize, stray).prop_map(|(cells, id, stray)| Wide { cells, id, stray })
}

/// A table, and on which physical line which machine stands; those are left out whose id a quote tears.
fn written(rows: &[Wide], columns: usize, machine: usize, separator: &str, end: &str) -> (String, Vec<(u64, String)>) {
    let mut names = vec!["Device Name", "a", "b", "c", "d"];
    names.truncate(columns);
    names[machine] = "Device ID";
    let (mut text, mut ids) = (format!("sep={separator}{end}{}{end}", names.join(separator)), Vec::new());
    for (n, row) in rows.iter().enumerate() {
        let id = format!("{:040x}", 0xabcd_ef00_usize + n);
        let place = format!("<{id}>");
        let cells: Vec<String> = (0..columns)
            .map(|column| match (column == machine, row.cells[column]) {
                (true, _) => ["@", "\"@\"", " @ ", "\"@\""][row.id].replace('@', &place),
                (_, 0) => String::new(),
                (_, 1) => "pc".to_owned(),
                (_, 2) => format!("\"Smith{separator} J\""),
                (_, 3) => "\"24\"\" inch\"".to_owned(),
                (_, 4) => format!("\"room 7{end}second{separator}floor\""),
                (_, 5) => format!("\"{end}{end}x\""),
                (_, 6) => "x\"y".to_owned(),
                _ => "\"\"".to_owned(),
            })
            .collect();
        let mut line = cells.join(separator);
        if let Some(stray) = row.stray {
            line.insert(stray.index(line.len() + 1), '"');
        }
        let at = line.find('<').unwrap();
        let is_whole = line.contains(&place);
        let before = text.clone() + &line[..at];
        let lines = before.replace("\r\n", "\n").replace('\r', "\n").matches('\n').count() as u64;
        let id = if row.id == 3 { id.to_uppercase() } else { id };
        line = line.replace(&place, &id).replace(['<', '>'], "");
        ids.extend(is_whole.then_some((lines + 1, id)));
        text = text + &line + end;
    }
    (text, ids)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_machine_vanishes_wherever_quotes_stray(
        rows in prop::collection::vec(wide(true), 1..8),
        columns in 1..6_usize,
        machine in any::<prop::sample::Index>(),
        separator in prop::sample::select(vec![",", ";", "\t", "|"]),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let (text, ids) = written(&rows, columns, machine.index(columns), separator, end);
        let (lines, read) = take("a.csv", text.as_bytes(), ALL);
        prop_assert!(read.is_ok(), "{:?}: {:?}", read, text);
        for (line, id) in ids {
            let is_there = lines.iter().any(|found| match found {
                Line::Row(row) => row.machine.to_string() == id.to_lowercase(),
                Line::NotEligible { .. } => false,
                Line::Refused(refusal) => refusal.line == line || refusal.text.contains(&id),
            });
            prop_assert!(is_there, "line {}, {}: {:?} of {:?}", line, id, lines, text);
        }
    }

    #[test]
    fn cells_of_several_lines_are_one_record_each(
        rows in prop::collection::vec(wide(false), 1..8),
        columns in 1..6_usize,
        machine in any::<prop::sample::Index>(),
        separator in prop::sample::select(vec![",", ";", "\t", "|"]),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let (text, ids) = written(&rows, columns, machine.index(columns), separator, end);
        let found: Vec<_> = super::rows("a.csv", &text).iter().map(|row| row.machine.to_string()).collect();
        prop_assert_eq!(found, ids.iter().map(|(_, id)| id.to_lowercase()).collect::<Vec<_>>(), "{:?}", text);
        prop_assert_eq!(whole("a.csv", &text).loose_quotes, 0);
    }
}

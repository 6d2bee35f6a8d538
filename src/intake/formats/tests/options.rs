//! Options, however they are written, and what is never dropped in silence.

use super::*;

fn warnings(name: &str, input: &str) -> Vec<String> {
    take(name, input.as_bytes(), ALL).1.unwrap().warnings.into_texts()
}

/// One machine with every option, in each format, its words joined and cased in this way.
fn with_names(write: fn(&str) -> String) -> [(&'static str, String); 4] {
    let values = [
        ("machine id", A),
        ("scan type", "fULL"),
        ("comment", "why"),
        ("priority", "HIGH"),
        ("not before", "2026-10-05T22:00:00Z"),
        ("on pending", "Wait"),
        ("tenant", "contoso"),
    ];
    let row = |separator: &str, what: fn(&(&str, &str)) -> String| {
        values.iter().map(what).collect::<Vec<_>>().join(separator)
    };
    let names = values.iter().map(|(name, _)| write(name)).collect::<Vec<_>>();
    let object =
        names.iter().zip(&values).map(|(name, (_, value))| format!("\"{name}\":\"{value}\"")).collect::<Vec<_>>();
    let object = format!("{{{}}}", object.join(","));
    [
        ("a.csv", format!("{}\n{}\n", names.join(","), row(",", |(_, value)| (*value).to_owned()))),
        ("a.tsv", format!("{}\n{}\n", names.join("\t"), row("\t", |(_, value)| (*value).to_owned()))),
        ("a.jsonl", object.clone()),
        ("a.json", format!("{{\"{}\":[{object}]}}", write("machines"))),
    ]
}

#[test]
fn every_option_is_understood_however_it_is_written() {
    let pascal =
        |name: &str| name.split(' ').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<Vec<_>>().concat();
    let spellings: [fn(&str) -> String; 6] = [
        |name| name.replace(' ', "_"),
        |name| name.to_uppercase(),
        |name| name.replace(' ', "-"),
        |name| name.replace(' ', ""),
        |name| format!(" {name}  "),
        pascal,
    ];
    for write in spellings {
        for (name, text) in with_names(write) {
            let row = rows(name, &text).swap_remove(0);
            let said = (row.scan_type, row.priority, row.on_pending, row.comment.as_deref(), row.tenant.as_deref());
            let expected =
                (Some(ScanType::Full), Some(Priority::High), Some(OnPending::Wait), Some("why"), Some("contoso"));
            assert_eq!(said, expected, "{text}");
            assert_eq!(row.not_before, Wall::parse("2026-10-05T22:00:00Z"), "{text}");
            assert_eq!(warnings(name, &text), Vec::<String>::new(), "{text}");
        }
    }
}

#[test]
fn header_of_a_document_is_understood_however_it_is_written() {
    let text = format!(
        r#"{{"Tenant":"contoso","NAME":"n","Scan Type":"full scan","COMMENT":"c","Priority":"low","Not-Before":
        "2026-10-05T22:00:00Z","onPending":"wait","Submitted By":{{"uid":0,"host":"h"}},"Machines":["{A}"]}}"#
    );
    let (lines, header) = take("a.json", text.as_bytes(), ALL);
    let header = header.unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!((header.tenant.as_deref(), header.name.as_deref()), (Some("contoso"), Some("n")));
    assert_eq!((header.scan_type, header.priority), (Some(ScanType::Full), Some(Priority::Low)));
    assert_eq!((header.comment.as_deref(), header.on_pending), (Some("c"), Some(OnPending::Wait)));
    assert!(header.not_before.is_some() && header.submitted_by.submitter().is_some());
}

#[test]
fn option_that_is_one_letter_off_is_refused() {
    for (slip, meant) in [("ScanTyp", "scan_type"), ("scan_tpye", "scan_type"), ("Not Befor", "not_before")] {
        let said = format!("`{slip}`: did you mean {meant}? Rename it or remove it");
        for name in ["a.csv", "a.txt"] {
            let message = unusable(name, format!("DeviceId,{slip}\n{A},Full\n"));
            assert!(message.contains(&format!("unknown column {said}")), "{message}");
        }
        let object = format!(r#"{{"machine_id":"{A}","{slip}":"Full"}}"#);
        for (name, text) in [
            ("a.jsonl", format!("{object}\n\"{B}\"\n")),
            ("a.json", format!("[{object},\"{B}\"]")),
            ("a.json", format!("{{\"value\":[{object},\"{B}\"]}}")),
        ] {
            assert_eq!(short(name, text), [format!("1 !unknown key {said}"), "2 7b1f".to_owned()], "its row alone");
        }
        assert_eq!(short("a.json", &object), [format!("1 !unknown key {said}")], "a single machine");
        let envelope = format!(r#"{{"value":["{A}"],"{slip}":"Full"}}"#);
        assert!(unusable("a.json", envelope).contains(&said));
        let document = format!(r#"{{"machines":["{A}"],"{slip}":"Full"}}"#);
        assert!(unusable("a.json", document).contains(&format!("unknown key `{slip}` (did you mean {meant}?)")));
    }
    // A value that asks for nothing changes nothing.
    assert_eq!(short("a.jsonl", format!(r#"{{"id":"{A}","ScanTyp":null,"proirity":" "}}"#)), ["1 1e5b"]);
}

#[test]
fn another_name_that_is_one_letter_off_is_a_warning() {
    let said = |what: &str| vec![format!("{what} `Comments` is unknown and was not read: did you mean comment?")];
    let object = format!(r#"{{"machine_id":"{A}","Comments":"x"}}"#);
    for (name, text, what) in [
        ("a.csv", format!("Device ID,Comments,User\n{A},x,y\n{B},x,y\n"), "column"),
        ("a.jsonl", format!("{object}\n{object}\n"), "key"),
        ("a.json", format!("[{object},{object}]"), "key"),
        ("a.json", format!(r#"{{"value":["{A}"],"Comments":"x"}}"#), "key"),
        ("a.json", object.clone(), "key"),
    ] {
        assert_eq!(warnings(name, &text), said(what), "{name} {text}");
        assert!(rows(name, &text).iter().all(|row| row.comment.is_none()));
    }
    let object = |key: &str| format!("{{\"id\":\"{A}\",\"{key}\":1}}\n");
    let many: Vec<_> = (10..99).map(|n| object(&format!("Comment{n}"))).collect();
    assert!(warnings("a.jsonl", &many.concat()).is_empty(), "two letters off");
    let many: Vec<_> = ('a'..='z').map(|c| object(&format!("Comment{c}"))).collect();
    assert_eq!(warnings("a.jsonl", &many.concat()).len(), Warnings::MOST, "and no more");
}

#[test]
fn option_given_twice_with_two_values_is_refused() {
    let no = "`scan_type` and `ScanType` are the same option and hold two values; keep one of them";
    let csv = format!("id,scan_type,ScanType\n{A},Full,Quick\n{B},Full,full\n{B},,Full\n");
    assert_eq!(short("a.csv", csv), [format!("2 !{no}"), "3 7b1f".to_owned(), "4 7b1f".to_owned()]);
    let differ = format!(r#"{{"id":"{A}","scan_type":"Full","ScanType":"Quick"}}"#);
    let same = format!(r#"{{"id":"{B}","scan_type":"Full","ScanType":"full"}}"#);
    for (name, text) in [("a.jsonl", format!("{differ}\n{same}")), ("a.json", format!("[{differ},{same}]"))] {
        assert_eq!(short(name, &text), [format!("1 !{no}"), "2 7b1f".to_owned()]);
    }
    let ids = short("a.jsonl", format!(r#"{{"id":"{A}","ID":"{B}"}}"#));
    assert!(ids[0].starts_with("1 !`id` and `ID` are the same option"), "{ids:?}");
    assert!(unusable("a.json", r#"{"scan_type":"Full","ScanType":"Quick","machines":[]}"#).contains(no));
    assert!(short("a.json", r#"{"scan_type":"Full","ScanType":"Full","machines":[]}"#).is_empty());
}

#[test]
fn option_of_a_later_version_is_refused_by_name() {
    for key in ["window", "Expires", "SELECT"] {
        let said = format!("`{key}` is not supported by this version");
        assert!(unusable("a.json", format!(r#"{{"{key}":"night","machines":["{A}"]}}"#)).contains(&said), "{key}");
        assert_eq!(short("a.json", format!(r#"{{"{key}":null,"machines":["{A}"]}}"#)), ["1 1e5b"]);
        let object = format!(r#"{{"id":"{A}","{key}":"night"}}"#);
        for (name, text) in
            [("a.csv", format!("id,{key}\n{A},night\n{B},\n")), ("a.jsonl", format!("\n{object}\n\"{B}\"\n"))]
        {
            let lines = short(name, text);
            assert!(lines[0].starts_with(&format!("2 !{said}")) && lines[1] == "3 7b1f", "{lines:?}");
        }
    }
}

#[test]
fn merged_record_is_left_out_in_every_format() {
    let into = format!("-merged into `{B}`, which is the machine's record now");
    for key in ["MergedToDeviceId", "mergedIntoMachineId", "merged_into"] {
        let csv = format!("DeviceId,{key}\n{A},{B}\n{A},\n");
        assert_eq!(short("a.csv", csv), [format!("2 {into}"), "3 1e5b".to_owned()], "{key}");
        let merged = format!(r#"{{"id":"{A}","{key}":"{B}","onboardingStatus":"Onboarded"}}"#);
        let alive = format!(r#"{{"id":"{A}","{key}":null}}"#);
        for (name, text) in [
            ("a.jsonl", format!("{merged}\n{alive}\n")),
            ("a.json", format!("[{merged},{alive}]")),
            ("a.json", format!(r#"{{"machines":[{merged},{alive}]}}"#)),
            ("a.json", format!(r#"{{"results":[{merged},{alive}]}}"#)),
        ] {
            assert_eq!(short(name, text), [format!("1 {into}"), "2 1e5b".to_owned()], "{key}");
        }
        assert_eq!(short("a.json", &merged), [format!("1 {into}")]);
        let (lines, _) = take("a.json", merged.as_bytes(), ALL);
        assert!(matches!(&lines[0], Line::NotEligible { .. }), "whatever only_onboarded says: {lines:?}");
    }
}

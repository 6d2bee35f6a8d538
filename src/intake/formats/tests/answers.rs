//! Answers of Defender's API as they are, and what PowerShell makes of them.

use super::*;

const API: &str = include_str!("../../../../tests/fixtures/intake/api_machines.json");

#[test]
fn list_of_machines_works_untouched() {
    let lines = short("machines.json", API);
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (lines[0].as_str(), lines[3].as_str()),
        ("1 1e5b", "4 !not a machine id: 40 hexadecimal digits are expected")
    );
    assert_eq!(lines[1], format!("2 -merged into `{A}`, which is the machine's record now"));
    assert_eq!(lines[2], "3 -onboarding status is `CanBeOnboarded`");
    let (all, header) = take("machines.json", API.as_bytes(), ALL);
    assert_eq!(header.unwrap(), Header::default());
    let Line::Row(first) = &all[0] else { panic!("{all:?}") };
    assert_eq!(first.name.as_deref(), Some("C-Lab-31"));
    for name in ["-", "machines", "machines.dat"] {
        assert_eq!(short(name, API), lines, "{name}");
    }
    assert_eq!(short("machines.json", utf16(API, false)), lines);
}

#[test]
fn every_envelope_is_opened() {
    let machines = format!(r#"[{{"id":"{A}","type":"Other"}},{{"DeviceId":"{B}"}},"{A}"]"#);
    for envelope in [
        r#"{"@odata.context":"https://api.security.microsoft.com/api/$metadata#Machines","value":*}"#,
        r#"{"value":*,"Count":3}"#,
        r#"{"Stats":{"ExecutionTime":4,"x":[{"id":"y"}]},"Schema":[{"Name":"DeviceId","Type":"String"}],"Results":*}"#,
        r#"{"@odata.context":"x","schema":[{"name":"DeviceId"}],"results":*}"#,
        r#"{"@odata.count":3,"VALUE":*}"#,
        "*",
        r#"{"machines":*}"#,
    ] {
        assert_eq!(short("a.json", envelope.replace('*', &machines)), ["1 1e5b", "2 7b1f", "3 1e5b"], "{envelope}");
        let (_, header) = take("a.json", envelope.replace('*', &machines).as_bytes(), ALL);
        assert!(header.unwrap().warnings.into_texts().is_empty(), "{envelope}");
    }
}

#[test]
fn single_machine_or_string_is_a_document() {
    let machine = format!(
        "{{\"@odata.context\":\"x\",\n\"id\":\"{A}\",\"computerDnsName\":\"pc\",\"ipAddresses\":[{{\"type\":\"Other\"}}],\
         \"scan_type\":\"Full\"}}"
    );
    for name in ["a.json", "-"] {
        let (lines, header) = take(name, machine.as_bytes(), ALL);
        let Line::Row(row) = &lines[0] else { panic!("{lines:?}") };
        assert_eq!((row.line, row.machine.to_string().as_str(), row.name.as_deref()), (1, A, Some("pc")));
        assert_eq!((lines.len(), header.unwrap().scan_type), (1, Some(ScanType::Full)));
    }
    assert_eq!(short("a.json", format!("\"{B}\"\n")), ["1 7b1f"]);
    assert_eq!(short("a.json", "\"x\""), ["1 !not a machine id: 40 hexadecimal digits are expected"]);
    let onboardable = format!(r#"{{"id":"{A}","onboardingStatus":"CanBeOnboarded"}}"#);
    assert_eq!(short("a.json", &onboardable), ["1 -onboarding status is `CanBeOnboarded`"]);
    assert_eq!(
        short("a.json", format!(r#"{{"id":5,"x":"{A}"}}"#)),
        ["1 !the machine id is a number; a string is expected"]
    );
    let line = format!(r#"{{"@odata.context":"x","id":"{A}"}}"#);
    assert_eq!(short("a.jsonl", format!("{line}\n{line}")), ["1 1e5b", "2 1e5b"], "lines stay machines");
}

#[test]
fn one_page_of_several_is_a_warning() {
    let link = r#""@odata.nextLink":"https://api.security.microsoft.com/api/machines?$skip=10000""#;
    for text in [format!(r#"{{"value":["{A}"],{link}}}"#), format!(r#"{{{link},"results":["{A}"]}}"#)] {
        let (lines, header) = take("a.json", text.as_bytes(), ALL);
        let warnings = header.unwrap().warnings.into_texts();
        assert_eq!((lines.len(), warnings.len()), (1, 1), "{warnings:?}");
        assert!(warnings[0].contains("one page of several"), "{warnings:?}");
    }
    let (_, last) = take("a.json", format!(r#"{{"value":["{A}"],"@odata.nextLink":null}}"#).as_bytes(), ALL);
    assert_eq!(last.unwrap(), Header::default());
}

#[test]
fn what_is_wrong_with_an_answer_is_named() {
    for (text, said) in [
        (r#"{"value":{}}"#, "`value`: invalid type: map, expected an array of machines"),
        (r#"{"results":"x"}"#, "`results`: invalid type"),
        (r#"{"machines":[],"value":[]}"#, "`machines` and `value` both hold machines; keep one of them"),
        (r#"{"Results":[],"results":[]}"#, "`Results` and `results` both hold machines"),
        (r#"{"values":[]}"#, "unknown key `values` (did you mean value?)"),
        (r#"{"id":"","machines":[]}"#, "unknown key `id`; known are tenant"),
        (r#"{"error":{"code":"Unauthorized","message":"x"}}"#, "unknown key `error`"),
        (r#"{"comment":"x"}"#, "no `machines`, and is neither an answer of Defender's API"),
        (r#"{"value":["x"],"scan_type":"deep"}"#, "`scan_type`: `deep` is not one of"),
    ] {
        let message = unusable("a.json", text);
        assert!(message.contains(said), "{text}: {message}");
    }
}

#[test]
fn answer_of_any_length_is_streamed() {
    // Beside the machines, what nobody reads may be long: it is passed over as it comes.
    let schema = vec![r#"{"Name":"DeviceId","Type":"String"}"#; 5000].join(",");
    let machines = vec![format!(r#"{{"DeviceId":"{A}"}}"#); 5000].join(",");
    let text = format!(r#"{{"Schema":[{schema}],"Results":[{machines}],"Stats":[{schema}]}}"#);
    assert_eq!(short("a.json", text).len(), 5000);
    let long = "7".repeat(1 << 20);
    assert!(
        unusable("a.json", format!(r#"{{"id":["{long}"],"computerDnsName":"{A}"}}"#)).contains("longer than 64 KiB")
    );
    let lines = short("a.json", format!(r#"{{"value":["{long}","{A}"]}}"#));
    assert_eq!((lines[0].as_str(), lines[1].as_str()), ("1 !longer than 64 KiB", "2 1e5b"));
}

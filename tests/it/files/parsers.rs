//! Each parser against a second one that is as simple as can be (`support/naive.rs`): what the two say of the same
//! bytes, in every encoding, is the same, line by line. The targets in `fuzz/` ask the same of what a fuzzer finds.

use std::fs;
use std::path::Path;

use crate::support::naive::{ENDINGS, both};
use proptest::prelude::*;

const A: &str = "1e5bc9d7e413ddd7902c2932e418702b84d0cc07";
const B: &str = "7B1F4967D9728E5AA3C06A9E617A22A4A5A17378";

/// The encodings that people's programs write.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    Plain,
    Marked,
    Little,
    Big,
}

fn encoded(text: &str, encoding: Encoding) -> Vec<u8> {
    let units = |to: fn(u16) -> [u8; 2]| std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(to).collect();
    match encoding {
        Encoding::Plain => text.as_bytes().to_vec(),
        Encoding::Marked => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        Encoding::Little => units(u16::to_le_bytes),
        Encoding::Big => units(u16::to_be_bytes),
    }
}

fn encoding() -> impl Strategy<Value = Encoding> {
    prop::sample::select(vec![Encoding::Plain, Encoding::Marked, Encoding::Little, Encoding::Big])
}

fn pieces(pieces: &[&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..most).prop_map(|pieces| pieces.concat())
}

/// Asserts that both readers say the same of it.
fn agree(ending: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let (ours, naive) = both(ending, bytes);
    prop_assert_eq!(ours, naive, ".{} of {:?}", ending, String::from_utf8_lossy(bytes));
    Ok(())
}

/// The address of a machine's page in the portal, and an id that Entra gives.
const PAGE: &str = "https://security.microsoft.com/machines/v2/7b1f4967d9728e5aa3c06a9e617a22a4a5a17378?tid=1";
const GUID: &str = "2f3a6d0e-8f0c-4a52-9c39-0a5f0f3a9b1c";

const LIST: [&str; 21] = [
    A, B, PAGE, GUID, "\n", "\n", "\r\n", " ", "\t", "#", " # why", "\"", "'", "\0", "é", "\r", "1e5b", ",", ";",
    "\u{feff}", "\u{1a}",
];
const TABLE: [&str; 30] = [
    PAGE,
    GUID,
    ",\"",
    "\n\"",
    "\nname,DeviceId\n",
    "\n#TYPE x\n",
    "\nsep=;\n",
    "\u{feff}",
    "\u{1a}",
    A,
    B,
    "\n",
    "\r\n",
    ",",
    ",",
    ";",
    "\t",
    "\"",
    "\"\"",
    "\"a,b\"",
    " ",
    "machine_id",
    "Machine-ID",
    "Onboarded",
    "Can be onboarded",
    "low",
    "asap",
    "\0",
    "é",
    "\r",
];
const JSON: [&str; 27] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    " ",
    "\"id\":",
    "\"machine_id\":",
    "\"priority\":",
    "\"onboardingStatus\":",
    "null",
    "\"low\"",
    "\"x\"",
    "12",
    "true",
    "\"1e5bc9d7e413ddd7902c2932e418702b84d0cc07\"",
    "{\"id\":\"",
    "\"}",
    A,
    "é",
    "\\u0041",
    "\"machines\":",
    "\"value\":",
    "\"proirity\":",
    "\"Device ID\":",
];
const HEADERS: [&str; 16] = [
    "sep=;\nx,y;id",
    "#TYPE a b\r\nMdatpDeviceId,name",
    "\"sep=|\"\n#type\n\nid|x",
    "id,\"name",
    "machine_id",
    "Device Name,Device ID,Onboarding Status",
    "id;DeviceId;x",
    "x\tID\tpriority",
    "id,machine_id,priority",
    "\"Device\nName\",\"Device ID\"",
    "OnboardingStatus,ID",
    "\n\nid",
    "MACHINE-ID,machine_id,Machine Id",
    "MdatpDeviceId,MergedToDeviceId,Priority,priority",
    "merged_into;id",
    "id,proirity",
];

/// Values that an object may hold, well-formed.
fn value() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![A, B, "low", "HIGH", "", "Onboarded", "Unsupported", "\\u0031", "\\n", "é"]);
    let id = prop::sample::select(vec![A, B]).prop_map(|id| format!("\"{id}\""));
    let leaf = prop_oneof![
        3 => id,
        2 => text.prop_map(|text| format!("\"{text}\"")),
        1 => prop::sample::select(vec!["null", "1", "-2.5", "true", "[]", "{}"]).prop_map(str::to_owned),
    ];
    let key = prop::sample::select(vec![
        "id",
        "Machine_ID",
        "machine id",
        "DeviceId",
        "MdatpDeviceId",
        "priority",
        "Priority",
        "proirity",
        "onboardingStatus",
        "mergedIntoMachineId",
        "name",
        "x",
    ]);
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
            prop::collection::btree_map(key.clone(), inner, 0..4).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn lists_are_read_as_a_naive_reader_reads_them(text in pieces(&LIST, 30), encoding in encoding()) {
        agree("txt", &encoded(&text, encoding))?;
    }

    #[test]
    fn tables_are_read_as_a_naive_reader_reads_them(
        header in prop::sample::select(HEADERS.to_vec()),
        text in pieces(&TABLE, 40),
        encoding in encoding(),
    ) {
        agree("csv", &encoded(&format!("{header}\n{text}"), encoding))?;
        agree("txt", &encoded(&format!("{header}\n{text}"), encoding))?;
        agree("csv", &encoded(&text, encoding))?;
    }

    #[test]
    fn json_lines_are_read_as_a_naive_reader_reads_them(
        values in prop::collection::vec(value(), 0..6),
        noise in pieces(&JSON, 12),
        encoding in encoding(),
    ) {
        agree("jsonl", &encoded(&format!("{}\n{noise}\r\n{}", values.join("\n"), values.join("\n\n")), encoding))?;
    }

    #[test]
    fn documents_are_read_as_a_naive_reader_reads_them(
        values in prop::collection::vec(value(), 0..6),
        noise in pieces(&JSON, 12),
        encoding in encoding(),
    ) {
        let machines = values.join(", ");
        let single = values.first().cloned().unwrap_or_default();
        for text in [
            format!("{{\"@odata.context\": \"x\", \"value\": [{machines}]}}"),
            format!("{{\"Stats\": {{\"id\": [{machines}]}}, \"Results\": [{machines}], \"Schema\": [{machines}]}}"),
            format!("{{\"value\": [{machines}], \"x\": {{}}, \"proirity\": \"low\"}}"),
            format!("{{\"machines\": [], \"Value\": [{machines}]}}"),
            single,
            format!("[{machines}]"), format!("{{\n\"machines\" : [{machines}]}}"), format!("[{machines}{noise}"), noise] {
            agree("json", &encoded(&text, encoding))?;
        }
    }

    #[test]
    fn any_bytes_are_read_as_a_naive_reader_reads_them(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        mark in prop::sample::select(vec![&b""[..], b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"machine_id\n"]),
    ) {
        for ending in ENDINGS {
            agree(ending, &[mark, &bytes].concat())?;
        }
    }
}

/// What the fuzzer begins with, and whatever it once found.
#[test]
fn the_corpus_of_the_fuzzer_is_read_as_a_naive_reader_reads_it() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for ending in ENDINGS {
        let files = fs::read_dir(corpus.join(ending)).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        assert!(files.len() >= 3, "the corpus of {ending} is gone");
        for file in files {
            let (ours, naive) = both(ending, &fs::read(&file).unwrap());
            assert_eq!(ours, naive, "{}", file.to_str().unwrap());
        }
    }
}

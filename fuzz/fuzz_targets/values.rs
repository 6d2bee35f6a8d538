//! Values of the configuration, of rows and of headers, of any text: read without a panic, within their bounds, and
//! what is written is read as the same again.

#![no_main]

use sweepd::config::{read_as_certificate, read_as_everything};
use sweepd::domain::id::{MachineId, SweepId, TenantName};
use sweepd::domain::sweep::{OnPending, Priority, ScanType, clean_comment};
use sweepd::domain::throttle::{milliseconds, seconds, told};
use sweepd::domain::time::Wall;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_as_certificate(bytes);
    let text = String::from_utf8_lossy(bytes);
    read_as_everything(&text);
    if let Ok(id) = text.parse::<MachineId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
        assert_eq!(MachineId::from_bytes(*id.bytes()), id);
    }
    if let Ok(name) = text.parse::<TenantName>() {
        assert!(name.as_str() == text && !text.contains(['/', '.', '\0']), "it is a folder's name");
    }
    if let Ok(id) = text.parse::<SweepId>() {
        assert_eq!(id.to_string().parse::<SweepId>().unwrap(), id);
    }
    if let Some(at) = Wall::parse(&text) {
        assert_eq!(Wall::parse(&at.rfc3339()), Some(at));
    }
    if let Ok(comment) = clean_comment(&text) {
        assert!(!comment.chars().any(char::is_control) && comment.chars().count() <= 1000, "{comment:?}");
    }
    for word in [
        text.parse::<ScanType>().map(|word| word.as_str()).map_err(|error| error.to_string()),
        text.parse::<Priority>().map(|word| word.as_str()).map_err(|error| error.to_string()),
        text.parse::<OnPending>().map(|word| word.as_str()).map_err(|error| error.to_string()),
    ] {
        match word {
            Ok(word) => assert!(word.eq_ignore_ascii_case(text.trim())),
            Err(why) => assert!(!why.chars().any(char::is_control), "{why:?}"),
        }
    }
    let (wait, precise) = (seconds(&text), milliseconds(&text));
    assert_eq!(wait.is_some(), precise.is_some());
    assert!(told(wait, &text).wait.is_none_or(|wait| !wait.is_zero()));
});

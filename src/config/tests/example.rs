//! The example and the code say the same.

use super::*;

const EXAMPLE: &str = include_str!("../../../config/sweepd.example.toml");

/// `key = value` of a line, commented out or not.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
    let named = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    named.then_some((key, value))
}

/// The name of a section that is commented out as a whole.
fn hidden_section(line: &str) -> Option<&str> {
    line.strip_prefix("# [")?.strip_suffix(']')
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let mut section = String::new();
    let mut shown = BTreeMap::new();
    let (mut explained, mut hidden, mut required) = (false, false, false);
    for line in EXAMPLE.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').replace("contoso", "NAME");
            hidden = false;
        } else if let Some(name) = hidden_section(line) {
            section = name.replace("shared", "NAME");
            hidden = true;
        } else if let Some((key, value)) = setting(line) {
            assert!(explained, "{line} has no explanation");
            let plain = value.trim_matches(['[', ']']).replace('"', "");
            // In a section that is commented out, so is what is required.
            let default = (line.starts_with('#') && !(hidden && required)).then_some(plain);
            shown.insert(format!("{section}.{key}"), default);
        }
        required = line.ends_with("required.");
        explained = line.starts_with("# ") && setting(line).is_none();
    }
    let known: BTreeMap<_, _> = known_keys().into_iter().map(|key| (key.path, key.default)).collect();
    assert_eq!(shown, known);
}

#[test]
fn the_examples_defaults_are_the_defaults() {
    let house = House::new(EXAMPLE);
    house.put("contoso-secret", "s3cret");
    let short = house.good();
    let mut hidden = false;
    let lines = EXAMPLE.lines().map(|line| {
        hidden = hidden_section(line).is_some() || hidden && !line.starts_with('[');
        match setting(line).filter(|_| !hidden) {
            Some((key, value)) => format!("{key} = {value}\n"),
            None => format!("{line}\n"),
        }
    });
    house.put("sweepd.toml", &lines.collect::<String>());
    assert_eq!(format!("{:?}", house.good()), format!("{short:?}"));
}

//! The house rules, held against the source tree: which room may know which, how long a file may
//! be, where SQL and HTTP live, what is not written at all, and that every guarantee names a test
//! that exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may name. What is not listed may not be imported; the order is from the
/// outside in, and no room may name one above it, so no chain of imports leads back out.
const ARROWS: [(&str, &[&str]); 16] = [
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "engine",
            "web",
            "simulator",
            "store",
            "defender",
            "budget",
            "intake",
            "config",
            "health",
            "metrics",
            "process",
            "clock",
            "domain",
        ],
    ),
    (
        "app",
        &[
            "engine",
            "web",
            "simulator",
            "store",
            "defender",
            "budget",
            "intake",
            "config",
            "health",
            "metrics",
            "clock",
            "domain",
        ],
    ),
    ("engine", &["store", "defender", "budget", "intake", "config", "health", "metrics", "clock", "domain"]),
    ("web", &["store", "health", "metrics", "clock", "domain"]),
    // What it carries in process is what the client sends.
    ("simulator", &["defender", "clock", "domain"]),
    ("store", &["clock", "domain"]),
    // Of the configuration, the API's client reads how a tenant signs in and nothing else.
    ("defender", &["config", "clock", "domain"]),
    ("budget", &["clock", "domain"]),
    ("intake", &["clock", "domain"]),
    ("config", &["domain"]),
    ("health", &["clock", "domain"]),
    ("metrics", &[]),
    ("process", &[]),
    ("clock", &["domain"]),
    ("domain", &[]),
];

/// The longest file that is still read in one go, its tests included.
const LINES_AT_MOST: usize = 500;

/// Names that say nothing: a thing lives with what it is about.
const EMPTY_NAMES: [&str; 9] = ["utils", "util", "helpers", "helper", "common", "types", "manager", "managers", "misc"];

/// One file below `src/`.
struct Source {
    /// Relative to the crate, with `/`.
    path: String,
    /// As it is written.
    text: String,
    /// With comments and literals blanked out: line numbers stay.
    code: String,
    /// With its test modules blanked out too; empty if all of it is a test.
    shipped: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join("src"), &mut paths);
    paths.sort();
    let mut sources = Vec::new();
    let mut tests = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        let code = blank(&text);
        let (shipped, test_modules) = without_tests(&code);
        tests.extend(test_modules.iter().map(|name| format!("{}/{name}", folder_of_children(&path))));
        sources.push(Source { path, text, code, shipped });
    }
    for source in &mut sources {
        if tests.iter().any(|test| source.path == format!("{test}.rs") || source.path.starts_with(&format!("{test}/")))
        {
            source.shipped.clear();
        }
    }
    assert!(sources.len() > 50, "the source tree was not found");
    sources
}

/// Where the modules that a file declares live.
fn folder_of_children(path: &str) -> &str {
    let stem = path.trim_end_matches(".rs");
    ["/mod", "/lib", "/main"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem)
}

/// Blanks comments, strings and characters, keeping every line where it is.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let find = |what: &[char], from: usize| {
        (from..rest.len()).find(|i| rest[*i..].starts_with(what)).map_or(rest.len(), |i| i + what.len())
    };
    let length = match rest {
        ['/', '/', ..] => find(&['\n'], 2) - 1,
        ['/', '*', ..] => find(&['*', '/'], 2),
        ['r', '"' | '#', ..] if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return at;
            }
            let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            find(&end, 2 + hashes)
        }
        ['"', ..] => {
            let mut i = 1;
            while i < rest.len() && rest[i] != '"' {
                i += if rest[i] == '\\' { 2 } else { 1 };
            }
            (i + 1).min(rest.len())
        }
        ['\'', '\\', ..] => find(&['\''], 3),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    };
    at + length
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Blanks what stands under `#[cfg(test)]`, and names the modules that are declared there. Relies
/// on rustfmt: an item ends at its own indentation.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let lines: Vec<&str> = code.lines().collect();
    let mut keep = vec![true; lines.len()];
    let mut modules = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        for (m, line) in lines.iter().enumerate().skip(n) {
            keep[m] = false;
            let item = line.trim();
            if let Some(name) = item.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                modules.push(name.to_owned());
            }
            if *line == close || item.ends_with(';') && line.len() - line.trim_start().len() == indent {
                break;
            }
        }
    }
    let kept: Vec<&str> = lines.iter().zip(keep).map(|(line, keep)| if keep { *line } else { "" }).collect();
    (kept.join("\n"), modules)
}

/// The words and marks of some code, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (n, line) in code.lines().enumerate() {
        let mut in_word = false;
        for c in line.chars() {
            if in_word && is_word(c) {
                tokens.last_mut().unwrap().1.push(c);
            } else if !c.is_whitespace() {
                tokens.push((n + 1, c.to_string()));
            }
            in_word = is_word(c);
        }
    }
    tokens
}

/// The room that a file belongs to.
fn room(path: &str) -> &str {
    let inner = path.trim_start_matches("src/");
    inner.split('/').next().unwrap().trim_end_matches(".rs")
}

/// How many modules deep the module of a file is: `src/store/slots.rs` is at 2.
fn depth(path: &str) -> usize {
    folder_of_children(path).matches('/').count()
}

/// The rooms that a file names, each with a line: by `crate::`, in a group or alone, by the
/// library's name, and by `super::` that reach the root.
fn named_rooms(source: &Source) -> Vec<(usize, String)> {
    let tokens = tokens(&source.shipped);
    let word = |at: usize| tokens.get(at).map_or("", |(_, token)| token.as_str());
    let path_sep = |at: usize| word(at) == ":" && word(at + 1) == ":";
    let mut named = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let from_root = if (word(at) == "crate" || word(at) == "sweepd") && path_sep(at + 1) {
            Some(at + 3)
        } else if word(at) == "super" && path_sep(at + 1) {
            let mut end = at;
            while word(end) == "super" && path_sep(end + 1) {
                end += 3;
            }
            let reaches_the_root = (end - at) / 3 >= depth(&source.path);
            at = end - 1;
            reaches_the_root.then_some(end)
        } else {
            None
        };
        if let Some(start) = from_root {
            named.extend(first_names(&tokens, start));
        }
        at += 1;
    }
    named
}

/// The name at `start`, or the first name of each path in the group that begins there.
fn first_names(tokens: &[(usize, String)], start: usize) -> Vec<(usize, String)> {
    if tokens.get(start).is_none_or(|(_, token)| token != "{") {
        return tokens.get(start).cloned().into_iter().collect();
    }
    let mut names = Vec::new();
    let mut deep = 0_usize;
    let mut before = "";
    for (line, token) in &tokens[start..] {
        match token.as_str() {
            "{" => deep += 1,
            "}" => deep -= 1,
            word if deep == 1 && matches!(before, "{" | ",") => names.push((*line, word.to_owned())),
            _ => {}
        }
        before = token;
        if deep == 0 {
            break;
        }
    }
    names
}

fn allowed(room: &str) -> &'static [&'static str] {
    ARROWS.iter().find(|(name, _)| *name == room).map_or(&[], |(_, allowed)| allowed)
}

fn hold(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}

#[test]
fn rooms_name_only_what_lies_further_in() {
    let rooms: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let mut broken = Vec::new();
    for source in sources() {
        let here = room(&source.path);
        if here == "lib" {
            continue;
        }
        if !rooms.contains(here) {
            broken
                .push(format!("{}: `{here}` is no room: add it to ARROWS, and to the map in src/lib.rs", source.path));
        }
        for (line, there) in named_rooms(&source) {
            if rooms.contains(there.as_str()) && there != here && !allowed(here).contains(&there.as_str()) {
                broken.push(format!(
                    "{}:{line}: `{here}` must not know `{there}`: hand the value in from app or engine, or move the \
                     type to domain",
                    source.path
                ));
            }
        }
    }
    hold("The import rule (docs: the map in src/lib.rs)", &broken);
}

#[test]
fn no_chain_of_allowed_imports_leads_back() {
    let order: BTreeMap<&str, usize> = ARROWS.iter().enumerate().map(|(n, (name, _))| (*name, n)).collect();
    let mut broken = Vec::new();
    for (from, allowed) in ARROWS {
        for to in allowed {
            if order[to] <= order[from] {
                broken.push(format!("ARROWS: `{from}` → `{to}` points outward; rooms are listed from the outside in"));
            }
        }
    }
    hold("The import rule has no circle", &broken);
}

#[test]
fn every_room_stands_on_the_map() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let broken: Vec<String> = ARROWS
        .iter()
        .filter(|(name, _)| *name != "main" && !map.contains(&format!("mod {name};")))
        .map(|(name, _)| format!("src/lib.rs: `{name}` is missing: declare it, or take it out of ARROWS"))
        .collect();
    hold("The map", &broken);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let broken: Vec<String> = sources()
        .iter()
        .map(|source| (&source.path, source.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_AT_MOST)
        .map(|(path, lines)| {
            format!("{path}:{LINES_AT_MOST}: {lines} lines: split it by what its parts are about, tests included")
        })
        .collect();
    hold("Files have at most 500 lines", &broken);
}

#[test]
fn modules_are_named_after_what_they_are_about() {
    let mut broken = Vec::new();
    for source in sources() {
        let stem = folder_of_children(&source.path).rsplit('/').next().unwrap().to_owned();
        let words = tokens(&source.code);
        let declared = words.windows(2).filter(|pair| pair[0].1 == "mod").map(|pair| pair[1].clone());
        for (line, name) in std::iter::once((1, stem)).chain(declared) {
            if EMPTY_NAMES.contains(&name.as_str()) {
                broken
                    .push(format!("{}:{line}: `{name}` says nothing: name the module after its subject", source.path));
            }
        }
    }
    hold("No module is a drawer", &broken);
}

#[test]
fn sql_lives_in_the_store_and_outgoing_http_in_the_client() {
    let mut broken = Vec::new();
    for (word, home, remedy) in [
        ("sqlx", "store", "ask the store for it with a method of its own"),
        ("reqwest", "defender", "call through the client, which takes a slot for each request; parse URLs elsewhere"),
    ] {
        for source in sources().iter().filter(|source| room(&source.path) != home) {
            for (line, _) in tokens(&source.shipped).iter().filter(|(_, token)| token == word) {
                broken.push(format!("{}:{line}: `{word}` outside src/{home}/: {remedy}", source.path));
            }
        }
    }
    hold("SQL only in store, outgoing HTTP only in defender", &broken);
}

/// Microsoft ends these calls on 2027-02-01.
#[test]
fn calls_that_end_are_not_built_on() {
    let ending = ["advancedqueries", "advancedhunting"];
    let broken: Vec<_> = sources()
        .into_iter()
        .filter(|source| ending.iter().any(|call| source.text.to_ascii_lowercase().contains(call)))
        .map(|source| source.path)
        .collect();
    hold("a call that ends on 2027-02-01 is not built on", &broken);
}

#[test]
fn nothing_unfinished_or_unsafe_is_kept() {
    let mut broken = Vec::new();
    for source in sources() {
        let words = tokens(&source.code);
        for (n, (line, token)) in words.iter().enumerate() {
            let is_macro = words.get(n + 1).is_some_and(|(_, next)| next == "!");
            let remedy = match token.as_str() {
                "unsafe" => "find a safe interface: std, nix",
                "todo" | "unimplemented" if is_macro => "finish it, or leave it out and say so in the documentation",
                "dbg" if is_macro => "remove it, or log with tracing",
                _ => continue,
            };
            broken.push(format!("{}:{line}: `{token}`: {remedy}", source.path));
        }
    }
    hold("No unsafe, todo!, unimplemented!, dbg!", &broken);
}

#[test]
fn every_module_says_what_it_is_for() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| !source.text.starts_with("//!") && !source.path.ends_with("/tests.rs"))
        .map(|source| format!("{}:1: begin with a `//!` sentence that says what the module is for", source.path))
        .collect();
    hold("Every module has a first sentence", &broken);
}

/// Whether a file has a test of this name that runs.
fn has_test(file: &Path, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(file) else { return false };
    let code = blank(&text);
    let lines: Vec<&str> = code.lines().collect();
    lines.iter().enumerate().any(|(n, line)| {
        let declared = line.trim().trim_start_matches("async ");
        let is_it = declared.strip_prefix("fn ").is_some_and(|rest| rest.starts_with(&format!("{name}(")));
        let attributes: Vec<&str> =
            lines[..n].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with("#[")).collect();
        is_it
            && attributes.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
            && !attributes.iter().any(|line| line.starts_with("#[ignore"))
    })
}

#[test]
fn every_guarantee_names_living_tests() {
    const FILE: &str = "docs/GUARANTEES.md";
    let text = fs::read_to_string(root().join(FILE)).unwrap();
    let mut owned: BTreeMap<u32, usize> = (1..=7).map(|law| (law, 0)).collect();
    let mut law = None;
    let mut broken = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            law = heading.split('.').next().and_then(|number| number.parse::<u32>().ok());
        }
        let tests: Vec<(&str, &str)> =
            line.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once(".rs::")).collect();
        if line.trim_start().starts_with("- test:") && tests.is_empty() {
            broken.push(format!("{FILE}:{}: name the test as `path/from/the/root.rs::test_name`", n + 1));
        }
        for (file, name) in tests {
            if has_test(&root().join(format!("{file}.rs")), name) {
                law.and_then(|law| owned.get_mut(&law)).into_iter().for_each(|count| *count += 1);
            } else {
                broken.push(format!(
                    "{FILE}:{}: there is no test `{name}` in {file}.rs that runs: write it, or name the one that holds \
                     the promise now",
                    n + 1
                ));
            }
        }
    }
    for (law, tests) in owned {
        if tests == 0 {
            broken.push(format!("{FILE}: law {law} names no test: a promise that nothing holds is none"));
        }
    }
    hold("Every guarantee has a test", &broken);
}

#[test]
fn these_rules_read_the_code_and_not_what_is_said_about_it() {
    let text = "//! unsafe\nuse crate::{store::Store, domain::{id::JobId, job}};\nlet a = \"dbg!\"; let b = 'x'; /* todo!() */\n\
                let c: &'static str = r#\"unsafe \" \"#;\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\nfn f() { super::super::web::g(); }\n";
    let code = blank(text);
    let (shipped, _) = without_tests(&code);
    assert!(!code.contains("unsafe") && !code.contains("dbg") && !code.contains("todo"));
    assert!(code.contains("'static str") && code.contains("crate::cli") && !shipped.contains("crate::cli"));
    let source = Source { path: "src/engine/x.rs".to_owned(), text: String::new(), code, shipped };
    let named: Vec<(usize, String)> = named_rooms(&source);
    let expected = [(2, "store"), (2, "domain"), (9, "web")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(named, expected);
    assert_eq!(without_tests("#[cfg(test)]\nmod tests;\nmod values;\n").1, ["tests"]);
}

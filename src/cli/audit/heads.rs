//! Heads of the record that were kept outside, against the record.

use std::collections::BTreeMap;

/// The longest file of heads: two a hour for more than twelve years.
pub const LARGEST: u64 = 16 * 1024 * 1024;

/// What a head is compared with.
const HEX_DIGITS: usize = 64;

/// A head that was kept, and where it is from, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    hash: String,
    from: String,
}

/// What was kept, what of it was met, and the first that was not as it was kept.
#[derive(Debug, Default)]
pub struct Heads {
    of_event: BTreeMap<i64, Kept>,
    /// Of which event is not known: by hash, where they are from, and the event once it was met.
    bare: BTreeMap<String, (String, Option<i64>)>,
    met: usize,
    youngest: Option<i64>,
    differs: Option<String>,
}

/// What was kept contradicts itself: the record was rewritten between the two.
#[derive(Debug, PartialEq, Eq)]
pub struct Contradiction(pub String);

impl Heads {
    /// Adds a head of which the event is known.
    pub fn add(&mut self, seq: i64, hash: &str, from: String) -> Result<(), Contradiction> {
        let hash = hash.to_ascii_lowercase();
        if let Some(known) = self.of_event.get(&seq).filter(|known| known.hash != hash) {
            return Err(Contradiction(format!(
                "{from} and {} are different heads of event {seq}: the record was rewritten between the two, or they \
                 are of different records; compare both with where they were kept",
                known.from
            )));
        }
        self.of_event.entry(seq).or_insert(Kept { hash, from });
        Ok(())
    }

    /// Adds a head of which the event is not known.
    pub fn add_bare(&mut self, hash: &str, from: String) {
        self.bare.entry(hash.to_ascii_lowercase()).or_insert((from, None));
    }

    /// Adds the heads of a file, called `name`: `SEQ HASH` or `HASH` on a line, blank ones left out.
    pub fn add_file(&mut self, name: &str, text: &str) -> Result<(), FileError> {
        for (line, text) in (1..).zip(text.lines()) {
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            let from = format!("{name} line {line}");
            let wrong = |why: &str| FileError::Line(format!("{from}: {why}; write SEQ HASH, or HASH alone"));
            match words.as_slice() {
                [] => {}
                [hash] => {
                    let hash = hash_of(hash).map_err(|why| wrong(&why))?;
                    self.add_bare(hash, from);
                }
                [seq, hash] => {
                    let seq = seq.parse().ok().filter(|seq| *seq > 0);
                    let seq = seq.ok_or_else(|| wrong("the first word is no number of an event"))?;
                    let hash = hash_of(hash).map_err(|why| wrong(&why))?;
                    self.add(seq, hash, from).map_err(FileError::Contradiction)?;
                }
                more => return Err(wrong(&format!("it has {} words", more.len()))),
            }
        }
        Ok(())
    }

    /// An event of the record, with its hash.
    pub fn meet(&mut self, seq: i64, hash: &str) {
        let known = self.bare.get_mut(hash);
        let is_bare = known.is_some();
        if let Some((_, event)) = known {
            *event = Some(seq);
        }
        match self.of_event.get(&seq) {
            Some(kept) if kept.hash != hash => {
                let found = format!(
                    "event {seq} is not the one whose head was kept ({}): the record was rewritten after that, or is \
                     another one",
                    kept.from
                );
                self.differs.get_or_insert(found);
            }
            None if !is_bare => {}
            Some(_) | None => {
                self.met += 1;
                self.youngest = self.youngest.max(Some(seq));
            }
        }
    }

    /// The first head that the record does not hold, which ends with event `end`.
    pub fn missing(&self, end: i64) -> Option<String> {
        let beyond = || {
            let (seq, kept) = self.of_event.last_key_value().filter(|(seq, _)| **seq > end)?;
            let Kept { hash, from } = kept;
            Some(format!(
                "the record ends with event {end}, and event {seq} with the head {hash} was kept ({from}): its end was \
                 cut off, or an older copy was put in its place"
            ))
        };
        let unknown = || {
            let (hash, (from, _)) = self.bare.iter().find(|(_, (_, event))| event.is_none())?;
            Some(format!(
                "the record does not hold the head {hash} ({from}): it was cut or rewritten after that was kept"
            ))
        };
        self.differs.clone().or_else(beyond).or_else(unknown)
    }

    /// How many were met.
    pub const fn met(&self) -> usize {
        self.met
    }

    /// The youngest event whose head was met.
    pub const fn youngest(&self) -> Option<i64> {
        self.youngest
    }

    /// Which event has this hash, of a head that was added without it.
    pub fn event_of(&self, hash: &str) -> Option<i64> {
        self.bare.get(&hash.to_ascii_lowercase())?.1
    }
}

/// Why a file of heads cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum FileError {
    /// A line is none.
    Line(String),
    /// It contradicts itself, or what was kept elsewhere.
    Contradiction(Contradiction),
}

/// A word that is a head.
pub fn hash_of(word: &str) -> Result<&str, String> {
    if word.len() == HEX_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(word);
    }
    let start: String = word.chars().take(HEX_DIGITS).map(|c| if c.is_control() { '?' } else { c }).collect();
    let dots = if word.chars().count() > HEX_DIGITS { "…" } else { "" };
    Err(format!("{start}{dots}: a head has {HEX_DIGITS} hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(digits: &str) -> String {
        digits.repeat(HEX_DIGITS / digits.len())
    }

    /// A record of three events.
    fn met(mut heads: Heads) -> Heads {
        for (seq, digits) in [(1, "a1"), (2, "b2"), (3, "c3")] {
            heads.meet(seq, &hash(digits));
        }
        heads
    }

    #[test]
    fn heads_that_the_record_holds_are_met() {
        let mut heads = Heads::default();
        let text = format!("1 {}\n\n00000000000000000002 {}\r\n  {}  \n", hash("a1"), hash("B2"), hash("C3"));
        heads.add_file("heads.txt", &text).unwrap();
        let heads = met(heads);
        assert_eq!(heads.missing(3), None);
        assert_eq!((heads.met(), heads.youngest(), heads.event_of(&hash("C3"))), (3, Some(3), Some(3)));
    }

    #[test]
    fn a_head_that_the_record_does_not_hold_is_a_finding() {
        for (line, found) in [
            (format!("2 {}", hash("d4")), "event 2 is not the one whose head was kept (heads.txt line 1)"),
            (format!("4 {}", hash("d4")), "the record ends with event 3, and event 4"),
            (hash("d4"), "the record does not hold the head d4d4"),
        ] {
            let mut heads = Heads::default();
            heads.add_file("heads.txt", &line).unwrap();
            let missing = met(heads).missing(3).unwrap();
            assert!(missing.contains(found), "{missing}");
        }
    }

    #[test]
    fn two_heads_of_one_event_are_the_finding_themselves() {
        let mut heads = Heads::default();
        let text = format!("2 {}\n2 {}\n2 {}\n", hash("b2"), hash("B2"), hash("d4"));
        let Err(FileError::Contradiction(Contradiction(found))) = heads.add_file("heads.txt", &text) else {
            panic!("it was not found");
        };
        assert!(found.starts_with("heads.txt line 3 and heads.txt line 1 are different heads of event 2"), "{found}");
    }

    #[test]
    fn a_line_that_is_no_head_is_named() {
        for (line, why) in [
            ("7", "7: a head has 64 hexadecimal digits"),
            (&*format!("x {}", hash("a1")), "the first word is no number of an event"),
            (&*format!("0 {}", hash("a1")), "the first word is no number of an event"),
            (&*format!("1 {}g", &hash("a1")[1..]), "a head has 64"),
            (&*format!("1 {} more", hash("a1")), "it has 3 words"),
            (&*"ä".repeat(1000), "ä…: a head has 64"),
        ] {
            let error = Heads::default().add_file("heads.txt", &format!("\n{line}\n")).unwrap_err();
            let FileError::Line(error) = error else { panic!("{error:?}") };
            assert!(error.starts_with("heads.txt line 2: ") && error.contains(why), "{error}");
        }
    }
}

//! Log lines in the journal's own protocol: a datagram a line, with its fields.
//!
//! `journalctl` shows the message alone unless it is asked for more, so whose line it is goes before it, and what else
//! there is behind it, as in the text on a terminal. Each field is there to be asked for too, as `SWEEPD_TENANT`, `SWEEPD_SWEEP` and so on. A line that the journal does not take goes to standard error,
//! which systemd connects to it too.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _, stderr};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Before the name of each field of ours.
const PREFIX: &str = "SWEEPD_";

/// Writes every line to the journal.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    /// The journal of this machine.
    pub fn new() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(socket: &Path) -> io::Result<Self> {
        let datagrams = UnixDatagram::unbound()?;
        datagrams.connect(socket)?;
        Ok(Self(datagrams))
    }
}

/// The parts of a line.
#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(String, String)>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push((field.name().to_owned(), value.to_owned()));
        }
    }
}

impl Line {
    /// The message, after the name of the tenant that it is about, and before the other fields.
    fn readable(&self) -> String {
        let mut text = String::new();
        for (_, tenant) in self.fields.iter().filter(|(name, value)| name == "tenant" && !value.is_empty()) {
            text.push_str(tenant);
            text.push_str(": ");
        }
        text.push_str(&self.message);
        for (name, value) in self.fields.iter().filter(|(name, value)| name != "tenant" && !value.is_empty()) {
            // Writing to a string does not fail.
            write!(text, " {name}={}", value.replace('\n', " ")).unwrap_or_default();
        }
        text
    }

    /// As journald reads it.
    fn datagram(&self, event: &Event<'_>) -> Vec<u8> {
        let mut datagram = Vec::new();
        put(&mut datagram, "MESSAGE", &self.readable());
        put(&mut datagram, "PRIORITY", priority(*event.metadata().level()));
        put(&mut datagram, "SYSLOG_IDENTIFIER", "sweepd");
        put(&mut datagram, "TARGET", event.metadata().target());
        for (name, value) in &self.fields {
            put(&mut datagram, &format!("{PREFIX}{}", name.to_ascii_uppercase()), value);
        }
        datagram
    }
}

/// The numbers of syslog; what is told at `info` is worth a notice.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        Level::TRACE => "7",
    }
}

/// A value of several lines goes with its length, so that none of them is taken for a field.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if self.0.send(&line.datagram(event)).is_err() {
            let level = priority(*event.metadata().level());
            // There is nowhere left to say that this failed too.
            writeln!(stderr(), "<{level}>{}", line.readable().replace('\n', " ")).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What journald receives of what is logged.
    fn received(log: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), log);
        let mut datagram = vec![0; 1 << 16];
        let length = journald.recv(&mut datagram).unwrap();
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    }

    #[test]
    fn a_line_in_the_journal_reads_alone_and_has_its_fields() {
        let received = received(|| tracing::warn!(tenant = "contoso", seconds = 40_u64, "no call for a while"));
        let lines: Vec<_> = received.lines().collect();
        for line in [
            "MESSAGE=contoso: no call for a while seconds=40",
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=sweepd",
            "SWEEPD_TENANT=contoso",
            "SWEEPD_SECONDS=40",
        ] {
            assert!(lines.contains(&line), "{line}: {received}");
        }
    }

    #[test]
    fn a_value_of_several_lines_makes_no_field() {
        let received = received(|| tracing::error!(why = "one\nPRIORITY=0", "it failed"));
        assert!(received.contains("SWEEPD_WHY\n\u{e}\0\0\0\0\0\0\0one\nPRIORITY=0\n"), "{received:?}");
        assert!(received.contains("MESSAGE=it failed why=one PRIORITY=0\n"), "about no tenant: {received:?}");
    }
}

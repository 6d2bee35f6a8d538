//! What the service manager that started this process is told (`NOTIFY_SOCKET`).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use sd_notify::NotifyState;

use crate::clock::Clock;
use crate::domain::shown::ShownPath;
use crate::health::Health;

/// The socket to send to; `None` where no service manager wants to know.
fn socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// Tells the service manager, if there is one. What cannot be sent is logged.
pub fn tell(states: &[NotifyState<'_>]) {
    let Some(socket) = socket() else { return };
    if let Err(error) = send(&socket, states) {
        warn(&socket, states, &error);
    }
}

fn warn(socket: &OsStr, states: &[NotifyState<'_>], error: &io::Error) {
    let state = states.first().map(ToString::to_string).unwrap_or_default();
    tracing::warn!(
        state, socket = %ShownPath::new(socket), %error,
        "the service manager could not be told: systemd ends a service from which it hears no READY=1 within TimeoutStartSec, \
         or no WATCHDOG=1 within WatchdogSec; make the socket that NOTIFY_SOCKET names reachable, or start sweepd without \
         that variable and with Type=exec"
    );
}

/// Feeds systemd's watchdog as long as no loop is stuck.
pub async fn feed_watchdog(health: Health, clock: Arc<dyn Clock>) {
    let (Some(patience), Some(socket)) = (sd_notify::watchdog_enabled(), socket()) else { return };
    let mut was_heard = true;
    loop {
        let stuck = health.stuck();
        if stuck.is_empty() {
            let sent = send(&socket, &[NotifyState::Watchdog]);
            // What fails at every turn is logged at the first.
            if let Err(error) = &sent
                && was_heard
            {
                warn(&socket, &[NotifyState::Watchdog], error);
            }
            was_heard = sent.is_ok();
        } else {
            tracing::error!(loops = stuck.join(", "), "loops are stuck; systemd restarts this process");
        }
        clock.sleep_until(clock.boot() + patience / 3).await;
    }
}

/// Sends to the service manager's socket: a path, or an abstract name, which has `@` before it.
fn send(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // sd_notify 0.5 takes such a name for a path.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    }?;
    let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
    let message = lines.join("\n") + "\n";
    let sent = UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_reaches_a_path_and_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("sweepd-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, named) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            send(&named, &[NotifyState::Ready, NotifyState::Status("ready")]).unwrap();
            let mut message = [0; 100];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(std::str::from_utf8(&message[..length]).unwrap(), "READY=1\nSTATUS=ready\n");
        }
    }

    #[test]
    fn message_that_reaches_no_socket_is_an_error() {
        let long = format!("/{}", "n".repeat(200));
        for socket in ["/nowhere/at-all", "@sweepd-test-nobody", &long, &long.replace('/', "@"), "vsock:2:1234"] {
            assert!(send(OsStr::new(socket), &[NotifyState::Ready]).is_err(), "{socket}");
        }
    }
}

#!/usr/bin/env bash
# What: sd-notify, the Rust crate that tells systemd `READY=1`, takes an abstract address in NOTIFY_SOCKET (`@name`, as
#   sd_notify(3) has it) for the name of a file in the current folder. A listener at the abstract address is told nothing.
# Why it matters: service managers and containers that give an abstract address wait for a service that runs, until
#   their patience is over, and the program that ignores the error never learns of it.
# Instead: look at the first character of NOTIFY_SOCKET oneself, and send to an abstract address with std's
#   `SocketAddr::from_abstract_name`; treat an error of `notify` as worth a warning.
# Needs: cargo.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "surprise"
version = "0.0.0"
edition = "2024"
[dependencies]
sd-notify = "=0.5.0"
[workspace]
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

fn main() {
    let address = std::env::var("NOTIFY_SOCKET").unwrap();
    let name = address.strip_prefix('@').unwrap();
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    manager.set_nonblocking(true).unwrap();
    let mut told = [0; 64];
    let sent = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let heard = manager.recv(&mut told).map(|n| String::from_utf8_lossy(&told[..n]).into_owned());
    // The same address is right for std.
    let by_hand = UnixDatagram::unbound().unwrap();
    by_hand.send_to_addr(b"READY=1", &SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let by_hand = manager.recv(&mut told).map(|n| String::from_utf8_lossy(&told[..n]).into_owned());
    println!("package:  sd-notify 0.5.0");
    println!("address:  NOTIFY_SOCKET={address}, with a listener");
    println!("expected: READY=1 arrives (sd_notify(3): an address that begins with `@` is abstract)");
    println!("seen:     notify says {sent:?}");
    println!("          the listener heard {heard:?}");
    println!("          by hand it heard   {by_hand:?}");
    let surprise = sent.is_err() && heard.is_err() && by_hand.is_ok_and(|text| text == "READY=1");
    println!("{}", if surprise { "the surprise is still there" } else { "CHANGED: the behaviour is not as described" });
    std::process::exit(i32::from(!surprise));
}
RUST
cd "$work"
cargo build --quiet
NOTIFY_SOCKET="@surprise-$$" target/debug/surprise

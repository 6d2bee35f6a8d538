//! Owns: what a command prints is printed whole, or the command says that it was not.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::{Configured, Daemon, Site, eventually, list, quick_tenant, simulate};
use sweepd::simulator::fleet;

const MACHINES: usize = 90;

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_does_not_fit_where_it_is_written_to_is_an_error() {
    // More than any buffer holds.
    let machines = fleet(41, MACHINES, "outputs");
    let tenant = quick_tenant(machines.clone());
    let simulator = simulate(41, vec![tenant.clone()]).await;
    let daemon = Daemon::started(Site::new(&simulator, &[Configured::of("contoso", &tenant)], "")).await;
    daemon.site.put("list.txt", list(&machines));
    daemon.all_final(MACHINES).await;
    eventually("end of the sweep", || (daemon.lines(&["sweep", "list"])[0]["state"] == "done").then_some(())).await;
    // Any beginning of the only sweep's id names it.
    for command in [
        &["job", "list"][..],
        &["action", "list"],
        &["action", "export"],
        &["sweep", "list"],
        &["sweep", "export", "0"],
        &["status"],
        &["completions", "bash"],
        &["man"],
    ] {
        for json in [&[][..], &["--json"]] {
            let run = |out: Stdio| {
                let mut sweepd = Command::new(env!("CARGO_BIN_EXE_sweepd"));
                sweepd.arg("--config").arg(daemon.site.config()).args(command).args(json);
                sweepd.stdout(out).stderr(Stdio::null()).status().unwrap().code()
            };
            let full = File::options().write(true).open("/dev/full").unwrap();
            assert_eq!(run(full.into()), Some(1), "{command:?} {json:?} to a full disk");
            // A reader that has had enough is none.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            assert_eq!(run(writer.into()), Some(0), "{command:?} {json:?} to nobody");
        }
    }
}

#[test]
fn an_error_that_nobody_can_be_told_ends_as_it_would() {
    let site = Site::empty();
    for out in [File::options().write(true).open("/dev/full").unwrap().into(), {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    }] {
        let mut sweepd = Command::new(env!("CARGO_BIN_EXE_sweepd"));
        sweepd.arg("--config").arg(site.config()).arg("check").stderr(out);
        assert_eq!(sweepd.status().unwrap().code(), Some(78), "there is no configuration");
    }
}

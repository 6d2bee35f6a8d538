//! The ways of an enterprise's network, on real sockets: proxies, a CA of its own, versions of TLS and
//! HTTP, timeouts, and answers that are too large.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Configured, Daemon, Site, eventually, quick_tenant, simulate};
use sweepd::config::Proxy;
use sweepd::defender::{Body, Failure, HttpWire, Reply, Request, Wire, http};
use sweepd::simulator::{fleet, gzip_bomb};

use crate::support::tls::{CA, Server, server};

const PATIENT: Duration = Duration::from_mins(1);
/// Enough for a connection to stand on a machine that is busy, and soon over.
const SOON: Duration = Duration::from_secs(5);

/// Serves this many connections, each by `answer`; the thread returns what that returned.
fn stand_in<T: Send + 'static>(
    connections: usize,
    mut answer: impl FnMut(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = move || (0..connections).map(|_| answer(listener.accept().unwrap().0)).collect();
    (address, std::thread::spawn(served))
}

/// The head of a request.
fn head(stream: &mut impl Read) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Writes the same again and again until nobody reads it any more.
fn pour(stream: &mut TcpStream, what: &[u8]) {
    while stream.write_all(what).is_ok() {}
}

/// Holds a connection until the other side has left it.
fn wait_for_the_end(stream: &mut TcpStream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).is_ok_and(|n| n > 0) {}
}

fn options() -> http::Options<'static> {
    http::Options {
        proxy: None,
        ca_file: None,
        connect_timeout: PATIENT,
        call_timeout: PATIENT,
        unknown_grace: PATIENT,
    }
}

async fn ask(options: &http::Options<'_>, url: String) -> Result<Reply, Failure> {
    let bearer = Some("the-token".to_owned().into());
    let request = Request { post: false, url, bearer, body: Body::None, metadata: false, at_most: 100_000 };
    HttpWire::new(options).unwrap().send(request).await
}

fn ca_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(CA)
}

fn trusting(ca: &Path) -> http::Options<'_> {
    http::Options { ca_file: Some(ca), ..options() }
}

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_enterprise_is_trusted_where_ca_file_names_its_issuer() {
    let ca = ca_file();
    let (address, served) =
        stand_in(3, |stream| Server::new(&server(&[&rustls::version::TLS13]), stream).answer(EMPTY));
    let Err(Failure::NotSent(why)) = ask(&options(), format!("https://{address}/")).await else {
        panic!("the system does not know this issuer")
    };
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(ask(&trusting(&ca), format!("https://{address}/")).await.unwrap().text, "{}");
    // It is for 127.0.0.1, and for no other name.
    let elsewhere = ask(&trusting(&ca), format!("https://localhost:{}/", address.port())).await;
    assert!(matches!(elsewhere, Err(Failure::NotSent(_))), "{elsewhere:?}");
    let heads = served.join().unwrap();
    assert_eq!(heads.iter().filter(|head| head.is_some()).count(), 1, "only a trusted server is told anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_will_do_and_what_is_older_is_refused() {
    let ca = ca_file();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (address, served) = stand_in(1, move |stream| Server::new(&server(&[version]), stream).answer(EMPTY));
        assert_eq!(ask(&trusting(&ca), format!("https://{address}/")).await.unwrap().status, 200, "{version:?}");
        assert!(served.join().unwrap()[0].is_some());
    }
    // A server that knows TLS 1.1 only: its hello, with a suite that the client has offered.
    let (address, served) = stand_in(1, |mut stream| {
        let mut record = [0; 5];
        stream.read_exact(&mut record).unwrap();
        let mut offer = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
        stream.read_exact(&mut offer).unwrap();
        let mut hello = vec![0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
        hello.extend([7; 32]);
        hello.extend([0, 0xc0, 0x2f, 0]);
        stream.write_all(&hello).unwrap();
        let mut alert = [0; 7];
        stream.read_exact(&mut alert).unwrap();
        alert
    });
    let refused = ask(&trusting(&ca), format!("https://{address}/")).await;
    assert!(matches!(refused, Err(Failure::NotSent(_))), "{refused:?}");
    // A fatal alert: protocol_version.
    assert_eq!(served.join().unwrap()[0][5..], [2, 70]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_http_1_1_on_a_connection_of_its_own() {
    let ca = ca_file();
    let (address, served) = stand_in(2, |stream| {
        let mut config = server(&[&rustls::version::TLS13]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut server = Server::new(&config, stream);
        let head = server.answer(EMPTY).unwrap();
        (head, server.protocol())
    });
    for _ in 0..2 {
        assert_eq!(ask(&trusting(&ca), format!("https://{address}/api")).await.unwrap().status, 200);
    }
    for (head, protocol) in served.join().unwrap() {
        assert!(head.starts_with("GET /api HTTP/1.1\r\n") && !head.to_lowercase().contains("upgrade"), "{head}");
        assert!(protocol.is_none_or(|protocol| protocol == b"http/1.1"), "the server would have liked h2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_named_makes_a_tunnel_and_learns_its_own_password_alone() {
    let ca = ca_file();
    let (address, served) = stand_in(1, |mut stream| {
        let asked = head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        let inner = Server::new(&server(&[&rustls::version::TLS13]), stream).answer(EMPTY);
        (asked, inner.unwrap())
    });
    let proxy: Proxy = format!("http://ann:s3cret@{address}").parse().unwrap();
    let options = http::Options { proxy: Some(&proxy), ..trusting(&ca) };
    assert_eq!(ask(&options, "https://defender.test/api".to_owned()).await.unwrap().text, "{}");
    let (outer, inner) = served.join().unwrap().remove(0);
    assert!(outer.starts_with("CONNECT defender.test:443 HTTP/1.1\r\n"), "{outer}");
    let outer = outer.to_lowercase();
    // ann:s3cret
    assert!(outer.contains("proxy-authorization: basic yw5uonmzy3jlda==\r\n") && !outer.contains("bearer"), "{outer}");
    assert!(inner.starts_with("GET /api HTTP/1.1\r\n") && !inner.contains("YW5uOnMzY3JldA"), "{inner}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_told_and_nothing_was_sent() {
    let (address, served) = stand_in(1, |mut stream| {
        let asked = head(&mut stream);
        stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").unwrap();
        asked
    });
    let proxy: Proxy = format!("http://{address}").parse().unwrap();
    let options = http::Options { proxy: Some(&proxy), ..options() };
    let Err(Failure::NotSent(why)) = ask(&options, "https://defender.test/api".to_owned()).await else {
        panic!("a tunnel that is not there carries nothing")
    };
    assert!(why.contains("proxy"), "{why}");
    served.join().unwrap();
}

/// The name of this machine as `PROXY` has it, and in the look-up of names of a command that is run.
#[derive(Clone, Copy)]
struct Names<'a> {
    proxy: &'a str,
    /// The command's own `/etc/hosts`.
    hosts: Option<&'a Path>,
}

/// As the machine has them.
const USUAL: Names<'static> = Names { proxy: "127.0.0.1", hosts: None };

/// `sweepd check --online`, whose `/etc/hosts` may be another one.
fn check_online(site: &Site, hosts: Option<&Path>) -> Command {
    const WITH_HOSTS: &str = "mount --bind \"$HOSTS\" /etc/hosts && exec \"$0\" \"$@\"";
    let binary = env!("CARGO_BIN_EXE_sweepd");
    let mut command = Command::new(if hosts.is_some() { "unshare" } else { binary });
    command.env_clear();
    if let Some(hosts) = hosts {
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", WITH_HOSTS, binary]).env("HOSTS", hosts);
    }
    command.args(["check", "--online", "--config"]).arg(site.config());
    command
}

/// Runs `check --online` with these variables, at a proxy that closes every connection. Returns where the
/// proxy was asked to go, and the exit code.
fn through_a_proxy(site: &Site, names: Names<'_>, variables: &[(&str, &str)]) -> (Vec<String>, i32) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = format!("http://{}:{}", names.proxy, address.port());
    let config = std::fs::read_to_string(site.config()).unwrap().replace("PROXY", &proxy);
    site.write_config(&config);
    let mut command = check_online(site, names.hosts);
    command.envs(variables.iter().map(|(name, value)| (*name, value.replace("PROXY", &proxy))));
    let served = std::thread::spawn(move || {
        let mut asked = Vec::new();
        loop {
            let first = head(&mut listener.accept().unwrap().0).lines().next().map(str::to_owned);
            if first.as_deref() == Some("end") {
                return asked;
            }
            asked.extend(first);
        }
    });
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    // Behind everything that the command sent there.
    TcpStream::connect(address).unwrap().write_all(b"end\r\n\r\n").unwrap();
    (served.join().unwrap(), status.code().unwrap())
}

/// A tenant that is far away, or `near`: on loopback.
async fn site(network: &str, near: bool) -> (Site, sweepd::simulator::Simulator) {
    let tenant = quick_tenant(fleet(1, 1, "network"));
    let simulator = simulate(1, vec![tenant.clone()]).await;
    let site = Site::new(&simulator, &[Configured::of("contoso", &tenant)], "");
    let mut text =
        std::fs::read_to_string(site.config()).unwrap().replace("[network]", &format!("[network]\n{network}"));
    if !near {
        text = text.replace(&simulator.url(), "https://login.test");
    }
    site.write_config(&text);
    (site, simulator)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_variables_hold_unless_a_proxy_is_named_and_never_on_loopback() {
    const NOWHERE: &str = "http://127.0.0.1:1";
    let tunnel = || vec!["CONNECT login.test:443 HTTP/1.1".to_owned()];
    let far = |network: &'static str| site(network, false);
    for (network, variables, asked) in [
        ("", vec![("HTTPS_PROXY", "PROXY")], tunnel()),
        ("", vec![("https_proxy", "PROXY")], tunnel()),
        ("", vec![("ALL_PROXY", "PROXY")], tunnel()),
        ("", vec![("HTTPS_PROXY", "PROXY"), ("NO_PROXY", "login.test")], vec![]),
        ("", vec![("HTTPS_PROXY", "PROXY"), ("no_proxy", ".test")], vec![]),
        ("", vec![("HTTPS_PROXY", "PROXY"), ("NO_PROXY", "defender.test,10.0.0.0/8")], tunnel()),
        ("proxy = \"PROXY\"", vec![], tunnel()),
        ("proxy = \"PROXY\"", vec![("HTTPS_PROXY", NOWHERE)], tunnel()),
        ("proxy = \"PROXY\"", vec![("NO_PROXY", "login.test")], vec![]),
    ] {
        let (site, _simulator) = far(network).await;
        assert_eq!(through_a_proxy(&site, USUAL, &variables), (asked, 69), "{network} {variables:?}");
    }
    for (network, variables) in [
        ("", vec![("HTTP_PROXY", "PROXY"), ("ALL_PROXY", "PROXY")]),
        ("proxy = \"PROXY\"", vec![("http_proxy", "PROXY")]),
    ] {
        let (site, _simulator) = site(network, true).await;
        assert_eq!(through_a_proxy(&site, USUAL, &variables), (vec![], 0), "{network} {variables:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_this_machine_whatever_etc_hosts_says() {
    let (near, simulator) = site("", true).await;
    let hosts = near.path().join("hosts");
    // Another address of this machine, where no program listens.
    std::fs::write(&hosts, "127.0.0.9 localhost LOCALHOST localhost.\n").unwrap();
    let mut probe = check_online(&near, Some(&hosts));
    if !probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.code() == Some(0)) {
        return eprintln!("SKIPPED: a namespace with an /etc/hosts of its own cannot be made here");
    }
    let config = std::fs::read_to_string(near.config()).unwrap();
    let by_address = simulator.url();
    for name in ["localhost", "LOCALHOST", "localhost."] {
        near.write_config(&config.replace(&by_address, &by_address.replace("127.0.0.1", name)));
        let output = check_online(&near, Some(&hosts)).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
    }
    let tunnel = || vec!["CONNECT login.test:443 HTTP/1.1".to_owned()];
    for name in ["localhost", "LOCALHOST", "localhost."] {
        let names = Names { proxy: name, hosts: Some(&hosts) };
        for (network, variables) in [("proxy = \"PROXY\"", vec![]), ("", vec![("HTTPS_PROXY", "PROXY")])] {
            let (far, _simulator) = site(network, false).await;
            assert_eq!(through_a_proxy(&far, names, &variables), (tunnel(), 69), "{name} {network}");
        }
    }
}

/// A proxy that refuses everybody; what each has shown of itself.
fn refusing_proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, shown) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&shown);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head(&mut stream);
            let given =
                head.lines().find_map(|line| line.to_lowercase().starts_with("proxy-auth").then(|| line.to_owned()));
            noted.lock().unwrap().push(given.unwrap_or_default());
            let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
            // The client may be gone.
            stream.write_all(refusal).ok();
        }
    });
    (address, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_password_is_read_from_its_file_again_at_sighup_and_shown_nowhere() {
    use base64::Engine as _;
    let (address, shown) = refusing_proxy();
    let network = format!("proxy = \"http://ann@{address}\"\nproxy_password_file = \"proxy-password\"");
    let (site, _simulator) = site(&network, false).await;
    let password = site.path().join("proxy-password");
    let header = |password: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("ann:{password}"));
        format!("basic {pair}")
    };
    let has_shown = |password: &str| {
        let wanted = header(password);
        shown.lock().unwrap().iter().any(|line| line.to_lowercase().ends_with(&wanted.to_lowercase())).then_some(())
    };
    // As it stands in the file: a URL would have another spelling for it.
    let (first, second) = ("f1rst@%40/wörd", "sec0nd:wörd");
    std::fs::write(&password, format!("{first}\n")).unwrap();
    let mut daemon = Daemon::started(site).await;
    eventually("the first password at the proxy", || has_shown(first)).await;
    std::fs::write(&password, second).unwrap();
    daemon.hang_up();
    eventually("the second password at the proxy", || has_shown(second)).await;

    let mut told = vec![daemon.log_text(), daemon.get("/metrics").1, daemon.get("/api/overview").1];
    for arguments in [&["check"][..], &["check", "--json"], &["check", "--online"], &["check", "--online", "--json"]] {
        let output = daemon.command(arguments);
        assert_eq!(output.code, if arguments.contains(&"--online") { 69 } else { 0 }, "{output:?}");
        assert!(output.stderr.contains("proxy-password is open to every user"), "{output:?}");
        told.extend([output.stdout, output.stderr]);
    }
    assert!(daemon.terminate().await.success());
    told.push(String::from_utf8_lossy(&std::fs::read(daemon.site.state().join("sweepd.db")).unwrap()).into_owned());
    for (n, text) in told.iter().enumerate() {
        for secret in [first, second, "f1rst", "sec0nd", &header(first)[6..], &header(second)[6..]] {
            assert!(!text.contains(secret), "{secret} stands in text {n}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_stand_in_time_was_not_sent() {
    let quick = http::Options { connect_timeout: SOON, ..options() };
    // Accepts, and never says a word of TLS.
    let (address, served) = stand_in(1, |mut stream| wait_for_the_end(&mut stream));
    let silent = ask(&quick, format!("https://{address}/")).await;
    assert!(matches!(silent, Err(Failure::NotSent(ref why)) if why.contains("timed out")), "{silent:?}");
    served.join().unwrap();
    // A proxy that never makes the tunnel.
    let (address, served) = stand_in(1, |mut stream| wait_for_the_end(&mut stream));
    let proxy: Proxy = format!("http://{address}").parse().unwrap();
    let through = http::Options { proxy: Some(&proxy), ..quick };
    let silent = ask(&through, "https://defender.test/".to_owned()).await;
    assert!(matches!(silent, Err(Failure::NotSent(ref why)) if why.contains("timed out")), "{silent:?}");
    served.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_given_up_with_what_it_has() {
    let quick = http::Options { call_timeout: SOON, ..options() };
    let (address, served) = stand_in(1, |mut stream| wait_for_the_end(&mut stream));
    let lost = ask(&quick, format!("http://{address}/")).await;
    assert!(matches!(lost, Err(Failure::Lost(ref why)) if why.contains("timed out")), "{lost:?}");
    served.join().unwrap();
    let (address, served) = stand_in(1, |mut stream| {
        head(&mut stream);
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"half\":").unwrap();
        wait_for_the_end(&mut stream);
    });
    let half = ask(&quick, format!("http://{address}/")).await.unwrap();
    assert_eq!((half.status, half.text.as_str()), (201, "{\"half\":"));
    assert!(half.cut.unwrap().contains("timed out"));
    served.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_read_beyond_its_bound_compressed_or_not() {
    let (start, more) = gzip_bomb();
    let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n".to_vec();
    let endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    let packed = [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n".to_vec(), start].concat();
    for (first, then) in [(plain, b" ".repeat(1000)), (endless, b" ".repeat(1000)), (packed, more)] {
        let (address, served) = stand_in(1, move |mut stream| {
            let asked = head(&mut stream);
            stream.write_all(&first).unwrap();
            pour(&mut stream, &then);
            asked
        });
        let reply = ask(&options(), format!("http://{address}/")).await.unwrap();
        assert_eq!((reply.text.len(), reply.text.trim()), (100_000, ""));
        assert_eq!(reply.cut.as_deref(), Some("the answer is larger than 100000 bytes"));
        // Its end: nobody reads any more.
        let asked = served.join().unwrap().remove(0);
        assert!(asked.to_lowercase().contains("accept-encoding: gzip\r\n"), "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_becomes_an_answer_has_an_end_too() {
    // Compressed data that decompresses to nothing, for ever: empty stored blocks.
    let (address, served) = stand_in(1, |mut stream| {
        head(&mut stream);
        let start = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n").unwrap();
        stream.write_all(&start).unwrap();
        pour(&mut stream, &[0, 0, 0, 0xff, 0xff].repeat(1000));
    });
    let quick = http::Options { call_timeout: SOON, ..options() };
    let reply = ask(&quick, format!("http://{address}/")).await.unwrap();
    assert!(reply.text.is_empty() && reply.cut.unwrap().contains("timed out"));
    served.join().unwrap();
    // A head without end.
    let (address, served) = stand_in(1, |mut stream| {
        head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
        pour(&mut stream, &b"x".repeat(1000));
    });
    let lost = ask(&options(), format!("http://{address}/")).await;
    assert!(matches!(lost, Err(Failure::Lost(_))), "{lost:?}");
    served.join().unwrap();
}

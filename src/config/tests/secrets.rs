//! Secrets: found, checked, and never shown.

use super::*;

fn secret_of(config: &Config) -> &str {
    let Auth::ClientSecret { secret, .. } = &config.tenants[&name("contoso")].auth else { panic!("another method") };
    secret.expose_secret()
}

#[test]
fn secrets_are_looked_up_and_lose_one_newline() {
    let credentials = tempfile::tempdir().unwrap();
    let house = House::contoso("").set("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    for content in ["a", "a\n", "a\r\n", "\u{feff}a", "\u{feff}a\r\n"] {
        house.put("secret", content);
        let config = house.good();
        assert_eq!((secret_of(&config), &*config.warnings), ("a", &[][..]), "{content:?}");
    }
    fs::write(credentials.path().join("secret"), "from systemd").unwrap();
    assert_eq!(secret_of(&house.good()), "from systemd");
}

#[test]
fn credential_that_systemd_had_no_file_for_is_named() {
    let credentials = tempfile::tempdir().unwrap();
    let folder = credentials.path().to_str().unwrap();
    let house = House::contoso("").set("CREDENTIALS_DIRECTORY", folder);
    for content in ["\n", ""] {
        fs::write(credentials.path().join("secret"), content).unwrap();
        let expected = format!(
            "sweepd.toml: tenants.contoso.auth.secret_file: {folder}/secret is empty: LoadCredential= names no file that is \
             there, or an empty one, so the secret is missing; put the file where `systemctl show \
             --property=LoadCredential sweepd` says, then restart the service"
        );
        assert_eq!(house.problems(), [expected]);
    }
}

#[test]
fn secrets_that_cannot_be_used_are_refused_without_being_shown() {
    let house = House::contoso("");
    for (content, expected) in
        [("\r\n", "the secret is empty"), (&"s3cret".repeat(20_000), "is larger than any secret")]
    {
        house.put("secret", content);
        let problems = house.problems();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
        assert!(!problems[0].contains("s3cret"));
    }
    fs::write(house.dir.path().join("secret"), b"\xff").unwrap();
    assert!(house.problems()[0].contains("is not UTF-8"));
    fs::remove_file(house.dir.path().join("secret")).unwrap();
    assert!(house.problems()[0].contains("tenants.contoso.auth.secret_file: no file of this name is in"));
    fs::create_dir(house.dir.path().join("secret")).unwrap();
    assert!(house.problems()[0].contains("is not a regular file"));

    let pasted = House::new(&tenant("contoso", "").replace("'secret'", "'s3cret~value'"));
    assert!(!pasted.load().unwrap_err().to_string().contains("s3cret"));
    let absolute = House::new(&tenant("contoso", "").replace("'secret'", "'/nowhere/at-all'"));
    assert!(absolute.problems()[0].contains("cannot read /nowhere/at-all: No such file"));
    let inline = House::new(&tenant("contoso", "").replace("secret_file = 'secret'", "secret = 's3cret'"));
    let text = inline.load().unwrap_err().to_string();
    assert!(
        text.contains("tenants.contoso.auth.secret: is not a known key: a secret") && !text.contains("s3cret"),
        "{text}"
    );
}

#[test]
fn secret_with_characters_that_were_copied_along_is_refused() {
    let house = House::contoso("");
    let blank = "the secret begins or ends with a blank or an invisible character: ";
    for (content, expected) in [
        ("s3cret\n\n", "the secret has more than one line: all of them would be sent"),
        ("s3cret\nsecond", "the secret has more than one line"),
        ("s3cret\rsecond", "the secret has more than one line"),
        ("\ns3cret", "the secret has more than one line"),
        ("s3c\tret", "the secret holds a control character"),
        (" s3cret", blank),
        ("s3cret \r\n", blank),
        ("s3cret\u{a0}", blank),
        ("s3cret\u{200b}\n", blank),
        ("\"s3cret\"\n", "the secret stands in quotes: "),
        ("'s3cret'", "the secret stands in quotes: "),
        ("\u{201c}s3cret\u{201d}", "the secret stands in quotes: "),
    ] {
        let problems = house.put("secret", content).problems();
        let whole = format!("sweepd.toml: tenants.contoso.auth.secret_file: {expected}");
        assert!(problems.len() == 1 && problems[0].starts_with(&whole), "{content:?}: {problems:?}");
        assert!(problems[0].ends_with("; put nothing but the secret's value into the file"), "{problems:?}");
        assert!(!problems[0].contains("s3c"), "{problems:?}");
    }
    // What a secret may hold inside is Entra's business.
    for content in ["a b", "a'b\"c", "'", "it's", "\"a"] {
        assert_eq!(secret_of(&house.put("secret", content).good()), content);
    }
}

#[test]
fn secret_in_utf16_is_named_as_such() {
    let house = House::new(
        &format!(
            "{}[tenants.contoso.auth]\nmethod = 'client_certificate'\nclient_id = 'app'\ncertificate_file = 'pem'",
            tenant("contoso", "")
        )
        .replace("auth = { client_id = 'app', secret_file = 'secret' }\n", ""),
    );
    let (plain, file) = (House::contoso(""), "sweepd.toml: tenants.contoso.auth");
    for (mark, is_big) in [(true, false), (true, true), (false, false), (false, true)] {
        let mark: &[u16] = if mark { &[0xfeff] } else { &[] };
        let units = mark.iter().copied().chain("s3cret\r\n".encode_utf16());
        let bytes: Vec<u8> =
            units.flat_map(|unit| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect();
        fs::write(plain.dir.path().join("secret"), &bytes).unwrap();
        fs::write(house.dir.path().join("pem"), &bytes).unwrap();
        for (house, key, what) in
            [(&plain, "secret_file", "the secret"), (&house, "certificate_file", "the certificate")]
        {
            let problems = house.problems();
            let expected = format!("{file}.{key}: {what} is UTF-16 text, as PowerShell's `>` writes it: ");
            assert!(problems.len() == 1 && problems[0].starts_with(&expected), "{problems:?}");
        }
    }
}

#[test]
fn a_secret_that_everybody_can_read_is_warned_of() {
    let house = House::contoso("");
    let secret = house.dir.path().join("secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = house.lines(&house.good().warnings.join("\n"));
    assert_eq!(
        warnings,
        [
            "tenants.contoso.auth.secret_file: secret is open to every user of this machine (mode 0644); run chmod o= on it"
        ]
    );
}

#[test]
fn the_id_of_a_secret_in_the_place_of_its_value_is_warned_of() {
    let house = House::contoso("");
    house.put("secret", "5ec2e7ab-1111-2222-3333-444444444444\n");
    let warnings = house.good().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("auth.secret_file: looks like the secret's id;"),
        "{warnings:?}"
    );
    assert!(!warnings[0].contains("5ec2e7ab"));
}

#[test]
fn nothing_secret_is_printed() {
    let house = House::contoso("[network]\nproxy = 'http://me:s3cret@proxy:3128'").set("SWEEPD__LOG__LEVEL", "info");
    let config = house.good();
    let proxy = config.network.proxy.as_ref().unwrap().url_with_password();
    assert_eq!(proxy.as_str(), "http://me:s3cret@proxy:3128/");
    let text = format!("{config:?}");
    assert!(text.contains("[REDACTED]@proxy:3128") && !text.contains("s3cret"), "{text}");
    let environment = Environment::new(BTreeMap::from([("A".into(), "s3cret".into())]), "/");
    assert!(!format!("{environment:?}").contains("s3cret"));
}

const WITH_FILE: &str = "[network]\nproxy = 'http://ann@proxy:3128'\nproxy_password_file = 'proxy-password'";

fn proxy_url(config: &Config) -> String {
    config.network.proxy.as_ref().unwrap().url_with_password().to_string()
}

#[test]
fn proxy_password_is_read_from_its_file_as_it_stands_there() {
    let house = House::contoso(WITH_FILE);
    for (content, url) in [
        ("s3cret\n", "http://ann:s3cret@proxy:3128/"),
        ("a b@c:d/e?f#g%40", "http://ann:a%20b%40c%3Ad%2Fe%3Ff%23g%2540@proxy:3128/"),
        ("pässword", "http://ann:p%C3%A4ssword@proxy:3128/"),
    ] {
        let config = house.put("proxy-password", content).good();
        assert_eq!(proxy_url(&config), url);
        assert_eq!(config.warnings, [""; 0]);
        let shown = format!("{config:?}");
        assert!(shown.contains("http://[REDACTED]@proxy:3128") && !shown.contains(content.trim()), "{shown}");
    }
    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("proxy-password"), "from systemd").unwrap();
    let house = house.set("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    assert_eq!(proxy_url(&house.good()), "http://ann:from%20systemd@proxy:3128/");
    // Commands that only look at the database may not read it, and need not.
    let environment = Environment::new(BTreeMap::new(), "/srv").without_secrets();
    fs::remove_file(house.dir.path().join("proxy-password")).unwrap();
    let config = load(Some(&house.dir.path().join("sweepd.toml")), &environment, &[]).unwrap();
    assert_eq!(proxy_url(&config), "http://ann@proxy:3128/");
}

#[test]
fn proxy_password_that_cannot_be_used_is_refused() {
    for (network, expected) in [
        ("proxy = 'http://ann:s3cret@proxy:3128'", "stands beside a password in network.proxy; take"),
        ("proxy = 'http://proxy:3128'", "is a password without a user name; write the user name"),
        ("", "is a password without a proxy: the proxy variables are not combined with it; write network.proxy"),
    ] {
        let house = House::contoso(&format!("[network]\nproxy_password_file = 'proxy-password'\n{network}"));
        house.put("proxy-password", "s3cret");
        let problems = house.set("HTTPS_PROXY", "http://ann@proxy").problems();
        let key = "sweepd.toml: network.proxy_password_file: ";
        assert!(problems.len() == 1 && problems[0].starts_with(&format!("{key}{expected}")), "{problems:?}");
        assert!(!problems[0].contains("s3cret"), "{problems:?}");
    }
    let house = House::contoso(WITH_FILE);
    assert!(house.problems()[0].contains("network.proxy_password_file: no file of this name is in"));
    for (content, expected) in [
        ("\n", "the password is empty"),
        ("s3cret\nsecond", "the password has more than one line"),
        ("s3c\u{1b}ret", "the password holds a control character"),
        ("\u{feff}s\u{0}3\u{0}c", "the password holds a control character"),
        ("s\u{0}3\u{0}c\u{0}", "the password is UTF-16 text"),
    ] {
        let problems = house.put("proxy-password", content).problems();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{content:?}: {problems:?}");
        assert!(!problems[0].contains("s3c"), "{problems:?}");
    }
}

#[test]
fn proxy_password_with_odd_ends_is_used_and_warned_of() {
    let house = House::contoso(WITH_FILE);
    for (content, url, odd) in [
        ("\u{feff}s3cret\n", "http://ann:s3cret@proxy:3128/", None),
        (
            " s3cret\n",
            "http://ann:%20s3cret@proxy:3128/",
            Some("begins or ends with a blank or an invisible character"),
        ),
        ("'s3cret'\n", "http://ann:'s3cret'@proxy:3128/", Some("stands in quotes")),
    ] {
        let config = house.put("proxy-password", content).good();
        assert_eq!(proxy_url(&config), url);
        let how =
            "that is sent as a part of it; if it is not meant, put nothing but the proxy's password into the file";
        let expected = odd.map(|odd| format!("network.proxy_password_file: the password {odd}: {how}"));
        assert_eq!(config.warnings, Vec::from_iter(expected));
    }
}

#[test]
fn proxy_password_that_others_can_read_is_warned_of() {
    const IN_URL: &str = "[network]\nproxy = 'http://ann:s3cret@proxy:3128'";
    let warnings = |house: &House| {
        let warnings = house.lines(&house.good().warnings.join("\n"));
        assert!(!warnings.join(" ").contains("s3cret"), "{warnings:?}");
        warnings
    };
    let house = House::contoso(IN_URL);
    assert_eq!(warnings(&house), [""; 0], "only the service may read the file");
    fs::set_permissions(house.dir.path().join("sweepd.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        warnings(&house),
        [
            "network.proxy: the password stands in a file that others may read: sweepd.toml is open to every user of this \
          machine (mode 0644); run chmod o= on it; write the password to a file of its own and name that file in \
          network.proxy_password_file"
        ]
    );
    let house = House::contoso(WITH_FILE);
    house.put("proxy-password", "s3cret");
    fs::set_permissions(house.dir.path().join("proxy-password"), fs::Permissions::from_mode(0o604)).unwrap();
    let told = warnings(&house);
    assert!(
        told.len() == 1 && told[0].starts_with("network.proxy_password_file: proxy-password is open to"),
        "{told:?}"
    );

    let variables = ["SWEEPD__NETWORK__PROXY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"];
    for name in variables {
        let told = warnings(&House::contoso("").set(name, "http://ann:s3cret@proxy:3128"));
        let expected = format!("network.proxy: the password stands in the environment variable {name}, and");
        assert!(told.len() == 1 && told[0].starts_with(&expected), "{name}: {told:?}");
        assert!(told[0].ends_with("name that file in network.proxy_password_file"), "{told:?}");
        assert_eq!(warnings(&House::contoso("").set(name, "http://ann@proxy:3128")), [""; 0], "{name}");
    }
    let flag = House::contoso("").load_with(&[("network.proxy", "http://ann:s3cret@proxy:3128")]).unwrap();
    assert!(flag.warnings[0].contains("stands on the command line"), "{:?}", flag.warnings);
}

#[test]
fn certificates_are_looked_at() {
    let house = House::contoso("[network]\nca_file = 'ca.pem'");
    house.put("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(house.good().network.ca_file, Some(house.dir.path().join("ca.pem")));
    house.put("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert!(house.problems()[0].contains("ca.pem holds PEM that cannot be read"));
}

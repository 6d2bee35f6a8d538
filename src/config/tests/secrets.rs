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
    for (content, secret) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
        house.put("secret", content);
        assert_eq!(secret_of(&house.good()), secret);
    }
    fs::write(credentials.path().join("secret"), "from systemd").unwrap();
    assert_eq!(secret_of(&house.good()), "from systemd");
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
    assert!(house.put("proxy-password", "\n").problems()[0].contains("the password is empty"));
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

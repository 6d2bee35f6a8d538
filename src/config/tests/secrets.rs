//! Secrets: found, checked, and never shown.

use super::*;

fn secret_of(config: &Config) -> &str {
    let Auth::ClientSecret { secret, .. } = &config.tenants[&name("contoso")].auth else { panic!("another method") };
    secret.expose_secret()
}

#[test]
fn secrets_are_looked_up_and_lose_one_newline() {
    let credentials = tempfile::tempdir().unwrap();
    let house = House::contoso("").set("CREDENTIALS_DIRECTORY", &credentials.path().display().to_string());
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
    assert_eq!(config.network.proxy.as_deref(), Some("http://me:s3cret@proxy:3128"));
    let text = format!("{config:?}");
    assert!(text.contains("[REDACTED]@proxy:3128") && !text.contains("s3cret"), "{text}");
    let environment = Environment::new(BTreeMap::from([("A".into(), "s3cret".into())]), "/");
    assert!(!format!("{environment:?}").contains("s3cret"));
}

#[test]
fn certificates_are_looked_at() {
    let house = House::contoso("[network]\nca_file = 'ca.pem'");
    house.put("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(house.good().network.ca_file, Some(house.dir.path().join("ca.pem")));
    house.put("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert!(house.problems()[0].contains("ca.pem holds PEM that cannot be read"));
}

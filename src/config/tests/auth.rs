//! The ways to sign in: what each needs, and what is told when that is not there.

use super::*;
use crate::credentials::{OTHER, SHORT, VALID, key_pem, pem};

/// One tenant with this section `auth`, and all files that it may name.
fn signing_in(auth: &str) -> House {
    let house = House::new(&format!("[tenants.contoso]\ntenant_id = '{GUID}'\nauth = {{ {auth} }}\n"));
    house.put("pair.pem", &format!("{VALID}{}", key_pem())).put("cert.pem", VALID).put("key.pem", &key_pem());
    house.put("short.pem", SHORT).put("other.pem", OTHER);
    house
}

fn auth(house: &House) -> (Auth, Config) {
    let config = house.good();
    (config.tenants[&name("contoso")].auth.clone(), config)
}

const CERTIFICATE: &str = "method = 'client_certificate', client_id = 'app', ";

#[test]
fn a_certificate_is_read_from_one_file_or_two_and_found_like_a_secret() {
    let credentials = tempfile::tempdir().unwrap();
    for files in ["certificate_file = 'pair.pem'", "certificate_file = 'cert.pem', key_file = 'key.pem'"] {
        let (auth, config) = auth(&signing_in(&format!("{CERTIFICATE}{files}")));
        let Auth::ClientCertificate { client_id, certificate: Some(certificate) } = &auth else { panic!("{auth:?}") };
        assert_eq!(client_id, "app");
        assert_eq!(auth.expires(), Some(certificate.expires()));
        assert_eq!(config.tenants[&name("contoso")].authority_url, "https://login.microsoftonline.com");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
    fs::write(credentials.path().join("pair.pem"), "nothing of the kind").unwrap();
    let house = signing_in(&format!("{CERTIFICATE}certificate_file = 'pair.pem'"))
        .set("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    assert!(house.problems()[0].contains("certificate_file: holds no private key"), "{:?}", house.problems());
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_at_its_key() {
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"s3cret");
    for (files, expected) in [
        ("", "certificate_file: is missing; name the PEM file"),
        ("certificate_file = 'cert.pem'", "certificate_file: holds no private key; put it into the same file, or name"),
        ("certificate_file = 'cert.pem', key_file = 'cert.pem'", "key_file: holds no private key"),
        ("certificate_file = 'other.pem', key_file = 'key.pem'", "certificate_file: the private key does not belong"),
        ("certificate_file = 'cert.pem', key_file = 'locked.pem'", "key_file: the private key is encrypted; take the"),
        ("certificate_file = 'cert.pem', key_file = 'none.pem'", "key_file: no file of this name is in"),
        ("certificate_file = 'cert.pem', key_file = 'pair.pfx'", "key_file: the key is not UTF-8; write it as PEM"),
        ("certificate_file = 'pair.pem', secret_file = 'secret'", "secret_file: is of no use to client_certificate"),
        ("certificate_file = 'pair.pem', token_file = 'secret'", "remove it, or write method = \"workload_identity\""),
    ] {
        let house = signing_in(&format!("{CERTIFICATE}{files}"));
        house.put("locked.pem", &encrypted);
        fs::write(house.dir.path().join("pair.pfx"), b"\x30\x82\xff").unwrap();
        let problems = house.problems();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{files}: {problems:#?}");
        assert!(problems[0].starts_with("sweepd.toml: tenants.contoso.auth."), "{problems:?}");
    }
    let open = signing_in(&format!("{CERTIFICATE}certificate_file = 'cert.pem', key_file = 'key.pem'"));
    fs::set_permissions(open.dir.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(open.dir.path().join("cert.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = open.good().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("auth.key_file:"), "the certificate is public: {warnings:?}");
}

#[test]
fn a_certificate_that_is_over_is_an_error_and_one_that_soon_will_be_a_warning() {
    let house = signing_in(&format!("{CERTIFICATE}certificate_file = 'short.pem', key_file = 'key.pem'"));
    let at = |text| house.load_at(text);
    assert!(at("2026-12-01T00:00:00Z").unwrap().warnings.is_empty());
    let warnings = at("2027-01-10T00:00:00Z").unwrap().warnings;
    assert!(
        warnings.len() == 1
            && warnings[0].starts_with("tenants.contoso.auth.certificate_file: the certificate expires at 2027-01-21")
            && warnings[0].contains("in 11 days"),
        "{warnings:?}"
    );
    let problems = house.lines(&at("2027-01-22T00:00:00Z").unwrap_err().to_string());
    assert!(
        problems.len() == 1
            && problems[0].starts_with(
                "sweepd.toml: tenants.contoso.auth.certificate_file: the certificate expired at 2027-01-21"
            )
            && problems[0].contains("upload a new one"),
        "{problems:?}"
    );
}

#[test]
fn the_end_of_a_secret_is_told_thirty_days_ahead_where_somebody_said_it() {
    let secret = "client_id = 'app', secret_file = 'secret'";
    assert_eq!(auth(&signing_in(secret)).0.expires(), None, "Entra tells that to people alone");
    for (end, expected) in [
        ("2027-01-31", None),
        ("2026-12-01", Some("the client secret expires at 2026-12-01T00:00:00.000Z, in 9 days; make a new one")),
        ("2026-10-31T09:00:00+01:00", Some("the client secret expired at 2026-10-31T08:00:00.000Z; make a new one")),
    ] {
        let house = signing_in(&format!("{secret}, secret_expires = '{end}'"));
        let warnings = house.load_at("2026-11-22T00:00:00Z").unwrap().warnings;
        assert_eq!(warnings.len(), usize::from(expected.is_some()), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(&format!("tenants.contoso.auth.secret_expires: {expected}")), "{warning}");
        }
    }
    for (auth, expected) in [
        (&*format!("{secret}, secret_expires = 'in spring'"), "`in spring` is no day; write it as 2027-01-31"),
        ("method = 'managed_identity', secret_expires = '2027-01-31'", "is of no use to managed_identity"),
    ] {
        let problems = signing_in(auth).problems();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
    }
}

#[test]
fn a_managed_identity_needs_no_id_and_signs_in_at_the_machine() {
    let (auth, config) = auth(&signing_in("method = 'managed_identity'"));
    assert!(matches!(auth, Auth::ManagedIdentity { client_id: None }));
    let tenant = &config.tenants[&name("contoso")];
    assert_eq!(tenant.authority_url, "http://169.254.169.254");
    assert_eq!(tenant.registration(), format!("{GUID}/managed identity"));

    let named = signing_in("method = 'managed_identity', client_id = 'ID'");
    let text = fs::read_to_string(named.dir.path().join("sweepd.toml")).unwrap();
    named.put("sweepd.toml", &format!("{text}authority_url = 'http://127.0.0.1:1'"));
    let tenant = &named.good().tenants[&name("contoso")];
    assert_eq!((tenant.auth.client_id(), tenant.authority_url.as_str()), (Some("ID"), "http://127.0.0.1:1"));
    assert_eq!(tenant.registration(), format!("{GUID}/id"), "as the same application would be");
    assert!(signing_in("method = 'managed_identity', secret_file = 'secret'").load().is_err());
}

#[test]
fn a_workload_identity_is_completed_from_what_azure_sets() {
    let (standard, _) = auth(&signing_in("method = 'workload_identity', client_id = 'app'"));
    let Auth::WorkloadIdentity { client_id, token_file } = standard else { panic!("{standard:?}") };
    assert_eq!(client_id, "app");
    assert_eq!(token_file, Path::new("/var/run/secrets/azure/tokens/azure-identity-token"));

    let set = |house: House| house.set("AZURE_CLIENT_ID", "theirs").set("AZURE_FEDERATED_TOKEN_FILE", "/run/token");
    let (auth, _) = auth(&set(signing_in("method = 'workload_identity'")));
    let Auth::WorkloadIdentity { client_id, token_file } = auth else { panic!("{auth:?}") };
    assert_eq!((client_id.as_str(), token_file.as_path()), ("theirs", Path::new("/run/token")));

    let own = set(signing_in("method = 'workload_identity', client_id = 'own', token_file = 'mine'"));
    let Auth::WorkloadIdentity { client_id, token_file } = self::auth(&own).0 else { panic!("another method") };
    assert_eq!((client_id.as_str(), token_file), ("own", own.dir.path().join("mine")));

    let missing = signing_in("method = 'workload_identity'");
    assert!(missing.problems()[0].contains("auth.client_id: is missing, and so is $AZURE_CLIENT_ID"));
}

#[test]
fn a_method_that_nobody_knows_is_the_only_problem() {
    let problems = signing_in("method = 'password', secret = 'x'").problems();
    assert!(problems.len() == 1 && problems[0].contains("auth.method: `password` is not one of"), "{problems:?}");
}

#[test]
fn commands_that_sign_in_nowhere_read_no_key_and_need_no_variable() {
    for auth in [
        format!("{CERTIFICATE}certificate_file = 'not-there.pem'"),
        "method = 'workload_identity'".to_owned(),
        "method = 'managed_identity'".to_owned(),
    ] {
        let house = signing_in(&auth);
        let environment = Environment::new(BTreeMap::new(), "/srv").without_secrets();
        assert!(load(Some(&house.dir.path().join("sweepd.toml")), &environment, &[]).is_ok(), "{auth}");
    }
}

//! `[auth_profiles.X]`: shared by tenants, wherever these stand.

use super::*;

/// A profile of this name with a secret of its own file.
fn profile(name: &str, secret_file: &str) -> String {
    format!("[auth_profiles.{name}]\nclient_id = 'shared-app'\nsecret_file = '{secret_file}'\n")
}

fn using(name: &str, auth: &str) -> String {
    format!("[tenants.{name}]\ntenant_id = '{GUID}'\nauth = {auth}\n")
}

#[test]
fn tenants_of_either_place_sign_in_by_a_profile() {
    let house = House::new(&format!("{}{}", profile("shared", "secret"), using("contoso", "'shared'")));
    house.put("tenants.d/fabrikam.toml", &using("fabrikam", "{ profile = 'shared' }").replace("11111111", "21111111"));
    house.put("tenants.d/adatum.toml", &tenant("adatum", "").replace("11111111", "31111111"));
    let house = house.set("SWEEPD__AUTH_PROFILES__SHARED__CLIENT_ID", "another-app");
    let config = house.good();
    assert!(config.warnings.is_empty() && config.disabled.is_empty(), "{:?} {:?}", config.warnings, config.disabled);
    for (tenant, client_id) in [("contoso", "another-app"), ("fabrikam", "another-app"), ("adatum", "app")] {
        let Auth::ClientSecret { client_id: found, secret, .. } = &config.tenants[&name(tenant)].auth else {
            panic!("another method")
        };
        assert_eq!((found.as_str(), secret.expose_secret()), (client_id, "s3cret"), "{tenant}");
    }
}

#[test]
fn a_managed_identity_of_a_profile_signs_in_at_the_machine() {
    let house =
        House::new(&format!("[auth_profiles.azure]\nmethod = 'managed_identity'\n{}", using("contoso", "'azure'")));
    assert_eq!(house.good().tenants[&name("contoso")].authority_url, "http://169.254.169.254");
}

#[test]
fn what_is_wrong_is_told_with_place_and_remedy() {
    for (profiles, auth, expected) in [
        (
            "",
            "'shared'",
            "sweepd.toml: tenants.contoso.auth.profile: there is no profile `shared`; add a section [auth_profiles.shared]",
        ),
        (
            &*profile("shared", "secret"),
            "'sharde'",
            "sweepd.toml: tenants.contoso.auth.profile: there is no profile `sharde`; did you mean `shared`?",
        ),
        (
            &*profile("a", "secret"),
            "'zzz'",
            "sweepd.toml: tenants.contoso.auth.profile: there is no profile `zzz`; add a section [auth_profiles.zzz], or name one that is there (a)",
        ),
        (
            &*profile("shared", "none"),
            "'shared'",
            "sweepd.toml: auth_profiles.shared.secret_file: no file of this name is in ",
        ),
        (
            &*profile("shared", "secret").replace("client_id", "clinet_id"),
            "'shared'",
            "sweepd.toml: auth_profiles.shared.client_id: is missing; ",
        ),
        (&*profile("Shared", "secret"), "'Shared'", "sweepd.toml: auth_profiles.Shared: a profile's name has 1 to 64 "),
        (
            &*profile("shared", "secret"),
            "{ profile = 'shared', client_id = 'x' }",
            "sweepd.toml: tenants.contoso.auth.client_id: stands beside `profile`, which says how to sign in; remove it, or write it into [auth_profiles.shared]",
        ),
        ("auth_profiles = 5\n", "'shared'", "sweepd.toml: auth_profiles: is a section, not a value; "),
        ("", "5", "sweepd.toml: tenants.contoso.auth: is a section, not a value; "),
        (
            &*format!("{}profile = 'b'\n", profile("a", "secret")),
            "'a'",
            "sweepd.toml: auth_profiles.a.profile: is not a known key; ",
        ),
    ] {
        let problems = House::new(&format!("{profiles}{}", using("contoso", auth))).problems();
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:#?}");
    }
    let secret = House::new(&format!("{}secret = 's3cret'\n{}", profile("a", "secret"), using("contoso", "'a'")));
    assert!(!secret.load().unwrap_err().to_string().contains("s3cret"));
}

#[test]
fn a_broken_profile_disables_its_tenants_in_tenants_d_and_nobody_else() {
    let house = House::contoso(&profile("shared", "none"));
    for tenant in ["fabrikam", "northwind"] {
        house.put(&format!("tenants.d/{tenant}.toml"), &using(tenant, "'shared'"));
    }
    let config = house.good();
    assert_eq!(config.tenants.len(), 1);
    for tenant in ["fabrikam", "northwind"] {
        let why = config.disabled[&name(tenant)][0].to_string();
        assert!(why.contains("auth_profiles.shared.secret_file: no file of this name"), "{why}");
    }
    // In the file itself it is an error like any other there, and told once.
    let twice = format!("{}{}{}", profile("shared", "none"), using("a", "'shared'"), using("b", "'shared'"));
    assert_eq!(House::new(&twice).problems().len(), 1);
}

#[test]
fn a_profile_that_nobody_uses_is_warned_of_and_breaks_nothing() {
    let warnings = House::contoso(&profile("shared", "none")).good().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(
        warnings[0],
        "auth_profiles.shared: no tenant uses it; write auth = \"shared\" to a tenant, or remove it"
    );
    assert!(warnings[1].contains("auth_profiles.shared.secret_file: no file of this name"), "{warnings:?}");
}

#[test]
fn commands_that_sign_in_nowhere_read_no_secret_of_a_profile() {
    let house = House::new(&format!("{}{}", profile("shared", "none"), using("contoso", "'shared'")));
    let environment = Environment::new(BTreeMap::new(), "/srv").without_secrets();
    assert!(load(Some(&house.dir.path().join("sweepd.toml")), &environment, &[]).is_ok());
}

//! Files, environment and flags, and which of them holds.

use super::*;

#[test]
fn environment_beats_the_file_and_flags_beat_both() {
    let house = House::contoso("[log]\nlevel = 'warn'\nformat = 'text'\n[intake]\nhold_above = '55'")
        .set("SWEEPD__LOG__LEVEL", "debug")
        .set("SWEEPD__TENANTS__CONTOSO__LIMITS__PER_MINUTE", "77")
        .set("SWEEPD__TENANTS__CONTOSO__PENDING_TYPES", "RunAntiVirusScan, Isolate")
        .set("SWEEPD__TENANTS__CONTOSO__AUTH__CLIENT_ID", "0123")
        .set("SWEEPD__INTAKE__ONLY_ONBOARDED", "false")
        .set("SWEEPD_CONFIG", "/nowhere")
        .set("SWEEPD_LOG", "x")
        .set("STATE_DIRECTORY", "/srv/one:/srv/two");
    let config = house.load_with(&[("log.level", "trace"), ("daemon.spool_dir", "here")]).unwrap();
    assert_eq!((config.log.level.as_str(), config.log.format), ("trace", LogFormat::Text));
    assert_eq!(config.intake.hold_above.all, 55);
    assert!(!config.intake.only_onboarded);
    assert_eq!(config.daemon.state_dir, Path::new("/srv/one"));
    assert_eq!(config.daemon.spool_dir, Path::new("/srv/here"));
    let tenant = &config.tenants[&name("contoso")];
    assert_eq!(tenant.budgets.scan.most.per_minute.get(), 77);
    assert!(tenant.pending_types.holds("Isolate"));
    assert_eq!(tenant.auth.client_id(), Some("0123"));
}

#[test]
fn problems_name_the_source_of_the_value() {
    let house = House::contoso("")
        .set("SWEEPD__LOG__LEVL", "debug")
        .set("SWEEPD__DAEMON", "x")
        .set("SWEEPD__DAEMON__STATE_DIR", "y")
        .set("SWEEPD__HTTP__LISTEN__PORT", "1")
        .set("SWEEPD__INTAKE_SETTLE", "1s")
        .set("sweepd__intake__rescan", "soon")
        .set("SWEEPD__NETWORK__ZZZ", "1");
    let error = house.load_with(&[("follow_up.interval", "soon")]).unwrap_err();
    assert_eq!(
        house.lines(&error.to_string()),
        [
            "environment variable SWEEPD__DAEMON: daemon: is a section, not a value; write [daemon] and its keys below",
            "environment variable SWEEPD__HTTP__LISTEN__PORT: http.listen: is a value, not a section; write a single value",
            "environment variable sweepd__intake__rescan: intake.rescan: `soon` is not a duration; write a whole number \
             and a unit: ms, s, m, h or d, such as 30s, 5m or 7d",
            "command line: follow_up.interval: `soon` is not a duration; write a whole number and a unit: ms, s, m, h or d, \
             such as 30s, 5m or 7d",
            "environment variable SWEEPD__LOG__LEVL: log.levl: is not a known key; did you mean `SWEEPD__LOG__LEVEL`?",
            "environment variable SWEEPD__NETWORK__ZZZ: network.zzz: is not a known key; unset it",
            "environment variable SWEEPD__INTAKE_SETTLE: intake_settle: is not a known key; did you mean `SWEEPD__INTAKE__SETTLE`?",
        ]
    );
    let error = house.load_with(&[("a b", "x")]).unwrap_err().to_string();
    assert!(error.starts_with("command line: a b: is not a dotted key"), "{error}");
}

#[test]
fn variable_is_blamed_for_what_it_breaks_in_a_right_file() {
    let tenant = "tenants.contoso";
    for (variable, value, expected) in [
        (
            "SWEEPD__TENANTS__CONTSO__LIMITS__PER_MINUTE",
            "5",
            "environment variable SWEEPD__TENANTS__CONTSO__LIMITS__PER_MINUTE: tenants.contso: no such tenant is configured, \
             and the variable alone makes none; did you mean `SWEEPD__TENANTS__CONTOSO`?"
                .to_owned(),
        ),
        (
            "SWEEPD__TENANTS__CONTOSO__LIMITS__PER_MINUTE",
            "2000",
            format!("environment variable SWEEPD__TENANTS__CONTOSO__LIMITS__PER_MINUTE: {tenant}.limits.per_hour: is 1500, below per_minute (2000); raise it, or lower per_minute"),
        ),
        (
            "SWEEPD__TENANTS__CONTOSO__AUTH__METHOD",
            "managed_identity",
            format!("sweepd.toml: {tenant}.auth.secret_file: is of no use to managed_identity (this section also has what SWEEPD__TENANTS__CONTOSO__AUTH__METHOD sets); remove it, or write method = \"client_secret\""),
        ),
        (
            "SWEEPD__TENANTS__CONTOSO__AUTH__SECRET_FIEL",
            "x",
            format!("environment variable SWEEPD__TENANTS__CONTOSO__AUTH__SECRET_FIEL: {tenant}.auth.secret_fiel: is not a known key; did you mean `SWEEPD__TENANTS__CONTOSO__AUTH__SECRET_FILE`?"),
        ),
    ] {
        assert_eq!(House::contoso("").set(variable, value).problems(), [expected]);
    }
}

#[test]
fn variable_with_single_underscores_is_warned_of() {
    // The others are what Kubernetes sets for a service of this name, and what other programs have.
    let house = House::contoso("")
        .set("SWEEPD_LOG_LEVEL", "debug")
        .set("sweepd_tenants_contoso_limits_per_minute", "5")
        .set("SWEEPD_PORT", "tcp://10.0.0.1:80")
        .set("SWEEPD_SERVICE_HOST", "10.0.0.1")
        .set("LOG_LEVEL", "debug");
    let config = house.good();
    assert_eq!(
        config.warnings,
        [
            "environment variable SWEEPD_LOG_LEVEL: sets nothing; did you mean `SWEEPD__LOG__LEVEL`?",
            "environment variable sweepd_tenants_contoso_limits_per_minute: sets nothing; did you mean \
             `SWEEPD__TENANTS__CONTOSO__LIMITS__PER_MINUTE`?"
        ]
    );
    assert_eq!(config.log.level, "info");
}

#[test]
fn proxy_variable_that_names_no_proxy_is_warned_of() {
    let bad = |house: House| house.set("HTTPS_PROXY", "http//ann:s3cret@proxy").set("all_proxy", "socks5://proxy");
    let warnings = bad(House::contoso("")).good().warnings;
    let warnings: Vec<_> = warnings.iter().filter(|warning| !warning.contains("the password stands")).collect();
    assert_eq!(
        warnings,
        [
            "network.proxy: the environment variable HTTPS_PROXY cannot be read as a proxy's address and is ignored: calls go \
             without it; write it as http://proxy.example.com:3128, or set network.proxy",
            "network.proxy: the environment variable all_proxy names a proxy of the kind socks5, which sweepd cannot use: no \
             call gets through; write it as http://proxy.example.com:3128, or set network.proxy",
        ]
    );
    // Where network.proxy stands, they are not asked.
    let warnings = bad(House::contoso("[network]\nproxy = 'http://proxy:3128'")).good().warnings.join("\n");
    assert!(!warnings.contains("ignored") && !warnings.contains("socks5"), "{warnings}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let house = House::new("[log]\nlevel = 's3cret\n");
    let problems = house.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("sweepd.toml: line 2, column "), "{problems:?}");
    assert!(!problems[0].contains("s3cret"), "{problems:?}");

    house.put("sweepd.toml", "a = 1\na = 2\n");
    assert!(house.problems()[0].starts_with("sweepd.toml: line 2, column 1: duplicate key"), "{:?}", house.problems());

    fs::write(house.dir.path().join("sweepd.toml"), b"# a\n# \xff\n").unwrap();
    assert_eq!(house.problems(), ["sweepd.toml: line 2: is not UTF-8; save the file as UTF-8"]);

    fs::remove_file(house.dir.path().join("sweepd.toml")).unwrap();
    let problems = house.problems();
    assert!(
        problems.len() == 1 && problems[0].starts_with("sweepd.toml: cannot be read: No such file"),
        "{problems:?}"
    );
}

#[test]
fn path_in_a_problem_steers_no_terminal() {
    let house = House::contoso("");
    let odd = "odd\n\u{1b}[2J\u{202e}.toml";
    house.put(odd, "a =").put(&format!("tenants.d/{odd}"), "a =");
    let environment = Environment::new(BTreeMap::new(), "/srv");
    let broken = load(Some(&house.dir.path().join(odd)), &environment, &[]).unwrap_err().to_string();
    let stray = house.good().warnings.join("\n");
    for text in [broken, stray] {
        assert!(text.contains(r"odd\n\u{1b}[2J\u{202e}.toml: "), "{text}");
        assert!(!text.chars().any(crate::domain::shown::is_shapeless), "{text}");
    }
}

#[test]
fn the_file_may_be_named_by_the_environment_or_be_left_out() {
    let house = House::contoso("");
    let path = house.dir.path().join("sweepd.toml");
    let named = BTreeMap::from([("SWEEPD_CONFIG".to_owned(), path.to_str().unwrap().to_owned())]);
    let config = load(None, &Environment::new(named, "/"), &[]).unwrap();
    assert_eq!(config.file.as_deref(), Some(path.as_path()));
    let relative = Environment::new(BTreeMap::new(), house.dir.path());
    assert!(load(Some(Path::new("sweepd.toml")), &relative, &[]).is_ok());

    if !Path::new(DEFAULT_FILE).exists() {
        let nothing = Environment::new(BTreeMap::new(), "/");
        let error = load(None, &nothing, &[]).unwrap_err();
        assert!(error.to_string().starts_with("/etc/sweepd/sweepd.toml: cannot be read"), "{error}");
        let secret = house.dir.path().join("secret");
        let secret = secret.to_str().unwrap();
        let settings: Vec<_> = [("tenant_id", GUID), ("auth.client_id", "app"), ("auth.secret_file", secret)]
            .map(|(key, value)| (format!("tenants.contoso.{key}"), value.to_owned()))
            .to_vec();
        let config = load(None, &nothing, &settings).unwrap();
        assert_eq!((config.file, config.tenants.len()), (None, 1));
    }
}

#[test]
fn tenants_have_files_of_their_own_in_either_form() {
    let house = House::contoso("[intake]\ndefault_tenant = 'adatum'").set("SWEEPD__TENANTS__ADATUM__MAX_ATTEMPTS", "9");
    let bare = tenant("x", "").replace("[tenants.x]", "");
    house.put("tenants.d/adatum.toml", &bare).put("tenants.d/fabrikam.toml", &tenant("fabrikam", ""));
    house.put("tenants.d/.hidden.toml", "x").put("tenants.d/notes.txt", "x");
    let config = house.good();
    let names: Vec<_> = config.tenants.keys().map(TenantName::as_str).collect();
    assert_eq!(names, ["adatum", "contoso", "fabrikam"]);
    assert_eq!(config.tenants[&name("adatum")].max_attempts.get(), 9);
    assert!(config.disabled.is_empty());
}

#[test]
fn a_broken_file_disables_its_tenant_only() {
    let house = House::contoso("").set("SWEEPD__TENANTS__SYNTAX__MAX_ATTEMPTS", "9");
    for (file, content) in [
        ("syntax", "a ="),
        ("unknown", "tenant_di = 1"),
        ("secretless", &tenant("secretless", "").replace("'secret'", "'none'")),
        ("other", &tenant("another", "")),
        ("two", &format!("{}{}", tenant("two", ""), tenant("three", ""))),
        ("beside", &format!("comment = 'x'\n{}", tenant("beside", ""))),
        ("Upper", ""),
    ] {
        house.put(&format!("tenants.d/{file}.toml"), content);
    }
    let config = house.good();
    assert_eq!(config.tenants.len(), 1);
    let why: Vec<_> = config.disabled.values().map(|problems| problems[0].to_string()).collect();
    let why = house.lines(&why.join("\n"));
    for (line, expected) in why.iter().zip([
        "tenants.d/beside.toml: comment: stands beside the tenant's section",
        "tenants.d/other.toml: tenants: holds something else than the one tenant",
        "tenants.d/secretless.toml: tenants.secretless.auth.secret_file: no file of this name is in",
        "tenants.d/syntax.toml: line 1, column ",
        "tenants.d/two.toml: tenants: holds something else",
        "tenants.d/unknown.toml: tenants.unknown.tenant_id: is missing",
    ]) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(why.len(), 6);
    assert!(config.warnings[0].contains("tenants.d/Upper.toml: a tenant's name has"), "{:?}", config.warnings);
}

#[test]
fn a_tenant_in_both_places_is_disabled_and_none_left_is_an_error() {
    let house = House::contoso("");
    house.put("tenants.d/contoso.toml", &tenant("contoso", ""));
    let problems = house.problems();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].starts_with("sweepd.toml: tenants: no tenant remains"), "{problems:?}");
    assert!(problems[1].starts_with("tenants.d/contoso.toml: the tenant is also in the file"), "{problems:?}");
}

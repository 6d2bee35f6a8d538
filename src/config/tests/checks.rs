//! Each check, and all of them at once.

use super::*;
use crate::domain::ledger::{CallKind, Pace};

#[test]
fn all_errors_are_told_at_once() {
    let house = House::new(
        "netwrok = 1\n[network]\ncall_timeout = '0s'\nproxy = 'http://me:s3cret@proxy/path'\n[intake]\nrescan = 5\n\
         default_tenant = 'fabrikam'\n[log]\nlevel = 'inof'\n[tenants.contoso]\ntenant_id = 'x'\napi_url = 'http://example.com'\n\
         [tenants.contoso.limits]\nper_minut = 5\nreserve_percent = 91\nper_hour = 99\n",
    );
    assert_eq!(
        house.problems(),
        [
            "sweepd.toml: log.level: `inof` is not a level; write off, error, warn, info, debug or trace, \
             or directives such as info,sweepd::engine=debug",
            "sweepd.toml: network.proxy: has a path; write one such as http://proxy.example.com:3128",
            "sweepd.toml: network.call_timeout: is zero; write a duration above zero, such as 30s",
            "sweepd.toml: intake.rescan: `5` is not a duration; write a whole number and a unit: ms, s, m, h or d, \
             such as 30s, 5m or 7d",
            "sweepd.toml: intake.default_tenant: there is no tenant `fabrikam`; name one that is configured (contoso), \
             or \"\" for none",
            "sweepd.toml: netwrok: is not a known key; did you mean `network`?",
            "sweepd.toml: tenants.contoso.tenant_id: is not a GUID; write the directory (tenant) id, such as \
             11111111-2222-3333-4444-555555555555",
            "sweepd.toml: tenants.contoso.api_url: is http:// to another host, where anybody on the way could read the \
             token; write https://; http:// is for loopback only",
            "sweepd.toml: tenants.contoso.auth.client_id: is missing; write the application (client) id",
            "sweepd.toml: tenants.contoso.auth.secret_file: is missing; name the file that holds the client secret",
            "sweepd.toml: tenants.contoso.limits.per_hour: is 99, below per_minute (100); raise it, or lower per_minute",
            "sweepd.toml: tenants.contoso.limits.reserve_percent: is 91, above 90; write a whole number from 0 to 90",
            "sweepd.toml: tenants.contoso.limits.per_minut: is not a known key; did you mean `per_minute`?",
        ]
    );
}

/// One mistake each: the text, what the problem says.
/// One mistake each beside a good tenant: the text, what its problem says.
const WRONG: [(&str, &str); 14] = [
    ("[daemon]\nshutdown_grace = '-1s'", "daemon.shutdown_grace: `-1s` is not a duration"),
    ("[daemon]\nstate_dir = ''", "daemon.state_dir: is empty"),
    ("[http]\nlisten = 'localhost'", "http.listen: `localhost` is not an address"),
    ("[log]\nformat = 'xml'", "log.format: `xml` is not one of: auto, text"),
    ("[network]\nconnect_timeout = '0s'", "network.connect_timeout: is zero"),
    ("[network]\nca_file = 'none.pem'", "none.pem: No such file"),
    ("[network]\nca_file = 'secret'", "secret holds no PEM certificate"),
    ("[intake]\nmax_file_size = '1KB'", "intake.max_file_size: `1KB` is not a size"),
    ("[intake]\nhold_above = -1", "intake.hold_above: `-1` is not such a number"),
    ("[intake]\nonly_onboarded = 'perhaps'", "intake.only_onboarded: `perhaps` is neither"),
    ("[follow_up]\ninterval = '0s'", "follow_up.interval: is zero"),
    ("[follow_up]\nlookup_horizon = '59s'", "follow_up.lookup_horizon: is shorter than network.unknown_grace"),
    ("[retention]\nkeep = 1.5", "retention.keep: has a decimal point"),
    ("[tenants.Fabrikam]", "tenants.Fabrikam: a tenant's name has 1 to 64"),
];

/// The same, among the keys of a tenant.
const WRONG_WITHIN: [(&str, &str); 20] = [
    ("limits.per_minute = 0", "limits.per_minute: is 0"),
    ("limits.per_hour = 0", "limits.per_hour: is 0"),
    ("limits.per_minute = 2000", "limits.per_hour: is 1500, below per_minute (2000)"),
    ("limits.longest_pause = '0s'", "limits.longest_pause: is zero"),
    (
        "limits.scan.per_minute = 50",
        "limits.scan: is not a known key; remove it, or write one of `cancel_action`, `get_action`, `get_machine`, `list_actions`, \
         `list_machines`, `longest_pause`, `pace`, `per_hour`, `per_minute`, `reserve_percent`",
    ),
    ("limits.pace = 'slow'", "limits.pace: `slow` is not one of: burst, even"),
    ("cloud = 'china'", "cloud: `china` is not one of: commercial, gcc, gcc-high, dod"),
    ("region = 'mars'", "region: `mars` is not one of: us, eu"),
    ("cloud = 'gcc'\nregion = 'eu'", "region: the cloud gcc has no regions"),
    ("api_path = 'api'", "api_path: is not a path"),
    ("authority_url = 'http://10.0.0.1'", "authority_url: is http:// to another host"),
    ("api_url = 'https://me:pw@x.y'", "api_url: has a user name or a password"),
    ("api_url = 'https://x.y/?q'", "api_url: has a query"),
    ("default_scan = 'Deep'", "default_scan: `Deep` is not one of"),
    ("on_pending = 'fail'", "on_pending: `fail` is not one of"),
    ("inactive = 'off'", "inactive: `off` is not one of"),
    ("pending_types = []", "pending_types: names no action type"),
    ("pending_types = ['a', ' ']", "pending_types: names no action type"),
    ("skip_if_scanned_within = '1'", "skip_if_scanned_within: `1` is not a duration"),
    ("max_attempts = 0", "max_attempts: is 0"),
];

#[test]
fn each_check_refuses_what_it_is_for() {
    for (text, expected) in WRONG {
        let problems = House::contoso(text).problems();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:#?}");
    }
    for (text, expected) in WRONG_WITHIN {
        let problems = House::new(&tenant("contoso", text)).problems();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:#?}");
    }
    let long = format!("comment = '{}'", "x".repeat(1001));
    assert!(House::new(&tenant("contoso", &long)).problems()[0].contains("1001 characters"));
}

#[test]
fn a_path_in_an_address_is_warned_of() {
    for (text, warned) in [
        ("api_url = 'https://api.example/'\nauthority_url = 'https://login.example'", ""),
        ("api_url = 'https://api.example/api'", "tenants.contoso.api_url: has a path"),
        ("authority_url = 'https://login.example/common/'", "tenants.contoso.authority_url: has a path"),
    ] {
        let warnings = House::new(&tenant("contoso", text)).good().warnings;
        assert_eq!(warnings.len(), usize::from(!warned.is_empty()), "{text}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains(warned)), "{warnings:?}");
    }
}

#[test]
fn listener_that_is_not_loopback_is_warned_of() {
    for listen in ["0.0.0.0:9464", "[::]:9464", "10.0.0.5:9464", "[::ffff:10.0.0.5]:9464"] {
        let warnings = House::contoso(&format!("[http]\nlisten = '{listen}'")).good().warnings;
        let expected = format!("http.listen: {listen} is not loopback: every machine that reaches it may read");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{listen}: {warnings:?}");
        assert!(warnings[0].contains("no login and no TLS; listen on 127.0.0.1"), "{warnings:?}");
    }
    for listen in ["", "127.0.0.1:0", "127.9.9.9:1", "[::1]:9464", "[::ffff:127.0.0.1]:9464"] {
        assert!(House::contoso(&format!("[http]\nlisten = '{listen}'")).good().warnings.is_empty(), "{listen}");
    }
}

#[test]
fn without_a_tenant_there_is_nothing_to_do() {
    assert_eq!(
        House::new("").problems(),
        ["sweepd.toml: tenants: no tenant is configured; add a section [tenants.NAME]"]
    );
}

/// The hosts as Microsoft lists them (gov.md, run-av-scan.md): settings, API, sign-in, audience. Tokens for a
/// regional host are asked for the cloud's first host.
const HOSTS: [(&str, &str, &str, &str); 12] = [
    ("", COMMON, COM, COMMON),
    ("cloud = 'commercial'", COMMON, COM, COMMON),
    ("region = 'us'", "https://us.api.security.microsoft.com", COM, COMMON),
    ("region = 'eu'", "https://eu.api.security.microsoft.com", COM, COMMON),
    ("region = 'uk'", "https://uk.api.security.microsoft.com", COM, COMMON),
    ("region = 'au'", "https://au.api.security.microsoft.com", COM, COMMON),
    ("region = 'swa'", "https://swa.api.security.microsoft.com", COM, COMMON),
    ("region = 'ina'", "https://ina.api.security.microsoft.com", COM, COMMON),
    ("region = 'aea'", "https://aea.api.security.microsoft.com", COM, COMMON),
    ("cloud = 'gcc'", GCC, COM, GCC),
    ("cloud = 'gcc-high'", GOV, US, GOV),
    ("cloud = 'dod'", GOV, US, GOV),
];
const COMMON: &str = "https://api.securitycenter.microsoft.com";
const GCC: &str = "https://api-gcc.securitycenter.microsoft.us";
const GOV: &str = "https://api-gov.securitycenter.microsoft.us";
const COM: &str = "https://login.microsoftonline.com";
const US: &str = "https://login.microsoftonline.us";

#[test]
fn clouds_and_regions_have_their_hosts() {
    let overridden = [
        ("cloud = 'dod'\napi_url = 'http://127.0.0.1:1/'", "http://127.0.0.1:1", US, GOV),
        ("region = 'eu'\nauthority_url = 'http://[::1]:2/'", HOSTS[3].1, "http://[::1]:2", COMMON),
        ("api_url = 'https://api.security.microsoft.com'", "https://api.security.microsoft.com", COM, COMMON),
    ];
    for (text, api, authority, scope) in HOSTS.into_iter().chain(overridden) {
        let config = House::new(&tenant("contoso", text)).good();
        let tenant = &config.tenants[&name("contoso")];
        let found = (tenant.api_url.as_str(), tenant.authority_url.as_str());
        assert_eq!(found, (api, authority), "{text}");
        assert_eq!(tenant.scope, format!("{scope}/.default"), "{text}");
    }
}

#[test]
fn base_of_the_calls_is_api_url_and_api_path() {
    for (text, base) in [
        ("", "https://api.securitycenter.microsoft.com/api"),
        ("region = 'aea'\napi_path = '/api/v1.0/'", "https://aea.api.security.microsoft.com/api/v1.0"),
        ("api_url = 'https://gateway.example/mde/'", "https://gateway.example/mde/api"),
        ("api_url = 'https://gateway.example/mde'\napi_path = ''", "https://gateway.example/mde"),
    ] {
        let config = House::new(&tenant("contoso", text)).good();
        assert_eq!(config.tenants[&name("contoso")].api_base(), base, "{text}");
    }
}

#[test]
fn the_reserve_is_taken_off_the_limits() {
    let config = House::new(&tenant("contoso", "limits.reserve_percent = 10")).good();
    let tenant = &config.tenants[&name("contoso")];
    assert_eq!((tenant.budgets.scan.most.per_minute.get(), tenant.budgets.scan.most.per_hour.get()), (90, 1350));
    assert_eq!(tenant.budgets.scan.whole.per_minute.get(), 100);
}

#[test]
fn one_app_registration_for_two_tenants_is_warned_of() {
    let twice = House::new(&format!("{}{}", tenant("a", ""), tenant("b", ""))).good();
    assert!(
        twice.warnings.iter().any(|warning| warning.starts_with("tenants.a and tenants.b")),
        "{:?}",
        twice.warnings
    );
    let once = House::contoso("").good();
    assert!(once.warnings.is_empty(), "{:?}", once.warnings);
}

#[test]
fn all_tenants_with_one_app_registration_have_the_stricter_limits_of_all() {
    let house = House::new(&format!(
        "{}{}{}{}",
        tenant("a", "limits.per_minute = 50\nlimits.longest_pause = '5m'"),
        tenant("b", "limits.list_actions.per_minute = 7"),
        tenant("c", "limits.per_hour = 900\nlimits.reserve_percent = 10\nlimits.pace = 'even'"),
        tenant("other", "limits.per_minute = 20").replace("'app'", "'another'"),
    ));
    let config = house.good();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    for section in ["a", "b", "c"] {
        let Budgets { scan, others, longest_pause } = &config.tenants[&name(section)].budgets;
        let most = (scan.most.per_minute.get(), scan.most.per_hour.get());
        assert_eq!((most, scan.pace), ((50, 810), Pace::Even), "{section}");
        assert_eq!((longest_pause.as_secs(), others[&CallKind::ListActions].per_minute.get()), (300, 7), "{section}");
    }
    let other = &config.tenants[&name("other")].budgets;
    assert_eq!((other.scan.most.per_minute.get(), other.longest_pause), (20, Budgets::default().longest_pause));
}

#[test]
fn limits_above_the_documented_ones_and_endless_pauses_are_warned_of() {
    for (text, expected) in [
        (
            "limits.per_minute = 101",
            "tenants.contoso.limits.per_minute: is 101, above the 100 that Microsoft documents",
        ),
        ("limits.per_hour = 1501", "tenants.contoso.limits.per_hour: is 1501, above the 1500 that Microsoft documents"),
        (
            "limits.list_actions.per_hour = 9000",
            "tenants.contoso.limits.list_actions.per_hour: is 9000, above the 1500",
        ),
        ("limits.longest_pause = '400d'", "tenants.contoso.limits.longest_pause: is longer than a day"),
    ] {
        let warnings = House::new(&tenant("contoso", text)).good().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{text}: {warnings:?}");
    }
    for text in ["limits.per_minute = 100", "limits.longest_pause = '24h'", "limits.per_hour = 100"] {
        assert!(House::new(&tenant("contoso", text)).good().warnings.is_empty(), "{text}");
    }
}

#[test]
fn archives_of_what_defender_may_still_list_are_warned_of() {
    for (retention, warned) in [
        ("keep = '29d'\narchive_dir = '/archive'", true),
        ("keep = '30d'\narchive_dir = '/archive'", false),
        ("keep = '29d'", false),
    ] {
        let warnings = House::contoso(&format!("\n[retention]\n{retention}\n")).good().warnings;
        assert_eq!(warnings.iter().any(|warning| warning.contains("retention.keep:")), warned, "{warnings:?}");
    }
}

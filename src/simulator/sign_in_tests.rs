//! What the authority and the metadata service let in, and how they refuse the rest.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::chance::Chance;
use super::exchange::{Request, Response};
use super::metadata;
use super::options::{Federated, TenantOptions, Trust};
use super::sign_in::SignIn;
use crate::credentials::{OTHER, SUBJECT, VALID, der, federated_token, key, trust};
use crate::domain::time::Wall;

const BASE: &str = "http://127.0.0.1:1";
const PATH: &str = "/directory/oauth2/v2.0/token";
const NOW: Wall = Wall(1_000_000_000);

fn ask(form: &str) -> Request {
    Request {
        method: "POST".to_owned(),
        path: PATH.to_owned(),
        content_type: Some("application/x-www-form-urlencoded".to_owned()),
        body: form.as_bytes().to_vec(),
        ..Request::default()
    }
}

fn tenant() -> TenantOptions {
    TenantOptions {
        client_id: "app".to_owned(),
        client_secret: "s+e&c".to_owned(),
        token_lifetime: Duration::from_mins(1),
        trust: Trust {
            certificates: vec![der(OTHER), der(VALID)],
            identities: vec!["one".to_owned(), "two".to_owned()],
            ..trust("one")
        },
        ..TenantOptions::new(Vec::new())
    }
}

impl SignIn {
    fn asked(&mut self, now: Wall, request: &Request) -> Response {
        self.answer(now, request, &tenant(), BASE, &mut Chance::new(1))
    }
}

const GOOD: &str = "grant_type=client_credentials&client_id=app&client_secret=s%2Be%26c&scope=https%3A%2F%2Fapi.securitycenter.microsoft.com%2F.default";

#[test]
fn a_token_is_good_for_its_lifetime() {
    let mut sign_in = SignIn::default();
    let response = sign_in.asked(Wall(0), &ask(GOOD));
    assert_eq!(response.status, 200);
    assert_eq!(response.value()["expires_in"], 60);
    let token = response.value()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(token.split('.').count(), 3);
    assert!(sign_in.is_live(&token, Wall(59_999)));
    assert!(!sign_in.is_live(&token, Wall(60_000)));
    assert!(sign_in.knows(&token) && !sign_in.knows("other"));
    sign_in.revoke();
    assert!(!sign_in.is_live(&token, Wall(1)));
}

#[test]
fn refusals_carry_the_numbers_of_entra() {
    let without = |name: &str| GOOD.split('&').filter(|pair| !pair.starts_with(name)).collect::<Vec<_>>().join("&");
    for (form, status, error, number) in [
        (GOOD.replace("s%2B", "s+"), 401, "invalid_client", 7_000_215),
        (GOOD.replace("client_id=app", "client_id=b"), 400, "unauthorized_client", 700_016),
        (GOOD.replace("%2F.default", ""), 400, "invalid_scope", 70_011),
        (GOOD.replace("client_credentials", "password"), 400, "unsupported_grant_type", 70_003),
        (without("client_secret"), 401, "invalid_client", 7_000_218),
        (GOOD.replace("client_secret=", "client_assertion="), 400, "invalid_request", 900_144),
        (without("grant_type"), 400, "invalid_request", 900_144),
    ] {
        let mut sign_in = SignIn::default();
        let response = sign_in.asked(Wall(0), &ask(&form));
        let body = response.value();
        assert_eq!((response.status, sign_in.refused), (status, 1), "{form}");
        assert_eq!(body["error"], error, "{form}");
        assert_eq!(body["error_codes"][0], number, "{form}");
        assert_eq!(body["timestamp"], "1970-01-01 00:00:00Z");
    }
}

fn asserting(assertion: &str) -> Request {
    ask(&format!(
        "grant_type=client_credentials&client_id=app&scope=x%2F.default&client_assertion={assertion}\
         &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
    ))
}

/// A token that is signed with the key, whatever it says.
fn signed(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = RsaKeyPair::from_pkcs8(&key()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What is changed of a good assertion: in the header, or in the claims.
fn changed(part: &str, name: &str, value: &Value) -> String {
    let mut header = json!({
        "alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(Sha256::digest(der(VALID))),
    });
    let mut claims = json!({
        "aud": format!("{BASE}{PATH}"), "iss": "app", "sub": "app", "jti": "11111111-2222-4333-8444-555555555555",
        "nbf": 1_000_000, "iat": 1_000_000, "exp": 1_000_600,
    });
    let changed = if part == "header" { &mut header } else { &mut claims };
    changed[name] = value.clone();
    signed(&header, &claims)
}

#[test]
fn an_assertion_is_taken_once_and_only_as_the_page_has_it() {
    let good = || changed("claims", "iat", &json!(1_000_000));
    let mut sign_in = SignIn::default();
    assert_eq!(sign_in.asked(NOW, &asserting(&good())).status, 200);
    assert_eq!(sign_in.asked(NOW, &asserting(&good())).value()["error_codes"][0], 50_013, "its jti is known");
    let not_registered = URL_SAFE_NO_PAD.encode(Sha256::digest(b"another"));
    let of_another = URL_SAFE_NO_PAD.encode(Sha256::digest(der(OTHER)));
    for (part, name, value, number) in [
        ("header", "alg", json!("RS256"), 50_027),
        ("header", "typ", json!("jwt"), 50_027),
        ("header", "x5t#S256", json!(not_registered), 700_027),
        ("header", "x5t#S256", json!(of_another), 700_027),
        ("claims", "sub", json!("other"), 700_021),
        ("claims", "aud", json!(format!("{BASE}/other/oauth2/v2.0/token")), 700_023),
        ("claims", "nbf", json!(1_000_301), 700_024),
        ("claims", "exp", json!(999_700), 700_024),
        ("claims", "exp", json!(1_000_601), 50_013),
        ("claims", "jti", json!("1"), 50_013),
        ("claims", "iat", Value::Null, 50_013),
    ] {
        let response = SignIn::default().asked(NOW, &asserting(&changed(part, name, &value)));
        assert_eq!(response.value()["error_codes"][0], number, "{name} = {value}");
        assert!((400..=401).contains(&response.status));
    }
    // The signature of one under the claims of another.
    let (good, other) = (good(), changed("claims", "nbf", &json!(1_000_001)));
    let tampered = format!("{}.{}", other.rsplit_once('.').unwrap().0, good.rsplit_once('.').unwrap().1);
    for broken in [tampered.as_str(), "a.b.c", "", "a.b"] {
        assert_eq!(SignIn::default().asked(NOW, &asserting(broken)).status, 401, "{broken}");
    }
}

#[test]
fn a_federated_token_must_fit_its_record_letter_by_letter() {
    let mut tenant = tenant();
    let token = federated_token(1_000_060);
    let ask = |tenant: &TenantOptions, now: Wall| {
        let answer = SignIn::default().answer(now, &asserting(&token), tenant, BASE, &mut Chance::new(1));
        (answer.status, answer.value()["error_codes"][0].as_u64())
    };
    assert_eq!(ask(&tenant, NOW), (200, None));
    assert_eq!(ask(&tenant, Wall(1_000_360_000)), (401, Some(700_024)));
    let change =
        |tenant: &mut TenantOptions, change: fn(&mut Federated)| change(tenant.trust.federated.as_mut().unwrap());
    for (wrong, number) in [
        ((|record| record.key = vec![0]) as fn(&mut Federated), 50_013),
        (|record| record.subject = SUBJECT.to_uppercase(), 700_213),
        (|record| record.audience.push('/'), 700_212),
        (|record| record.issuer.push('/'), 700_211),
    ] {
        change(&mut tenant, wrong);
        assert_eq!(ask(&tenant, NOW), (400, Some(number)));
    }
    tenant.trust = Trust::default();
    assert_eq!(ask(&tenant, NOW).0, 401, "nobody is trusted");
}

#[test]
fn the_metadata_service_answers_whoever_has_the_header_with_strings() {
    let query = |pairs: &[(&str, &str)]| Request {
        method: "GET".to_owned(),
        path: metadata::PATH.to_owned(),
        query: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        metadata: Some("true".to_owned()),
        ..Request::default()
    };
    let version = ("api-version", "2018-02-01");
    let good = query(&[version, ("resource", "https://api.example.com"), ("client_id", "two")]);
    let mut sign_in = SignIn::default();
    let answer = sign_in.asked(NOW, &good).value();
    assert_eq!((&answer["expires_in"], &answer["expires_on"]), (&json!("60"), &json!("1000060")));
    assert_eq!((&answer["client_id"], &answer["resource"]), (&json!("two"), &json!("https://api.example.com")));
    assert!(sign_in.is_live(answer["access_token"].as_str().unwrap(), NOW));
    for (request, error) in [
        (Request { metadata: None, ..good.clone() }, "bad_request_102"),
        (Request { metadata: Some("True".to_owned()), ..good.clone() }, "bad_request_102"),
        (query(&[("resource", "x"), ("client_id", "two")]), "invalid_request"),
        (query(&[version, ("resource", "x/.default"), ("client_id", "two")]), "invalid_resource"),
        (query(&[version, ("client_id", "two")]), "invalid_resource"),
        (query(&[version, ("resource", "x"), ("client_id", "three")]), "invalid_request"),
        (query(&[version, ("resource", "x")]), "invalid_request"),
    ] {
        let response = sign_in.asked(NOW, &request);
        assert_eq!((response.status, &response.value()["error"]), (400, &json!(error)), "{request:?}");
    }
    assert_eq!((sign_in.granted, sign_in.refused), (1, 7));
}

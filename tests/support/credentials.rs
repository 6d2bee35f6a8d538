//! Throw-away certificates with their key, made by OpenSSL (`tests/fixtures/auth`); and tokens as a
//! cluster issues them. Unit tests and scenarios share them.
//!
//! The key is kept as a fixture: ring makes no RSA keys, and `openssl` need not be on the machine.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "no test uses all of it; what is wrong with a fixture fails loudly"
)]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use sweepd::simulator::{Federated, Trust};

/// A certificate of the key, until 2126-10-29.
pub const VALID: &str = include_str!("../fixtures/auth/valid.pem");
/// Another of the same key, which is good for as long.
pub const RENEWED: &str = include_str!("../fixtures/auth/renewed.pem");
/// One of the same key, until 2027-01-21T04:25:33Z.
pub const SHORT: &str = include_str!("../fixtures/auth/short.pem");
/// One of another RSA key.
pub const OTHER: &str = include_str!("../fixtures/auth/other.pem");
/// One of a key on the curve P-256.
pub const ELLIPTIC: &str = include_str!("../fixtures/auth/ec.pem");

/// The content of a certificate file.
pub fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

/// The key, as PKCS#8.
pub fn key() -> Vec<u8> {
    let lines = include_str!("../fixtures/auth/key.txt").lines().filter(|line| !line.starts_with('#'));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

/// The key in the older form, PKCS#1, which is inside of the newer one.
pub fn pkcs1() -> Vec<u8> {
    key()[26..].to_vec()
}

/// The public half of the key, as PKCS#1.
pub fn public_key() -> Vec<u8> {
    RsaKeyPair::from_pkcs8(&key()).unwrap().public().as_ref().to_vec()
}

/// A section of PEM.
pub fn pem(kind: &str, content: &[u8]) -> String {
    let mut text = format!("-----BEGIN {kind}-----\n");
    for line in STANDARD.encode(content).as_bytes().chunks(64) {
        text += std::str::from_utf8(line).unwrap();
        text.push('\n');
    }
    text + &format!("-----END {kind}-----\n")
}

/// The key as a file has it.
pub fn key_pem() -> String {
    pem("PRIVATE KEY", &key())
}

/// The issuer of [`federated_token`].
pub const ISSUER: &str = "https://oidc.example.com/cluster/";
/// Its subject.
pub const SUBJECT: &str = "system:serviceaccount:security:sweepd";
/// Its audience.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// An application that trusts all of these: the certificate [`VALID`], tokens as [`federated_token`] makes them,
/// and the identity with its own id.
pub fn trust(client_id: &str) -> Trust {
    Trust {
        certificates: vec![der(VALID)],
        federated: Some(Federated {
            issuer: ISSUER.to_owned(),
            subject: SUBJECT.to_owned(),
            audience: AUDIENCE.to_owned(),
            key: public_key(),
        }),
        identities: vec![client_id.to_owned()],
    }
}

/// A token as a cluster puts it into a file, signed with the key, until this second since 1970.
pub fn federated_token(expires: i64) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "throw-away" });
    let claims = json!({ "iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "exp": expires });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let key = RsaKeyPair::from_pkcs8(&key()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

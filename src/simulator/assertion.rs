//! Tokens that a client signs in with: its own, signed with a certificate that was registered
//! (ED certificate-credentials.md), or one of somebody whom the application trusts (ED
//! workload-identity-federation.md).

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::options::{Federated, TenantOptions};
use super::sign_in::Denied;
use crate::domain::time::Wall;

/// How far clocks may lie apart.
const LEEWAY: Duration = Duration::from_mins(5);
/// As long as an assertion may live by the page, which Entra itself does not enforce.
const LIVES: i64 = 600;

/// In the `SubjectPublicKeyInfo` of an RSA key of 2048 to 4096 bits the key itself begins here.
const KEY_AT: usize = 24;

/// A token, taken apart and not yet believed.
struct Token<'a> {
    header: Value,
    claims: Value,
    message: &'a str,
    signature: Vec<u8>,
}

fn denied(status: u16, number: u32, text: &str) -> Denied {
    let error = if status == 401 { "invalid_client" } else { "invalid_request" };
    Denied(status, error, number, text.to_owned())
}

/// Whether the assertion proves that `tenant`'s application asks. `audience` is the URL that it was
/// sent to; `seen` are the ids of all that were taken before.
pub(super) fn check(
    now: Wall,
    assertion: &str,
    tenant: &TenantOptions,
    audience: &str,
    seen: &mut HashSet<String>,
) -> Result<(), Denied> {
    let token = Token::read(assertion).ok_or_else(|| denied(401, 50_027, "JWT token is invalid or malformed."))?;
    let own = token.text("iss").eq_ignore_ascii_case(&tenant.client_id);
    match tenant.trust.federated.as_ref().filter(|_| !own) {
        None => token.check_own(now, tenant, audience, seen),
        Some(federated) => token.check_federated(now, federated),
    }
}

impl<'a> Token<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (message, signature) = text.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let value = |part: &str| serde_json::from_slice::<Value>(&decoded(part)?).ok();
        Some(Self { header: value(header)?, claims: value(claims)?, message, signature: decoded(signature)? })
    }

    fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Value::as_str).unwrap_or_default()
    }

    /// A time, to the second; the smallest where there is none.
    fn second(&self, claim: &str) -> i64 {
        self.claims.get(claim).and_then(Value::as_i64).unwrap_or(i64::MIN)
    }

    fn is_in_time(&self, now: Wall) -> bool {
        let at = |claim: &str| Wall(self.second(claim).saturating_mul(1000));
        at("nbf") <= now + LEEWAY && now < at("exp") + LEEWAY
    }

    fn is_signed(&self, algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> bool {
        UnparsedPublicKey::new(algorithm, key).verify(self.message.as_bytes(), &self.signature).is_ok()
    }

    fn check_own(
        &self,
        now: Wall,
        tenant: &TenantOptions,
        audience: &str,
        seen: &mut HashSet<String>,
    ) -> Result<(), Denied> {
        let header = |name: &str| self.header.get(name).and_then(Value::as_str).unwrap_or_default();
        if header("alg") != "PS256" || header("typ") != "JWT" {
            return Err(denied(401, 50_027, "The header of the client assertion must have alg PS256 and typ JWT."));
        }
        let thumbprint = |der: &Vec<u8>| URL_SAFE_NO_PAD.encode(Sha256::digest(der));
        let Some(certificate) = tenant.trust.certificates.iter().find(|der| thumbprint(der) == header("x5t#S256"))
        else {
            let text =
                "The certificate with identifier used to sign the client assertion is not registered on application.";
            return Err(denied(401, 700_027, text));
        };
        if !public_key(certificate).is_some_and(|key| self.is_signed(&RSA_PSS_2048_8192_SHA256, &key)) {
            return Err(denied(401, 700_027, "Client assertion contains an invalid signature."));
        }
        let client = tenant.client_id.as_str();
        if !self.text("iss").eq_ignore_ascii_case(client) || !self.text("sub").eq_ignore_ascii_case(client) {
            let text = "Client assertion application identifier doesn't match 'client_id' parameter.";
            return Err(denied(401, 700_021, text));
        }
        if self.text("aud") != audience {
            return Err(denied(401, 700_023, "Client assertion audience claim does not match Realm issuer."));
        }
        if !self.is_in_time(now) {
            return Err(denied(401, 700_024, "Client assertion is not within its valid time range."));
        }
        // What the page asks for beyond what Entra checks: iat, a short life, an id of its own.
        let short = self.second("exp").saturating_sub(self.second("nbf")) <= LIVES && self.second("iat") > 0;
        if !short || uuid::Uuid::try_parse(self.text("jti")).is_err() || !seen.insert(self.text("jti").to_owned()) {
            return Err(denied(401, 50_013, "Assertion is invalid: it lives too long, or its jti is no new GUID."));
        }
        Ok(())
    }

    fn check_federated(&self, now: Wall, trusted: &Federated) -> Result<(), Denied> {
        let to_us = match self.claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&trusted.audience)),
            one => one.and_then(Value::as_str) == Some(&trusted.audience),
        };
        for (right, number, what) in [
            (self.text("iss") == trusted.issuer, 700_211, "issuer"),
            (to_us, 700_212, "audience"),
            (self.text("sub") == trusted.subject, 700_213, "subject"),
        ] {
            if !right {
                let text = format!("No matching federated identity record found for presented assertion {what}.");
                return Err(denied(400, number, &text));
            }
        }
        if !self.is_signed(&RSA_PKCS1_2048_8192_SHA256, &trusted.key) {
            return Err(denied(400, 50_013, "Assertion failed signature validation."));
        }
        if now >= Wall(self.second("exp").saturating_mul(1000)) + LEEWAY {
            return Err(denied(401, 700_024, "Client assertion is not within its valid time range."));
        }
        Ok(())
    }
}

/// The RSA key of a certificate, read by the library that also checks those of servers: not by what
/// sweepd reads its own with.
fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = CertificateDer::from(certificate);
    let info = ParsedCertificate::try_from(&certificate).ok()?.subject_public_key_info();
    info.get(KEY_AT..).map(<[u8]>::to_vec)
}

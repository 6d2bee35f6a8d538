//! The sign-in authority: client credentials of Entra's v2.0 token endpoint
//! (ED v2-oauth2-client-creds-grant-flow.md).

use std::collections::HashMap;

use serde_json::json;

use super::chance::Chance;
use super::exchange::{Request, Response, form_pairs};
use super::options::TenantOptions;
use crate::domain::time::Wall;

/// The tokens of a tenant, and how often they were asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct SignIn {
    /// Every token ever issued, with the time it ends: an expired one still tells whose it is.
    tokens: HashMap<String, Wall>,
    pub(super) granted: u64,
    pub(super) refused: u64,
}

/// Why there is no token: HTTP status, OAuth error, number of the AADSTS error, its text.
struct Denied(u16, &'static str, u32, String);

impl SignIn {
    /// Whether this tenant issued the token, whatever became of it.
    pub(super) fn knows(&self, token: &str) -> bool {
        self.tokens.contains_key(token)
    }

    /// Whether the token opens anything.
    pub(super) fn is_live(&self, token: &str, now: Wall) -> bool {
        self.tokens.get(token).is_some_and(|ends| now < *ends)
    }

    /// Ends every token now.
    pub(super) fn revoke(&mut self) {
        self.tokens.values_mut().for_each(|ends| *ends = Wall(i64::MIN));
    }

    /// Answers a request for a token.
    pub(super) fn answer(
        &mut self,
        now: Wall,
        request: &Request,
        tenant: &TenantOptions,
        chance: &mut Chance,
    ) -> Response {
        match check(request, tenant) {
            Ok(()) => {
                self.granted += 1;
                let token = token(now, tenant, chance);
                self.tokens.insert(token.clone(), now + tenant.token_lifetime);
                let seconds = tenant.token_lifetime.as_secs();
                Response::json(
                    200,
                    &json!({
                        "token_type": "Bearer",
                        "expires_in": seconds,
                        "ext_expires_in": seconds,
                        "access_token": token,
                    }),
                )
                .with_header("Cache-Control", "no-store, no-cache")
            }
            Err(denied) => {
                self.refused += 1;
                denied.answer(now, chance)
            }
        }
    }
}

fn check(request: &Request, tenant: &TenantOptions) -> Result<(), Denied> {
    let body = String::from_utf8_lossy(&request.body);
    let form = if request.is_of_type("application/x-www-form-urlencoded") { form_pairs(&body) } else { Vec::new() };
    let field = |name: &str| {
        form.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).ok_or_else(|| {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            Denied(400, "invalid_request", 900_144, text)
        })
    };
    let grant = field("grant_type")?;
    if grant != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(Denied(400, "unsupported_grant_type", 70_003, text));
    }
    let client = field("client_id")?;
    if !client.eq_ignore_ascii_case(&tenant.client_id) {
        let text =
            format!("Application with identifier '{client}' was not found in the directory '{}'.", tenant.tenant_id);
        return Err(Denied(400, "unauthorized_client", 700_016, text));
    }
    let scope = field("scope")?;
    if !scope.ends_with("/.default") {
        let text =
            format!("The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid.");
        return Err(Denied(400, "invalid_scope", 70_011, text));
    }
    if field("client_secret")? != tenant.client_secret {
        return Err(Denied(401, "invalid_client", 7_000_215, "Invalid client secret provided.".to_owned()));
    }
    Ok(())
}

/// The answer of a directory in which nothing is known of the application.
pub(super) fn unknown_directory(now: Wall, directory: &str, chance: &mut Chance) -> Response {
    let text = format!("Application was not found in the directory '{directory}'.");
    Denied(400, "unauthorized_client", 700_016, text).answer(now, chance)
}

impl Denied {
    fn answer(self, now: Wall, chance: &mut Chance) -> Response {
        let Self(status, error, number, text) = self;
        let (trace, correlation) = (chance.uuid(), chance.uuid());
        // "2026-01-01 00:00:00Z": to the second, with a blank.
        let seconds = Wall(now.0.div_euclid(1000) * 1000).rfc3339();
        let timestamp = seconds.replace('T', " ").replace(".000Z", "Z");
        Response::json(
            status,
            &json!({
                "error": error,
                "error_description": format!(
                    "AADSTS{number}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {timestamp}"
                ),
                "error_codes": [number],
                "timestamp": timestamp,
                "trace_id": trace.to_string(),
                "correlation_id": correlation.to_string(),
                "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
            }),
        )
    }
}

/// Shaped like the tokens of Entra, with the roles in a claim (API/exposed-apis-create-app-webapp.md);
/// the signature is noise.
fn token(now: Wall, tenant: &TenantOptions, chance: &mut Chance) -> String {
    let from = now.0.div_euclid(1000);
    let until = (now + tenant.token_lifetime).0.div_euclid(1000);
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "simulated"});
    let claims = json!({
        "aud": "https://api.securitycenter.microsoft.com",
        "iss": format!("https://sts.windows.net/{}/", tenant.tenant_id),
        "iat": from,
        "nbf": from,
        "exp": until,
        "appid": tenant.client_id,
        "app_displayname": tenant.app_name,
        "roles": tenant.roles,
        "tid": tenant.tenant_id.to_string(),
        "uti": chance.uuid().to_string(),
    });
    let part = |value: &serde_json::Value| base64url(value.to_string().as_bytes());
    format!("{}.{}.{}", part(&header), part(&claims), base64url(&chance.bytes::<32>()))
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let letter = ALPHABET.get(bits >> (18 - 6 * place) & 63).copied().unwrap_or(b'A');
            encoded.push(char::from(letter));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ask(form: &str) -> Request {
        Request {
            method: "POST".to_owned(),
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
            ..TenantOptions::new(Vec::new())
        }
    }

    const GOOD: &str = "grant_type=client_credentials&client_id=app&client_secret=s%2Be%26c&scope=https%3A%2F%2Fapi.securitycenter.microsoft.com%2F.default";

    #[test]
    fn a_token_is_good_for_its_lifetime() {
        let mut sign_in = SignIn::default();
        let response = sign_in.answer(Wall(0), &ask(GOOD), &tenant(), &mut Chance::new(1));
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
            (without("client_secret"), 400, "invalid_request", 900_144),
            (without("grant_type"), 400, "invalid_request", 900_144),
        ] {
            let mut sign_in = SignIn::default();
            let response = sign_in.answer(Wall(0), &ask(&form), &tenant(), &mut Chance::new(1));
            let body = response.value();
            assert_eq!((response.status, sign_in.refused), (status, 1), "{form}");
            assert_eq!(body["error"], error, "{form}");
            assert_eq!(body["error_codes"][0], number, "{form}");
            assert_eq!(body["timestamp"], "1970-01-01 00:00:00Z");
        }
    }

    #[test]
    fn base64url_is_that_of_the_rfc() {
        for (plain, encoded) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!(base64url(plain.as_bytes()), encoded);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}

//! The sign-in authority: client credentials of Entra's v2.0 token endpoint
//! (ED v2-oauth2-client-creds-grant-flow.md); and the machine's own metadata service.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::chance::Chance;
use super::exchange::{Request, Response, form_pairs};
use super::options::TenantOptions;
use super::{assertion, metadata};
use crate::domain::time::Wall;

/// The tokens of a tenant, and how often they were asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct SignIn {
    /// Every token ever issued, with the time it ends: an expired one still tells whose it is.
    tokens: HashMap<String, Wall>,
    /// The ids of assertions that were taken.
    seen: HashSet<String>,
    pub(super) granted: u64,
    pub(super) refused: u64,
}

/// Why there is no token: HTTP status, OAuth error, number of the AADSTS error, its text.
pub(super) struct Denied(pub(super) u16, pub(super) &'static str, pub(super) u32, pub(super) String);

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

    /// Answers a request for a token. `base_url` is the address under which the authority is served.
    pub(super) fn answer(
        &mut self,
        now: Wall,
        request: &Request,
        tenant: &TenantOptions,
        base_url: &str,
        chance: &mut Chance,
    ) -> Response {
        let answer = if request.path == metadata::PATH {
            metadata::check(request, tenant).map(|(identity, resource)| {
                let token = self.issue(now, identity, tenant, chance);
                let seconds = |at: Wall| at.0.div_euclid(1000);
                metadata::grant(&token, identity, resource, seconds(now), seconds(now + tenant.token_lifetime))
            })
        } else {
            match self.check(now, request, tenant, base_url) {
                Ok(()) => {
                    let seconds = tenant.token_lifetime.as_secs();
                    let token = self.issue(now, &tenant.client_id, tenant, chance);
                    let body = json!({
                        "token_type": "Bearer",
                        "expires_in": seconds,
                        "ext_expires_in": seconds,
                        "access_token": token,
                    });
                    Ok(Response::json(200, &body).with_header("Cache-Control", "no-store, no-cache"))
                }
                Err(denied) => Err(denied.answer(now, chance)),
            }
        };
        answer.unwrap_or_else(|refusal| {
            self.refused += 1;
            refusal
        })
    }

    fn issue(&mut self, now: Wall, application: &str, tenant: &TenantOptions, chance: &mut Chance) -> String {
        self.granted += 1;
        let token = token(now, application, tenant, chance);
        self.tokens.insert(token.clone(), now + tenant.token_lifetime);
        token
    }

    fn check(&mut self, now: Wall, request: &Request, tenant: &TenantOptions, base_url: &str) -> Result<(), Denied> {
        let body = String::from_utf8_lossy(&request.body);
        let form = if request.is_of_type("application/x-www-form-urlencoded") { form_pairs(&body) } else { Vec::new() };
        let given = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let field = |name: &str| {
            given(name).ok_or_else(|| {
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
            let text = format!(
                "Application with identifier '{client}' was not found in the directory '{}'.",
                tenant.tenant_id
            );
            return Err(Denied(400, "unauthorized_client", 700_016, text));
        }
        let scope = field("scope")?;
        if !scope.ends_with("/.default") {
            let text = format!(
                "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."
            );
            return Err(Denied(400, "invalid_scope", 70_011, text));
        }
        match (given("client_secret"), given("client_assertion")) {
            (Some(secret), None) if secret == tenant.client_secret => Ok(()),
            (Some(_), None) => {
                Err(Denied(401, "invalid_client", 7_000_215, "Invalid client secret provided.".to_owned()))
            }
            (None, Some(assertion)) => {
                if field("client_assertion_type")? != JWT_BEARER {
                    let text = "The client assertion type is not supported.".to_owned();
                    return Err(Denied(400, "invalid_request", 90_014, text));
                }
                let audience = format!("{base_url}{}", request.path);
                assertion::check(now, assertion, tenant, &audience, &mut self.seen)
            }
            _ => {
                let text =
                    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                Err(Denied(401, "invalid_client", 7_000_218, text.to_owned()))
            }
        }
    }
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

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
fn token(now: Wall, application: &str, tenant: &TenantOptions, chance: &mut Chance) -> String {
    let from = now.0.div_euclid(1000);
    let until = (now + tenant.token_lifetime).0.div_euclid(1000);
    let header = json!({"typ": "JWT", "alg": "RS256", "kid": "simulated"});
    let claims = json!({
        "aud": "https://api.securitycenter.microsoft.com",
        "iss": format!("https://sts.windows.net/{}/", tenant.tenant_id),
        "iat": from,
        "nbf": from,
        "exp": until,
        "appid": application,
        "app_displayname": tenant.app_name,
        "roles": tenant.roles,
        "tid": tenant.tenant_id.to_string(),
        "uti": chance.uuid().to_string(),
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&header), part(&claims), URL_SAFE_NO_PAD.encode(chance.bytes::<32>()))
}

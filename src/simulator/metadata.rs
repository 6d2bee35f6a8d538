//! The metadata service of a machine in Azure, which hands out tokens of the machine's identities
//! (ED how-to-use-vm-token.md).

use serde_json::{Value, json};

use super::exchange::{Request, Response};
use super::options::TenantOptions;

/// Where it hands them out.
pub(super) const PATH: &str = "/metadata/identity/oauth2/token";

/// Which identity a request is for, and for which resource; or the refusal.
pub(super) fn check<'a>(request: &'a Request, tenant: &'a TenantOptions) -> Result<(&'a str, &'a str), Response> {
    let asked = |name: &str| request.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    if request.metadata.as_deref() != Some("true") {
        return Err(refusal("bad_request_102", "Required metadata header not specified"));
    }
    if request.authorization.is_some() || asked("api-version") != Some("2018-02-01") {
        return Err(refusal("invalid_request", "The request is malformed: api-version must be 2018-02-01"));
    }
    let Some(resource) = asked("resource").filter(|resource| !resource.ends_with("/.default")) else {
        return Err(refusal("invalid_resource", "AADSTS500011: The resource principal was not found in the tenant."));
    };
    let identities = &tenant.trust.identities;
    let found = match (asked("client_id"), identities.as_slice()) {
        (Some(wanted), all) => all.iter().find(|identity| identity.as_str() == wanted),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let identity = found.ok_or_else(|| refusal("invalid_request", "Identity not found"))?;
    Ok((identity, resource))
}

/// A token, with every number as a string; `now` and `ends` in seconds since 1970.
pub(super) fn grant(token: &str, identity: &str, resource: &str, now: i64, ends: i64) -> Response {
    let body = json!({
        "access_token": token,
        "client_id": identity,
        "expires_in": (ends - now).to_string(),
        "expires_on": ends.to_string(),
        "ext_expires_in": (ends - now).to_string(),
        "not_before": now.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    Response::json(200, &body)
}

fn refusal(error: &str, text: &str) -> Response {
    let body: Value = json!({ "error": error, "error_description": text });
    Response::json(400, &body)
}

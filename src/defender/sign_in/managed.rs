//! The sign-in as the machine itself, at Azure's metadata service (Entra's how-to-use-vm-token page).
//!
//! The service knows the machine by its address on the host's own network. So it is asked without a
//! proxy, and over http.

use super::answer::Refusal;

/// The version of the service's interface.
const VERSION: &str = "2018-02-01";

/// Where a token is asked for; `client_id` names one of several identities.
pub(super) fn url(service: &str, scope: &str, client_id: Option<&str>) -> String {
    let resource = scope.strip_suffix("/.default").unwrap_or(scope);
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("api-version", VERSION).append_pair("resource", resource);
    if let Some(client_id) = client_id {
        query.append_pair("client_id", client_id);
    }
    format!("{service}/metadata/identity/oauth2/token?{}", query.finish())
}

/// What is behind an answer of the service, where that is known.
pub(super) fn remedy(status: u16, refusal: &Refusal) -> Option<&'static str> {
    Some(match (status, refusal.error.as_str()) {
        (404 | 410, _) => {
            "the metadata service is not there or being updated; if that lasts, this is not a machine in Azure"
        }
        (429, _) => "the metadata service is asked too often on this machine; sweepd waits",
        (500.., _) => "the metadata service has a passing trouble, or no identity is assigned to this machine",
        (_, "invalid_request") => {
            "no such identity is assigned to this machine; assign one to it in Azure, and check client_id"
        }
        (_, "invalid_resource") => {
            "Defender for Endpoint is not known in the tenant of this machine; check licence and `cloud`"
        }
        (_, "unauthorized_client") => "no identity is assigned to this machine; assign one to it in Azure",
        _ => return None,
    })
}

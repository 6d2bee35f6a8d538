//! What is answered to a sign-in: a token, or a refusal, explained.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::defender::{Reply, http_date};
use crate::domain::time::Wall;

/// A token; numbers come as strings from the metadata service.
#[derive(Deserialize)]
struct WireToken {
    access_token: SecretString,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    expires_on: Value,
}

/// Why there is none, as it comes: no field that is of another kind hides what the others say.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WireRefusal {
    error: Value,
    error_description: Value,
    error_codes: Value,
}

/// Why there is none.
#[derive(Default)]
pub(super) struct Refusal {
    pub(super) error: String,
    pub(super) error_description: String,
    error_codes: Vec<u64>,
}

/// Entra's page says 60 to 90 minutes; an answer that says nothing is taken for the shortest.
const USUAL: u64 = 3599;
const LONGEST: u64 = 86_400;

/// The token in an answer, and how long it lives; `now` is for an answer without a date. None when
/// it is not there.
pub(super) fn token(reply: &Reply, now: Wall) -> Option<(SecretString, Duration)> {
    if reply.status != 200 || reply.cut.is_some() {
        return None;
    }
    let token: WireToken = serde_json::from_str(&reply.text).ok()?;
    let mut lives = number(&token.expires_in).unwrap_or(USUAL);
    // The metadata service hands out tokens that it has had for a while, and its `expires_in` counts
    // from when they were made. So the end itself holds, where it is told and is not over.
    let now = reply.date.as_deref().and_then(http_date).unwrap_or(now).0.div_euclid(1000);
    let left = number(&token.expires_on).and_then(|ends| ends.checked_sub(u64::try_from(now).ok()?));
    if let Some(left) = left.filter(|left| *left > 0) {
        lives = lives.min(left);
    }
    Some((token.access_token, Duration::from_secs(lives.clamp(1, LONGEST))))
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        number => number.as_u64(),
    }
}

impl Refusal {
    /// What an answer refuses with; blank where it does not say.
    pub(super) fn read(reply: &Reply) -> Self {
        let wire: WireRefusal = serde_json::from_str(&reply.text).unwrap_or_default();
        let text = |value: Value| value.as_str().map(str::to_owned).unwrap_or_default();
        Self {
            error: text(wire.error),
            error_description: text(wire.error_description),
            error_codes: wire.error_codes.as_array().into_iter().flatten().filter_map(number).collect(),
        }
    }

    /// Whether Entra wrote it, and not something on the way.
    pub(super) const fn is_of_entra(&self) -> bool {
        !self.error_codes.is_empty()
    }

    /// Without these texts, should it repeat them, as they are or as they were sent in a form.
    pub(super) fn without(mut self, secrets: &[SecretString]) -> Self {
        for secret in secrets.iter().map(ExposeSecret::expose_secret) {
            let sent: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            for text in [&mut self.error, &mut self.error_description] {
                *text = text.replace(secret, "[redacted]").replace(&sent, "[redacted]");
            }
        }
        self
    }

    /// Its codes, the most telling first.
    fn codes(&self) -> impl Iterator<Item = u64> {
        // The metadata service passes Entra's refusals on without their codes, which begin the text.
        let digits = self.error_description.strip_prefix("AADSTS").unwrap_or_default();
        let told = digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
        self.error_codes.iter().copied().chain(told)
    }

    /// The first of its codes that something is known about, and what.
    pub(super) fn remedy(&self) -> Option<(u64, &'static str)> {
        self.codes().find_map(|code| REMEDIES.iter().find(|(known, _)| *known == code)).copied()
    }

    /// Where Entra itself explains it, if it named a code.
    pub(super) fn explained_at(&self) -> Option<String> {
        self.codes().next().map(|code| format!("https://login.microsoftonline.com/error?code={code}"))
    }

    /// The error's name, as a message may show it.
    pub(super) fn name(&self) -> String {
        one_line(&self.error, 100)
    }

    /// The first line of what it says: the others are ids and times.
    pub(super) fn said(&self) -> String {
        one_line(self.error_description.lines().next().unwrap_or_default(), 500)
    }
}

/// What of a foreign text stands in a message: so many characters, none of which moves a cursor.
fn one_line(text: &str, most: usize) -> String {
    let mut line: String = text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line
}

const CLOCK: &str =
    "the assertion is out of its time; check this machine's clock: the next attempt goes by the sign-in server's";
const FEDERATED: &str = "the app trusts no such token; compare issuer, subject and audience (letter by letter, api://AzureADTokenExchange) of its federated credential with the token's";
const NO_DEFENDER: &str = "Defender for Endpoint is not known in this tenant: it has no licence for it, or is in another cloud; check licence and `cloud`";
const CONSENT: &str = "the app has no consent for Defender; grant Machine.Scan with admin consent";
const CONDITIONAL: &str =
    "a Conditional Access policy for workload identities blocks the app; exempt it, or this machine's address";
const USERS_ONLY: &str =
    "a policy asks this app for what only a user can give, such as a second factor; exempt it in Conditional Access";
const CLOUD: &str = "this tenant is in another cloud; check `cloud`";
const PROOF: &str = "the sign-in lacks its proof; please report this";
const SCOPE: &str = "the scope is not valid in this cloud; check `cloud`";
const PASSING: &str = "Entra is busy or failing for the moment; nothing needs doing, it is tried again";
const DISABLED: &str = "the app registration is disabled; enable it in Entra";
const CERTIFICATE: &str = "the certificate is not registered with the app, has expired there, or is not the one that belongs to the key; upload it to the app registration";

/// What is known to be behind an error code (Entra's reference; observed in the field). Nothing but
/// the words depends on it: codes change.
pub(super) const REMEDIES: [(u64, &str); 43] = [
    (
        7_000_215,
        "the client secret is wrong; check that its value was copied, not the secret's id, and that it belongs to this app",
    ),
    (
        7_000_222,
        "the client secret has expired; make a new one, then restart sweepd (SIGHUP reads a secret again unless systemd loads it)",
    ),
    (700_016, "the app registration is not in this tenant; check client_id and tenant_id"),
    (700_011, "the app registration is not in this tenant; check client_id and tenant_id"),
    (7_000_229, "the app has no service principal in this tenant; grant it admin consent there"),
    (90_002, "there is no such tenant; check tenant_id and `cloud`"),
    (900_023, "there is no such tenant; check tenant_id"),
    (90_038, CLOUD),
    (900_382, CLOUD),
    (900_432, CLOUD),
    (700_027, CERTIFICATE),
    (7_000_214, CERTIFICATE),
    (1_000_502, "the certificate is not good at this time; make a new one and upload it, or wait until it begins"),
    (700_024, CLOCK),
    (500_133, CLOCK),
    (
        50_012,
        "the assertion was refused; check that the certificate is registered with this app, and this machine's clock",
    ),
    (50_013, "the assertion was refused; check that the token is for this cloud, and this machine's clock"),
    (700_025, "the app is a public client, which proves itself by nothing; turn \"Allow public client flows\" off"),
    (7_000_216, PROOF),
    (7_000_218, PROOF),
    (70_021, FEDERATED),
    (700_211, FEDERATED),
    (700_212, FEDERATED),
    (700_213, FEDERATED),
    (7_002_137, FEDERATED),
    (7_002_138, FEDERATED),
    (7_000_112, DISABLED),
    (70_001, DISABLED),
    (65_001, CONSENT),
    (501_051, CONSENT),
    (500_011, NO_DEFENDER),
    (650_052, NO_DEFENDER),
    (50_001, NO_DEFENDER),
    (500_014, "Defender for Endpoint is switched off in this tenant; enable its enterprise application in Entra"),
    (50_034, "the application is not known in this tenant; check client_id and tenant_id"),
    (70_011, SCOPE),
    (1_002_012, SCOPE),
    (90_024, PASSING),
    (90_033, PASSING),
    (50_196, "the application asks for tokens too often; is another program signing in with it in a loop?"),
    (53_003, CONDITIONAL),
    (530_032, CONDITIONAL),
    (50_076, USERS_ONLY),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(status: u16, body: &Value) -> Reply {
        Reply { status, text: body.to_string(), ..Reply::default() }
    }

    #[test]
    fn a_refusal_with_a_field_that_nobody_expects_says_what_the_others_say() {
        let refusal = |body: Value| Refusal::read(&reply(401, &body));
        let text =
            refusal(json!({ "error": { "code": 1 }, "error_description": null, "error_codes": ["7000215", [], 7] }));
        assert_eq!(text.remedy().map(|(code, _)| code), Some(7_000_215));
        let text = refusal(json!({ "error": "invalid_client", "error_description": "AADSTS7000222: it has expired" }));
        assert_eq!((text.name().as_str(), text.remedy().map(|(code, _)| code)), ("invalid_client", Some(7_000_222)));
    }

    #[test]
    fn a_secret_that_is_repeated_as_it_was_sent_is_not_shown() {
        let said = json!({ "error": "no", "error_description": "bad s3c/+~x, sent as s3c%2F%2B%7Ex" });
        let refusal = Refusal::read(&reply(401, &said)).without(&[SecretString::from("s3c/+~x")]);
        assert_eq!(refusal.said(), "bad [redacted], sent as [redacted]");
    }

    #[test]
    fn tokens_are_read_from_entra_and_from_the_metadata_service() {
        let now = Wall(1_000_000_000);
        for (body, seconds) in [
            (json!({ "access_token": "t", "expires_in": 3599 }), 3599),
            (json!({ "access_token": "t", "expires_in": "86399", "expires_on": "1003000" }), 3000),
            (json!({ "access_token": "t", "expires_in": "3599", "expires_on": "1086399" }), 3599),
            // Its end is over, which the clock that says so may be wrong about.
            (json!({ "access_token": "t", "expires_in": "3599", "expires_on": "999999" }), 3599),
            (json!({ "access_token": "t", "expires_in": "soon", "expires_on": "10/14/2026 00:00:00 +00:00" }), 3599),
            (json!({ "access_token": "t" }), 3599),
            (json!({ "access_token": "t", "expires_in": 0 }), 1),
            (json!({ "access_token": "t", "expires_in": 999_999 }), 86_400),
        ] {
            let (secret, lives) = token(&reply(200, &body), now).unwrap();
            assert_eq!((secret.expose_secret(), lives), ("t", Duration::from_secs(seconds)), "{body}");
        }
        let dated = Reply {
            date: Some("Mon, 12 Oct 2026 09:46:40 GMT".to_owned()),
            ..reply(200, &json!({ "access_token": "t", "expires_in": "86400", "expires_on": "1791798460" }))
        };
        assert_eq!(token(&dated, now).unwrap().1, Duration::from_mins(1), "by the clock of whoever wrote it");
        assert!(token(&reply(200, &json!({ "expires_in": 3599 })), now).is_none());
        assert!(token(&reply(302, &json!({ "access_token": "t" })), now).is_none());
        let cut = Reply { cut: Some("cut".to_owned()), ..reply(200, &json!({ "access_token": "t" })) };
        assert!(token(&cut, now).is_none());
    }

    #[test]
    fn what_operators_meet_most_is_told_with_the_thing_to_do() {
        for (code, words) in [
            // Wrong; its id pasted instead of its value; expired.
            (7_000_215, "its value was copied, not the secret's id"),
            (7_000_222, "has expired; make a new one"),
            // Not in this tenant, or there is none.
            (700_016, "check client_id and tenant_id"),
            (90_002, "check tenant_id and `cloud`"),
            (50_034, "check client_id and tenant_id"),
            (900_432, "another cloud; check `cloud`"),
            // Consent.
            (65_001, "admin consent"),
            (501_051, "admin consent"),
            (7_000_229, "admin consent"),
            (650_052, "check licence and `cloud`"),
            (500_014, "enable its enterprise application"),
            // What proves who we are.
            (7_000_216, "lacks its proof"),
            (7_000_218, "lacks its proof"),
            (700_027, "upload it to the app registration"),
            (700_024, "check this machine's clock"),
            (70_021, "issuer, subject and audience"),
            (70_011, "check `cloud`"),
            // Policies, and what passes.
            (53_003, "policy for workload identities"),
            (7_000_112, "enable it in Entra"),
            (90_033, "tried again"),
        ] {
            let body = json!({ "error": "e", "error_description": "d", "error_codes": [code] });
            let told = Refusal::read(&reply(401, &body)).remedy();
            assert!(told.is_some_and(|(_, remedy)| remedy.contains(words)), "{code}: {told:?}");
        }
    }

    #[test]
    fn every_known_code_has_one_remedy_that_says_what_to_do() {
        for (n, (code, remedy)) in REMEDIES.iter().enumerate() {
            let refusal = Refusal::read(&reply(
                401,
                &json!({
                    "error": "invalid_client",
                    "error_description": format!("AADSTS{code}: Some text.\r\nTrace ID: 1"),
                    "error_codes": [1, code],
                }),
            ));
            assert_eq!(refusal.remedy(), Some((*code, *remedy)));
            assert!(refusal.is_of_entra());
            let passed_on = json!({ "error": "x", "error_description": format!("AADSTS{code}: Some text.") });
            assert_eq!(Refusal::read(&reply(400, &passed_on)).remedy(), Some((*code, *remedy)));
            assert!(remedy.contains([';', ':']), "{code}: what it is, and what to do");
            assert!(REMEDIES.iter().skip(n + 1).all(|(other, _)| other != code), "{code} stands twice");
        }
        let unknown = Refusal::read(&reply(
            400,
            &json!({ "error": "e", "error_description": "AADSTS1: A.\r\nTrace", "error_codes": [1] }),
        ));
        assert_eq!((unknown.remedy(), unknown.said()), (None, "AADSTS1: A.".to_owned()));
        assert_eq!(unknown.explained_at().unwrap(), "https://login.microsoftonline.com/error?code=1");
        let proxy = Refusal::read(&Reply { status: 502, text: "<html>".to_owned(), ..Reply::default() });
        assert!(proxy.remedy().is_none() && !proxy.is_of_entra() && proxy.explained_at().is_none());
    }

    #[test]
    fn every_published_shape_is_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/api");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("sign_in_")).collect();
        names.sort();
        let mut judged = Vec::new();
        for name in names {
            let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
            let status = if name.contains("token") { 200 } else { 400 };
            let reply = Reply { status, text, ..Reply::default() };
            let lives = token(&reply, Wall(1_793_610_000_000)).map(|(_, lives)| lives.as_secs());
            let refusal = Refusal::read(&reply);
            assert_eq!(refusal.is_of_entra(), lives.is_none(), "{name}");
            judged.push((name, lives.unwrap_or_default(), refusal.remedy().map(|(code, _)| code)));
        }
        let judged: Vec<_> = judged.iter().map(|(name, lives, code)| (name.as_str(), *lives, *code)).collect();
        assert_eq!(
            judged,
            [
                ("sign_in_refused_app.json", 0, Some(700_016)),
                ("sign_in_refused_scope.json", 0, Some(70_011)),
                ("sign_in_refused_secret.json", 0, Some(7_000_215)),
                ("sign_in_token.json", 4123, None),
                ("sign_in_token_metadata.json", 86_399, None),
                ("sign_in_token_v1.json", 3599, None),
            ]
        );
    }

    #[test]
    fn what_is_said_is_shown_on_one_line_and_not_endlessly() {
        let long = format!("a\u{1b}[2J\tb {}\r\nTrace ID: 1", "x".repeat(300_000));
        let refusal = Refusal::read(&reply(400, &json!({ "error": long, "error_description": long })));
        for (text, most) in [(refusal.said(), 501), (refusal.name(), 101)] {
            assert!(text.chars().count() == most && text.starts_with("a [2J b xx") && text.ends_with('…'), "{text}");
            assert!(!text.chars().any(char::is_control), "{text}");
        }
    }
}

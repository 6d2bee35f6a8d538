//! How a tenant signs in, and the secrets for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::domain::time::Wall;

use super::Around;
use super::certificate::{self, At, Certificate};
use super::profiles;
use super::reader::Section;
use super::secret_file::{self, Content};
use super::values::{self, Wrong};

/// How a tenant signs in.
#[derive(Clone, Debug)]
pub enum Auth {
    /// An app registration with a client secret.
    ClientSecret {
        /// The application's id.
        client_id: String,
        /// The secret's value.
        secret: SecretString,
        /// When it ends, if somebody said so: Entra shows that to people alone.
        expires: Option<Wall>,
    },
    /// An app registration with a certificate.
    ClientCertificate {
        /// The application's id.
        client_id: String,
        /// None when the configuration was read without its secrets.
        certificate: Option<Certificate>,
    },
    /// The identity that Azure gives to the machine.
    ManagedIdentity {
        /// Which of those that a user assigned; none: the machine's own.
        client_id: Option<String>,
    },
    /// An app registration, or an identity that a user assigned, which trusts the tokens of somebody
    /// else, such as a cluster.
    WorkloadIdentity {
        /// The application's id.
        client_id: String,
        /// Where those tokens are; absolute. The file is read at each sign-in, since they change.
        token_file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    ClientSecret,
    ClientCertificate,
    ManagedIdentity,
    WorkloadIdentity,
}

crate::domain::sweep::words!(Method {
    ClientSecret = "client_secret",
    ClientCertificate = "client_certificate",
    ManagedIdentity = "managed_identity",
    WorkloadIdentity = "workload_identity",
});

/// Where the webhook of Azure's workload identity puts the token.
const TOKEN_FILE: &str = "/var/run/secrets/azure/tokens/azure-identity-token";

/// Where Azure answers its own machines, and nobody else; link-local, so that http stays on the host.
const METADATA_SERVICE: &str = "http://169.254.169.254";

/// So long before the end of a credential it is told.
const AHEAD: Duration = Duration::from_hours(30 * 24);

const CLIENT_ID: &str = "write the application (client) id";

/// The keys that name files: each belongs to one method.
struct Files {
    secret: Option<PathBuf>,
    secret_expires: Option<Wall>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    token: Option<PathBuf>,
}

impl Auth {
    /// Reads `[tenants.X.auth]`, or finds the profile that it names.
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Self> {
        let Some(name) = section.key("profile", "", values::optional(values::text))? else {
            return Self::own(section, around);
        };
        for other in section.not_asked() {
            let how = format!("remove it, or write it into [auth_profiles.{name}]");
            section.complain(&other, Wrong::new("stands beside `profile`, which says how to sign in", how));
        }
        section.ignore_rest();
        profiles::find(section, around, &name)
    }

    /// Reads a section that says itself how to sign in, and the secrets that it names.
    pub(super) fn own(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Self> {
        let Some(method) = section.key("method", "client_secret", values::word::<Method>) else {
            // What the others should be is not known.
            section.ignore_rest();
            return None;
        };
        let client_id = client_id(section, around, method);
        let files = Files::read(section, method);
        let (client_id, files) = (client_id, files?);
        match method {
            Method::ClientSecret => {
                let secret = secret(section, around, &files.secret?);
                let auth =
                    Self::ClientSecret { client_id: client_id??, secret: secret?, expires: files.secret_expires };
                if let Some(warning) = around.environment.now.and_then(|now| auth.soon_over(now)) {
                    section.warn("secret_expires", &warning);
                }
                Some(auth)
            }
            Method::ClientCertificate => {
                let certificate = certificate(section, around, &files.certificate?, files.key.as_deref());
                let auth = Self::ClientCertificate { client_id: client_id??, certificate: certificate? };
                if let Some(warning) = around.environment.now.and_then(|now| auth.soon_over(now)) {
                    section.warn("certificate_file", &warning);
                }
                Some(auth)
            }
            Method::ManagedIdentity => Some(Self::ManagedIdentity { client_id: client_id? }),
            Method::WorkloadIdentity => {
                let standard = || around.environment.get("AZURE_FEDERATED_TOKEN_FILE").unwrap_or(TOKEN_FILE).into();
                let token_file = around.dir.join(files.token.unwrap_or_else(standard));
                Some(Self::WorkloadIdentity { client_id: client_id??, token_file })
            }
        }
    }

    /// The application's id, if one is named.
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::ClientSecret { client_id, .. }
            | Self::ClientCertificate { client_id, .. }
            | Self::WorkloadIdentity { client_id, .. } => Some(client_id),
            Self::ManagedIdentity { client_id } => client_id.as_deref(),
        }
    }

    /// Where it signs in, if not at its cloud.
    pub(super) const fn authority(&self) -> Option<&'static str> {
        match self {
            Self::ManagedIdentity { .. } => Some(METADATA_SERVICE),
            _ => None,
        }
    }

    /// The word for it in the configuration.
    pub fn method(&self) -> &'static str {
        let method = match self {
            Self::ClientSecret { .. } => Method::ClientSecret,
            Self::ClientCertificate { .. } => Method::ClientCertificate,
            Self::ManagedIdentity { .. } => Method::ManagedIdentity,
            Self::WorkloadIdentity { .. } => Method::WorkloadIdentity,
        };
        method.as_str()
    }

    /// When it is over, where that can be told from here: a certificate has its end in it, and of a secret
    /// somebody may have said it.
    pub fn expires(&self) -> Option<Wall> {
        match self {
            Self::ClientSecret { expires, .. } => *expires,
            Self::ClientCertificate { certificate, .. } => certificate.as_ref().map(Certificate::expires),
            _ => None,
        }
    }

    /// What to say of it when it is soon over; nothing while it has more than 30 days.
    pub fn soon_over(&self, now: Wall) -> Option<String> {
        let end = self.expires().filter(|end| *end < now + AHEAD)?;
        let (what, remedy) = match self {
            Self::ClientCertificate { .. } => {
                ("the certificate", "upload a new one to the app registration, then put it in its place")
            }
            _ => (
                "the client secret",
                "make a new one in the app registration, put its value into secret_file and its end into secret_expires",
            ),
        };
        Some(if end < now {
            format!("{what} expired at {end}; {remedy}")
        } else {
            let days = end.since(now).as_secs() / 86_400;
            format!("{what} expires at {end}, in {days} days; {remedy}")
        })
    }
}

impl Files {
    fn read(section: &mut Section<'_, '_>, method: Method) -> Option<Self> {
        let mut file = |name, of, required| match required {
            Some(remedy) if method == of => section.required(name, remedy, values::path).map(Some),
            _ => only_for(section, method, of, name, values::path),
        };
        let secret = file("secret_file", Method::ClientSecret, Some("name the file that holds the client secret"));
        let certificate = file(
            "certificate_file",
            Method::ClientCertificate,
            Some("name the PEM file that holds the certificate and, unless key_file does, its private key"),
        );
        let key = file("key_file", Method::ClientCertificate, None);
        let token = file("token_file", Method::WorkloadIdentity, None);
        let secret_expires = only_for(section, method, Method::ClientSecret, "secret_expires", values::day);
        let (certificate, secret_expires) = (certificate?, secret_expires?);
        Some(Self { secret: secret?, secret_expires, certificate, key: key?, token: token? })
    }
}

/// A key that belongs to one method, and may be missing there.
#[allow(clippy::option_option, reason = "wrong, or right and none")]
fn only_for<T>(
    section: &mut Section<'_, '_>,
    method: Method,
    of: Method,
    name: &str,
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<Option<T>> {
    let given = section.key(name, "", values::optional(parse))?;
    if given.is_some() && method != of {
        let how = format!("remove it, or write method = \"{of}\"");
        section.complain(name, Wrong::new(format!("is of no use to {method}"), how));
        return None;
    }
    Some(given)
}

/// The id, which a managed identity need not have.
#[allow(clippy::option_option, reason = "wrong, or right and none")]
fn client_id(section: &mut Section<'_, '_>, around: &Around<'_>, method: Method) -> Option<Option<String>> {
    let optional = |section: &mut Section<'_, '_>| section.key("client_id", "", values::optional(values::text));
    match method {
        Method::ClientSecret | Method::ClientCertificate => {
            section.required("client_id", CLIENT_ID, values::text).map(Some)
        }
        Method::ManagedIdentity => optional(section),
        Method::WorkloadIdentity => {
            let given = optional(section)?;
            let standard = around.environment.get("AZURE_CLIENT_ID").map(str::to_owned);
            // Commands that sign in nowhere run where this variable need not be set.
            let standard = standard.or_else(|| (!around.environment.reads_secrets).then(String::new));
            if given.is_none() && standard.is_none() {
                section.complain("client_id", Wrong::new("is missing, and so is $AZURE_CLIENT_ID", CLIENT_ID));
                return None;
            }
            Some(given.or(standard))
        }
    }
}

fn secret(section: &mut Section<'_, '_>, around: &Around<'_>, file: &Path) -> Option<SecretString> {
    if !around.environment.reads_secrets {
        return Some(SecretString::default());
    }
    text(section, around, "secret_file", file, secret_file::SECRET).map(|(secret, place)| {
        warn_if_exposed(section, "secret_file", &place);
        if uuid::Uuid::try_parse(secret.expose_secret().trim()).is_ok() {
            section.warn(
                "secret_file",
                "looks like the secret's id; copy its value, which Entra shows once, when it is made",
            );
        }
        secret
    })
}

/// The certificate, which is absent where secrets are not read.
#[allow(clippy::option_option, reason = "wrong, or right and none")]
fn certificate(
    section: &mut Section<'_, '_>,
    around: &Around<'_>,
    file: &Path,
    key_file: Option<&Path>,
) -> Option<Option<Certificate>> {
    if !around.environment.reads_secrets {
        return Some(None);
    }
    let certificates = text(section, around, "certificate_file", file, certificate::CERTIFICATE);
    let key = key_file.map(|file| text(section, around, "key_file", file, certificate::KEY));
    let ((certificates, place), key) = match (certificates, key) {
        (Some(certificates), None) => (certificates, None),
        (Some(certificates), Some(Some(key))) => (certificates, Some(key)),
        (None, _) | (_, Some(None)) => return None,
    };
    let secret_one = key.as_ref().map_or(("certificate_file", &place), |(_, place)| ("key_file", place));
    warn_if_exposed(section, secret_one.0, secret_one.1);
    let key = key.as_ref().map(|(key, _)| key.expose_secret());
    let read = Certificate::read(certificates.expose_secret(), key).map_err(|(at, wrong)| {
        let name = if at == At::Key { "key_file" } else { "certificate_file" };
        section.complain(name, wrong);
    });
    let certificate = read.ok()?;
    let now = around.environment.now;
    if let Some(wrong) = now.and_then(|now| certificate.over(now)) {
        section.complain("certificate_file", wrong);
        return None;
    }
    Some(Some(certificate))
}

fn text(
    section: &mut Section<'_, '_>,
    around: &Around<'_>,
    key: &str,
    file: &Path,
    wanted: secret_file::Wanted,
) -> Option<(SecretString, PathBuf)> {
    let Content { text, place, oddity } =
        secret_file::read(file, around, wanted).map_err(|wrong| section.complain(key, wrong)).ok()?;
    if let Some(oddity) = oddity {
        section.warn(key, &oddity);
    }
    Some((text, place))
}

fn warn_if_exposed(section: &mut Section<'_, '_>, key: &str, place: &Path) {
    if let Some(warning) = secret_file::exposed(place) {
        section.warn(key, &warning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_service_is_a_literal_address() {
        let host = METADATA_SERVICE.strip_prefix("http://").unwrap();
        let address: std::net::Ipv4Addr = host.parse().unwrap();
        assert!(address.is_link_local(), "http:// to it stays on the host, and no name is looked up");
    }
}

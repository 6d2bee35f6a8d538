//! What a tenant signs in with, and the request that it makes of it.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{Claims, Guids, certificate, managed, workload};
use crate::config::{Auth, Certificate};
use crate::defender::{Body, Request};
use crate::domain::time::Wall;

/// More than any answer of a sign-in has.
const ANSWER_AT_MOST: usize = 256 * 1024;

/// The type of an assertion: a token that somebody has signed (RFC 7523).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Where the tokens of a tenant come from, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// Without a slash at its end.
    pub url: &'a str,
    /// The directory.
    pub tenant_id: Uuid,
    /// What a token is to open.
    pub scope: &'a str,
}

/// What a tenant signs in with, and where. Printing it shows no secret.
#[derive(Debug)]
pub struct Credential {
    url: String,
    tenant_id: Uuid,
    scope: String,
    proof: Proof,
}

/// Who asks, and by what that is seen.
#[derive(Debug)]
enum Proof {
    Secret {
        client_id: String,
        secret: SecretString,
    },
    Certificate {
        client_id: String,
        certificate: Option<Certificate>,
    },
    /// None: the machine is known by its address.
    Managed,
    Workload {
        client_id: String,
        token_file: PathBuf,
    },
}

impl Credential {
    /// The credential that is configured.
    pub fn new(auth: &Auth, authority: Authority<'_>) -> Self {
        let Authority { url, tenant_id, scope } = authority;
        let mut url = format!("{url}/{tenant_id}/oauth2/v2.0/token");
        let proof = match auth.clone() {
            Auth::ClientSecret { client_id, secret, .. } => Proof::Secret { client_id, secret },
            Auth::ClientCertificate { client_id, certificate } => Proof::Certificate { client_id, certificate },
            Auth::WorkloadIdentity { client_id, token_file } => Proof::Workload { client_id, token_file },
            Auth::ManagedIdentity { client_id } => {
                url = managed::url(authority.url, scope, client_id.as_deref());
                Proof::Managed
            }
        };
        Self { url, tenant_id, scope: scope.to_owned(), proof }
    }

    /// Where it signs in.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether this machine's metadata service answers, instead of Entra.
    pub const fn is_managed(&self) -> bool {
        matches!(self.proof, Proof::Managed)
    }

    /// Why a token is not used that another directory than `tenant_id` issued: with it, calls would reach the machines
    /// of another organisation. Nothing is said of a token that does not tell its directory, as is Entra's right.
    pub fn foreign_directory(&self, token: &SecretString) -> Option<String> {
        let ours = self.tenant_id;
        let theirs = Claims::read(token.expose_secret())?.directory.filter(|theirs| *theirs != ours)?;
        let remedy = if self.is_managed() {
            "the identity of this machine belongs to that directory; correct tenant_id, or sign in by another method"
        } else {
            "correct tenant_id, or authority_url"
        };
        Some(format!(
            "the token is for the directory {theirs}, not for tenant_id {ours}: it is not used, because calls with it \
             would reach another organisation's machines; {remedy}"
        ))
    }

    /// A request for a token, made at `now` by the clock of whoever answers. The error says in words
    /// why there is none.
    pub async fn request(&self, now: Wall, guids: &Guids) -> Result<Request, String> {
        Ok(match &self.proof {
            Proof::Secret { client_id, secret } => self.form(client_id, vec![("client_secret", secret.clone())]),
            Proof::Certificate { client_id, certificate } => {
                let certificate = certificate.as_ref().ok_or("the certificate was not read; restart sweepd")?;
                self.asserting(client_id, certificate::assertion(certificate, client_id, &self.url, now, guids())?)
            }
            Proof::Workload { client_id, token_file } => self.asserting(client_id, workload::token(token_file).await?),
            Proof::Managed => Request {
                post: false,
                url: self.url.clone(),
                bearer: None,
                body: Body::None,
                metadata: true,
                at_most: ANSWER_AT_MOST,
            },
        })
    }

    fn asserting(&self, client_id: &str, assertion: SecretString) -> Request {
        let kind = SecretString::from(JWT_BEARER);
        self.form(client_id, vec![("client_assertion_type", kind), ("client_assertion", assertion)])
    }

    fn form(&self, client_id: &str, proof: Vec<(&'static str, SecretString)>) -> Request {
        let mut fields = vec![
            ("client_id", SecretString::from(client_id)),
            ("grant_type", SecretString::from("client_credentials")),
            ("scope", SecretString::from(self.scope.as_str())),
        ];
        fields.extend(proof);
        Request {
            post: true,
            url: self.url.clone(),
            bearer: None,
            body: Body::Form(fields),
            metadata: false,
            at_most: ANSWER_AT_MOST,
        }
    }
}

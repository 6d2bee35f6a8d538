//! A tenant: its cloud, its rules, its limits.

use std::num::NonZeroU32;
use std::time::Duration;

use uuid::Uuid;

use crate::domain::budgets::Budgets;
use crate::domain::eligibility::{Inactive, PendingTypes};
use crate::domain::forecast::Terms;
use crate::domain::sweep::{OnPending, ScanType, clean_comment, words};

use super::Around;
use super::auth::Auth;
use super::limits;
use super::reader::Section;
use super::urls;
use super::values::{self, Wrong};

/// One Entra tenant with Defender for Endpoint.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The directory (tenant) id.
    pub tenant_id: Uuid,
    /// Where calls go, without a slash at its end.
    pub api_url: String,
    /// What stands between `api_url` and the path of each call: empty, or with a slash at its start and none at its end.
    pub api_path: String,
    /// Where the sign-in goes, without a slash at its end: Entra's host, or this machine's metadata
    /// service for a managed identity.
    pub authority_url: String,
    /// What a token is asked for; the cloud's, whatever `api_url` says.
    pub scope: String,
    /// The scan of a request that names none.
    pub default_scan: ScanType,
    /// The comment of a request that has none; without control characters.
    pub comment: String,
    /// What becomes of a busy machine when the sweep does not say.
    pub on_pending: OnPending,
    /// Which pending actions make a machine busy.
    pub pending_types: PendingTypes,
    /// A scan that succeeded less than this ago is recent enough; zero turns the rule off.
    pub skip_if_scanned_within: Duration,
    /// What becomes of machines that Defender shows as inactive; unless it is `send`, what is not onboarded, or
    /// merged, is skipped too.
    pub inactive: Inactive,
    /// What becomes of the tenant when Defender lists scans of sweepd that the database does not know.
    pub unknown_marks: UnknownMarks,
    /// How many attempts a job may count.
    pub max_attempts: NonZeroU32,
    /// A queued job rises a step of priority each time it has waited so long; zero: never.
    pub rise_after: Duration,
    /// How sweepd signs in.
    pub auth: Auth,
    /// What may be spent, of each kind of call: by all sections with this app registration together.
    pub budgets: Budgets,
}

/// What becomes of a tenant when Defender lists scans of sweepd that the database does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownMarks {
    /// Nothing is sent until an operator has seen to it.
    Hold,
    /// They are somebody else's.
    Ignore,
}

words!(UnknownMarks { Hold = "hold", Ignore = "ignore" });

/// The clouds of Microsoft that have Defender for Endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    Commercial,
    Gcc,
    GccHigh,
    Dod,
}

words!(Cloud {
    Commercial = "commercial",
    Gcc = "gcc",
    GccHigh = "gcc-high",
    Dod = "dod",
});

/// The regions of the commercial cloud that have API hosts of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Us,
    Eu,
    Uk,
    Au,
    Swa,
    Ina,
    Aea,
}

words!(Region { Us = "us", Eu = "eu", Uk = "uk", Au = "au", Swa = "swa", Ina = "ina", Aea = "aea" });

impl Cloud {
    const fn api(self) -> &'static str {
        match self {
            Self::Commercial => "https://api.securitycenter.microsoft.com",
            Self::Gcc => "https://api-gcc.securitycenter.microsoft.us",
            Self::GccHigh | Self::Dod => "https://api-gov.securitycenter.microsoft.us",
        }
    }

    /// GCC signs in at the commercial authority.
    const fn authority(self) -> &'static str {
        match self {
            Self::Commercial | Self::Gcc => "https://login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "https://login.microsoftonline.us",
        }
    }

    /// The audience stays that of the cloud's first host, whichever host is called: tokens for
    /// another are refused.
    fn scope(self) -> String {
        format!("{}/.default", self.api())
    }
}

/// Where a tenant's calls and sign-ins go, and what for.
struct Hosts {
    api_url: String,
    api_path: String,
    /// Unless the method has a place of its own.
    authority_url: &'static str,
    given_authority: Option<String>,
    scope: String,
}

impl Hosts {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let cloud = section.key("cloud", "commercial", values::word::<Cloud>);
        let region = section.key("region", "", values::optional(values::word::<Region>));
        let api = section.key("api_url", "", values::optional(urls::service_url));
        let api_path = section.key("api_path", "/api", urls::service_path);
        let authority = section.key("authority_url", "", values::optional(urls::service_url));
        for (name, given) in [("api_url", &api), ("authority_url", &authority)] {
            if given.iter().flatten().any(|url| urls::has_path(url)) {
                section.warn(name, "has a path, and sweepd appends its own to it (api_path or the directory's id); leave it out unless a gateway wants it");
            }
        }
        let (cloud, region) = (cloud?, region?);
        if region.is_some() && cloud != Cloud::Commercial {
            section.complain(
                "region",
                Wrong::new(format!("the cloud {cloud} has no regions"), "leave it empty, or use the cloud commercial"),
            );
            return None;
        }
        let standard = region
            .map_or_else(|| cloud.api().to_owned(), |region| format!("https://{region}.api.security.microsoft.com"));
        Some(Self {
            api_url: api?.unwrap_or(standard),
            api_path: api_path?,
            authority_url: cloud.authority(),
            given_authority: authority?,
            scope: cloud.scope(),
        })
    }
}

impl Tenant {
    /// Reads `[tenants.X]`.
    pub(super) fn read(section: &mut Section<'_, '_>, around: &Around<'_>) -> Option<Self> {
        let tenant_id = section.required("tenant_id", "write the directory (tenant) id", guid);
        let hosts = Hosts::read(section);
        let default_scan = section.key("default_scan", "Quick", values::word::<ScanType>);
        let comment = section.key("comment", "Scheduled scan by sweepd", comment);
        let on_pending = section.key("on_pending", "skip", values::word::<OnPending>);
        let pending_types = section.list("pending_types", "RunAntiVirusScan", pending_types);
        let skip_if_scanned_within = section.key("skip_if_scanned_within", "0s", values::duration);
        let inactive = section.key("inactive", "send", values::word::<Inactive>);
        let unknown_marks = section.key("unknown_marks", "hold", values::word::<UnknownMarks>);
        let max_attempts = section.key("max_attempts", "5", values::positive);
        let rise_after = section.key("rise_after", "24h", values::duration);
        let auth = section.within_or_word("auth", "profile", |auth| Auth::read(auth, around));
        let budgets = section.within("limits", limits::read);
        let (hosts, auth) = (hosts?, auth?);
        let authority_url = auth.authority().unwrap_or(hosts.authority_url);
        Some(Self {
            tenant_id: tenant_id?,
            api_url: hosts.api_url,
            api_path: hosts.api_path,
            authority_url: hosts.given_authority.unwrap_or_else(|| authority_url.to_owned()),
            scope: hosts.scope,
            default_scan: default_scan?,
            comment: comment?,
            on_pending: on_pending?,
            pending_types: pending_types?,
            skip_if_scanned_within: skip_if_scanned_within?,
            inactive: inactive?,
            unknown_marks: unknown_marks?,
            max_attempts: max_attempts?,
            rise_after: rise_after?,
            auth,
            budgets: budgets?,
        })
    }

    /// What Defender counts by: the app registration in its directory, or what else signs in there. A
    /// service on loopback, which no
    /// Defender is, counts for itself.
    pub fn registration(&self) -> String {
        let application = self.auth.client_id().unwrap_or("managed identity");
        let registration = format!("{}/{}", self.tenant_id, application.trim().to_ascii_lowercase());
        if self.api_url.starts_with("http://") { format!("{registration} at {}", self.api_url) } else { registration }
    }

    /// The address that each call of the API begins with.
    pub fn api_base(&self) -> String {
        format!("{}{}", self.api_url, self.api_path)
    }

    /// What decides the order and the speed of its calls.
    pub fn terms(&self) -> Terms {
        Terms { budgets: self.budgets.clone(), rise_after: self.rise_after }
    }
}

fn guid(text: &str) -> Result<Uuid, Wrong> {
    Uuid::try_parse(text.trim()).map_err(|_| {
        Wrong::new("is not a GUID", "write the directory (tenant) id, such as 11111111-2222-3333-4444-555555555555")
    })
}

fn comment(text: &str) -> Result<String, Wrong> {
    clean_comment(text).map_err(|error| Wrong::new(error.to_string(), "shorten it"))
}

fn pending_types(types: &[String]) -> Result<PendingTypes, Wrong> {
    let types: Vec<_> = types.iter().map(|name| name.trim().to_owned()).collect();
    if types.is_empty() || types.iter().any(String::is_empty) {
        return Err(Wrong::new("names no action type", "write [\"RunAntiVirusScan\"], or [\"*\"] for any action"));
    }
    if types.iter().any(|name| name == "*") {
        return Ok(PendingTypes::Any);
    }
    Ok(PendingTypes::These(types))
}

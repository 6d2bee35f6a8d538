//! The calls that sweepd makes, one method a call of the API.

use std::sync::Arc;
use std::time::Duration;

use super::apart::apart;
use super::kept::kept;
use super::{Body, Failure, Reply, Request, SignIn, SignInError, SignedIn, Token, Wire, http_date, wire};
use crate::domain::action::Seen;
use crate::domain::eligibility::Ineligible;
use crate::domain::feed::{Key, Turn};
use crate::domain::id::{AttemptId, MachineId};
use crate::domain::outcome::{
    Answer, Denial, Outcome, denial, is_missing, is_readable, is_throttled, judge, shown, told,
};
use crate::domain::sweep::ScanType;
use crate::domain::throttle::Told;
use crate::domain::time::Wall;

/// More than any answer to a scan has, and little enough to read whole.
const SCAN_AT_MOST: usize = 1024 * 1024;
/// A full page of 10,000 actions is about 8 MB.
const LIST_AT_MOST: usize = 64 * 1024 * 1024;
/// The end of a scan call.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// What it means.
    pub outcome: Outcome,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// The answer as it came, capped and redacted; or why there was none.
    pub text: String,
    /// Code and message of the answer, as they may be shown, if it has both.
    pub said: Option<String>,
    /// The action in the answer, verbatim.
    pub raw: Option<String>,
    /// What time the server had.
    pub date: Option<Wall>,
}

impl Scanned {
    /// A call that nothing came back from.
    pub const fn unanswered(outcome: Outcome, text: String) -> Self {
        Self { outcome, status: None, text, said: None, raw: None, date: None }
    }
}

/// Which actions are wanted. Filters are those of get-machineactions-collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionQuery {
    /// All.
    Any,
    /// All with this status.
    WithStatus(&'static str),
    /// All scans of one machine.
    ScansOf(MachineId),
    /// All of one machine.
    OfMachine(MachineId),
}

/// A page of actions.
#[derive(Debug, Default)]
pub struct Listed {
    /// What could be read.
    pub seen: Vec<Seen>,
    /// Entries on the page, readable or not.
    pub entries: usize,
    /// Whether there is another page.
    pub more: bool,
}

/// A page of machines.
#[derive(Debug, Default)]
pub struct Machines {
    /// The ids of all, as far as they have one.
    pub ids: Vec<String>,
    /// Those that need not be asked, and why.
    pub ineligible: Vec<(MachineId, Ineligible)>,
    /// Entries on the page, readable or not.
    pub entries: usize,
    /// Whether there is another page.
    pub more: bool,
}

/// The end of a reading call.
#[derive(Debug)]
pub enum Read<T> {
    /// Here it is.
    Got(T),
    /// There is no such thing, in Defender's words.
    Absent,
    /// The token is not accepted.
    Unauthorized,
    /// The application may not do this.
    Forbidden {
        /// In Defender's words.
        said: String,
        /// The roles that it names as sufficient, if it names any.
        wants: Vec<String>,
    },
    /// The budget of this call is spent, by us or by others; what the answer said about it.
    Throttled(Told),
    /// The API does not understand the request.
    Refused(String),
    /// It failed, and reading may simply be tried again.
    Failed(String),
    /// The connection failed before a byte was sent.
    NotSent(String),
}

impl<T> Read<T> {
    /// The same, with something else in the place of what was read.
    pub fn with<U>(self, change: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Self::Got(got) => Read::Got(change(got)),
            Self::Absent => Read::Absent,
            Self::Unauthorized => Read::Unauthorized,
            Self::Forbidden { said, wants } => Read::Forbidden { said, wants },
            Self::Throttled(told) => Read::Throttled(told),
            Self::Refused(said) => Read::Refused(said),
            Self::Failed(why) => Read::Failed(why),
            Self::NotSent(why) => Read::NotSent(why),
        }
    }

    /// Why nothing was read, in words.
    pub fn why(&self) -> &str {
        match self {
            Self::Got(_) => "nothing is wrong",
            Self::Absent => "404: there is nothing at this address; is api_url right?",
            Self::Unauthorized => "401 to a fresh token",
            Self::Throttled(_) => "throttled by Defender (429)",
            Self::Forbidden { said, .. } | Self::Refused(said) | Self::Failed(said) | Self::NotSent(said) => said,
        }
    }

    /// The word for the record and for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Got(_) => "ok",
            Self::Absent => "absent",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden { .. } => "forbidden",
            Self::Throttled(_) => "throttled",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::NotSent(_) => "not_sent",
        }
    }
}

/// One tenant's Defender.
#[derive(Clone)]
pub struct Client {
    wire: Arc<dyn Wire>,
    base: String,
    sign_in: Arc<SignIn>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// Escapes a query: `%20` for a blank, which every server reads alike.
fn query(pairs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z'
                | b'a'..=b'z'
                | b'0'..=b'9'
                | b'-'
                | b'_'
                | b'.'
                | b'~'
                | b':'
                | b'\''
                | b'('
                | b')'
                | b',' => {
                    text.push(char::from(byte));
                }
                other => text += &format!("%{other:02X}"),
            }
        }
    }
    text
}

/// The options of a page of actions.
fn options(wanted: &ActionQuery, turn: Turn) -> Vec<(&'static str, String)> {
    let which = match wanted {
        ActionQuery::Any => None,
        ActionQuery::WithStatus(status) => Some(format!("status eq '{status}'")),
        ActionQuery::ScansOf(machine) => Some(format!("machineId eq '{machine}' and type eq 'RunAntiVirusScan'")),
        ActionQuery::OfMachine(machine) => Some(format!("machineId eq '{machine}'")),
    };
    let since = turn.by.zip(turn.from).map(|(by, from)| match by {
        // That operator was observed; times have more digits than ours.
        Key::Updated => format!("lastUpdateDateTimeUtc gt {}", (from - Duration::from_millis(1)).rfc3339()),
        Key::Created => format!("creationDateTimeUtc ge {}", from.rfc3339()),
    });
    let order = turn.by.map(|by| match by {
        Key::Updated => "lastUpdateDateTimeUtc asc",
        Key::Created => "creationDateTimeUtc asc",
    });
    let filter: Vec<String> = which.into_iter().chain(since).collect();
    let filter = (!filter.is_empty()).then(|| ("$filter", filter.join(" and ")));
    filter.into_iter().chain(order.map(|order| ("$orderby", order.to_owned()))).chain(cut(turn)).collect()
}

/// The options that cut a page out of a list.
fn cut(turn: Turn) -> Vec<(&'static str, String)> {
    let skip = (turn.skip > 0).then(|| ("$skip", turn.skip.to_string()));
    [("$top", turn.top.to_string())].into_iter().chain(skip).collect()
}

impl Client {
    /// The Defender whose calls begin with `base` (`https://…/api`), reached with `sign_in`'s tokens.
    pub fn new(wire: Arc<dyn Wire>, base: &str, sign_in: Arc<SignIn>) -> Self {
        Self { wire, base: base.to_owned(), sign_in }
    }

    /// A token that is good for a while.
    pub async fn token(&self) -> Result<SignedIn, SignInError> {
        self.sign_in.token().await
    }

    /// Defender refused this token. Returns whether it was the current one.
    pub async fn refused(&self, token: &Token) -> bool {
        self.sign_in.refused(token).await
    }

    /// The next token is a new one, and tells the time, where the server does that.
    pub async fn sign_in_anew(&self) {
        self.sign_in.anew().await;
    }

    /// Tries a failing sign-in again at once.
    pub async fn try_again(&self) {
        self.sign_in.try_again().await;
    }

    /// `POST /api/machines/{id}/runAntiVirusScan`. Names are case-sensitive (run-av-scan).
    pub async fn scan(
        &self,
        token: &Token,
        attempt: AttemptId,
        machine: MachineId,
        scan: ScanType,
        comment: &str,
    ) -> Scanned {
        let body = serde_json::json!({ "Comment": attempt.mark(comment), "ScanType": scan.as_str() });
        let request = Request {
            post: true,
            url: format!("{}/machines/{machine}/runAntiVirusScan", self.base),
            bearer: Some(token.secret.clone()),
            body: Body::Json(body.to_string()),
            metadata: false,
            at_most: SCAN_AT_MOST,
        };
        match self.wire.send(request).await {
            Err(Failure::NotSent(why)) => Scanned::unanswered(Outcome::NotSent, format!("not sent: {why}")),
            Err(Failure::Lost(why)) => Scanned::unanswered(Outcome::Unknown, format!("no answer: {why}")),
            Ok(reply) => {
                let (answer, seen) = wire::answer(&reply, self.sign_in.wall());
                let date = reply.date.as_deref().and_then(http_date);
                let mut text = kept(&reply.text, &token.secret);
                if let Some(cut) = reply.cut {
                    text += &format!(" [cut: {cut}]");
                }
                let said = shown(&Answer {
                    message: answer.message.as_deref().map(|message| kept(message, &token.secret)),
                    ..answer.clone()
                });
                Scanned {
                    outcome: judge(attempt, &answer),
                    status: Some(answer.status),
                    text,
                    said,
                    raw: seen.map(|seen| seen.raw),
                    date,
                }
            }
        }
    }

    /// `GET /api/machineactions`, one page.
    pub async fn list_actions(&self, token: &Token, wanted: &ActionQuery, turn: Turn) -> Read<Listed> {
        let url = format!("{}/machineactions{}", self.base, query(&options(wanted, turn)));
        match self.read(token, url).await {
            Ok(reply) => match apart(&reply, wire::page) {
                // A next link may point to another host (observed): it only says that there is more.
                Some(page) => Read::Got(Listed {
                    more: page.entries > 0 && (page.entries >= turn.top || page.next_link.is_some()),
                    entries: page.entries,
                    seen: page.seen,
                }),
                None => Read::Failed(format!("the list of actions is not readable: {}", start(&reply, token))),
            },
            Err(other) => other,
        }
    }

    /// `GET /api/machineactions/{id}`.
    pub async fn get_action(&self, token: &Token, id: &str) -> Read<Seen> {
        if !may_stand_in_a_path(id) {
            return Read::Refused(format!("`{id}` is no id that may stand in a path"));
        }
        match self.read(token, format!("{}/machineactions/{id}", self.base)).await {
            Ok(reply) => the_action(&reply, token),
            Err(other) => other,
        }
    }

    /// `POST /api/machineactions/{id}/cancel`. It names the action: made twice, it cancels once.
    pub async fn cancel_action(&self, token: &Token, id: &str, comment: &str) -> Read<Seen> {
        if !may_stand_in_a_path(id) {
            return Read::Refused(format!("`{id}` is no id that may stand in a path"));
        }
        let request = Request {
            post: true,
            url: format!("{}/machineactions/{id}/cancel", self.base),
            bearer: Some(token.secret.clone()),
            body: Body::Json(serde_json::json!({ "Comment": comment }).to_string()),
            metadata: false,
            at_most: SCAN_AT_MOST,
        };
        match self.ask(token, request).await {
            Ok(reply) => the_action(&reply, token),
            Err(other) => other,
        }
    }

    /// `GET /api/machineactions` with one row, whichever: may the list be read? Returns its id.
    pub async fn any_action(&self, token: &Token) -> Read<Option<String>> {
        let page = self.first(token, "machineactions", wire::page).await;
        page.with(|page| page.seen.into_iter().next().map(|seen| seen.action.id))
    }

    /// `GET /api/machines` with one row, whichever: may the list be read? Returns its id.
    pub async fn any_machine(&self, token: &Token) -> Read<Option<MachineId>> {
        self.first(token, "machines", wire::machine_ids).await.with(|ids| ids.first().copied())
    }

    async fn first<T>(&self, token: &Token, list: &str, page: impl FnOnce(&Reply) -> Option<T>) -> Read<T> {
        match self.read(token, format!("{}/{list}{}", self.base, query(&[("$top", "1".to_owned())]))).await {
            Ok(reply) => match page(&reply) {
                Some(page) => Read::Got(page),
                None => Read::Failed(format!("the list is not readable: {}", start(&reply, token))),
            },
            Err(other) => other,
        }
    }

    /// `GET /api/machines`, one page.
    pub async fn list_machines(&self, token: &Token, turn: Turn) -> Read<Machines> {
        match self.read(token, format!("{}/machines{}", self.base, query(&cut(turn)))).await {
            Ok(reply) => apart(&reply, |reply| wire::machines(reply, turn.top)).map_or_else(
                || Read::Failed(format!("the list of machines is not readable: {}", start(&reply, token))),
                Read::Got,
            ),
            Err(other) => other,
        }
    }

    /// `GET /api/machines/{id}`: whether Defender knows the machine.
    pub async fn get_machine(&self, token: &Token, machine: MachineId) -> Read<()> {
        match self.read(token, format!("{}/machines/{machine}", self.base)).await {
            // Any 200 would do for a proxy's page of good wishes.
            Ok(reply) => match wire::machine(&reply) {
                Some(known) if known == machine => Read::Got(()),
                _ => Read::Failed(format!("the machine is not readable: {}", start(&reply, token))),
            },
            Err(other) => other,
        }
    }

    async fn read<T>(&self, token: &Token, url: String) -> Result<Reply, Read<T>> {
        let request = Request {
            post: false,
            url,
            bearer: Some(token.secret.clone()),
            body: Body::None,
            metadata: false,
            at_most: LIST_AT_MOST,
        };
        self.ask(token, request).await
    }

    /// Sends a request whose effect, if it has one, is the same however often it is made.
    async fn ask<T>(&self, token: &Token, request: Request) -> Result<Reply, Read<T>> {
        let is_read = !request.post;
        let reply = match self.wire.send(request).await {
            Err(Failure::NotSent(why)) => return Err(Read::NotSent(why)),
            Err(Failure::Lost(why)) => return Err(Read::Failed(why)),
            Ok(reply) => reply,
        };
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        let (answer, _) = wire::answer(&reply, self.sign_in.wall());
        if is_throttled(&answer) {
            return Err(Read::Throttled(told(&answer)));
        }
        Err(match reply.status {
            401 => Read::Unauthorized,
            // A page that forbids is a firewall's, or a proxy's.
            403 if reply.text.trim_start().starts_with('<') => {
                Read::Failed(format!("403, not in Defender's words: {}", start(&reply, token)))
            }
            403 => match denial(&answer) {
                // A no to one action: others may be cancelled.
                None if !is_read => Read::Refused(said(&reply, &answer, token)),
                denial => {
                    let wants = if let Some(Denial::Roles(roles)) = denial { roles } else { Vec::new() };
                    Read::Forbidden { said: said(&reply, &answer, token), wants }
                }
            },
            404 if is_missing(&answer) => Read::Absent,
            404 => Read::Failed(format!(
                "404, not in Defender's words (is api_url right?): {}",
                said(&reply, &answer, token)
            )),
            // A page of a firewall says nothing about what Defender understands.
            400 if is_read && answer.code.is_none() => Read::Failed(format!("400 {}", said(&reply, &answer, token))),
            400 => Read::Refused(said(&reply, &answer, token)),
            409 | 410 if !is_read && is_readable(&answer) => Read::Refused(said(&reply, &answer, token)),
            status => Read::Failed(format!("{status} {}", said(&reply, &answer, token))),
        })
    }
}

fn may_stand_in_a_path(id: &str) -> bool {
    id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn the_action(reply: &Reply, token: &Token) -> Read<Seen> {
    match (reply.cut.is_none(), wire::action(reply.text.trim())) {
        (true, Some(seen)) => Read::Got(seen),
        _ => Read::Failed(format!("the action is not readable: {}", start(reply, token))),
    }
}

/// What a refusal says: code and message, else the start of whatever came instead.
fn said(reply: &Reply, answer: &Answer, token: &Token) -> String {
    let code = answer.code.as_deref().unwrap_or_default();
    let message = answer.message.as_deref().unwrap_or_default();
    match format!("{code} {message}").trim() {
        "" => start(reply, token),
        said => kept(said, &token.secret),
    }
}

/// The start of a body, for a message.
fn start(reply: &Reply, token: &Token) -> String {
    kept(&reply.text, &token.secret).chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped_so_that_every_server_reads_them_alike() {
        let filter = "status eq 'Pending' and x gt 2026-01-01T00:00:00.000Z+1".to_owned();
        let text = query(&[("$filter", filter), ("$top", "10".to_owned())]);
        assert_eq!(text, "?$filter=status%20eq%20'Pending'%20and%20x%20gt%202026-01-01T00:00:00.000Z%2B1&$top=10");
    }

    #[test]
    fn a_page_of_actions_is_asked_for_as_clients_were_seen_to() {
        let from = Wall::parse("2026-11-21T10:00:00Z");
        let turn = |by, skip| Turn { by, from, skip, top: 5000 };
        let plain = |wanted: &ActionQuery, turn| {
            let pairs = options(wanted, turn);
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
        };
        assert_eq!(
            plain(&ActionQuery::Any, turn(Some(Key::Updated), 0)),
            "$filter=lastUpdateDateTimeUtc gt 2026-11-21T09:59:59.999Z&$orderby=lastUpdateDateTimeUtc asc&$top=5000"
        );
        assert_eq!(
            plain(&ActionQuery::WithStatus("Pending"), turn(Some(Key::Created), 7)),
            "$filter=status eq 'Pending' and creationDateTimeUtc ge 2026-11-21T10:00:00.000Z\
             &$orderby=creationDateTimeUtc asc&$top=5000&$skip=7"
        );
        assert_eq!(plain(&ActionQuery::Any, turn(None, 0)), "$top=5000");
    }
}

//! The calls of the API, once they were let in: what they check, and what they do.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::action::{self, Asked, METADATA};
use super::exchange::{Refusal, Request, Response};
use super::faults::Target;
use super::filter::{Mistake, Row};
use super::fleet::{self, Listed, MachineKind};
use super::metadata;
use super::odata::{self, Page};
use super::options::Lists;
use super::tenant::Tenant;
use super::ticks::Ticks;
use crate::domain::id::MachineId;
use crate::domain::ledger::CallKind;
use crate::domain::sweep::ScanType;
use crate::domain::time::Wall;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    SignIn,
    Scan(String),
    ListActions,
    GetAction(String),
    CancelAction(String),
    ListMachines,
    GetMachine(String),
}

impl Call {
    /// Reads method and path, case-sensitively, under `/api` and its observed alias `/api/v1.0`.
    pub(super) fn of(request: &Request) -> Result<Self, Refusal> {
        let path = request.path.as_str();
        let inner = path.strip_prefix("/api/v1.0/").or_else(|| path.strip_prefix("/api/")).unwrap_or_default();
        let segments: Vec<&str> = inner.split('/').collect();
        let call = match (request.method.as_str(), segments.as_slice()) {
            ("POST", ["machines", id, "runAntiVirusScan"]) => Self::Scan((*id).to_owned()),
            ("GET", ["machineactions"]) => Self::ListActions,
            ("GET", ["machineactions", id]) => Self::GetAction((*id).to_owned()),
            ("POST", ["machineactions", id, "cancel"]) => Self::CancelAction((*id).to_owned()),
            ("GET", ["machines"]) => Self::ListMachines,
            ("GET", ["machines", id]) => Self::GetMachine((*id).to_owned()),
            ("POST", _) if path.ends_with("/oauth2/v2.0/token") => Self::SignIn,
            ("GET", _) if path == metadata::PATH => Self::SignIn,
            _ => {
                let message = format!("No resource answers to {} {path}", request.method);
                return Err(Refusal::new(404, "NotFound", message));
            }
        };
        Ok(call)
    }

    /// Which windows it is counted in.
    pub(super) const fn kind(&self) -> Option<CallKind> {
        match self {
            Self::SignIn => None,
            Self::Scan(_) => Some(CallKind::Scan),
            Self::ListActions => Some(CallKind::ListActions),
            Self::GetAction(_) => Some(CallKind::GetAction),
            Self::CancelAction(_) => Some(CallKind::CancelAction),
            Self::ListMachines => Some(CallKind::ListMachines),
            Self::GetMachine(_) => Some(CallKind::GetMachine),
        }
    }

    /// The id in its path: a machine's or an action's.
    pub(super) fn names(&self) -> Option<&str> {
        match self {
            Self::SignIn | Self::ListActions | Self::ListMachines => None,
            Self::Scan(id) | Self::GetAction(id) | Self::CancelAction(id) | Self::GetMachine(id) => Some(id),
        }
    }

    /// What faults it may be struck by.
    pub(super) fn target(&self) -> Target {
        self.kind().map_or(Target::SignIn, Target::Call)
    }
}

impl Tenant {
    /// `POST /api/machines/{id}/runAntiVirusScan` (API/run-av-scan.md).
    pub(super) fn scan(&mut self, now: Wall, id: &str, request: &Request) -> Result<Response, Refusal> {
        let body = fields(request, &["Comment", "ScanType"])?;
        let comment = text(&body, "Comment")?;
        // Case-sensitive like everything in a body (API/common-errors.md).
        let scan = match text(&body, "ScanType")?.as_str() {
            "Quick" => ScanType::Quick,
            "Full" => ScanType::Full,
            _ => return Err(invalid_body()),
        };
        let (machine, kind) = self.machine(id)?;
        match kind {
            MachineKind::UnsupportedPlatform => {
                let message = "Machine OS platform is not supported for this action";
                return Err(Refusal::new(400, "OsPlatformNotSupported", message));
            }
            MachineKind::OldClient => {
                let message = "Client version is not supported for this action";
                return Err(Refusal::new(400, "ClientVersionNotSupported", message));
            }
            _ => {}
        }
        if let Some(open) = self.open_action(now, machine) {
            let existing = open.seen(now).entity(false);
            return self.already_in_progress(machine, &existing);
        }
        let asked = Asked { requestor: self.options.app_name.clone(), comment, source: "PublicApi", scan };
        let action = self.create(now, machine, asked).ok_or_else(|| unknown_machine(id))?;
        Ok(Response::json(201, &action.seen(now).entity(true)))
    }

    /// Both answers are documented, and which one comes is not (API/run-av-scan.md;
    /// microsoft-365-docs issue 5907): the error, or the action that is pending.
    fn already_in_progress(&mut self, machine: MachineId, existing: &Value) -> Result<Response, Refusal> {
        let coin = self.machines.get_mut(&machine).map_or(0, |machine| machine.chance.below(2));
        if coin == 0 {
            return Err(Refusal::new(400, "ActiveRequestAlreadyExists", "Action is already in progress"));
        }
        self.counts.existing_returned += 1;
        Ok(Response::json(201, existing))
    }

    /// The machine of this id, which has to be written as Defender writes it.
    fn machine(&self, text: &str) -> Result<(MachineId, MachineKind), Refusal> {
        let id = text.parse::<MachineId>().ok().filter(|id| id.to_string() == text);
        let machine = id.and_then(|id| self.machines.get(&id));
        machine.map(|machine| (machine.known.id, machine.known.kind)).ok_or_else(|| unknown_machine(text))
    }

    /// `GET /api/machineactions` (API/get-machineactions-collection.md), newest first.
    pub(super) fn list_actions(&self, now: Wall, request: &Request) -> Result<Response, Refusal> {
        let Lists { by_update, late, longest } = self.options.lists;
        let columns = if by_update { action::COLUMNS } else { action::DOCUMENTED };
        let options = odata::Options::parse(&request.query, columns).map_err(bad_query)?;
        let lag = self.options.list_lag;
        let listed = self.actions.iter().enumerate().rev().filter_map(|(n, action)| {
            let behind =
                late.filter(|(every, _)| n.is_multiple_of(*every)).map_or(Duration::ZERO, |(_, behind)| behind);
            (action.created_at() + lag.max(behind) <= now).then(|| action.seen(now - behind))
        });
        let page = options.select(listed, self.options.page_size, &request.query);
        if page.rows.len() > longest {
            return Err(Refusal::new(500, "InternalServerError", "The answer could not be made in time"));
        }
        let rows = page.rows.iter().map(action::Seen::json).collect();
        Ok(self.page("MachineActions", request, &options, &page, rows))
    }

    /// `GET /api/machineactions/{id}` (API/get-machineaction-object.md).
    pub(super) fn get_action(&self, now: Wall, id: &str) -> Result<Response, Refusal> {
        let index = self.by_id.get(id).copied();
        let action = index.and_then(|index| self.actions.get(index)).ok_or_else(|| unknown_action(id))?;
        Ok(Response::json(200, &action.seen(now).entity(false)))
    }

    /// `POST /api/machineactions/{id}/cancel` (API/cancel-machine-action.md). What ended is
    /// answered with 400 (observed in `MDEAutomator`; its body is unknown).
    pub(super) fn cancel_action(&mut self, now: Wall, id: &str, request: &Request) -> Result<Response, Refusal> {
        let comment = text(&fields(request, &["Comment"])?, "Comment")?;
        let index = self.by_id.get(id).copied();
        let action = index.and_then(|index| self.actions.get_mut(index)).ok_or_else(|| unknown_action(id))?;
        action.cancel(now, &self.options.client_id, &comment).map_err(|status| {
            let message = format!("Machine action {id} cannot be cancelled: its status is {status}");
            Refusal::new(400, "BadRequest", message)
        })?;
        self.counts.cancelled += 1;
        Ok(Response::json(200, &action.seen(now).entity(false)))
    }

    /// `GET /api/machines` (API/get-machines.md).
    pub(super) fn list_machines(&self, request: &Request) -> Result<Response, Refusal> {
        let options = odata::Options::parse(&request.query, fleet::COLUMNS).map_err(bad_query)?;
        let seen = Ticks::at(self.started);
        let listed = self.options.machines.iter().map(|machine| Listed::new(machine, seen));
        let page = options.select(listed, self.options.page_size, &request.query);
        let rows = page.rows.iter().map(Listed::json).collect();
        Ok(self.page("Machines", request, &options, &page, rows))
    }

    /// `GET /api/machines/{id}` (API/get-machine-by-id.md).
    pub(super) fn get_machine(&self, id: &str) -> Result<Response, Refusal> {
        let (machine, _) = self.machine(id)?;
        let known = self.machines.get(&machine).ok_or_else(|| unknown_machine(id))?;
        Ok(Response::json(200, &Listed::new(&known.known, Ticks::at(self.started)).json()))
    }

    fn page<R: Row>(
        &self,
        set: &str,
        request: &Request,
        options: &odata::Options,
        page: &Page<R>,
        rows: Vec<Value>,
    ) -> Response {
        let mut body = Map::new();
        body.insert("@odata.context".to_owned(), json!(format!("{METADATA}#{set}")));
        if options.count {
            body.insert("@odata.count".to_owned(), json!(page.total));
        }
        if let Some(query) = &page.next {
            let link = format!("{}{}?{query}", self.base_url, request.path);
            body.insert("@odata.nextLink".to_owned(), json!(link));
        }
        body.insert("value".to_owned(), Value::Array(rows));
        Response::json(200, &Value::Object(body))
    }
}

/// The body's parameters. Names are case-sensitive, and a name that is none of the call's is an
/// error (API/common-errors.md, API/run-av-scan.md).
fn fields(request: &Request, known: &[&str]) -> Result<Map<String, Value>, Refusal> {
    if !request.is_of_type("application/json") {
        return Err(invalid_body());
    }
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(fields)) if fields.keys().all(|name| known.contains(&name.as_str())) => Ok(fields),
        _ => Err(invalid_body()),
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<String, Refusal> {
    match fields.get(name) {
        None | Some(Value::Null) => {
            Err(Refusal::new(400, "MissingRequiredParameter", format!("Required parameter {name} is missing")))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(invalid_body()),
    }
}

fn invalid_body() -> Refusal {
    Refusal::new(400, "InvalidRequestBody", "Request body is incorrect")
}

fn unknown_machine(id: &str) -> Refusal {
    Refusal::new(404, "ResourceNotFound", format!("Machine {id} was not found"))
}

fn unknown_action(id: &str) -> Refusal {
    Refusal::new(404, "ResourceNotFound", format!("Machine action {id} was not found"))
}

fn bad_query(Mistake(message): Mistake) -> Refusal {
    Refusal::odata(message)
}

//! The putting away of a file that cannot be used, and what of it stands in the log and on record.
//!
//! Each rejected file has its receipt. The first of an owner's within an hour are on record one by one, each before its file
//! moves; the others together, afterwards: whoever drops a hundred thousand useless files does not fill the record.

use std::sync::{MutexGuard, PoisonError};

use super::filing::{blank, count};
use super::opening::Opened;
use super::taking::{Taking, Took};
use crate::domain::id::TenantName;
use crate::domain::sparing::{Sparing, Together};
use crate::domain::time::Wall;
use crate::engine::steps::{Step, passed};
use crate::intake::folder::{Place, Ready};
use crate::intake::receipt::{Findings, Status};
use crate::store::events::{Kind, Subject};
use crate::store::sweeps::Counts;

/// Why a file is rejected of which nothing may be quoted.
const NO_TEXT: &str = "the file is no text: it is not a list, a CSV or JSON (an archive, a spreadsheet or a program?); \
                       export it as one of these and drop that";

impl Taking {
    #[allow(clippy::too_many_arguments, reason = "everything that a receipt tells of a rejected file")]
    pub async fn put_away_rejected(
        &self,
        ready: &Ready,
        opened: Option<&Opened>,
        tenant: Option<TenantName>,
        why: String,
        mut findings: Findings,
        counts: Counts,
        received_at: Wall,
    ) -> Took {
        let sha256 = opened.map(|opened| opened.copied.sha256.clone()).unwrap_or_default();
        let mut receipt = blank(ready, &sha256, tenant.as_ref(), received_at, Status::Rejected);
        let is_text = opened.is_none_or(|opened| opened.copied.is_text);
        // The reason may quote a header.
        let kind = opened.and_then(|opened| opened.copied.binary);
        let why = match kind {
            Some(binary) => binary.to_string(),
            None if is_text => why,
            None => NO_TEXT.to_owned(),
        };
        findings.refusals = findings.refusals.of_rejected(is_text && kind.is_none());
        count(&mut receipt, counts, findings);
        receipt.reason = Some(why.clone());
        let label = tenant.as_ref().map_or("", TenantName::as_str).to_owned();
        let at = self.shared.clock.wall();
        let (owner, relative) = (ready.found.uid, ready.relative());
        let is_singly = self.rejected().is_told_singly(owner, self.shared.clock.boot());
        if is_singly {
            let body =
                serde_json::json!({ "file": relative, "sha256": sha256, "tenant": label, "reason": why, "uid": owner });
            if let Err(error) = self.shared.store.record(at, Kind::FileRejected, Subject::default(), body).await {
                return Took::Later(error.to_string());
            }
            passed(Step::Recorded);
        }
        let promise = self.choose(Place::Rejected, ready);
        if let Err(error) = self.put_away(ready, opened, promise.target(), &receipt).await {
            return Took::Later(error.to_string());
        }
        self.shared.metrics.file(&label, "rejected");
        self.shared.metrics.machines(&label, "refused", receipt.refused);
        if is_singly {
            tracing::warn!(tenant = label, file = relative, why, "rejected");
        } else {
            self.rejected().count(owner, 1, &relative, self.shared.clock.boot());
        }
        Took::Done
    }

    fn rejected(&self) -> MutexGuard<'_, Sparing<u32>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts on record together what was rejected and not recorded one by one: `all` of it, or what is due. A kill loses the
    /// count since the last time; each of these files still has its receipt.
    pub async fn tell_rejected(&self, all: bool) {
        let due = self.rejected().due(self.shared.clock.boot(), all);
        for (owner, together) in due {
            let Together { count, first, last } = &together;
            let body = serde_json::json!({ "files": count, "first": first, "last": last, "uid": owner });
            let at = self.shared.clock.wall();
            if let Err(error) = self.shared.store.record(at, Kind::FileRejected, Subject::default(), body).await {
                self.shared.database_fails("", "rejected files are not on record yet", &error);
                self.rejected().put_back(owner, together, self.shared.clock.boot());
                continue;
            }
            tracing::warn!(owner, files = count, first, last, "more files were rejected; each has its receipt");
        }
    }
}

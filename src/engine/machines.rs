//! The list of machines: which of them need not be asked. Read only where `inactive` says that somebody
//! wants to know; without it every machine is asked, and Defender's answer decides.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::lane::Lane;
use super::reads::{NotRead, read};
use crate::defender::Read;
use crate::domain::eligibility::Inactive;
use crate::domain::ledger::CallKind;
use crate::domain::time::Boot;

/// A machine is inactive after seven days (documented), so the list need not be younger.
const EVERY: Duration = Duration::from_hours(6);
/// After a list that could not be read.
const AGAIN: Duration = Duration::from_mins(15);

/// When the list is read the next time.
#[derive(Debug, Default)]
pub struct Machines {
    next: Option<Boot>,
}

impl Machines {
    /// Reads the list if it is due and wanted. `beat` is the loop that waits for it.
    pub async fn look(&mut self, lane: &Lane, beat: &str) -> Result<(), NotRead> {
        let now = lane.now();
        let is_due = lane.tenant.inactive != Inactive::Send && self.next.is_none_or(|next| now >= next);
        if !is_due || !lane.shared.store.has_ready(lane.row).await? {
            return Ok(());
        }
        let is_whole = self.read(lane, beat).await?;
        lane.machines_known.store(is_whole, Ordering::SeqCst);
        self.next = Some(now + if is_whole { EVERY } else { AGAIN });
        Ok(())
    }

    /// Returns whether all of it could be read.
    async fn read(&self, lane: &Lane, beat: &str) -> Result<bool, NotRead> {
        let store = &lane.shared.store;
        let at = lane.wall();
        let mut skip = 0;
        loop {
            let answer = read(lane, beat, CallKind::ListMachines, |token| async move {
                lane.client.list_machines(&token, skip).await
            })
            .await?;
            let page = match answer {
                Read::Got(page) => page,
                // So an empty list is documented.
                Read::Absent if skip == 0 => crate::defender::Machines::default(),
                other => {
                    tracing::warn!(tenant = %lane.name, outcome = other.word(), "the list of machines cannot be read (needs Machine.Read.All): inactive machines are asked like any other until it can");
                    return Ok(false);
                }
            };
            skip += page.entries;
            let more = page.more;
            store.note_ineligible(lane.row, page.ineligible, at).await?;
            if !more {
                let n = store.end_ineligible(lane.row, at).await?;
                tracing::info!(tenant = %lane.name, machines = skip, ineligible = n, "read the list of machines");
                return Ok(true);
            }
        }
    }
}

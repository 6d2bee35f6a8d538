//! What a lane waits for that Defender forbids the scan call: in Defender's words, where they name no role.

use super::{Lane, lock};
use crate::domain::outcome::Denial;

/// What the last 403 of a scan call said.
#[derive(Clone, Debug)]
pub struct Denied {
    denial: Denial,
    /// Code and message.
    said: String,
}

impl Lane {
    /// A scan call was forbidden.
    pub fn note_denial(&self, denial: &Denial, said: Option<&str>) {
        *lock(&self.denied) = Some(Denied { denial: denial.clone(), said: said.unwrap_or_default().to_owned() });
    }

    /// What has to happen before scan calls are allowed; `{until}` stands for the time of the next try.
    pub fn waits_for_permission(&self) -> String {
        wait(lock(&self.denied).as_ref())
    }
}

fn wait(denied: Option<&Denied>) -> String {
    let what = match denied {
        None => "a permission: Defender answers 403; grant Machine.Scan to the app, with consent".to_owned(),
        Some(Denied { denial: Denial::Roles(roles), .. }) => {
            let roles = roles.join(" or ");
            format!("a permission: Defender answers 403; grant {roles} to the app, with consent")
        }
        Some(Denied { denial: Denial::Unnamed, said }) => {
            format!("a permission: Defender answers 403 ({said}); check that the app has Machine.Scan, with consent")
        }
        Some(Denied { denial: Denial::Feature, said }) => {
            format!("a feature of the tenant that is switched off: Defender answers 403 ({said})")
        }
        Some(Denied { denial: Denial::Unreadable, .. }) => {
            "a permission, or a free way to Defender: the 403 is not in Defender's words; \
             check that the app has Machine.Scan, with consent, and proxies on the way"
                .to_owned()
        }
    };
    what + "; next try at {until}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_without_a_role_is_shown_in_defenders_words() {
        let wait = |denial, said: &str| wait(Some(&Denied { denial, said: said.to_owned() }));
        let roles = vec!["Machine.Scan".to_owned(), "Machine.ReadWrite.All".to_owned()];
        for (waits, words) in [
            (super::wait(None), "grant Machine.Scan to the app"),
            (wait(Denial::Roles(roles), ""), "grant Machine.Scan or Machine.ReadWrite.All to the app"),
            (
                wait(Denial::Unnamed, "Forbidden: Not today."),
                "403 (Forbidden: Not today.); check that the app has Machine.Scan",
            ),
            (
                wait(Denial::Feature, "DisabledFeature: Off."),
                "switched off: Defender answers 403 (DisabledFeature: Off.)",
            ),
            (wait(Denial::Unreadable, ""), "not in Defender's words"),
        ] {
            assert!(
                waits.contains(words) && waits.contains("403") && waits.ends_with("; next try at {until}"),
                "{waits}"
            );
        }
    }
}

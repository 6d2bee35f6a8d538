//! What comes of a file, and why one is not taken.

use std::io;

use crate::domain::id::TenantName;
use crate::intake::receipt::Findings;
use crate::store::StoreError;
use crate::store::sweeps::Counts;

/// What came of a file.
#[derive(Debug)]
pub enum Took {
    /// It is put away, with its receipt.
    Done,
    /// It stays where it is, for this reason.
    Later(String),
    /// It waits: another file of this tenant is being taken.
    Busy(TenantName),
}

/// Why a file is not taken.
#[derive(Debug)]
pub enum Refuse {
    /// It never can be: it is put away as rejected, with this reason.
    Reject(String, Box<Findings>, Counts),
    /// It may be, later.
    Later(String),
}

impl From<StoreError> for Refuse {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<io::Error> for Refuse {
    fn from(error: io::Error) -> Self {
        Self::Later(error.to_string())
    }
}

impl Refuse {
    pub fn why(&self) -> &str {
        match self {
            Self::Reject(why, ..) | Self::Later(why) => why,
        }
    }
}

pub fn reject(reason: impl Into<String>) -> Refuse {
    Refuse::Reject(reason.into(), Box::default(), Counts::default())
}

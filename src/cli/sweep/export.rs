//! `sweepd sweep export`: one row for each machine, as it stands now.

use std::io;

use super::super::Context;
use super::super::output::{Format, Lines, quiet};
use super::row_of;
use crate::app::Failure;
use crate::engine::upkeep::results::Rows;
use crate::intake::results::{Csv, ResultRow};
use crate::store::{Store, StoreError};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sweep's id; it may be shortened while it is unique
    pub id: String,
    /// How to write it; --json is the same as jsonl
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub async fn run(context: &Context, store: &Store, args: &Args) -> Result<(), Failure> {
    let sweep = row_of(store, &args.id).await?;
    let mut rows = Rows::of(store, sweep.n);
    if context.json || args.format == Format::Jsonl {
        let mut lines = Lines::new();
        let listed = each(&mut rows, |row| lines.add(row)).await?;
        return lines.end(listed);
    }
    let mut table = Csv::new(io::stdout())?;
    let listed = each(&mut rows, |row| table.row(row)).await?;
    quiet(listed.and_then(|()| table.end()))
}

/// Hands each row to `write`, until that has had enough.
async fn each(
    rows: &mut Rows<'_>,
    mut write: impl FnMut(&ResultRow) -> io::Result<()>,
) -> Result<io::Result<()>, StoreError> {
    loop {
        let page = rows.next().await?;
        let written = page.iter().try_for_each(&mut write);
        if page.is_empty() || written.is_err() {
            return Ok(written);
        }
    }
}

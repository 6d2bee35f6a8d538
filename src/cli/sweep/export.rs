//! `sweepd sweep export`: one row for each machine, as it stands now.

use super::super::Context;
use super::super::output::{Format, json_line, print};
use super::row_of;
use crate::app::Failure;
use crate::engine::results::rows_of;
use crate::intake::results::Csv;
use crate::store::Store;

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
    let rows = rows_of(store, sweep.n).await?;
    print(|out| {
        if context.json || args.format == Format::Jsonl {
            return rows.iter().try_for_each(|row| json_line(out, row));
        }
        let mut table = Csv::new(out)?;
        rows.iter().try_for_each(|row| table.row(row))?;
        table.end()
    })
}

//! `sweepd man`: the manual, made of what the command line knows about itself.

use std::fs;
use std::path::PathBuf;

use clap_mangen::Man;

use super::output::print;
use crate::app::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a page for every command into this folder, which is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    all: Option<PathBuf>,
}

pub fn run(args: &Args, command: clap::Command) -> Result<(), Failure> {
    let Some(folder) = &args.all else {
        return print(|out| Man::new(command).render(out));
    };
    fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
    clap_mangen::generate_to(command, folder).map_err(|error| Failure::file(folder, &error))
}

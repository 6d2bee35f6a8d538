//! `sweepd man`: the manual, made of what the command line knows about itself.

use std::fs;
use std::path::PathBuf;

use clap_mangen::Man;

use super::output::print_as_it_is;
use crate::app::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a page for every command into this folder, which is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    all: Option<PathBuf>,
}

pub fn run(args: &Args, command: clap::Command) -> Result<(), Failure> {
    let Some(folder) = &args.all else {
        return print_as_it_is(|out| Man::new(command).render(out));
    };
    fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
    clap_mangen::generate_to(command, folder).map_err(|error| Failure::file(folder, &error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let all = folder.path().join("man");
        run(&Args { all: Some(all.clone()) }, super::super::Cli::command()).unwrap();
        for (page, says) in [("sweepd.1", "sweepd\\-run(1)"), ("sweepd-sweep-retry.1", "\\-\\-yes")] {
            let text = fs::read_to_string(all.join(page)).unwrap();
            assert!(text.contains(says), "{page}: {text}");
        }
    }
}

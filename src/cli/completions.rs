//! `completions`: a script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, output::Output};

#[derive(clap::Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "iot-enroll", &mut script);
        Output::raw(&script)
    }
}

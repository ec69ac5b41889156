//! `migrate`: from an IoT Central application to a DPS instance, with the device keys unchanged.

use super::{migrate_plan::MakePlan, output::Output, service::block_on};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    Plan(Box<MakePlan>),
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(async {
            match self {
                Self::Plan(plan) => plan.run(output).await,
            }
        })
    }
}

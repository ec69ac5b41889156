//! `migrate`: from an IoT Central application to a DPS instance, with the device keys unchanged.

use super::{
    migrate_apply::Apply, migrate_move::Move, migrate_plan::MakePlan, migrate_rehearse::Rehearse,
    migrate_status::Status, output::Output, service::block_on,
};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    Plan(Box<MakePlan>),
    Apply(Box<Apply>),
    Rehearse(Box<Rehearse>),
    Move(Box<Move>),
    Status(Box<Status>),
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(async {
            match self {
                Self::Plan(plan) => plan.run(output).await,
                Self::Apply(apply) => apply.run(output).await,
                Self::Rehearse(rehearse) => rehearse.run(output).await,
                Self::Move(devices) => devices.run(output).await,
                Self::Status(status) => status.run(output).await,
            }
        })
    }
}

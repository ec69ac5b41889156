//! `dps`: instances of the Device Provisioning Service, with their certificates and enrollments.

use super::{
    dps_certificate, dps_enrollment, dps_enrollment_group, dps_registration, dps_show::Show, output::Output,
    service::block_on,
};

#[derive(clap::Args)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Show(Show),
    /// Manage the CA certificates of an instance
    #[command(subcommand)]
    Certificate(dps_certificate::Command),
    /// Manage enrollment groups
    #[command(subcommand)]
    EnrollmentGroup(dps_enrollment_group::Command),
    /// Manage individual enrollments
    #[command(subcommand)]
    Enrollment(dps_enrollment::Command),
    /// Manage the records of devices that registered
    #[command(subcommand)]
    Registration(dps_registration::Command),
}

impl Command {
    pub(super) fn run(self, output: &Output) -> anyhow::Result<()> {
        block_on(async {
            match self.action {
                Action::Show(show) => show.run(output).await,
                Action::Certificate(command) => command.run(output).await,
                Action::EnrollmentGroup(command) => command.run(output).await,
                Action::Enrollment(command) => command.run(output).await,
                Action::Registration(command) => command.run(output).await,
            }
        })
    }
}

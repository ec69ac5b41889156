//! `cert server`: issue a TLS server certificate.

use super::{
    args::IssueArgs,
    cert_issue::{check_before_login, issue_leaf, read_issuer, write},
    error::UsageError,
    issuer::Issuer,
    output::Output,
};
use crate::certificate::{AlternativeName, CommonName, LeafParams, files::FileSet};

/// Issue a TLS server certificate, for brokers, gateways and IoT Edge
///
/// Clients compare only the subject alternative names, not the common name. Without --san, NAME is the subject alternative
/// name. With --san, the certificate has only the names and addresses that are given. Without an issuer the certificate is
/// self-signed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert server broker.example mytestrootcert
  iot-enroll cert server broker mytestrootcert --san broker.example --san 192.0.2.7
  iot-enroll cert server gateway mytestrootcert --san '*.plant.example' --san ::1 --client")]
#[command(group(clap::ArgGroup::new("issuer").args(["parent", "ca_cert"])))]
#[command(mut_arg("days", |days| days.help("Validity of the certificate in days [default: 1 year]")))]
pub(super) struct Server {
    /// Common name of the server, which also names its files
    name: CommonName,
    #[command(flatten)]
    issuer: Issuer,
    /// DNS name or IP address of the server (can be repeated)
    ///
    /// The first label of a DNS name may be a wildcard, *. International names are given as A-labels (xn--…). Several names
    /// can be separated by commas.
    #[arg(long = "san", value_name = "NAME-OR-ADDRESS", value_delimiter = ',')]
    alternative_names: Vec<AlternativeName>,
    /// Also allow TLS client authentication, as bridges between brokers need
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    issue: IssueArgs,
}

impl Server {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        let leaf = self.leaf()?;
        let files = FileSet::new(&self.issue.dir, &self.name)?;
        check_before_login(&self.issuer, false, &files, &self.issue)?;
        let authority = read_issuer(&self.issuer, &self.issue, output)?;
        let issued = issue_leaf(&leaf, authority.as_ref(), &files, &self.issue)?;
        write("server certificate", &files, &issued, &self.issue, output)
    }

    fn leaf(&self) -> Result<LeafParams, UsageError> {
        let name = self.name.as_str();
        if name.contains('*') {
            let error = UsageError::new(format!("{name:?} cannot name files"));
            return Err(error.with_hint(format!("choose another NAME, and give the wildcard as --san '{name}'")));
        }
        let mut leaf = LeafParams::server(self.name.clone());
        if !self.alternative_names.is_empty() {
            leaf = leaf.alternative_names(self.alternative_names.iter().cloned());
        } else if let Err(error) = AlternativeName::new(name) {
            let error = UsageError::new(format!("a server cannot be reached by the name {name:?}: {error}"));
            return Err(error.with_hint("give the DNS names and IP addresses of the server with --san"));
        }
        Ok(if self.client { leaf.client_authentication() } else { leaf })
    }
}

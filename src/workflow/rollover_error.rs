//! Why a group could not roll over.

use super::{error::ProvisionError, service::GroupId};
use crate::{
    central::CertificateEntry,
    certificate::{ChainError, Thumbprint, chain::moment},
    transport::Error,
};

/// Why a group could not roll over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RolloverError {
    /// The service refused a call, or could not be reached.
    #[error(transparent)]
    Service(#[from] Error),
    /// The new CA could not be enrolled, or device certificates could not be issued.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// No entry is verified, so there is no CA to roll over from.
    #[error("neither certificate of {group} is verified, so there is nothing to roll over from: provision the group")]
    NotVerified {
        /// The group.
        group: GroupId,
    },
    /// The group has no certificate except the new one.
    #[error(
        "{ours} is the only certificate of {group}, in its {entry} entry: either the rollover to it is complete, or this is \
         the old CA and the new one has to be named"
    )]
    OnlyCertificate {
        /// The group.
        group: GroupId,
        /// Its entry.
        entry: CertificateEntry,
        /// Its thumbprint.
        ours: Thumbprint,
    },
    /// Both entries hold other certificates.
    #[error("both entries of {group} hold other certificates: remove the one that no device needs")]
    BothTaken {
        /// The group.
        group: GroupId,
    },
    /// Devices could not connect with the certificate that is to stay.
    #[error(
        "nothing was removed, because no device could connect then: {thumbprint} is {} of {group}: run the rollover first",
        .entry.map_or_else(|| "in no entry".to_owned(), |entry| format!("not verified in the {entry} entry"))
    )]
    Needed {
        /// The group.
        group: GroupId,
        /// The thumbprint of the certificate that is to stay.
        thumbprint: Thumbprint,
        /// The entry that holds it, unverified.
        entry: Option<CertificateEntry>,
    },
    /// The certificate that is to stay cannot sign device certificates, or is not valid now.
    #[error("nothing was removed, because no device could connect then: {thumbprint} cannot be used: {}", unfit_reason(.error))]
    Unfit {
        /// The thumbprint of the certificate that is to stay.
        thumbprint: Thumbprint,
        /// Why it cannot be used.
        error: ChainError,
    },
    /// The old certificate was removed while another client removed or replaced the one that was to stay.
    #[error(
        "the {entry} entry of {group} was emptied, but {thumbprint}, which was to stay, is no longer verified in the other: \
         another client changed the group at the same time, and devices may not be able to connect: check both entries, \
         and provision the group with the root that is to stay"
    )]
    LeftWithout {
        /// The group.
        group: GroupId,
        /// The entry that was emptied.
        entry: CertificateEntry,
        /// The thumbprint of the certificate that was to stay.
        thumbprint: Thumbprint,
    },
    /// The reference to a certificate was removed, and the entry has one again.
    #[error("the {entry} entry of {group} was emptied, but refers to {name} now: another client may be changing it")]
    RefersAgain {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: CertificateEntry,
        /// The name of the certificate, which does not exist.
        name: String,
    },
    /// The entry was emptied, and holds a certificate again.
    #[error("the {entry} entry of {group} was emptied, but holds {found} now: another client may be changing it")]
    NotRetired {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: CertificateEntry,
        /// The thumbprint of the certificate that it holds.
        found: Thumbprint,
    },
}

/// Returns why a certificate cannot be used, with the remedy if it is not valid yet.
fn unfit_reason(error: &ChainError) -> String {
    match error {
        ChainError::NotYetValid { subject, not_before, at } => format!(
            "{subject} is not valid until {}, and it is {}: wait until then, or check the clock",
            moment(*not_before),
            moment(*at)
        ),
        error => error.to_string(),
    }
}

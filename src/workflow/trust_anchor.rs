//! The place of a certificate authority at a service: *missing*, *uploaded* or *verified*.
//!
//! The state is read from the service each time, never remembered from an earlier run, so any number of runs may be killed
//! or race and still converge.

use std::{fmt, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::{
    entries::Entries,
    error::ProvisionError,
    rollover_error::RolloverError,
    step::{Outcome, Step, Steps},
};
use crate::{
    central::CertificateEntry,
    certificate::{Certificate, CertificateAuthority, CommonName, IssueOptions, Thumbprint, Timestamp},
    dps::DpsCertificateName,
    transport::{Error, RestClient},
};

/// How many proofs are sent at most while other runs replace the verification code or the certificate.
const MAX_PROOFS: usize = 5;

/// How often a change of the group is started again because another client changed it in between.
pub(super) const MAX_CONFLICTS: u32 = 5;

/// The wait before a change of the group is started again.
pub(super) const CONFLICT_WAIT: Duration = Duration::from_millis(250);

/// Returns the waits between proofs. They grow and are random in part, so that concurrent runs drift apart.
fn proof_waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(4))
        .with_max_times(MAX_PROOFS - 1)
        .with_jitter()
        .build()
}

/// The state of a CA at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnchorState {
    /// The service does not have its certificate.
    Missing {
        /// Whether another certificate is in its place.
        is_taken: bool,
    },
    /// The service has its certificate, without a proof of possession.
    Uploaded,
    /// The service accepts device certificates under it.
    Verified,
}

/// What a service holds where a CA belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnchorContent {
    pub(super) thumbprint: Thumbprint,
    pub(super) verified: bool,
}

/// Whether possession of the CA's key is proven to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Possession {
    /// Sign the service's verification code.
    Prove,
    /// Upload the certificate as verified.
    Attest,
}

impl Possession {
    pub(super) fn new(skip_proof: bool) -> Self {
        if skip_proof { Self::Attest } else { Self::Prove }
    }
}

/// An enrollment group of a service, and the place of a CA there. This is the seam for a further service: the sequences know
/// no other.
///
/// The service's versions (etags) stay inside: [`upload`](Self::upload) replaces what [`state`](Self::state) read, and
/// nothing newer.
pub(super) trait AnchorTarget: Send {
    /// Reads what the anchor needs at the service, such as the enrollment group. Returns whether a CA can be there yet. Fails
    /// if the service cannot hold this CA.
    fn find(&mut self) -> impl Future<Output = Result<bool, ProvisionError>> + Send;

    /// Creates what the upload needs and [`find`](Self::find) did not find. Returns whether it created something.
    fn prepare(
        &mut self,
        dry_run: bool,
        steps: &mut Steps<'_>,
    ) -> impl Future<Output = Result<bool, ProvisionError>> + Send;

    /// Chooses the place for the CA and reads its state. `ours` is its certificate, unless it has to be created. Fails if the
    /// CA must not be enrolled there.
    fn state(&mut self, ours: Option<&Certificate>)
    -> impl Future<Output = Result<AnchorState, ProvisionError>> + Send;

    /// Reads what is in the chosen place.
    fn content(&mut self) -> impl Future<Output = Result<Option<AnchorContent>, Error>> + Send;

    /// Uploads the certificate to the chosen place. Returns whether the service reports it as verified.
    fn upload(
        &mut self,
        certificate: &Certificate,
        possession: Possession,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Requests a verification code, which invalidates earlier ones.
    fn request_code(&mut self) -> impl Future<Output = Result<String, Error>> + Send;

    /// Sends the proof of possession.
    fn verify(&mut self, proof: &Certificate) -> impl Future<Output = Result<(), Error>> + Send;

    /// Admits devices under the verified CA through the group, unless they are admitted already. `ours` is its certificate,
    /// unless a dry run would create it. Returns whether they are admitted now.
    fn admit(
        &mut self,
        ours: Option<&Certificate>,
        dry_run: bool,
        steps: &mut Steps<'_>,
    ) -> impl Future<Output = Result<bool, ProvisionError>> + Send;

    /// Requests an entry, in place of the one that was requested before.
    fn request_entry(&mut self, entry: CertificateEntry);

    /// Returns the chosen entry of the group.
    fn entry(&self) -> CertificateEntry;

    /// Returns the name of the CA's certificate, if the service names certificates and it is known.
    fn certificate_name(&self) -> Option<DpsCertificateName> {
        None
    }

    /// Returns the chosen place, as in messages.
    fn place(&self) -> impl fmt::Display;

    /// Returns the error for a CA that is not verified although the service accepted its proof.
    fn not_confirmed(&self, found: Option<AnchorContent>, ours: Thumbprint) -> ProvisionError;

    /// Returns why no device can connect through the group, as last read, although its CA is verified.
    fn obstacle(&self) -> Option<String>;

    /// Reads both entries of the group, which has to exist.
    fn entries(&mut self) -> impl Future<Output = Result<Entries, RolloverError>> + Send;

    /// Empties an entry, as last read. Returns the outcome and its description.
    fn remove(
        &mut self,
        entries: &Entries,
        entry: CertificateEntry,
    ) -> impl Future<Output = Result<(Outcome, String), RolloverError>> + Send;

    /// Reads the names of the CA certificates that no group needs, if the service names certificates.
    fn unneeded(&mut self) -> impl Future<Output = Result<Vec<DpsCertificateName>, Error>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Returns the client, for its clock and the service's.
    fn rest(&self) -> &RestClient;
}

/// What to do for a CA at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnchorPlan {
    /// It is verified: do nothing.
    Keep,
    /// Prove possession of its key.
    Prove,
    /// Upload it, then prove possession unless it is attested.
    Upload {
        /// Whether another certificate is overwritten.
        overwrites: bool,
    },
}

/// A CA at a service.
pub(super) struct TrustAnchor<T> {
    pub(super) target: T,
    pub(super) possession: Possession,
    pub(super) at: Timestamp,
}

// The methods take `&mut self` because futures that hold `&T` are `Send` only if `T` is `Sync`.
impl<T: AnchorTarget> TrustAnchor<T> {
    /// Reads the service and decides what to do. Fails if that cannot work. Changes nothing.
    pub(super) async fn plan(
        &mut self,
        authority: Option<&CertificateAuthority>,
    ) -> Result<AnchorPlan, ProvisionError> {
        let plan = if self.target.find().await? { self.plan_certificate(authority).await? } else { AnchorPlan::UPLOAD };
        if let Some(authority) = authority
            && plan != AnchorPlan::Keep
            && self.possession == Possession::Prove
        {
            self.sign(authority, &CommonName::new("trial")?)?;
        }
        Ok(plan)
    }

    /// Decides what to do for the CA in a place that exists.
    async fn plan_certificate(
        &mut self,
        authority: Option<&CertificateAuthority>,
    ) -> Result<AnchorPlan, ProvisionError> {
        let ours = authority.map(CertificateAuthority::certificate);
        Ok(match (self.target.state(ours).await?, self.possession) {
            (AnchorState::Verified, _) => AnchorPlan::Keep,
            (AnchorState::Uploaded, Possession::Prove) => AnchorPlan::Prove,
            (AnchorState::Uploaded, Possession::Attest) => AnchorPlan::Upload { overwrites: true },
            (AnchorState::Missing { is_taken }, _) => AnchorPlan::Upload { overwrites: is_taken },
        })
    }

    /// Prepares the service, uploads the certificate and proves possession of its key. `is_stale` says that time has passed
    /// since the plan, in which another run may have enrolled a certificate.
    pub(super) async fn establish(
        &mut self,
        plan: AnchorPlan,
        authority: &CertificateAuthority,
        is_stale: bool,
        steps: &mut Steps<'_>,
    ) -> Result<(), ProvisionError> {
        let plan = match plan {
            AnchorPlan::Upload { .. } if is_stale => self.plan_certificate(Some(authority)).await?,
            plan => plan,
        };
        let (place, ours) = (self.target.place().to_string(), authority.certificate().sha1_thumbprint());
        let is_proof_needed = match plan {
            AnchorPlan::Keep => {
                let detail = format!("{place} holds {ours}, which is verified");
                steps.finish(Step::Certificate, Outcome::Unchanged, detail);
                return Ok(());
            }
            AnchorPlan::Prove => {
                let detail = format!("{place} holds {ours}, which is not verified yet");
                steps.finish(Step::Certificate, Outcome::Unchanged, detail);
                true
            }
            AnchorPlan::Upload { .. } => {
                steps.start(Step::Certificate, "uploading the certificate");
                let verified = self.upload(authority.certificate()).await?;
                let how = if self.possession == Possession::Attest { ", attested as verified" } else { "" };
                let place = self.target.place();
                let detail = format!("uploaded {ours} as {place}{how}");
                steps.finish(Step::Certificate, Outcome::Done, detail);
                !verified
            }
        };
        self.confirm(authority, is_proof_needed, steps).await
    }

    /// Uploads the certificate. Returns whether the service reports it as verified.
    async fn upload(&mut self, certificate: &Certificate) -> Result<bool, ProvisionError> {
        let ours = certificate.sha1_thumbprint();
        match self.target.upload(certificate, self.possession).await {
            Ok(verified) => Ok(verified),
            // The answer to an upload that was carried out may be lost, and another run may have uploaded it first: what
            // the service holds decides.
            Err(error) if error.answer_was_lost() || is_race(&error) => match self.target.content().await? {
                Some(found) if found.thumbprint == ours => Ok(found.verified),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Proves possession of the key until the service reports the CA as verified.
    async fn confirm(
        &mut self,
        authority: &CertificateAuthority,
        mut is_proof_needed: bool,
        steps: &mut Steps<'_>,
    ) -> Result<(), ProvisionError> {
        let ours = authority.certificate().sha1_thumbprint();
        let mut waits = proof_waits();
        let mut proofs = 0;
        loop {
            let mut refusal = None;
            if is_proof_needed {
                proofs += 1;
                refusal = self.prove(authority, proofs == 1, steps).await?;
            }
            steps.start(Step::Confirm, "reading the certificate again");
            let found = self.target.content().await?;
            let is_ours = found.is_some_and(|found| found.thumbprint == ours);
            if is_ours && found.is_some_and(|found| found.verified) {
                if refusal.is_some() {
                    steps.finish(Step::Verify, Outcome::Unchanged, "another run proved possession of the key first");
                }
                steps.finish(Step::Confirm, Outcome::Done, format!("the service says that {ours} is verified"));
                return Ok(());
            }
            // Another run may have requested a new code or uploaded the certificate again: either invalidates a proof.
            match waits.next().filter(|_| is_ours) {
                Some(wait) => self.target.rest().sleep(wait).await,
                None => {
                    return Err(match refusal {
                        Some(refusal) if is_ours => refusal.into(),
                        _ => self.target.not_confirmed(found, ours),
                    });
                }
            }
            is_proof_needed = true;
        }
    }

    /// Proves possession of the key. Returns the service's refusal of the proof, which another run may have caused. Only the
    /// first proof is reported.
    async fn prove(
        &mut self,
        authority: &CertificateAuthority,
        is_first: bool,
        steps: &mut Steps<'_>,
    ) -> Result<Option<Error>, ProvisionError> {
        steps.start(Step::Code, "requesting a verification code");
        let code = match self.target.request_code().await {
            Ok(code) => code,
            Err(error) if is_race(&error) => return Ok(Some(error)),
            Err(error) => return Err(error.into()),
        };
        if is_first {
            steps.finish(Step::Code, Outcome::Done, "received a verification code");
        }
        steps.start(Step::Proof, "signing a certificate for the code");
        let proof = self.sign(authority, &CommonName::new(code).map_err(ProvisionError::Code)?)?;
        if is_first {
            let signer = authority.certificate().subject();
            let detail = format!("signed a certificate for the code with the key of {signer}");
            steps.finish(Step::Proof, Outcome::Done, detail);
        }
        steps.start(Step::Verify, "proving possession of the key");
        match self.target.verify(&proof).await {
            Ok(()) => {
                steps.finish(Step::Verify, Outcome::Done, "the service accepted the proof");
                Ok(None)
            }
            // The other statuses of a code or a certificate that is no longer current.
            Err(error) if is_race(&error) || matches!(error.status(), Some(400 | 404 | 422)) => Ok(Some(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs a proof of possession. It is used once and at once, so it has the default key, which is the fastest.
    fn sign(&self, authority: &CertificateAuthority, code: &CommonName) -> Result<Certificate, ProvisionError> {
        let options = IssueOptions::new().at(self.at);
        Ok(authority.issue_verification(code, &options)?.certificate)
    }

    /// Reports what [`establish`](Self::establish) would do.
    pub(super) fn report_plan(&self, plan: AnchorPlan, steps: &mut Steps<'_>) {
        let place = self.target.place().to_string();
        let (outcome, detail) = match plan {
            AnchorPlan::Keep => {
                let detail = format!("{place} holds this certificate, which is verified");
                return steps.finish(Step::Certificate, Outcome::Unchanged, detail);
            }
            AnchorPlan::Prove => {
                (Outcome::Unchanged, format!("{place} holds this certificate, which is not verified yet"))
            }
            AnchorPlan::Upload { overwrites: false } => {
                (Outcome::Planned, format!("would upload the certificate as {place}"))
            }
            AnchorPlan::Upload { overwrites: true } => {
                (Outcome::Planned, format!("would upload the certificate and overwrite the one in {place}"))
            }
        };
        steps.finish(Step::Certificate, outcome, detail);
        if self.possession == Possession::Prove {
            steps.finish(Step::Code, Outcome::Planned, "would request a verification code");
            steps.finish(Step::Proof, Outcome::Planned, "would sign a certificate for the code");
            steps.finish(Step::Verify, Outcome::Planned, "would send it as the proof of possession");
        }
        steps.finish(Step::Confirm, Outcome::Planned, "would read the certificate again");
    }
}

/// Returns whether a change failed because of another one, which may be an earlier attempt of this one.
pub(super) fn is_race(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { .. } | Error::OutcomeUnknown { .. })
        || matches!(error.status(), Some(409 | 412))
}

impl AnchorPlan {
    const UPLOAD: Self = Self::Upload { overwrites: false };
}

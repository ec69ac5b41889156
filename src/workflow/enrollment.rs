//! The sequence that provisioning and rollover share: a CA, its place at a service, and device certificates under it.

use std::{sync::Arc, time::Duration};

use super::{
    authority::{AuthorityFiles, CreatedRoot, report_found},
    error::ProvisionError,
    fleet::FleetSummary,
    issue::{DevicePlan, Issuance},
    record::ProvisionedDevice,
    step::Steps,
    trust_anchor::{AnchorPlan, AnchorTarget, TrustAnchor},
};
use crate::certificate::{CertificateAuthority, Timestamp};

/// How far the local clock may be ahead of the service's: the validity of new certificates starts that long before they
/// are issued.
const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

/// The parts of the sequence.
pub(super) struct Enrollment<'a, T> {
    pub(super) authority: AuthorityFiles<'a>,
    pub(super) anchor: TrustAnchor<T>,
    pub(super) issuance: Issuance<'a>,
    pub(super) dry_run: bool,
}

/// What is left to do, from the state of the service and the files.
struct Plan {
    /// The CA, unless it has to be created.
    authority: Option<Arc<CertificateAuthority>>,
    anchor: AnchorPlan,
    devices: Vec<DevicePlan>,
}

/// The result of the sequence.
pub(super) struct Enrolled {
    /// The CA, unless a dry run would create it.
    pub(super) authority: Option<Arc<CertificateAuthority>>,
    pub(super) verified: bool,
    pub(super) devices: Vec<ProvisionedDevice>,
    pub(super) fleet: Option<FleetSummary>,
}

impl<T: AnchorTarget> Enrollment<'_, T> {
    /// Reads everything, then does what is missing.
    pub(super) async fn run(&mut self, steps: &mut Steps<'_>) -> Result<Enrolled, ProvisionError> {
        let plan = self.plan().await?;
        self.carry_out(plan, steps).await
    }

    async fn plan(&mut self) -> Result<Plan, ProvisionError> {
        let authority = self.authority.find()?;
        let was_missing = authority.is_none();
        let plan = self.plan_for(authority).await;
        // Another run may have created the root, and what depends on it, after this one looked for it.
        if plan.is_err()
            && was_missing
            && let Some(authority) = self.authority.find()?
        {
            return self.plan_for(Some(authority)).await;
        }
        plan
    }

    async fn plan_for(&mut self, authority: Option<Arc<CertificateAuthority>>) -> Result<Plan, ProvisionError> {
        let devices = self.issuance.plan(authority.as_deref(), self.authority.root_files()?)?;
        if authority.is_none() {
            self.authority.check_directory()?;
        }
        self.issuance.check_directories(&devices)?;
        let anchor = self.anchor.plan(authority.as_deref()).await?;
        let plan = Plan { authority, anchor, devices };
        self.check_clock(&plan)?;
        Ok(plan)
    }

    /// Fails if a certificate is not valid yet by the service's clock, or a new one would not be.
    fn check_clock(&self, plan: &Plan) -> Result<(), ProvisionError> {
        let ours = Timestamp::now();
        let service_date = self.anchor.target.rest().service_date();
        let Some(theirs) = service_date.filter(|theirs| ours.duration_since(*theirs) > MAX_AHEAD) else {
            return Ok(());
        };
        let is_affected = plan.anchor != AnchorPlan::Keep
            || plan.authority.as_ref().is_none_or(|authority| authority.certificate().not_before() > theirs)
            || self.issuance.needs_clock(&plan.devices, theirs);
        if is_affected { Err(ProvisionError::ClockAhead { ours, theirs }) } else { Ok(()) }
    }

    async fn carry_out(&mut self, mut plan: Plan, steps: &mut Steps<'_>) -> Result<Enrolled, ProvisionError> {
        let mut is_stale = false;
        let authority = match plan.authority.take() {
            Some(authority) => {
                report_found(&authority, steps);
                Some(authority)
            }
            None => match self.authority.create(self.dry_run, steps)? {
                Some(CreatedRoot::Created(authority)) => {
                    is_stale = true;
                    Some(authority)
                }
                // Another run created it first, and may have created more.
                Some(CreatedRoot::Found(authority)) => {
                    plan = self.plan_for(Some(authority)).await?;
                    plan.authority.take().inspect(|authority| report_found(authority, steps))
                }
                None => None,
            },
        };
        let signing = authority.as_ref().filter(|_| !self.dry_run);
        is_stale |= self.anchor.target.prepare(self.dry_run, steps).await?;
        match signing {
            Some(authority) => self.anchor.establish(plan.anchor, authority, is_stale, steps).await?,
            None => self.anchor.report_plan(plan.anchor, steps),
        }
        let certificate = authority.as_deref().map(CertificateAuthority::certificate);
        let is_admitted = self.anchor.target.admit(certificate, self.dry_run, steps).await?;
        let (devices, fleet) = self.issuance.issue(signing, plan.devices, steps).await?;
        let verified = is_admitted && (signing.is_some() || plan.anchor == AnchorPlan::Keep);
        Ok(Enrolled { authority, verified, devices, fleet })
    }
}

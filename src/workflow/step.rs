//! The steps of a workflow, and how they are reported.

use std::fmt;

use serde::Serialize;

/// A step of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Step {
    /// Find or create the authority.
    Root,
    /// Find or create the enrollment group.
    Group,
    /// Upload the authority's certificate.
    Certificate,
    /// Request a verification code.
    Code,
    /// Sign a certificate for the code.
    Proof,
    /// Send it.
    Verify,
    /// Read the entry again: it has to be verified, and hold our certificate.
    Confirm,
    /// Issue a device's certificate.
    Device,
    /// Issue the certificates of a fleet.
    Fleet,
    /// Create devices in the application.
    Create,
    /// Register devices at the Device Provisioning Service.
    Register,
    /// Remove the certificate that a group has rolled over from.
    Retire,
}

impl Step {
    /// The step's name, as in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Group => "group",
            Self::Certificate => "certificate",
            Self::Code => "code",
            Self::Proof => "proof",
            Self::Verify => "verify",
            Self::Confirm => "confirm",
            Self::Device => "device",
            Self::Fleet => "fleet",
            Self::Create => "create",
            Self::Register => "register",
            Self::Retire => "retire",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// It was done.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// It would be done: this was a dry run.
    Planned,
    /// It failed for this device or some of these.
    Failed,
}

/// A step that has been taken, and what there is to say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// Which step.
    pub step: Step,
    /// What became of it.
    pub outcome: Outcome,
    /// A sentence for people.
    pub detail: String,
}

/// What happens while a workflow runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkflowEvent<'a> {
    /// A step starts, with a sentence that says what it does.
    Started(Step, &'a str),
    /// The progress of a step over many devices.
    Progressed {
        /// Which step.
        step: Step,
        /// The devices that are done.
        done: u64,
        /// All of them.
        of: u64,
    },
    /// A step has ended well.
    Finished(&'a StepReport),
}

/// So many devices, in words.
pub(super) fn devices_of(number: u64) -> String {
    if number == 1 { "1 device".to_owned() } else { format!("{number} devices") }
}

/// The observer, and the steps that were reported to it.
pub(super) struct Steps<'o> {
    observer: &'o mut (dyn FnMut(WorkflowEvent<'_>) + Send),
    taken: Vec<StepReport>,
}

impl<'o> Steps<'o> {
    pub(super) fn new(observer: &'o mut (dyn FnMut(WorkflowEvent<'_>) + Send)) -> Self {
        Self { observer, taken: Vec::new() }
    }

    pub(super) fn start(&mut self, step: Step, text: &str) {
        (self.observer)(WorkflowEvent::Started(step, text));
    }

    pub(super) fn progress(&mut self, step: Step, done: u64, of: u64) {
        (self.observer)(WorkflowEvent::Progressed { step, done, of });
    }

    pub(super) fn finish(&mut self, step: Step, outcome: Outcome, detail: String) {
        let report = StepReport { step, outcome, detail };
        (self.observer)(WorkflowEvent::Finished(&report));
        self.taken.push(report);
    }

    pub(super) fn taken(self) -> Vec<StepReport> {
        self.taken
    }
}

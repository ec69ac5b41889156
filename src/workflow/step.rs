//! The steps of a workflow and the events that report them.

use std::fmt;

use serde::Serialize;

/// A step of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Step {
    /// Find or create the certificate authority.
    Root,
    /// Find the instance of the Device Provisioning Service.
    Instance,
    /// Find or create the enrollment group, or make it refer to the CA's certificate.
    Group,
    /// Upload the CA's certificate.
    Certificate,
    /// Request a verification code.
    Code,
    /// Sign a certificate for the code.
    Proof,
    /// Send the proof of possession.
    Verify,
    /// Read the CA's certificate again: the service has to report it as verified.
    Confirm,
    /// Issue a device's certificate.
    Device,
    /// Issue the certificates of a fleet.
    Fleet,
    /// Create devices, or their individual enrollments, at the service.
    Create,
    /// Register devices at the Device Provisioning Service.
    Register,
    /// Remove the certificate of the old CA.
    Retire,
    /// Send devices to another ID scope.
    Move,
}

impl Step {
    /// Returns the step's name as in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Instance => "instance",
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
            Self::Move => "move",
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
    /// The step changed something.
    Done,
    /// There was nothing to do.
    Unchanged,
    /// The step would change something: this was a dry run.
    Planned,
    /// The step failed for at least one device.
    Failed,
}

/// The report of a finished step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// The step.
    pub step: Step,
    /// Its outcome.
    pub outcome: Outcome,
    /// A sentence for people.
    pub detail: String,
}

/// What happens while a workflow runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkflowEvent<'a> {
    /// A step starts. The text says what it does.
    Started(Step, &'a str),
    /// A step made progress.
    Progressed {
        /// The step.
        step: Step,
        /// The number of devices that are done.
        done: u64,
        /// The number of all devices.
        of: u64,
    },
    /// A row of a device list failed; the others go on.
    RowFailed(&'a RowFailure),
    /// A device that is on no line of a file failed; the others go on.
    DeviceFailed {
        /// The device's ID.
        id: &'a str,
        /// Why it failed.
        message: &'a str,
    },
    /// A step has finished.
    Finished(&'a StepReport),
}

/// A row of a device list that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RowFailure {
    /// The line of the row in its file, counted from 1.
    pub line: u64,
    /// The device's ID as written; empty if the row has none.
    pub id: String,
    /// Why it failed.
    pub message: String,
}

/// The line, the ID and the reason on one line. Many reasons name the ID.
impl fmt::Display for RowFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, id, message } = self;
        write!(f, "line {line}: ")?;
        if !id.is_empty() && !message.starts_with(id.as_str()) {
            write!(f, "{id}: ")?;
        }
        f.write_str(message)
    }
}

/// Receives the events of a workflow.
pub(super) type Observer<'o> = dyn FnMut(WorkflowEvent<'_>) + Send + 'o;

/// Returns a number of devices in words.
pub(super) fn device_count(number: u64) -> String {
    if number == 1 { "1 device".to_owned() } else { format!("{number} devices") }
}

/// Reports steps to the observer and keeps the reports.
pub(super) struct Steps<'o> {
    observer: &'o mut Observer<'o>,
    reports: Vec<StepReport>,
}

impl<'o> Steps<'o> {
    pub(super) fn new(observer: &'o mut Observer<'o>) -> Self {
        Self { observer, reports: Vec::new() }
    }

    /// The observer, for what reports progress of its own.
    pub(super) fn observer(&mut self) -> &mut Observer<'o> {
        self.observer
    }

    pub(super) fn start(&mut self, step: Step, text: &str) {
        (self.observer)(WorkflowEvent::Started(step, text));
    }

    pub(super) fn progress(&mut self, step: Step, done: u64, of: u64) {
        (self.observer)(WorkflowEvent::Progressed { step, done, of });
    }

    pub(super) fn finish(&mut self, step: Step, outcome: Outcome, detail: impl Into<String>) {
        let report = StepReport { step, outcome, detail: detail.into() };
        (self.observer)(WorkflowEvent::Finished(&report));
        self.reports.push(report);
    }

    /// Returns how many of the steps so far changed something, or would.
    pub(super) fn changes(&self) -> usize {
        self.reports.iter().filter(|report| matches!(report.outcome, Outcome::Done | Outcome::Planned)).count()
    }

    pub(super) fn into_reports(self) -> Vec<StepReport> {
        self.reports
    }
}

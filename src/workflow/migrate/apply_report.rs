//! The outcomes of carrying out a plan: a results file with a row for each item, and a report.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::super::{
    repeated_ids::id_hash,
    results::{ResultsError, ResultsFile, ResultsFormat, ResultsWriter, results_path},
    step::StepReport,
};

/// The columns of the results, by which a results file is known.
const COLUMNS: [&str; 5] = ["kind", "id", "outcome", "message", "plan"];

const FORMAT: ResultsFormat = ResultsFormat { columns: &COLUMNS, earlier: None, run: "migration" };

/// How many failures a report names.
const NAMED: usize = 100;

/// Returns the default path of the results, beside the plan: `plan.results.csv` for `plan.json`.
pub(super) fn default_results(plan: &Path) -> PathBuf {
    results_path(plan, "results")
}

/// The kind of an item of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ItemKind {
    /// An enrollment group, with its CA certificates.
    Group,
    /// The individual enrollment of a device.
    Device,
}

impl ItemKind {
    fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Device => "device",
        }
    }
}

/// The outcome of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemOutcome {
    /// It was created, or brought up to date.
    Created,
    /// It was there as planned.
    Present,
    /// It would be created: this is a dry run.
    Planned,
    Failed,
}

impl ItemOutcome {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Present => "present",
            Self::Planned => "planned",
            Self::Failed => "failed",
        }
    }
}

/// An item of a plan that could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ItemFailure {
    /// The kind of item.
    pub kind: ItemKind,
    /// Its ID.
    pub id: String,
    /// Why it failed.
    pub message: String,
}

/// The result of carrying out a plan.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ApplyReport {
    /// The file of the plan.
    #[serde(serialize_with = "crate::workflow::record::lossy_path")]
    pub plan: PathBuf,
    /// The results file: a row for each group and each individual enrollment.
    #[serde(serialize_with = "crate::workflow::record::lossy_path")]
    pub results: PathBuf,
    /// The number of groups and individual enrollments that were created or brought up to date.
    pub created: u64,
    /// The number of those that were there as planned.
    pub present: u64,
    /// The number of those that a dry run would create.
    pub planned: u64,
    /// The number of disabled individual enrollments among these.
    pub planned_disabled: u64,
    /// The number of those that failed.
    pub failed: u64,
    /// The first ones that failed.
    pub failures: Vec<ItemFailure>,
    /// The number of individual enrollments that were not tried, because the run stopped.
    pub remaining: u64,
    /// The number of devices that the application has, and the plan has not. A group may admit them.
    pub new_devices: u64,
    /// Whether the sign-in may not read registration records, so that it is not known whether a disabled device has registered
    /// at the instance already.
    pub registrations_unread: bool,
    /// The steps for certificates and groups.
    pub steps: Vec<StepReport>,
    /// Why the run stopped before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

impl ApplyReport {
    pub(super) fn new(plan: &Path, results: &Path) -> Self {
        Self {
            plan: plan.to_owned(),
            results: results.to_owned(),
            created: 0,
            present: 0,
            planned: 0,
            planned_disabled: 0,
            registrations_unread: false,
            failed: 0,
            failures: Vec::new(),
            remaining: 0,
            new_devices: 0,
            steps: Vec::new(),
            stopped: None,
        }
    }
}

/// Counts outcomes, and writes them to the results file unless this is a dry run.
pub(super) struct Outcomes {
    pub(super) report: ApplyReport,
    plan_id: String,
    file: Option<ResultsFile>,
    writer: Option<ResultsWriter>,
    /// The items that an earlier run of this plan created, with the IDs as hashes. Their rows are kept.
    created: HashSet<(&'static str, u64)>,
}

impl Outcomes {
    /// Opens the results file and locks it. A dry run needs none.
    pub(super) fn open(report: ApplyReport, plan_id: &str, dry_run: bool) -> Result<Self, ResultsError> {
        let file = if dry_run { None } else { Some(ResultsFile::open(&report.results, FORMAT)?) };
        Ok(Self { report, plan_id: plan_id.to_owned(), file, writer: None, created: HashSet::new() })
    }

    /// Starts with the rows of what earlier runs of this plan created: going back needs them.
    pub(super) fn start(&mut self) -> Result<(), ResultsError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let (plan_id, created) = (&self.plan_id, &mut self.created);
        self.writer = Some(file.resume(|row| {
            let kind =
                [ItemKind::Group, ItemKind::Device].map(ItemKind::name).into_iter().find(|it| *it == row.get("kind"));
            let is_created = row.get("outcome") == ItemOutcome::Created.name() && row.get("plan") == plan_id;
            is_created && kind.is_some_and(|kind| created.insert((kind, id_hash(row.get("id")))))
        })?);
        Ok(())
    }

    pub(super) fn add(
        &mut self,
        kind: ItemKind,
        id: &str,
        outcome: ItemOutcome,
        message: &str,
    ) -> Result<(), ResultsError> {
        let report = &mut self.report;
        *match outcome {
            ItemOutcome::Created => &mut report.created,
            ItemOutcome::Present => &mut report.present,
            ItemOutcome::Planned => &mut report.planned,
            ItemOutcome::Failed => &mut report.failed,
        } += 1;
        if outcome == ItemOutcome::Failed && report.failures.len() < NAMED {
            report.failures.push(ItemFailure { kind, id: id.to_owned(), message: message.to_owned() });
        }
        let has_row = matches!(outcome, ItemOutcome::Created | ItemOutcome::Present)
            && self.created.contains(&(kind.name(), id_hash(id)));
        match &mut self.writer {
            Some(writer) if !has_row => writer.write(&[kind.name(), id, outcome.name(), message, &self.plan_id]),
            _ => Ok(()),
        }
    }
}

//! The results file of moves, which decides to which devices a command is sent again.

use std::{collections::HashMap, path::Path};

use crate::workflow::{
    repeated_ids::id_hash,
    results::{ResultsError, ResultsFile, ResultsFormat, ResultsRow, ResultsWriter, read_results},
};

/// The columns of the results, by which a results file is known.
const COLUMNS: [&str; 7] = ["IOTC_DEVICEID", "outcome", "idScope", "command", "time", "run", "message"];

const FORMAT: ResultsFormat = ResultsFormat { columns: &COLUMNS, earlier: None, run: "move" };

/// The outcome of a device as the results file has it. The last row of a device counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MoveOutcome {
    /// The command is about to be sent. If this is the last row, it is not known whether it was.
    Sending,
    /// The device received the command and accepted it.
    Sent,
    /// The device may have received the command.
    Unknown,
    /// The device answered with an error.
    Refused,
    /// The device did not receive the command.
    Failed,
    /// The command was not sent, because the plan or the instance is not ready for the device.
    Skipped,
}

impl MoveOutcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What is known from earlier runs about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EarlierMove {
    pub(super) state: EarlierState,
    /// The hash of the ID of the last run of the command that was recorded.
    pub(super) run: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EarlierState {
    Sent,
    Unknown,
    /// It was certainly not sent, or the device refused it.
    NotSent,
}

/// The devices of earlier runs with the same ID scope and command, by the hash of their IDs.
#[derive(Default)]
pub(super) struct EarlierMoves(HashMap<u64, EarlierMove>);

impl EarlierMoves {
    /// Reads the results without changing or locking the file, which may be missing.
    pub(super) fn read(path: &Path, scope: &str, command: &str) -> Result<Self, ResultsError> {
        let mut earlier = Self::default();
        read_results(path, FORMAT, |row| earlier.add(row, scope, command))?;
        Ok(earlier)
    }

    /// Opens and locks the results file, and reads it.
    pub(super) fn open(path: &Path, scope: &str, command: &str) -> Result<(Self, MoveResults), ResultsError> {
        let mut earlier = Self::default();
        let writer = ResultsFile::open(path, FORMAT)?.resume(|row| {
            earlier.add(row, scope, command);
            true
        })?;
        Ok((earlier, MoveResults { writer, scope: scope.to_owned(), is_broken: false }))
    }

    fn add(&mut self, row: &ResultsRow<'_>, scope: &str, command: &str) {
        if !row.get("idScope").eq_ignore_ascii_case(scope) || row.get("command") != command {
            return;
        }
        let state = match row.get("outcome") {
            "sent" => EarlierState::Sent,
            "refused" | "failed" => EarlierState::NotSent,
            // Says nothing about earlier runs.
            "skipped" => return,
            // An outcome of a later version may mean anything.
            _ => EarlierState::Unknown,
        };
        let entry = self.0.entry(id_hash(row.get("IOTC_DEVICEID"))).or_insert(EarlierMove { state, run: None });
        entry.state = state;
        if !row.get("run").is_empty() {
            entry.run = Some(run_hash(row.get("run")));
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<EarlierMove> {
        self.0.get(&id_hash(id)).copied()
    }
}

/// Returns eight bytes that stand for the ID of a run of a command.
pub(super) fn run_hash(run: &str) -> u64 {
    id_hash(run)
}

/// Writes the results.
pub(super) struct MoveResults {
    writer: ResultsWriter,
    scope: String,
    is_broken: bool,
}

/// A row to write.
pub(super) struct MoveRow<'a> {
    pub(super) id: &'a str,
    pub(super) outcome: MoveOutcome,
    pub(super) command: &'a str,
    /// When, as RFC 3339.
    pub(super) time: &'a str,
    /// The service's ID of the run of the command.
    pub(super) run: &'a str,
    pub(super) message: &'a str,
}

impl MoveResults {
    /// Appends a row. That a command is about to be sent is on the disk when this returns true. Returns false after the first
    /// failure: nothing can be recorded then, and nothing may be sent.
    pub(super) fn write(&mut self, row: &MoveRow<'_>) -> Result<bool, ResultsError> {
        if self.is_broken {
            return Ok(false);
        }
        let MoveRow { id, outcome, command, time, run, message } = row;
        let written = self.writer.write(&[id, outcome.name(), &self.scope, command, time, run, message]);
        let written =
            if *outcome == MoveOutcome::Sending { written.and_then(|()| self.writer.sync()) } else { written };
        self.is_broken = written.is_err();
        written.map(|()| true)
    }
}

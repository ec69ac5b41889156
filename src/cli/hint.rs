//! What to do about an error, in the words of the command line.

use super::{device_register::Failed, output::Usage};
use crate::{
    central::{Error, NetworkFailure},
    certificate::{AuthorityError, KeyError, files::FileError, fleet::FleetError, pfx::PfxError},
    workflow::{ProvisionError, ResultsError, RolloverError},
};

const KEY_PASSWORD: &str =
    "give its password with --key-password-file FILE, or in the environment as IOT_ENROLL_KEY_PASSWORD";

const PFX_PASSWORD: &str =
    "give its password with --pfx-password-file FILE, or in the environment as IOT_ENROLL_PFX_PASSWORD";

const OTHER_FOLDER: &str =
    "--out puts the fleet of another list elsewhere; numbered devices keep their ids with the --digits they had";
const ROOT: &str = "--tls-ca FILE trusts one more root; the emulator prints the file of its own as caFile";

/// The remedy for an error, where the command line has one that the error itself cannot know of.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(usage) = error.downcast_ref::<Usage>() {
        return usage.hint();
    }
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<FileError>() {
            return file_hint(error);
        }
        if let Some(ResultsError::SymbolicLink(_) | ResultsError::Locked { .. } | ResultsError::NotResults { .. }) =
            cause.downcast_ref()
        {
            return Some("--results names another file".into());
        }
        if let Some(failed) = cause.downcast_ref::<Failed>() {
            return failed.hint.clone();
        }
        if cause.downcast_ref::<Error>().is_some_and(is_untrusted) {
            return Some(ROOT.into());
        }
        if let Some(hint) = cause.downcast_ref::<KeyError>().and_then(key_hint) {
            return Some(hint.into());
        }
        match cause.downcast_ref::<RolloverError>() {
            Some(RolloverError::Central(error)) => return is_untrusted(error).then(|| ROOT.into()),
            Some(RolloverError::Provision(error)) => return workflow_hint(error, true),
            _ => {}
        }
        if let Some(error) = cause.downcast_ref::<ProvisionError>() {
            return workflow_hint(error, false);
        }
        match cause.downcast_ref::<FleetError>() {
            Some(FleetError::Exists(_)) => {
                return Some("--resume goes on with it, --out puts the fleet elsewhere".into());
            }
            Some(FleetError::OtherDevices { .. }) => {
                return Some(OTHER_FOLDER.into());
            }
            Some(FleetError::Interrupted { .. }) => {
                return Some("when the cause is removed, the same command with --resume goes on".into());
            }
            _ => {}
        }
        if let Some(PfxError::Password | PfxError::PasswordNeeded) = cause.downcast_ref::<PfxError>() {
            return Some(
                "give its password with --pfx-password-file FILE, or in the environment as IOT_ENROLL_PFX_PASSWORD"
                    .into(),
            );
        }
        None
    })
}

/// The remedy for an error of `provision` or `rollover`: only options that the command has.
fn workflow_hint(error: &ProvisionError, is_rollover: bool) -> Option<String> {
    match error {
        ProvisionError::Central(error) if is_untrusted(error) => Some(ROOT.into()),
        ProvisionError::Files(FileError::Exists(_) | FileError::Missing(_)) => {
            Some("--dir names another directory".into())
        }
        ProvisionError::Files(error) => file_hint(error),
        ProvisionError::Fleet(FleetError::Interrupted { .. }) => {
            Some("when the cause is removed, the same command resumes".into())
        }
        ProvisionError::Fleet(FleetError::Exists(_) | FleetError::OtherDevices { .. }) => Some(OTHER_FOLDER.into()),
        ProvisionError::OtherCertificate { .. } if is_rollover => {
            Some("check both entries with `iot-enroll enrollment-group certificate show`, then run this again".into())
        }
        ProvisionError::OtherCertificate { entry, verified, .. } => {
            let beside = if *verified { " --add-ca" } else { "" };
            Some(format!(
                "--replace overwrites it, and devices that connect by it no longer can; --entry {}{beside} leaves it \
                 unchanged",
                entry.other()
            ))
        }
        ProvisionError::InOtherEntry { .. } => Some("leave --entry out: the entry that holds the CA is found".into()),
        ProvisionError::BesideOther { .. } => Some(
            "name the CA that is verified with --root or --ca-cert; replace it without downtime with `iot-enroll rollover`; \
             or enroll this one beside it with --add-ca"
                .into(),
        ),
        _ => None,
    }
}

/// Whether the server's certificate may lack a root to trust.
fn is_untrusted(error: &Error) -> bool {
    matches!(error, Error::Network(error) if error.failure == NetworkFailure::Tls)
}

fn key_hint(error: &KeyError) -> Option<&'static str> {
    match error {
        KeyError::PasswordNeeded | KeyError::WrongPassword => Some(KEY_PASSWORD),
        KeyError::Encryption(_) => {
            Some("`openssl pkcs8 -topk8 -in OLD -out NEW` encrypts it in a way that is supported")
        }
        KeyError::OpenSsh => Some("`ssh-keygen -p -m PKCS8 -f FILE` rewrites the file as PKCS#8"),
        _ => None,
    }
}

fn file_hint(error: &FileError) -> Option<String> {
    match error {
        FileError::Exists(_) => {
            Some("--force overwrites the whole set, --dir DIR writes it elsewhere".into())
        }
        FileError::SharedFiles { .. } => {
            Some("choose another name, or write the set to another directory with --dir DIR".into())
        }
        FileError::SigningAuthority(_) => Some(
            "choose a name whose files differ from those of the CA, or write the set to another directory with --dir DIR"
                .into(),
        ),
        FileError::OtherName { .. } => Some(
            "a CA is named by the common name of its certificate; a CA whose files are called otherwise is given with \
             --ca-cert FILE --ca-key FILE where the command has them"
                .into(),
        ),
        FileError::Missing(_) => Some(
            "create it with `iot-enroll cert root NAME`, or name its directory with --dir DIR or its files with --ca-cert and \
             --ca-key; PARENT is a common name, without _cert.pem"
                .into(),
        ),
        FileError::Incomplete { .. } => Some(
            "put the missing file back, or move the other away and create the set again".into(),
        ),
        FileError::Key { error, .. } => key_hint(error).map(Into::into),
        FileError::PfxFile { error: PfxError::Password | PfxError::PasswordNeeded, .. } => Some(PFX_PASSWORD.into()),
        FileError::Authority { error: AuthorityError::KeyMismatch(_), .. } => {
            Some("take the key file that was made with this certificate".into())
        }
        _ => None,
    }
}

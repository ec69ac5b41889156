//! What to do about an error: the option or command that helps. The library's errors do not know them.

use std::error::Error as StdError;

#[cfg(feature = "pkcs11")]
use crate::certificate::pkcs11::TokenError;

use super::{
    emulator_check::Unhealthy,
    error::{UsageError, WithOut},
    random_source::NoRandomSource,
    registration::RegistrationFailure,
    service_answer::client_error,
};
use crate::{
    arm::FindError,
    central::{BuildError, Error, NetworkFailure},
    certificate::{
        AuthorityError, KeyError, convert::ConvertError, files::FileError, fleet::FleetError, pfx::PfxError,
        renewal::RenewalError,
    },
    dps::device::Cause,
    workflow::{CreateError, OperationalFilesError, ProvisionError, ResultsError, RolloverError, migrate::PlanError},
};

const KEY_PASSWORD: &str = "give the key's password with --key-password-file FILE, or set IOT_ENROLL_KEY_PASSWORD";
const PFX_PASSWORD: &str = "give the PFX password with --pfx-password-file FILE, or set IOT_ENROLL_PFX_PASSWORD";
const OTHER_FLEET: &str =
    "--out DIR writes this fleet elsewhere; numbered devices keep their IDs only with the same --digits";
const TRUST_ROOT: &str = "--tls-ca FILE trusts one more root; the emulator prints the file of its own root as caFile";
const NO_ROOTS: &str = "install the root certificates of the system (on Debian, Alpine and Fedora the package ca-certificates), or \
     set SSL_CERT_FILE to a PEM file with them; to trust one root only, name its file with --tls-ca";

/// Returns what to do about an error.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<UsageError>() {
        return error.hint().map(str::to_owned);
    }
    error.chain().find_map(|cause| {
        if client_error(cause).is_some_and(is_untrusted) {
            return Some(TRUST_ROOT.to_owned());
        }
        if client_error(cause).is_some_and(is_not_http) {
            return Some("an emulator with --tls needs --tls-ca FILE, and https:// in its URL".to_owned());
        }
        if cause.downcast_ref::<Unhealthy>().is_some_and(|unhealthy| unhealthy.needs_root) {
            return Some("--tls-ca FILE names the file with the CA certificate of the emulator".to_owned());
        }
        if let Some(BuildError::NoTrustedRoots) = cause.downcast_ref() {
            return Some(NO_ROOTS.to_owned());
        }
        if let Some(error) = cause.downcast_ref::<NoRandomSource>() {
            return Some(error.hint().to_owned());
        }
        if let Some(FindError::Several { .. }) = cause.downcast_ref() {
            return Some("--subscription ID or --resource-group NAME selects one".to_owned());
        }
        if let Some(Error::WouldRemove { member, .. }) = cause.downcast_ref() {
            return attestation_hint(member).map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref() {
            return operational_hint(error).map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<WithOut>() {
            return match error.file_error() {
                FileError::Exists(_) => Some("--force overwrites, --out writes elsewhere".to_owned()),
                FileError::NotRegular(_) => Some("--out writes elsewhere".to_owned()),
                other => file_hint(other).map(|hint| hint.replace("--dir DIR", "--out DIR")),
            };
        }
        if let Some(failure) = cause.downcast_ref::<RegistrationFailure>() {
            return registration_hint(failure);
        }
        if let Some(ResultsError::SymbolicLink(_) | ResultsError::Locked { .. } | ResultsError::NotResults { .. }) =
            cause.downcast_ref()
        {
            return Some("--results names another file".to_owned());
        }
        if let Some(PlanError::Exists(path)) = cause.downcast_ref() {
            let again = if path.is_file() { "; remove this one if the plan is to be made again" } else { "" };
            return Some(format!("--out names another file{again}"));
        }
        if let Some(RolloverError::Provision(error)) = cause.downcast_ref() {
            return provision_hint(error, Workflow::Rollover);
        }
        if let Some(RolloverError::BothTaken { group }) = cause.downcast_ref() {
            return Some(format!(
                "`iot-enroll rollover --group {group} --root NAME --retire`, with the root to keep, removes the other one"
            ));
        }
        if let Some(error) = cause.downcast_ref() {
            return provision_hint(error, Workflow::Provision);
        }
        certificate_hint(cause).map(str::to_owned)
    })
}

/// Returns the options that give a part of an attestation again, by its name in the service's API.
fn attestation_hint(member: &str) -> Option<&'static str> {
    let hints = [
        ("signingCertificates.primary", "--signing-certificate FILE keeps it"),
        (
            "signingCertificates.secondary",
            "--secondary-signing-certificate FILE keeps it, --clear-secondary-certificate removes it",
        ),
        ("clientCertificates.primary", "--cert FILE keeps it"),
        ("clientCertificates.secondary", "--secondary-cert FILE keeps it, --clear-secondary-cert removes it"),
        ("symmetric keys", "--symmetric-key --keys-file FILE keeps them"),
        ("endorsement key", "--endorsement-key-file FILE keeps it"),
    ];
    hints.into_iter().find_map(|(name, hint)| member.ends_with(name).then_some(hint))
}

fn operational_hint(error: &OperationalFilesError) -> Option<&'static str> {
    match error {
        OperationalFilesError::Files(error) => file_hint(error),
        OperationalFilesError::NotWritten { error, .. } => file_hint(error),
        OperationalFilesError::Input(_) => Some("--dir DIR writes the operational certificate elsewhere"),
        OperationalFilesError::NotIssued { .. } => {
            Some("the enrollment group or individual enrollment of the device needs a certificate policy")
        }
        _ => None,
    }
}

fn registration_hint(failure: &RegistrationFailure) -> Option<String> {
    match failure.unregistered.diagnosis.first() {
        Some(Cause::TlsIntercepted { .. }) => Some(TRUST_ROOT.to_owned()),
        _ => failure.hint.clone(),
    }
}

/// Returns whether the connection failed because the server's certificate is not trusted.
fn is_untrusted(error: &Error) -> bool {
    matches!(error, Error::Network(error) if error.failure == NetworkFailure::Tls)
}

/// Returns whether the answer was not HTTP, such as that of a server that expects TLS.
fn is_not_http(error: &Error) -> bool {
    matches!(error, Error::Network(error) if error.failure == NetworkFailure::NotHttp)
}

/// The command that failed: a hint must only name options that it has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workflow {
    Provision,
    Rollover,
}

fn provision_hint(error: &ProvisionError, workflow: Workflow) -> Option<String> {
    let hint = match error {
        ProvisionError::Files(FileError::Exists(_) | FileError::Missing(_)) => "--dir DIR uses another directory",
        ProvisionError::Files(error) => return file_hint(error).map(str::to_owned),
        ProvisionError::Authority(AuthorityError::Key(error)) => return key_hint(error).map(str::to_owned),
        ProvisionError::Fleet(FleetError::Interrupted { .. }) => "fix the cause, then run the same command to resume",
        ProvisionError::Fleet(FleetError::Exists(_) | FleetError::OtherDevices { .. }) => OTHER_FLEET,
        ProvisionError::OtherCertificate { .. } if workflow == Workflow::Rollover => {
            "check both entries with `iot-enroll enrollment-group certificate show` or `iot-enroll dps enrollment-group \
             show`, then run this command again"
        }
        ProvisionError::OtherCertificate { entry, verified, .. } => {
            let beside = if *verified { " --add-ca" } else { "" };
            return Some(format!(
                "--replace overwrites it: devices under it can no longer connect; --entry {}{beside} leaves it unchanged",
                entry.other()
            ));
        }
        ProvisionError::CertificateNameTaken { .. } => {
            "--certificate-name NAME uploads it under another name; `iot-enroll dps certificate list` shows those in use"
        }
        ProvisionError::InstanceNotActive { .. } => "`iot-enroll dps show` prints its state",
        ProvisionError::Spelling { existing, .. } => return Some(format!("write it as {existing}")),
        ProvisionError::InOtherGroup { other, .. } => {
            return Some(format!("--group {other} names the group that has it"));
        }
        ProvisionError::TooManyCertificates { .. } => {
            "`iot-enroll dps certificate list` prints them, `iot-enroll dps certificate delete NAME` deletes one"
        }
        ProvisionError::TooManyGroups { .. } => {
            "`iot-enroll dps enrollment-group list` prints them, `iot-enroll dps enrollment-group delete ID` deletes one"
        }
        ProvisionError::Create { id, error, .. } if matches!(**error, CreateError::Enrolled { .. }) => {
            return Some(format!(
                "`iot-enroll dps enrollment show {id}` prints it, `dps enrollment update {id} --cert FILE` sets its \
                 certificate, `dps enrollment delete {id}` removes it"
            ));
        }
        ProvisionError::InOtherEntry { .. } => "omit --entry to use the entry that holds the CA",
        ProvisionError::BesideOther { .. } => {
            "name the verified CA with --root or --ca-cert; `iot-enroll rollover` replaces it without downtime; --add-ca \
             enrolls this CA beside it"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

fn certificate_hint(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref() {
        return file_hint(error);
    }
    #[cfg(feature = "pkcs11")]
    if let Some(error) = error.downcast_ref() {
        return token_hint(error);
    }
    if let Some(AuthorityError::Key(error)) = error.downcast_ref() {
        return key_hint(error);
    }
    if let Some(error) = error.downcast_ref() {
        return key_hint(error);
    }
    if let Some(error) = error.downcast_ref() {
        return renewal_hint(error);
    }
    if let Some(PfxError::Password | PfxError::PasswordNeeded) = error.downcast_ref() {
        return Some(PFX_PASSWORD);
    }
    if let Some(error) = error.downcast_ref() {
        return conversion_hint(error);
    }
    match error.downcast_ref()? {
        FleetError::Exists(_) => Some("--resume continues this fleet, --out DIR writes it elsewhere"),
        FleetError::OtherDevices { .. } => Some(OTHER_FLEET),
        FleetError::Interrupted { .. } => Some("fix the cause, then run the same command with --resume"),
        _ => None,
    }
}

fn renewal_hint(error: &RenewalError) -> Option<&'static str> {
    match error {
        RenewalError::IssuerNotFound { .. } => {
            Some("--dir DIR names the directory with the files of the issuer; or give --ca-cert FILE --ca-key FILE")
        }
        RenewalError::OtherIssuer { .. } | RenewalError::OtherKey { .. } => {
            Some("give the CA that issued the certificate with --ca-cert FILE --ca-key FILE")
        }
        RenewalError::MissingKey { .. } => Some(
            "--new-key generates one; if the device keeps its key, sign a request with `iot-enroll cert device ID --csr FILE`; \
             for a root whose key is elsewhere, give it as --ca-cert, and its key as --ca-key",
        ),
        RenewalError::NoLifetime(_) => Some("--days N sets the lifetime"),
        RenewalError::Proof(_) => Some("`iot-enroll cert verification` creates one"),
        RenewalError::File(FileError::NotRegular(_)) => Some("move it away"),
        // The files that are named need not be those of a CA.
        RenewalError::File(FileError::Missing(_)) => None,
        RenewalError::File(error) => file_hint(error),
        _ => None,
    }
}

fn file_hint(error: &FileError) -> Option<&'static str> {
    match error {
        FileError::Exists(_) => Some("--force overwrites the whole set, --dir DIR writes it elsewhere"),
        FileError::SharedFiles { .. } => Some("choose another name, or write to another directory with --dir DIR"),
        FileError::SigningAuthority(_) => {
            Some("choose a name whose files differ from those of the CA, or write to another directory with --dir DIR")
        }
        FileError::NotRegular(_) => Some("write to another directory with --dir DIR"),
        FileError::KeyLink(_) => Some("name the file that the link leads to, or replace the link with it"),
        FileError::OnlyKey { .. } => Some("move that file away, or write to another directory with --dir DIR"),
        FileError::OtherName { .. } => Some(
            "name the CA by the common name of its certificate; if its files are named differently, give them with \
             --ca-cert FILE --ca-key FILE",
        ),
        FileError::Missing(_) => Some(
            "create it with `iot-enroll cert root NAME`, or name its directory with --dir DIR or its files with --ca-cert \
             and --ca-key; PARENT is a common name, without _cert.pem",
        ),
        FileError::Incomplete { .. } => Some(
            "restore the missing file, or move the other away and create the set again; a key in a PKCS#11 token is \
             named with --ca-key URI, in provision and rollover with --ca-cert FILE instead of --root",
        ),
        FileError::Key { error, .. } | FileError::Authority { error: AuthorityError::Key(error), .. } => {
            key_hint(error)
        }
        FileError::PfxFile { error: PfxError::Password | PfxError::PasswordNeeded, .. } => Some(PFX_PASSWORD),
        FileError::Authority { error: AuthorityError::KeyMismatch(_), .. } => {
            Some("use the key that was created with this certificate")
        }
        FileError::OtherAuthority { .. } => Some(
            "give the key of that certificate; to sign with the CA above it, name that CA, or give its own certificate",
        ),
        _ => None,
    }
}

fn conversion_hint(error: &ConvertError) -> Option<&'static str> {
    match error {
        ConvertError::Key(error) => key_hint(error),
        ConvertError::Pfx(PfxError::Password | PfxError::PasswordNeeded) => Some(PFX_PASSWORD),
        ConvertError::KeyNotHeld(_) => Some("--only certificates leaves the private key out"),
        ConvertError::SeveralCertificates(_) => {
            Some("--only leaf selects the leaf; --to pem, p7b and p7b-der take all certificates")
        }
        ConvertError::CertificateAndKey => Some("--only leaf or --only key selects one; --to pem and pfx take both"),
        ConvertError::NoKey => {
            Some("give the file with the private key; --to pem, p7b and truststore take certificates without one")
        }
        ConvertError::NoCertificate => Some("give the file with the certificate"),
        ConvertError::NvsKey(_) => Some("--name NAME sets a shorter name, of at most 10 characters"),
        ConvertError::NvsString { .. } => Some("--nvs-blob writes blobs, which may be longer"),
        _ => None,
    }
}

fn key_hint(error: &KeyError) -> Option<&'static str> {
    match error {
        #[cfg(feature = "pkcs11")]
        KeyError::Token(error) => token_hint(error),
        KeyError::PasswordNeeded | KeyError::WrongPassword => Some(KEY_PASSWORD),
        KeyError::Encryption(_) => {
            Some("`openssl pkcs8 -topk8 -in OLD -out NEW` encrypts the key with a supported algorithm")
        }
        KeyError::OpenSsh => Some("`ssh-keygen -p -m PKCS8 -f FILE` rewrites the file as PKCS#8"),
        _ => None,
    }
}

#[cfg(feature = "pkcs11")]
fn token_hint(error: &TokenError) -> Option<&'static str> {
    Some(match error {
        TokenError::Module { .. } => "module-path=FILE in the PKCS#11 URI, or PKCS11_MODULE_PATH, names the module",
        TokenError::NoToken { .. } => {
            "`pkcs11-tool --module FILE --list-slots` lists the tokens that the module finds for this user"
        }
        TokenError::SeveralTokens { .. } => "add token=LABEL, serial=NUMBER or slot-id=NUMBER to the PKCS#11 URI",
        TokenError::PinNeeded { .. } => {
            "write the PIN to a file that only you can read, and add ?pin-source=file:FILE to the PKCS#11 URI, or set \
             IOT_ENROLL_PIN; it is asked for if standard error is a terminal"
        }
        TokenError::WrongPin { .. } => "check the PIN before the next try: nothing was tried twice",
        TokenError::PinLocked { .. } => {
            "`pkcs11-tool --module FILE --init-pin --login --login-type so` sets a new PIN with the PIN of the security officer"
        }
        TokenError::NoKey { .. } => {
            "`cert root NAME --ca-key URI` and `cert intermediate NAME PARENT --key URI` create a key; put the URI in quotes"
        }
        TokenError::SeveralKeys { .. } => "add object=LABEL or id=%01, percent-encoded, to the PKCS#11 URI, in quotes",
        TokenError::KeyExists { .. } => "--existing-key uses it; another label or ID creates another key",
        TokenError::CreatedUnusable { error, .. } => match **error {
            TokenError::Removed { .. } | TokenError::Failed { .. } => {
                "insert the token again, or unlock it, then use the key with --existing-key"
            }
            _ => {
                "delete the key with the token's own program; a token that creates such keys can be given one with that too"
            }
        },
        TokenError::Extractable { .. } => "create another key for the CA, without --existing-key",
        TokenError::Removed { .. } => "insert the token again, or unlock it, then run the same command",
        TokenError::NotForSigning { .. } | TokenError::PinForEachUse { .. } | TokenError::Unsupported { .. } => {
            "create another key for the CA"
        }
        _ => return None,
    })
}

//! Options that several commands share.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::time::Duration;
use zeroize::Zeroizing;

use super::{
    error::UsageError,
    input::{certificates_of, read, secret, secret_or_empty},
    next_command::NextCommand,
    output::Output,
    token_key::token_uri,
};
use crate::{
    central::{CertificateEntry, Etag},
    certificate::{
        Certificate, ContentKind, IssueOptions, KeyAlgorithm, Lifetime, Timestamp, content_kinds,
        files::{IfExists, PfxOptions, read_limited},
        pfx::{self, PfxEncryption},
        renewal::RenewalThreshold,
    },
};

/// The heading of the options that describe new certificates.
pub(super) const CERTIFICATES: &str = "Certificates";

const PFX_PASSWORD: &str = "IOT_ENROLL_PFX_PASSWORD";
const KEY_PASSWORD: &str = "IOT_ENROLL_KEY_PASSWORD";

/// Options of a new certificate.
#[derive(clap::Args)]
#[command(next_help_heading = CERTIFICATES)]
pub(super) struct IssueArgs {
    /// Directory for the files of the certificate
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) dir: PathBuf,
    /// Validity of the certificate in days
    #[arg(long, value_name = "DAYS", value_parser = days, allow_negative_numbers = true)]
    days: Option<NonZeroU32>,
    #[command(flatten)]
    pub(super) keys: Keys,
    /// Overwrite existing files of the same name
    ///
    /// Files of another name and files of the signing CA are never overwritten.
    #[arg(long)]
    pub(super) force: bool,
}

impl IssueArgs {
    pub(super) fn if_exists(&self) -> IfExists {
        if self.force { IfExists::Overwrite } else { IfExists::Fail }
    }

    pub(super) fn options(&self) -> IssueOptions {
        IssueOptions::new().algorithm(self.keys.algorithm).lifetime(lifetime(self.days)).at(Timestamp::now())
    }
}

/// Confirmation of a command that deletes or replaces.
#[derive(clap::Args)]
pub(super) struct Confirmation {
    /// Do not ask for confirmation (required without a terminal)
    #[arg(short, long)]
    yes: bool,
}

impl Confirmation {
    /// Asks unless `--yes` is given. `question` is a complete question, such as "delete the device d1?".
    pub(super) fn ask(&self, question: &str) -> anyhow::Result<()> {
        Output::confirm(question, self.yes)
    }
}

/// Parses an etag, which is sent in a header.
pub(super) fn etag(text: &str) -> Result<Etag, String> {
    if text.trim().is_empty() {
        return Err("the etag is empty: copy it from show, or omit the option".to_owned());
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("an etag has only printable ASCII characters, and no line breaks".to_owned());
    }
    Ok(Etag::new(text))
}

/// Parses a number of days.
pub(super) fn days(text: &str) -> Result<NonZeroU32, String> {
    let expected = "expected a number of days, 1 or more, such as 365";
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let text = text.trim();
    if let Some(days) = number(text) {
        return NonZeroU32::new(days).ok_or_else(|| "a certificate must be valid for at least 1 day".to_owned());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a certificate cannot be valid past the year 9999".to_owned());
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c.is_whitespace());
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let factor = match unit.as_str() {
        "d" | "day" | "days" => 1,
        "w" | "week" | "weeks" => 7,
        "y" | "year" | "years" => 365,
        _ => return Err(expected.to_owned()),
    };
    match number(digits).and_then(|count| count.checked_mul(factor)).filter(|days| *days > 0) {
        Some(days) => Err(format!("omit the unit: {days}")),
        None => Err(expected.to_owned()),
    }
}

pub(super) fn lifetime(days: Option<NonZeroU32>) -> Option<Lifetime> {
    days.map(|days| Lifetime::Days(days.get()))
}

/// Options of new keys and of the PFX files with them.
#[derive(clap::Args)]
#[command(next_help_heading = CERTIFICATES)]
pub(super) struct Keys {
    /// Algorithm of new private keys
    #[arg(long, value_name = "ALGORITHM", default_value = "ec-p256", value_parser = algorithm())]
    pub(super) algorithm: KeyAlgorithm,
    #[command(flatten)]
    pub(super) pfx_password: PfxPassword,
    /// Encrypt PFX files with 3DES and SHA-1 for Windows Server 2016 and macOS
    #[arg(long)]
    pfx_legacy: bool,
    /// Do not write PFX files
    ///
    /// With --force, the PFX file of an overwritten set is removed: it would hold the old private key.
    #[arg(long, conflicts_with_all = ["pfx_password_file", "pfx_legacy"])]
    no_pfx: bool,
}

impl Keys {
    /// Adds these options to the next command.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        if self.algorithm != KeyAlgorithm::default() {
            command.option("--algorithm", self.algorithm.name());
        }
        command.optional("--pfx-password-file", self.pfx_password.pfx_password_file.as_ref());
        command.flag("--pfx-legacy", self.pfx_legacy);
        command.flag("--no-pfx", self.no_pfx);
    }

    /// Returns the options of PFX files, or `None` if none are written.
    pub(super) fn pfx(&self) -> anyhow::Result<Option<Pfx>> {
        if self.no_pfx { Ok(None) } else { Pfx::new(&self.pfx_password, self.pfx_legacy).map(Some) }
    }
}

/// Options of new PFX files.
pub(super) struct Pfx {
    password: Option<Zeroizing<String>>,
    encryption: PfxEncryption,
}

impl Pfx {
    pub(super) fn new(password: &PfxPassword, legacy: bool) -> anyhow::Result<Self> {
        let password = password.given()?;
        password.as_ref().map_or(Ok(()), |password| check_new_password(password))?;
        Ok(Self { password, encryption: encryption(legacy) })
    }

    pub(super) fn with_password(password: Zeroizing<String>, legacy: bool) -> Self {
        Self { password: Some(password), encryption: encryption(legacy) }
    }

    pub(super) fn options(&self) -> PfxOptions<'_> {
        let password = self.password.as_ref().map_or(pfx::DEFAULT_PASSWORD, |password| password.as_str());
        PfxOptions { password, encryption: self.encryption }
    }

    /// Notes that the default password is used, which protects nothing.
    pub(super) fn note_default_password(&self, output: &Output) {
        if self.password.is_none() {
            output.note(format_args!(
                "the password of the PFX file is the default, {}: set another with --pfx-password-file or {PFX_PASSWORD}",
                pfx::DEFAULT_PASSWORD
            ));
        }
    }
}

/// Checks that a new file is not encrypted with a password that cannot be entered elsewhere.
pub(super) fn check_new_password(password: &str) -> anyhow::Result<()> {
    if password.contains(char::is_control) {
        bail!("the password of the new file has a control character, which other programs do not accept");
    }
    Ok(())
}

fn encryption(legacy: bool) -> PfxEncryption {
    if legacy { PfxEncryption::TripleDes } else { PfxEncryption::Aes256 }
}

/// Password of PFX files.
#[derive(clap::Args)]
pub(super) struct PfxPassword {
    /// File with the PFX password (or set IOT_ENROLL_PFX_PASSWORD to the password)
    ///
    /// The password is the first line of the file. An empty line or variable is the empty password. Without a password, PFX
    /// files are written with the password 1234, and read with 1234 or the empty password.
    #[arg(long, value_name = "FILE")]
    pfx_password_file: Option<PathBuf>,
}

impl PfxPassword {
    pub(super) fn given(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        secret_or_empty(self.pfx_password_file.as_deref(), PFX_PASSWORD)
    }

    /// Reads the certificates of a file in any encoding, including PFX.
    pub(super) fn read_certificates(&self, file: &Path) -> anyhow::Result<Vec<Certificate>> {
        let bytes = read(file)?;
        certificates_of(&bytes, || self.given(), |bytes, password| pfx::read(bytes, password))
            .with_context(|| format!("could not read a certificate from {}", file.display()))
    }
}

/// How long before the end of a certificate, given in days, weeks, hours, or percent of its lifetime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within(RenewalThreshold);

impl Within {
    /// Returns whether a certificate expires in this time, or has expired.
    pub(super) fn includes(self, certificate: &Certificate, now: Timestamp) -> bool {
        self.0.is_reached(certificate, now)
    }

    pub(super) fn threshold(self) -> RenewalThreshold {
        self.0
    }
}

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let expected = || format!("expected a number and a unit, d, w, h or %, such as 30d or 33%; found {text:?}");
        if let Some(percent) = text.strip_suffix('%') {
            if percent.split_once('.').is_some_and(|(one, other)| is_number(one) && is_number(other)) {
                return Err(format!("the percentage must be a whole number, as in 33%; found {text:?}"));
            }
            let percent = if is_number(percent) { percent.parse().unwrap_or(u8::MAX) } else { return Err(expected()) };
            let threshold = Some(percent).filter(|percent| *percent <= 100).map(RenewalThreshold::Percent);
            return threshold.map(Self).ok_or_else(|| "a lifetime has at most 100%".to_owned());
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let hours = match &text[digits.len()..] {
            "h" => 1,
            "" | "d" => 24,
            "w" => 24 * 7,
            _ => return Err(expected()),
        };
        // Any number that is too large is after the year 9999.
        let number = if is_number(digits) { digits.parse().unwrap_or(u32::MAX) } else { return Err(expected()) };
        let remaining = Duration::from_secs(u64::from(number) * hours * 60 * 60);
        let is_expressible = Timestamp::now().checked_add(remaining).is_some();
        let threshold = is_expressible.then_some(Self(RenewalThreshold::Remaining(remaining)));
        threshold.ok_or_else(|| "the time is after the year 9999".to_owned())
    }
}

/// Password of an encrypted private key.
#[derive(clap::Args)]
pub(super) struct KeyPassword {
    /// File with the private key's password (or set IOT_ENROLL_KEY_PASSWORD to it)
    ///
    /// The password is the first line of the file.
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,
}

impl KeyPassword {
    /// Adds this option to the next command.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--key-password-file", self.key_password_file.as_ref());
    }

    pub(super) fn given(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        secret(self.key_password_file.as_deref(), KEY_PASSWORD)
    }

    /// Refuses the password of a key file for a key in a token, which takes a PIN.
    pub(super) fn refuse_for_token(&self) -> Result<(), UsageError> {
        if self.key_password_file.is_none() {
            return Ok(());
        }
        Err(UsageError::new("--key-password-file is for key files, and the key is in a PKCS#11 token")
            .with_hint("?pin-source=file:FILE in the URI names the file with the PIN of the token"))
    }

    /// Returns the password for the private key in a file: the PFX password if the file is PFX and a PFX password is given.
    pub(super) fn given_for(&self, key: Option<&Path>, keys: &Keys) -> anyhow::Result<Option<Zeroizing<String>>> {
        if key.is_some_and(|key| token_uri(key).is_some()) {
            self.refuse_for_token()?;
            return Ok(None);
        }
        // A file that cannot be read is reported where it is read.
        let kinds = key.and_then(|key| content_kinds(&read_limited(key).ok()?).ok()).unwrap_or_default();
        let pfx = if kinds.contains(&ContentKind::Pfx) { keys.pfx_password.given()? } else { None };
        if pfx.is_some() { Ok(pfx) } else { self.given() }
    }
}

/// Parses the number of entries to list.
pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
}

/// Parses a key algorithm.
pub(super) fn algorithm() -> impl TypedValueParser<Value = KeyAlgorithm> {
    PossibleValuesParser::new(KeyAlgorithm::ALL.map(KeyAlgorithm::name)).try_map(|name| name.parse::<KeyAlgorithm>())
}

/// Parses an entry of an enrollment group.
pub(super) fn certificate_entry() -> impl TypedValueParser<Value = CertificateEntry> {
    let names = [CertificateEntry::Primary, CertificateEntry::Secondary].map(CertificateEntry::as_str);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<CertificateEntry>())
}

/// Splits a comma-separated list.
pub(super) fn comma_separated(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

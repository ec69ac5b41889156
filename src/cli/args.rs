//! Arguments that several commands share.

use std::{
    env,
    fs::File,
    io::{self, Read},
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use zeroize::Zeroizing;

use super::{next_command::NextCommand, output::Output};
use crate::central::{CertificateEntry, Secret};
use crate::certificate::{
    Certificate, ContentKind, IssueOptions, KeyAlgorithm, Lifetime, ReadError, Timestamp, content_kinds,
    files::{MAX_FILE, PfxOptions, read_limited},
    pfx::{self, PfxEncryption, PfxError},
};

const PFX_PASSWORD: &str = "IOT_ENROLL_PFX_PASSWORD";
const KEY_PASSWORD: &str = "IOT_ENROLL_KEY_PASSWORD";

/// Where certificates are written and how they are made.
#[derive(clap::Args)]
#[command(next_help_heading = "Making certificates")]
pub(super) struct Making {
    /// The directory for the files, and where PARENT is looked up
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) dir: PathBuf,
    /// How many days the certificate is valid [default: root 10 years, intermediate 5 years, device 1 year, proof of
    /// possession 1 day]
    #[arg(long, value_name = "DAYS", value_parser = days, allow_negative_numbers = true)]
    days: Option<NonZeroU32>,
    #[command(flatten)]
    pub(super) keys: Keys,
    /// Overwrite the files of the same name; never those of another name or of the CA that signs
    #[arg(long)]
    pub(super) force: bool,
}

/// The files of the issuer, in place of PARENT.
#[derive(clap::Args)]
pub(super) struct IssuerFiles {
    /// The certificate of the issuer, with its chain if it has one, in place of PARENT
    #[arg(long, value_name = "FILE", requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// The private key of the issuer
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
}

impl IssuerFiles {
    /// The certificate's and the key's file, if they are given.
    pub(super) fn given(&self) -> Option<(&Path, &Path)> {
        self.ca_cert.as_deref().zip(self.ca_key.as_deref())
    }
}

impl Making {
    pub(super) fn options(&self) -> IssueOptions {
        IssueOptions::new().algorithm(self.keys.algorithm).lifetime(lifetime(self.days)).at(Timestamp::now())
    }
}

/// Confirmation of what deletes something.
#[derive(clap::Args)]
pub(super) struct Confirmation {
    /// Do not ask for confirmation; required without a terminal
    #[arg(short, long)]
    yes: bool,
}

impl Confirmation {
    /// Asks unless `--yes` is given. `question` is a whole question, such as "delete the device d1?".
    pub(super) fn ask(&self, question: &str) -> anyhow::Result<()> {
        Output::confirm(question, self.yes)
    }
}

/// A number of days, as options take it.
pub(super) fn days(text: &str) -> Result<NonZeroU32, String> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let text = text.trim();
    if let Some(days) = number(text) {
        return NonZeroU32::new(days).ok_or_else(|| "a certificate is valid for at least 1 day".to_owned());
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c.is_whitespace());
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let factor = match unit.as_str() {
        "d" | "day" | "days" => 1,
        "w" | "week" | "weeks" => 7,
        "y" | "year" | "years" => 365,
        _ => return Err("give a whole number of days, 1 or more, such as 365".to_owned()),
    };
    match number(digits).and_then(|count| count.checked_mul(factor)).filter(|days| *days > 0) {
        Some(days) => Err(format!("give the number of days without a unit: {days}")),
        None => Err("give a whole number of days, 1 or more, such as 365".to_owned()),
    }
}

/// A lifetime as it is given on the command line.
pub(super) fn lifetime(days: Option<NonZeroU32>) -> Option<Lifetime> {
    days.map(|days| Lifetime::Days(days.get()))
}

/// What kind of key is made, and how it is put into PFX files.
#[derive(clap::Args)]
#[command(next_help_heading = "Making certificates")]
pub(super) struct Keys {
    /// The algorithm of new keys
    #[arg(long, value_name = "ALGORITHM", default_value = "ec-p256", value_parser = algorithm())]
    pub(super) algorithm: KeyAlgorithm,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Encrypt the PFX file with 3DES and SHA-1, as Windows Server 2016 and macOS require
    #[arg(long)]
    pfx_legacy: bool,
    /// Do not write a PFX file
    #[arg(long, conflicts_with_all = ["pfx_password_file", "pfx_legacy"])]
    no_pfx: bool,
}

impl Keys {
    /// Adds the options that were given to a command that creates the same kind of keys.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        if self.algorithm != KeyAlgorithm::default() {
            command.option("--algorithm", self.algorithm.name());
        }
        command.optional("--pfx-password-file", self.pfx_password.pfx_password_file.as_ref());
        command.flag("--pfx-legacy", self.pfx_legacy);
        command.flag("--no-pfx", self.no_pfx);
    }

    /// How PFX files are made, when any are to be made.
    pub(super) fn pfx(&self) -> anyhow::Result<Option<Pfx>> {
        if self.no_pfx { Ok(None) } else { Pfx::new(&self.pfx_password, self.pfx_legacy).map(Some) }
    }

    /// The password of PFX files that are read.
    pub(super) fn pfx_password(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        self.pfx_password.given()
    }
}

/// How PFX files are made.
pub(super) struct Pfx {
    password: Option<Zeroizing<String>>,
    encryption: PfxEncryption,
}

impl Pfx {
    pub(super) fn new(password: &PfxPassword, legacy: bool) -> anyhow::Result<Self> {
        let encryption = if legacy { PfxEncryption::TripleDes } else { PfxEncryption::Aes256 };
        Ok(Self { password: password.given()?, encryption })
    }

    pub(super) fn options(&self) -> PfxOptions<'_> {
        let password = self.password.as_ref().map_or(pfx::DEFAULT_PASSWORD, |password| password.as_str());
        PfxOptions { password, encryption: self.encryption }
    }

    /// Says so when the password is the one that everybody knows.
    pub(super) fn tell(&self, output: &Output) {
        if self.password.is_none() {
            output.note(format_args!(
                "the password of the PFX file is {}, as none was given with --pfx-password-file or {PFX_PASSWORD}",
                pfx::DEFAULT_PASSWORD
            ));
        }
    }
}

/// The password of a PFX file.
#[derive(clap::Args)]
pub(super) struct PfxPassword {
    /// File whose first line is the password of the PFX file [env: IOT_ENROLL_PFX_PASSWORD holds the password itself]
    ///
    /// An empty line or variable is the empty password. Without either, PFX files are written with the password 1234, and
    /// read with 1234 or the empty password.
    #[arg(long, value_name = "FILE")]
    pfx_password_file: Option<PathBuf>,
}

impl PfxPassword {
    pub(super) fn given(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        secret_or_empty(self.pfx_password_file.as_deref(), PFX_PASSWORD)
    }

    /// Reads the certificates of a file in any encoding, PFX too; `-` is standard input.
    pub(super) fn read_certificates(&self, file: &Path) -> anyhow::Result<Vec<Certificate>> {
        let bytes = read(file)?;
        certificates_of(&bytes, || self.given(), |bytes, password| pfx::read(bytes, password))
            .with_context(|| format!("no certificate could be read from {}", file.display()))
    }
}

/// The certificates in any encoding; of PFX with the password, which is asked for then, and with that reader.
pub(super) fn certificates_of(
    bytes: &[u8],
    pfx_password: impl FnOnce() -> anyhow::Result<Option<Zeroizing<String>>>,
    read_pfx: impl FnOnce(&[u8], Option<&str>) -> Result<Vec<Certificate>, PfxError>,
) -> anyhow::Result<Vec<Certificate>> {
    match Certificate::read_all(bytes) {
        Err(ReadError::Pfx) => {
            let given = pfx_password()?;
            Ok(read_pfx(bytes, given.as_ref().map(|password| password.as_str()))?)
        }
        other => Ok(other?),
    }
}

/// Until when a certificate should last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within(Timestamp);

impl Within {
    /// The moment that many days, weeks or hours from now.
    pub(super) fn until(self) -> Timestamp {
        self.0
    }
}

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || format!("a number and d, w or h, such as 30d; found {text:?}");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let hours = match &text[digits.len()..] {
            "h" => 1,
            "" | "d" => 24,
            "w" => 24 * 7,
            _ => return Err(rule()),
        };
        let number: u32 = digits.parse().map_err(|_| rule())?;
        let until = Timestamp::now().checked_add(Duration::from_secs(u64::from(number) * hours * 60 * 60));
        until.map(Self).ok_or_else(|| "it leads past the year 9999".to_owned())
    }
}

/// The password of a private key.
#[derive(clap::Args)]
pub(super) struct KeyPassword {
    /// A file whose first line is the password of an encrypted private key [env: IOT_ENROLL_KEY_PASSWORD holds the
    /// password itself]
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,
}

impl KeyPassword {
    /// Adds the option that was given to a command that needs the same key.
    pub(super) fn repeat_in(&self, command: &mut NextCommand) {
        command.optional("--key-password-file", self.key_password_file.as_ref());
    }

    pub(super) fn given(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        secret(self.key_password_file.as_deref(), KEY_PASSWORD)
    }

    /// The password of the private key in a file: that of PFX files if it is one and that is given.
    pub(super) fn given_for(&self, key: Option<&Path>, keys: &Keys) -> anyhow::Result<Option<Zeroizing<String>>> {
        // A file that cannot be read is reported where it is read.
        let kinds = key.and_then(|key| content_kinds(&read_limited(key).ok()?).ok()).unwrap_or_default();
        let pfx = if kinds.contains(&ContentKind::Pfx) { keys.pfx_password.given()? } else { None };
        if pfx.is_some() { Ok(pfx) } else { self.given() }
    }
}

/// A secret from the first line of a file or from the environment. Never from the command line, which others can see.
/// An empty variable counts as not set.
pub(super) fn secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    match (secret_or_empty(file, variable)?.filter(|secret| !secret.is_empty()), file) {
        (None, Some(file)) => bail!("the first line of {} is empty; it should hold the secret", file.display()),
        (secret, _) => Ok(secret),
    }
}

/// As [`secret`], but an empty first line, file or variable is the empty secret.
fn secret_or_empty(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    let Some(file) = file else {
        return match env::var(variable) {
            Ok(value) => Ok(Some(Zeroizing::new(value))),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => bail!("the environment variable {variable} is not UTF-8"),
        };
    };
    let bytes = read(file)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not UTF-8", file.display()))?;
    let line = text.strip_prefix('\u{feff}').unwrap_or(text).lines().next().unwrap_or_default();
    Ok(Some(Zeroizing::new(line.to_owned())))
}

/// Several secrets from the lines of a file, empty ones left out; `what` says what they are.
pub(super) fn secret_lines<const N: usize>(file: &Path, what: &str) -> anyhow::Result<[Secret; N]> {
    let bytes = read(file)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not UTF-8", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Secret::from);
    lines.collect::<Vec<_>>().try_into().map_err(|found: Vec<_>| {
        let lines = if N == 1 { "line" } else { "lines" };
        anyhow::anyhow!("{} should have {N} {lines}, {what}; found {}", file.display(), found.len())
    })
}

/// The bytes of a file of certificates or keys, which may hold a secret; `-` is standard input.
pub(super) fn read(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    if file == Path::new("-") {
        read_up_to(file, MAX_FILE >> 20, "no certificate or key has")
    } else {
        Ok(read_limited(file)?)
    }
}

/// The bytes of a file, which may hold a secret, unless it has more MiB than this; `none_has` says what never has more. `-`
/// is standard input.
pub(super) fn read_up_to(file: &Path, mebibytes: u64, none_has: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let stdin = file == Path::new("-");
    let name = if stdin { "standard input".to_owned() } else { file.display().to_string() };
    let unreadable = || format!("could not read {name}");
    let source: Box<dyn Read> =
        if stdin { Box::new(io::stdin()) } else { Box::new(File::open(file).with_context(unreadable)?) };
    let mut bytes = Zeroizing::new(Vec::new());
    source.take((mebibytes << 20) + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    if bytes.len() as u64 > mebibytes << 20 {
        bail!("{name} has more than {mebibytes} MiB, and {none_has}");
    }
    Ok(bytes)
}

/// How many things are wanted.
pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
}

/// A kind of key.
pub(super) fn algorithm() -> impl TypedValueParser<Value = KeyAlgorithm> {
    PossibleValuesParser::new(KeyAlgorithm::ALL.map(KeyAlgorithm::name)).try_map(|name| name.parse::<KeyAlgorithm>())
}

/// An entry of an enrollment group.
pub(super) fn certificate_entry() -> impl TypedValueParser<Value = CertificateEntry> {
    let names = [CertificateEntry::Primary, CertificateEntry::Secondary].map(CertificateEntry::as_str);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<CertificateEntry>())
}

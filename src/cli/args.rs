//! Arguments that several commands share.

use std::{
    env,
    io::{self, Read},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use secrecy::SecretString;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::output::Output;
use crate::central::CertificateEntry;
use crate::certificate::{
    Certificate, IssueOptions, KeyAlgorithm, Lifetime, ReadError,
    files::{MAX_FILE, PfxOptions, read_limited},
    pfx::{self, PfxEncryption},
};

/// The password of PFX files where none is given: what `create_test_cert.js` always uses.
pub(super) const DEFAULT_PFX_PASSWORD: &str = "1234";

const PFX_PASSWORD: &str = "IOT_ENROLL_PFX_PASSWORD";
const KEY_PASSWORD: &str = "IOT_ENROLL_KEY_PASSWORD";

/// Where certificates are written and how they are made.
#[derive(clap::Args)]
#[command(next_help_heading = "Making certificates")]
pub(super) struct Making {
    /// The folder for the files, and where authorities are looked for by name
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(super) dir: PathBuf,
    /// How many days the certificate is valid [default: root 10 years, intermediate 5 years, device 1 year,
    /// verification 1 day]
    #[arg(long)]
    days: Option<NonZeroU32>,
    #[command(flatten)]
    pub(super) keys: Keys,
    /// Replace files that exist
    #[arg(long)]
    pub(super) force: bool,
}

impl Making {
    pub(super) fn options(&self) -> IssueOptions {
        IssueOptions { algorithm: self.keys.algorithm, lifetime: lifetime(self.days), at: OffsetDateTime::now_utc() }
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
    /// The kind of key
    #[arg(long, value_name = "ALGORITHM", default_value = "ec-p256", value_parser = algorithm())]
    pub(super) algorithm: KeyAlgorithm,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Encrypt the PFX file in the older way that Windows Server 2016 and macOS still need
    #[arg(long)]
    pfx_legacy: bool,
    /// Make no PFX file
    #[arg(long, conflicts_with_all = ["pfx_password_file", "pfx_legacy"])]
    no_pfx: bool,
}

impl Keys {
    /// How PFX files are made, when any are to be made.
    pub(super) fn pfx(&self) -> anyhow::Result<Option<Pfx>> {
        if self.no_pfx { Ok(None) } else { Pfx::new(&self.pfx_password, self.pfx_legacy).map(Some) }
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
        let password = self.password.as_ref().map_or(DEFAULT_PFX_PASSWORD, |password| password.as_str());
        PfxOptions { password, encryption: self.encryption }
    }

    /// Says so when the password is the one that everybody knows.
    pub(super) fn tell(&self, output: &Output) {
        if self.password.is_none() {
            output.note(format_args!(
                "the password of the PFX file is {DEFAULT_PFX_PASSWORD}, as none was given with --pfx-password-file or \
                 {PFX_PASSWORD}"
            ));
        }
    }
}

/// The password of a PFX file.
#[derive(clap::Args)]
pub(super) struct PfxPassword {
    /// The file whose first line is the password of the PFX file; without, the environment variable
    /// IOT_ENROLL_PFX_PASSWORD holds it [default: 1234]
    #[arg(long, value_name = "FILE")]
    pfx_password_file: Option<PathBuf>,
}

impl PfxPassword {
    pub(super) fn given(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        secret(self.pfx_password_file.as_deref(), PFX_PASSWORD)
    }

    /// Reads the certificates of a file in any encoding, PFX too; `-` is standard input.
    pub(super) fn read_certificates(&self, file: &Path) -> anyhow::Result<Vec<Certificate>> {
        let unreadable = || format!("no certificate could be read from {}", file.display());
        let bytes = read(file)?;
        match Certificate::read_all(&bytes) {
            Err(ReadError::Pfx) => {
                let given = self.given()?;
                let password = given.as_ref().map_or(DEFAULT_PFX_PASSWORD, |password| password.as_str());
                pfx::read(&bytes, password).with_context(unreadable)
            }
            other => other.with_context(unreadable),
        }
    }
}

/// The password of a private key.
#[derive(clap::Args)]
pub(super) struct KeyPassword {
    /// The file whose first line is the password of the private key, where it is encrypted; without, the environment
    /// variable IOT_ENROLL_KEY_PASSWORD holds it
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,
}

impl KeyPassword {
    pub(super) fn given(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        secret(self.key_password_file.as_deref(), KEY_PASSWORD)
    }
}

/// A secret from the first line of a file or from the environment. Never from the command line, which others can see.
pub(super) fn secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    let Some(file) = file else {
        return match env::var(variable) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => Ok(Some(Zeroizing::new(value))),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => bail!("the environment variable {variable} is not UTF-8"),
        };
    };
    let bytes = read(file)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not UTF-8", file.display()))?;
    let line = text.strip_prefix('\u{feff}').unwrap_or(text).lines().next().unwrap_or_default();
    if line.is_empty() {
        bail!("the first line of {} is empty; it should hold the secret", file.display());
    }
    Ok(Some(Zeroizing::new(line.to_owned())))
}

/// Several secrets from the lines of a file, empty ones left out; `what` says what they are.
pub(super) fn secret_lines<const N: usize>(file: &Path, what: &str) -> anyhow::Result<[SecretString; N]> {
    let bytes = read(file)?;
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is not UTF-8", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(SecretString::from);
    lines.collect::<Vec<_>>().try_into().map_err(|found: Vec<_>| {
        anyhow::anyhow!("{} should have {N} lines, {what}; found {}", file.display(), found.len())
    })
}

/// The bytes of a file, which may hold a secret; `-` is standard input.
pub(super) fn read(file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    if file != Path::new("-") {
        return Ok(read_limited(file)?);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    io::stdin().take(MAX_FILE + 1).read_to_end(&mut bytes).context("could not read standard input")?;
    if bytes.len() as u64 > MAX_FILE {
        bail!("standard input has more than 16 MiB, and no certificate or key has");
    }
    Ok(bytes)
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

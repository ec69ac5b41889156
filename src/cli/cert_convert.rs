//! `cert convert`: other encodings of certificates and private keys.

use std::{
    fmt::{self, Display},
    io::{self, IsTerminal, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    args::{KeyPassword, Pfx, PfxPassword, check_new_password},
    error::{UsageError, WithOut},
    input::{file_name, read, secret, secret_or_empty},
    output::{Format, Output, clean, counted, fields},
};
use crate::{
    certificate::{
        Certificate, ContentKind, KeyEncoding, KeyFormat, content_kinds,
        convert::{Bundle, NvsNamespace, NvsOptions, Symbol},
        files::{FileError, IfExists, Passwords, Readers, check_file, is_same_file, write_file},
    },
    workflow::lossy_path,
};

const NEW_PASSWORD: &str = "IOT_ENROLL_NEW_PASSWORD";

/// Convert certificates and private keys to other formats
///
/// Reads certificates and at most one private key from the files, in any encoding, and writes them in one format. Certificates
/// of a chain are written from the leaf to the root. A private key must belong to one of the certificates.
///
/// Nothing is left out: if the format cannot hold everything, the command fails, and --only selects a part. A result with a
/// private key is written to --out only, readable only by you; without --out, other results go to standard output.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll cert convert sampleDevice01.pfx --to pem --out sampleDevice01.pem
  iot-enroll cert convert mytestrootcert_cert.pem --to der --out mytestrootcert.cer
  iot-enroll cert convert sampleDevice01_fullchain.pem sampleDevice01_key.pem --to c-header --out credentials.h
  iot-enroll cert convert sampleDevice01_key.pem --to pem --key-format sec1 --out sampleDevice01.key
  iot-enroll cert convert mytestrootcert_cert.pem --to truststore --out truststore.p12")]
pub(super) struct Convert {
    /// Files with certificates and a private key, in any encoding; - is standard input
    ///
    /// PEM, DER, base64 of either, PKCS#7 or PFX.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Format to write
    #[arg(long, value_name = "FORMAT")]
    to: Target,
    /// File to write; - is standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Convert only a part of the input
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Structure of the private key [default: pkcs8]
    #[arg(long, value_name = "FORMAT", value_parser = key_format())]
    key_format: Option<KeyFormat>,
    /// File with the password of the result (or set IOT_ENROLL_NEW_PASSWORD to it)
    ///
    /// The password is the first line of the file. It encrypts the private key as PKCS#8, or the PFX file or truststore. The
    /// password of PFX files and truststores is otherwise the one of --pfx-password-file, and without either 1234.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Start of the names of C variables and NVS keys [default: device]
    #[arg(long)]
    name: Option<Symbol>,
    /// Namespace in NVS [default: certs]
    #[arg(long)]
    namespace: Option<NvsNamespace>,
    /// Write NVS values as blobs, which may be longer than 3967 bytes
    #[arg(long)]
    nvs_blob: bool,
    #[command(flatten)]
    key_password: KeyPassword,
    #[command(flatten)]
    pfx_password: PfxPassword,
    /// Encrypt the PFX file with 3DES and SHA-1 for Windows Server 2016 and macOS
    #[arg(long)]
    pfx_legacy: bool,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

/// A format to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// Certificates and private key as PEM
    Pem,
    /// One certificate, or a private key, as DER
    Der,
    /// Private key and certificates as PFX (PKCS#12)
    Pfx,
    /// Certificates as PKCS#7 in PEM
    P7b,
    /// Certificates as PKCS#7 in DER
    P7bDer,
    /// C header with the PEM of certificates and private key
    CHeader,
    /// CSV file for the NVS partition generator of ESP-IDF
    NvsCsv,
    /// Certificates as truststore for Java (PKCS#12)
    Truststore,
}

/// A part of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The certificate of the private key, or the one that issued no other
    Leaf,
    /// All certificates, without the private key
    Certificates,
    /// The private key
    Key,
}

fn key_format() -> impl TypedValueParser<Value = KeyFormat> {
    PossibleValuesParser::new(KeyFormat::ALL.map(KeyFormat::name)).try_map(|name| name.parse::<KeyFormat>())
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Pem => "pem",
            Self::Der => "der",
            Self::Pfx => "pfx",
            Self::P7b => "p7b",
            Self::P7bDer => "p7b-der",
            Self::CHeader => "c-header",
            Self::NvsCsv => "nvs-csv",
            Self::Truststore => "truststore",
        }
    }

    fn is_binary(self) -> bool {
        matches!(self, Self::Der | Self::Pfx | Self::P7bDer | Self::Truststore)
    }

    /// Returns whether the private key is written in an encoding of its own.
    fn encodes_key(self) -> bool {
        matches!(self, Self::Pem | Self::Der | Self::CHeader | Self::NvsCsv)
    }

    fn is_pkcs12(self) -> bool {
        matches!(self, Self::Pfx | Self::Truststore)
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem => "PEM",
            Self::Der => "DER",
            Self::Pfx => "a PFX file",
            Self::P7b => "PKCS#7 in PEM",
            Self::P7bDer => "PKCS#7 in DER",
            Self::CHeader => "a C header",
            Self::NvsCsv => "a CSV file for NVS",
            Self::Truststore => "a truststore for Java",
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conversion {
    #[serde(serialize_with = "lossy_path")]
    file: PathBuf,
    format: &'static str,
    certificates: Vec<ConvertedCertificate>,
    holds_private_key: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConvertedCertificate {
    subject: String,
    issuer: String,
    not_after: String,
    sha1_thumbprint: String,
    sha256_thumbprint: String,
}

impl ConvertedCertificate {
    fn new(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_after: certificate.not_after().to_string(),
            sha1_thumbprint: certificate.sha1_thumbprint().to_string(),
            sha256_thumbprint: certificate.sha256_thumbprint().to_string(),
        }
    }
}

impl Convert {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<()> {
        self.check_options()?;
        let place = Place::of(self.out.as_deref());
        if let Place::File(file) = place {
            self.check_out(file)?;
        }
        let (bundle, is_encrypted) = self.read(output)?;
        let holds_key = bundle.key().is_some();
        place.check(self.to, holds_key, output)?;
        let new_password = self.new_password(holds_key)?;
        let content = self.encode(&bundle, new_password, is_encrypted, output)?;
        let Place::File(file) = place else { return write_to_stdout(&content) };
        let readers = if holds_key { Readers::Owner } else { Readers::Everyone };
        write_file(file, &content, readers, self.if_exists()).map_err(unwritable)?;
        let conversion = Conversion {
            file: file.to_owned(),
            format: self.to.name(),
            certificates: bundle.certificates().iter().map(ConvertedCertificate::new).collect(),
            holds_private_key: holds_key,
        };
        output.result(&conversion, || self.human(file, &bundle))
    }

    fn if_exists(&self) -> IfExists {
        if self.force { IfExists::Overwrite } else { IfExists::Fail }
    }

    /// Refuses options that would have no effect on the format.
    fn check_options(&self) -> Result<(), UsageError> {
        let has_name = matches!(self.to, Target::CHeader | Target::NvsCsv);
        let is_nvs = self.to == Target::NvsCsv;
        let options = [
            ("--key-format", self.key_format.is_some(), self.to.encodes_key()),
            ("--new-password-file", self.new_password_file.is_some(), self.to.encodes_key() || self.to.is_pkcs12()),
            ("--name", self.name.is_some(), has_name),
            ("--namespace", self.namespace.is_some(), is_nvs),
            ("--nvs-blob", self.nvs_blob, is_nvs),
            ("--pfx-legacy", self.pfx_legacy, self.to == Target::Pfx),
        ];
        match options.into_iter().find(|&(_, is_given, has_effect)| is_given && !has_effect) {
            Some((option, ..)) => Err(UsageError::new(format!("{option} has no effect with --to {}", self.to.name()))),
            None => Ok(()),
        }
    }

    /// Checks that the result can be written, and that it does not overwrite its input, of which it may be a part.
    fn check_out(&self, out: &Path) -> anyhow::Result<()> {
        if let Some(file) = self.files.iter().find(|file| is_same_file(file, out)) {
            let error = UsageError::new(format!("--out would overwrite the input {}", file.display()));
            return Err(error.with_hint("choose another file for --out").into());
        }
        check_file(out, self.if_exists()).map_err(unwritable)
    }

    /// Reads the files and selects the requested part. Returns also whether a private key in them is encrypted.
    fn read(&self, output: &Output) -> anyhow::Result<(Bundle, bool)> {
        let (key_password, pfx_password) = (self.key_password.given()?, self.pfx_password.given()?);
        let passwords = Passwords::new()
            .key(key_password.as_ref().map(|password| password.as_str()))
            .pfx(pfx_password.as_ref().map(|password| password.as_str()));
        let mut is_encrypted = false;
        let mut bundles = Vec::new();
        for file in &self.files {
            let bytes = read(file)?;
            let bundle = match self.only {
                Some(Part::Certificates) => Bundle::read_certificates(&bytes, passwords),
                _ => Bundle::read(&bytes, passwords),
            };
            let bundle = bundle.with_context(|| format!("could not convert {}", file_name(file)))?;
            for part in bundle.left_out() {
                output.note(format_args!("not converted: {part} in {}", file_name(file)));
            }
            let kinds = content_kinds(&bytes).unwrap_or_default();
            is_encrypted |= kinds.contains(&ContentKind::EncryptedPrivateKey);
            bundles.push(bundle);
        }
        let bundle = Bundle::join(bundles).context("could not convert the files")?;
        let selected = match self.only {
            None => Ok(bundle),
            Some(Part::Leaf) => bundle.only_leaf(),
            Some(Part::Certificates) => bundle.only_certificates(),
            Some(Part::Key) => bundle.only_key(),
        };
        let bundle = selected.context("could not select a part")?;
        if self.key_format.is_some() && bundle.key().is_none() {
            bail!("--key-format is given, but there is no private key to convert");
        }
        Ok((bundle, is_encrypted))
    }

    /// Returns the password of the result. The variable is ignored if the result takes none.
    fn new_password(&self, holds_key: bool) -> anyhow::Result<Option<Zeroizing<String>>> {
        let takes_one = self.to.is_pkcs12() || (self.to.encodes_key() && holds_key);
        if !takes_one {
            if self.new_password_file.is_some() {
                bail!("--new-password-file is given, but there is no private key to encrypt");
            }
            return Ok(None);
        }
        // An empty password does not protect a private key; PFX files and truststores without secrets often have one.
        let read = if self.to.is_pkcs12() { secret_or_empty } else { secret };
        let password = read(self.new_password_file.as_deref(), NEW_PASSWORD)?;
        password.as_ref().map_or(Ok(()), |password| check_new_password(password))?;
        Ok(password)
    }

    fn encode(
        &self,
        bundle: &Bundle,
        new_password: Option<Zeroizing<String>>,
        is_encrypted: bool,
        output: &Output,
    ) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let key = KeyEncoding::new()
            .format(self.key_format.unwrap_or_default())
            .password(new_password.as_ref().filter(|_| !self.to.is_pkcs12()).map(|password| password.as_str()));
        if is_encrypted && bundle.key().is_some() && new_password.is_none() && self.to.encodes_key() {
            output.note(format_args!(
                "the private key is no longer encrypted: --new-password-file or {NEW_PASSWORD} encrypts it"
            ));
        }
        let text = |text: Zeroizing<String>| Zeroizing::new(text.as_bytes().to_vec());
        let name = self.name.clone().unwrap_or_default();
        let content = match self.to {
            Target::Pem => bundle.to_pem(key).map(text),
            Target::Der => bundle.to_der(key),
            Target::P7b => bundle.to_pkcs7_pem().map(|pem| Zeroizing::new(pem.into_bytes())),
            Target::P7bDer => bundle.to_pkcs7_der().map(Zeroizing::new),
            Target::CHeader => bundle.to_c_header(&name, key).map(text),
            Target::NvsCsv => {
                let namespace = self.namespace.clone().unwrap_or_default();
                let options = NvsOptions::new().namespace(namespace).name(name).as_blobs(self.nvs_blob);
                bundle.to_nvs_csv(&options, key).map(text)
            }
            Target::Pfx | Target::Truststore => {
                let pfx = match new_password {
                    Some(password) => Pfx::with_password(password, self.pfx_legacy),
                    None => Pfx::new(&self.pfx_password, self.pfx_legacy)?,
                };
                let content = if self.to == Target::Pfx {
                    bundle.to_pfx(pfx.options())
                } else {
                    bundle.to_truststore(pfx.options().password).map(Zeroizing::new)
                };
                if content.is_ok() {
                    pfx.note_default_password(output);
                }
                content
            }
        };
        content.with_context(|| format!("could not convert to {}", self.to))
    }

    fn human(&self, file: &Path, bundle: &Bundle) -> String {
        let count = bundle.certificates().len() as u64;
        let what = match (count, bundle.key()) {
            (0, _) => "the private key".to_owned(),
            (count, None) => counted(count, "certificate"),
            (count, Some(_)) => format!("{} and the private key", counted(count, "certificate")),
        };
        let access = if bundle.key().is_some() { " (readable only by you)" } else { "" };
        let mut rows = vec![("file", format!("{}{access}", file.display()))];
        rows.extend(bundle.certificates().iter().map(|certificate| ("certificate", clean(&certificate.to_string()))));
        format!("Converted {what} to {}.\n{}", self.to, fields(&rows))
    }
}

fn unwritable(error: FileError) -> anyhow::Error {
    match error {
        FileError::NotRegular(_) => UsageError::new(error.to_string())
            .with_hint("choose another file for --out; --out - writes to standard output")
            .into(),
        other => WithOut::new(other).into(),
    }
}

/// Where the result goes.
#[derive(Clone, Copy)]
enum Place<'a> {
    File(&'a Path),
    /// Standard output, because `--out -` is given or because `--out` is not.
    Stdout {
        is_given: bool,
    },
}

impl<'a> Place<'a> {
    fn of(out: Option<&'a Path>) -> Self {
        match out {
            Some(file) if file != Path::new("-") => Self::File(file),
            out => Self::Stdout { is_given: out.is_some() },
        }
    }

    /// Checks that standard output may have the result.
    fn check(self, to: Target, holds_key: bool, output: &Output) -> Result<(), UsageError> {
        let Self::Stdout { is_given } = self else { return Ok(()) };
        let is_terminal = io::stdout().is_terminal();
        let reason = if holds_key && !is_given {
            "the result holds a private key, which is not printed unasked"
        } else if holds_key && is_terminal {
            "the result holds a private key, which is not printed on a terminal"
        } else if to.is_binary() && is_terminal {
            "the result is binary, which is not printed on a terminal"
        } else if output.format() == Format::Json {
            "standard output cannot have both the result and JSON"
        } else {
            return Ok(());
        };
        Err(UsageError::new(reason).with_hint("--out FILE writes the result to a file"))
    }
}

/// Writes the result to standard output unchanged.
fn write_to_stdout(content: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(content).and_then(|()| stdout.flush()) {
        // A reader such as `head` has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("could not write to standard output"),
    }
}

//! A command to run next, quoted for a shell.

use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Display, Write},
};

/// A command line of this program.
pub(super) struct NextCommand {
    words: Vec<OsString>,
}

impl NextCommand {
    /// Starts a command line with a subcommand.
    pub(super) fn new(subcommand: &str) -> Self {
        Self { words: vec!["iot-enroll".into(), subcommand.into()] }
    }

    /// Adds a subcommand or an argument without an option.
    pub(super) fn word(&mut self, word: impl AsRef<OsStr>) {
        self.words.push(word.as_ref().to_owned());
    }

    /// Adds an option and its value.
    pub(super) fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref();
        // A separate value that starts with a hyphen would be parsed as an option.
        if value.len() > 1 && value.as_encoded_bytes().starts_with(b"-") {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            self.words.push(word);
        } else {
            self.words.extend([name.into(), value.to_owned()]);
        }
    }

    /// Adds an option if it has a value.
    pub(super) fn optional(&mut self, name: &str, value: Option<impl AsRef<OsStr>>) {
        if let Some(value) = value {
            self.option(name, value);
        }
    }

    /// Adds a flag if it is set.
    pub(super) fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.words.push(name.into());
        }
    }
}

impl Display for NextCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                f.write_char(' ')?;
            }
            match word.to_str().filter(|word| !word.contains(char::is_control)) {
                // Only NUL cannot be quoted, and no argument of a process contains it.
                Some(word) => f.write_str(&shlex::try_quote(word).unwrap_or_default())?,
                None => f.write_str(&ansi_c_quoted(word))?,
            }
        }
        Ok(())
    }
}

/// Quotes a word that is not UTF-8 or has control characters as `$'…'`, which bash, zsh, ksh and POSIX.1-2024 read.
fn ansi_c_quoted(word: &OsStr) -> String {
    let mut quoted = "$'".to_owned();
    for &byte in word.as_encoded_bytes() {
        match byte {
            b'\'' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            // Octal, because some shells read any number of hexadecimal digits.
            _ => {
                let _ = write!(quoted, "\\{byte:03o}");
            }
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(all(test, unix))]
mod tests {
    use std::{os::unix::ffi::OsStrExt, process::Command};

    use super::*;

    #[test]
    fn bash_reads_back_every_word() {
        let words: [&[u8]; 6] =
            [b"x\xffy", b"it's \xe9", b"a\nb\x1b[31m1", b"caf\xc3\xa9 o'clock", b"$(id) `id` \\", b"-\xff\x01"];
        let mut command = NextCommand::new("x");
        for word in words {
            command.option("--dir", OsStr::from_bytes(word));
        }
        let script = format!("iot-enroll() {{ printf '%s\\0' \"$@\"; }}; {command}");
        let Ok(output) = Command::new("bash").args(["--norc", "-c", &script]).output() else {
            // Standard error itself, which the test harness does not capture.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: bash is not installed\n");
            return;
        };
        let mut expected = b"x\0".to_vec();
        for word in words {
            expected.extend_from_slice(if word.starts_with(b"-") { b"--dir=" } else { b"--dir\0" });
            expected.extend_from_slice(word);
            expected.push(0);
        }
        assert_eq!(output.stdout, expected, "{script}");
    }
}

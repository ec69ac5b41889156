//! Refusal of secrets on the command line, where other users and the shell's history see them. No message repeats one.
//!
//! A secret could be repeated by the parser's own messages, by an error that names a missing file, and by an error that
//! quotes an invalid value. So the arguments are searched before they are parsed ([`check`]), an error of the parser is
//! replaced if it quotes what may be a secret ([`conceal`]), and the values of options that name files with secrets are
//! checked before the files are opened ([`check_files`]).

use std::{
    any::TypeId,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, error::ContextValue};

use super::{
    error::UsageError,
    input::note_readable,
    output::Output,
    secrets::{is_secret, may_be_secret},
    token_key::{check_uri, token_uri},
};

/// The options that name a file with a secret, and the environment variables that can hold the secret instead.
const SECRET_FILES: [(&str, Option<&str>); 9] = [
    ("token-file", Some("IOT_ENROLL_TOKEN")),
    ("arm-token-file", Some("IOT_ENROLL_ARM_TOKEN")),
    ("connection-string-file", Some("IOT_ENROLL_DPS_CONNECTION_STRING")),
    ("pfx-password-file", Some("IOT_ENROLL_PFX_PASSWORD")),
    ("key-password-file", Some("IOT_ENROLL_KEY_PASSWORD")),
    ("new-password-file", Some("IOT_ENROLL_NEW_PASSWORD")),
    ("group-key-file", Some("IOT_ENROLL_GROUP_KEY")),
    ("symmetric-key-file", None),
    ("keys-file", None),
];

/// The options that name a file with a private key.
const KEY_FILES: [&str; 2] = ["ca-key", "key"];

/// The arguments that take the PKCS#11 URI of a key in a token.
const TOKEN_KEYS: [&str; 2] = ["ca_key", "own_key"];

/// The arguments that name a file or directory to write, which need not exist.
const OUTPUTS: [&str; 5] = ["dir", "directory", "out", "results", "ca_out"];

/// Refuses a command line with a secret in it: an option that does not exist, such as `--token`, or a value with the form of
/// a token or key.
pub(super) fn check(root: &Command, arguments: &[OsString]) -> anyhow::Result<()> {
    let command = selected_command(root, arguments);
    let mut options_end = false;
    for (index, argument) in arguments.iter().enumerate().skip(1) {
        let text = argument.to_string_lossy();
        let option = if options_end { None } else { LongOption::read(&text) };
        options_end |= text == "--";
        let known = option.as_ref().and_then(|option| option.find(command));
        if known.is_none() && option.as_ref().is_some_and(LongOption::asks_for_pin) {
            return Err(pin_refusal("a PIN is not accepted as an option"));
        }
        if let Some(option) = &option {
            let takes_value = known.is_some_and(|argument| argument.get_action().takes_values());
            if let (false, Some(wanted)) = (takes_value, option.replacements(command)) {
                // A known flag is fine without a value.
                if known.is_none() || option.value.is_some() {
                    return Err(refusal(&format!("--{} is not accepted", option.name), &wanted));
                }
            }
        }
        let value = option.as_ref().map_or(Some(&*text), |option| option.value);
        if names_pin(&text) {
            return Err(pin_refusal("a PIN in a PKCS#11 URI is not accepted"));
        }
        if let Some(uri) = value.and_then(|value| token_uri(Path::new(value))) {
            check_uri(uri)?;
        }
        let value = if is_secret(&text) { Some(&*text) } else { value };
        if value.is_some_and(is_secret) && !takes_secret(command, arguments, index) {
            return Err(refusal(
                "a token or key is not accepted as an argument",
                &available(command, &["token-file", "arm-token-file", "connection-string-file"]),
            ));
        }
    }
    Ok(())
}

/// Replaces an error of the parser if it quotes what may be a secret.
pub(super) fn conceal(root: &Command, arguments: &[OsString], error: clap::Error) -> anyhow::Error {
    let command = selected_command(root, arguments);
    let rendered = error.render().to_string();
    let quotes = |secret: &str| {
        let beginning: String = secret.chars().take(12).collect();
        let is_long = beginning.chars().count() >= 6;
        (is_long && rendered.contains(&beginning))
            || error.context().any(|(_, value)| match value {
                ContextValue::String(text) => text == secret,
                ContextValue::Strings(texts) => texts.iter().any(|text| text == secret),
                _ => false,
            })
    };
    let mut after_secret_flag: Option<Vec<&str>> = None;
    for argument in arguments.iter().skip(1) {
        let text = argument.to_string_lossy();
        let option = LongOption::read(&text);
        let value = option.as_ref().map_or(Some(&*text), |option| option.value);
        if let Some(wanted) = after_secret_flag.take().filter(|_| option.is_none() && quotes(&text)) {
            return refusal("a value after an option that takes none is not accepted", &wanted);
        }
        if value.is_some_and(|value| token_uri(Path::new(value)).is_some() && quotes(value)) {
            return pin_refusal("a PKCS#11 URI is accepted only for the key of a CA");
        }
        if value.is_some_and(|value| may_be_secret(value) && quotes(value)) {
            let all = SECRET_FILES.map(|(name, _)| name);
            return refusal("a value that may be a secret is not accepted", &available(command, &all));
        }
        after_secret_flag = option.and_then(|option| option.replacements(command));
    }
    error.into()
}

/// Checks the arguments that name files to read: refuses a secret instead of a file name, and notes a file with a secret that
/// other users can read.
pub(super) fn check_files(root: &Command, matches: &ArgMatches, output: &Output) -> anyhow::Result<()> {
    let (mut command, mut matches) = (root, matches);
    while let Some((name, inner)) = matches.subcommand() {
        let Some(found) = command.find_subcommand(name) else { break };
        (command, matches) = (found, inner);
    }
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        let is_path = argument.get_value_parser().type_id() == TypeId::of::<PathBuf>();
        if !is_path || OUTPUTS.contains(&id) {
            continue;
        }
        let name = argument.get_long().unwrap_or_default();
        let secret = SECRET_FILES.iter().any(|(known, _)| *known == name);
        let holds_keys = name.ends_with("-key-file");
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        for file in values {
            if token_uri(Path::new(file)).is_some() {
                if TOKEN_KEYS.contains(&id) {
                    continue;
                }
                let shown = if name.is_empty() { id.to_uppercase() } else { format!("--{name}") };
                let error = UsageError::new(format!("{shown} takes a file, and not a PKCS#11 URI"));
                return Err(error.with_hint("only keys of CAs can be in a PKCS#11 token").into());
            }
            let unusable =
                if secret { is_not_a_file_name(file) } else { !exists(file) && may_be_secret(&file.to_string_lossy()) };
            if unusable {
                let wanted = if secret || holds_keys {
                    &[name][..]
                } else {
                    &["symmetric-key-file", "group-key-file", "keys-file"]
                };
                let shown = if name.is_empty() { id.to_uppercase() } else { format!("--{name}") };
                return Err(refusal(
                    &format!("the file of {shown} does not exist, and its value may be the secret itself"),
                    &available(command, wanted),
                ));
            }
            if secret || KEY_FILES.contains(&name) {
                note_readable(&format!("--{name}"), Path::new(file), output);
            }
        }
    }
    Ok(())
}

/// Returns the error for a value that may be a secret, without repeating it; `what` names the value.
fn refusal(what: &str, replacements: &[&str]) -> anyhow::Error {
    let error =
        UsageError::new(format!("{what}: other users and the shell's history can see secrets on the command line"));
    let ways: Vec<_> = replacements
        .iter()
        .map(|name| match SECRET_FILES.iter().find(|(known, _)| known == name).and_then(|(_, variable)| *variable) {
            Some(variable) => format!("--{name} FILE or {variable} in the environment"),
            None => format!("--{name} FILE"),
        })
        .collect();
    let hint = if ways.is_empty() {
        "this command takes no secret: see its --help".to_owned()
    } else {
        format!("write the secret to a file that only you can read, and use {}", ways.join(", or "))
    };
    error.with_hint(hint).into()
}

/// Returns the error for an argument that may hold the PIN of a token, without repeating it.
fn pin_refusal(what: &str) -> anyhow::Error {
    UsageError::new(format!("{what}: other users and the shell's history can see secrets on the command line"))
        .with_hint(
            "write the PIN to a file that only you can read, and name it in the PKCS#11 URI: ?pin-source=file:FILE; or \
             omit it to be asked",
        )
        .into()
}

/// Returns whether a text is, or was meant to be, a PKCS#11 URI with a PIN in it. Its scheme and the name of the attribute may
/// be misspelled.
fn names_pin(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let mut parts = text.split(['?', '&', ';', ':']).skip(1);
    let is_uri = text.contains("pkcs") || text.contains("object=") || text.contains("token=");
    is_uri && parts.any(is_pin_attribute) || text.contains("pin-value=")
}

fn is_pin_attribute(attribute: &str) -> bool {
    let Some((name, _)) = attribute.split_once('=') else { return false };
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    name != "pinsource" && (name.contains("pin") || name.contains("pass"))
}

/// Returns those of the options that the command has.
fn available<'a>(command: &Command, names: &[&'a str]) -> Vec<&'a str> {
    let has = |name: &&&str| command.get_arguments().any(|argument| argument.get_long() == Some(**name));
    names.iter().filter(has).copied().collect()
}

/// Returns the command that the arguments select.
fn selected_command<'a>(root: &'a Command, arguments: &[OsString]) -> &'a Command {
    let mut command = root;
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            break;
        }
        let takes_next = match LongOption::read(&text) {
            Some(option) => {
                let known = option.find(command);
                option.value.is_none() && known.is_some_and(|argument| argument.get_action().takes_values())
            }
            None => {
                // The last of several short options may take a value.
                if let Some(short) = text.strip_prefix('-').and_then(|short| short.chars().last()) {
                    let is_it = |argument: &clap::Arg| argument.get_short() == Some(short);
                    command.get_arguments().any(|argument| is_it(argument) && argument.get_action().takes_values())
                } else {
                    command = command.find_subcommand(&*text).unwrap_or(command);
                    false
                }
            }
        };
        if takes_next {
            arguments.next();
        }
    }
    command
}

/// Returns whether an argument is, or contains, the value of an option that takes a secret on purpose: the emulator's
/// `--token`.
fn takes_secret(command: &Command, arguments: &[OsString], index: usize) -> bool {
    let is_token = |argument: Option<&OsString>| {
        let text = argument.map(|argument| argument.to_string_lossy()).unwrap_or_default();
        LongOption::read(&text).is_some_and(|option| {
            option.name == "token" && option.find(command).is_some_and(|known| known.get_action().takes_values())
        })
    };
    let before = index.checked_sub(1).and_then(|before| arguments.get(before));
    let has_value = arguments[index].to_string_lossy().contains('=');
    (has_value && is_token(arguments.get(index))) || is_token(before)
}

/// A long option as written.
struct LongOption<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

impl<'a> LongOption<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix("--").filter(|text| !text.is_empty())?;
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        Some(Self { name, value })
    }

    /// Finds the option of that name in a command.
    fn find<'c>(&self, command: &'c Command) -> Option<&'c clap::Arg> {
        command.get_arguments().find(|argument| {
            argument.get_long() == Some(self.name)
                || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&self.name))
        })
    }

    /// Returns whether the name asks for the PIN of a token.
    fn asks_for_pin(&self) -> bool {
        words(self.name).iter().any(|word| word == "pin")
    }

    /// Returns the options of the command to use instead of one whose name asks for a secret, or `None` for other names.
    fn replacements(&self, command: &Command) -> Option<Vec<&'static str>> {
        let words = words(self.name);
        let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
        if words.last().is_some_and(|last| matches!(last.as_str(), "file" | "path" | "dir")) {
            return None;
        }
        let names: &[&'static str] = if has(&["connection", "connectionstring", "connstr"]) {
            &["connection-string-file"]
        } else if has(&["password", "passwd", "passphrase", "pass", "pwd", "passin", "passout"]) {
            if has(&["new"]) {
                &["new-password-file"]
            } else if has(&["key", "ca", "private"]) {
                &["key-password-file"]
            } else if has(&["pfx", "p12", "pkcs12", "export"]) {
                &["pfx-password-file"]
            } else {
                &["pfx-password-file", "key-password-file"]
            }
        } else if has(&["group", "enrollment", "master"]) && has(&["key", "keys"]) {
            &["group-key-file", "keys-file"]
        } else if has(&["symmetric", "symmetrickey", "primary", "secondary", "device", "shared", "access", "sas"])
            && has(&["key", "keys", "symmetrickey"])
        {
            &["symmetric-key-file", "keys-file", "group-key-file", "connection-string-file"]
        } else if has(&["token", "tokens", "secret", "sas", "bearer", "apikey", "credential", "authorization"])
            || (has(&["api"]) && has(&["key"]))
        {
            if has(&["arm"]) {
                &["arm-token-file"]
            } else {
                &["token-file", "arm-token-file", "symmetric-key-file", "group-key-file", "connection-string-file"]
            }
        } else if words == ["key"] && self.find(command).is_none() {
            let names = available(command, &["symmetric-key-file", "group-key-file"]);
            return (!names.is_empty()).then_some(names);
        } else {
            return None;
        };
        let mut names = available(command, names);
        if names.is_empty() {
            names = available(command, &["token-file"]);
        }
        // The first is the most likely one; the second is about as likely.
        names.truncate(2);
        Some(names)
    }
}

/// Splits the name of an option into lower-case words: `--sas-key`, `--sas_key` and `--sasKey` are the same.
fn words(name: &str) -> Vec<String> {
    let mut text = String::new();
    let mut after_lower = false;
    for character in name.chars() {
        if character.is_ascii_uppercase() && after_lower {
            text.push('-');
        }
        after_lower = character.is_ascii_lowercase() || character.is_ascii_digit();
        text.push(character.to_ascii_lowercase());
    }
    text.split(['-', '_', '.']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Returns whether a value names an existing file, or standard input.
fn exists(value: &OsStr) -> bool {
    value == "-" || fs::symlink_metadata(value).is_ok()
}

/// Returns whether a value names no file and does not look like a file name.
fn is_not_a_file_name(value: &OsStr) -> bool {
    if exists(value) {
        return false;
    }
    let text = value.to_string_lossy();
    let ordinary = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '\\' | ':' | '~');
    let is_path = text.contains(['/', '\\', '.']);
    let random = |part: &str| part.len() > 24 && part.contains(|c: char| c.is_ascii_digit()) && !part.contains('.');
    is_secret(&text)
        || may_be_secret(&text)
        || !text.chars().all(ordinary)
        || text.split(['/', '\\']).any(random)
        || (!is_path && text.contains(|c: char| c.is_ascii_digit()))
}

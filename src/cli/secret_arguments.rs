//! Secrets on the command line, where other users and the shell's history see them: refused, and never repeated.
//!
//! Three places could repeat one: the parser's own messages, an error that names a file that is not there, and an error
//! that quotes an invalid value. So the arguments are searched before they are parsed ([`check`]), the parser's error is
//! replaced if it quotes what may be a secret ([`conceal`]), and the values of options that name files of secrets are
//! checked before they are opened ([`check_files`]).

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use clap::{ArgMatches, Command, error::ContextValue};

use super::output::{Output, Usage};

/// The options that name a file with a secret, and the environment variables that can hold the secret in its place.
const SECRET_FILES: [(&str, Option<&str>); 8] = [
    ("token-file", Some("IOT_ENROLL_TOKEN")),
    ("arm-token-file", Some("IOT_ENROLL_ARM_TOKEN")),
    ("connection-string-file", Some("IOT_ENROLL_DPS_CONNECTION_STRING")),
    ("pfx-password-file", Some("IOT_ENROLL_PFX_PASSWORD")),
    ("key-password-file", Some("IOT_ENROLL_KEY_PASSWORD")),
    ("group-key-file", Some("IOT_ENROLL_GROUP_KEY")),
    ("symmetric-key-file", None),
    ("keys-file", None),
];

/// The options that name a file with a private key.
const KEY_FILES: [&str; 2] = ["ca-key", "key"];

/// Refuses a command line with a secret in it: an option such as `--token`, which people guess, or a value that is
/// certainly a token or a key.
pub(super) fn check(root: &Command, arguments: &[OsString]) -> anyhow::Result<()> {
    let command = addressed(root, arguments);
    let mut options_end = false;
    for (index, argument) in arguments.iter().enumerate().skip(1) {
        let text = argument.to_string_lossy();
        let option = if options_end { None } else { LongOption::read(&text) };
        options_end |= text == "--";
        let known = option.as_ref().and_then(|option| option.find(command));
        if let Some(option) = &option {
            let takes_value = known.is_some_and(|argument| argument.get_action().takes_values());
            if let (false, Some(wanted)) = (takes_value, option.wanted(command)) {
                // A flag of that name is one, without a value.
                if known.is_none() || option.value.is_some() {
                    return Err(refused(&format!("--{} is not accepted", option.name), &wanted));
                }
            }
        }
        let value = option.as_ref().map_or(Some(&*text), |option| option.value);
        let value = if is_certain(&text) { Some(&*text) } else { value };
        if value.is_some_and(is_certain) && !takes_secret(command, arguments, index) {
            return Err(refused(
                "a token or a key is not accepted as an argument",
                &offered(command, &["token-file", "arm-token-file", "connection-string-file"]),
            ));
        }
    }
    Ok(())
}

/// Replaces an error of the parser that quotes what may be a secret.
pub(super) fn conceal(root: &Command, arguments: &[OsString], error: clap::Error) -> anyhow::Error {
    let command = addressed(root, arguments);
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
            return refused("a value after an option that takes none is not accepted", &wanted);
        }
        if value.is_some_and(|value| may_be_secret(value) && quotes(value)) {
            let all = SECRET_FILES.map(|(name, _)| name);
            return refused("a value that may be a secret is not accepted", &offered(command, &all));
        }
        after_secret_flag = option.and_then(|option| option.wanted(command));
    }
    error.into()
}

/// Checks the files that options name for secrets: a secret instead of a file name is refused, and a file that other users
/// can read is noted.
pub(super) fn check_files(root: &Command, matches: &ArgMatches, output: &Output) -> anyhow::Result<()> {
    let (mut command, mut matches) = (root, matches);
    while let Some((name, inner)) = matches.subcommand() {
        let Some(found) = command.find_subcommand(name) else { break };
        (command, matches) = (found, inner);
    }
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long() else { continue };
        let secret = SECRET_FILES.iter().any(|(known, _)| *known == name);
        if !secret && !KEY_FILES.contains(&name) {
            continue;
        }
        let Ok(Some(mut values)) = matches.try_get_raw(argument.get_id().as_str()) else { continue };
        let Some(file) = values.next() else { continue };
        if (secret && is_no_file(file)) || (!secret && !exists(file) && may_be_secret(&file.to_string_lossy())) {
            let wanted = if secret { &[name][..] } else { &["symmetric-key-file", "group-key-file"] };
            return Err(refused(
                &format!("--{name} names no file that exists, and its value may be the secret itself"),
                &offered(command, wanted),
            ));
        }
        note_readable(name, Path::new(file), output);
    }
    Ok(())
}

/// Refuses to use a value that may be a secret, without repeating it; `what` names what may be one.
fn refused(what: &str, wanted: &[&str]) -> anyhow::Error {
    let text = format!("{what}: a secret on the command line can be seen by other users and in the shell's history");
    let ways: Vec<_> = wanted
        .iter()
        .map(|name| match SECRET_FILES.iter().find(|(known, _)| known == name).and_then(|(_, variable)| *variable) {
            Some(variable) => format!("--{name} FILE or {variable} in the environment"),
            None => format!("--{name} FILE"),
        })
        .collect();
    if ways.is_empty() {
        return Usage::with_hint(text, "this command takes no secret: see its --help");
    }
    Usage::with_hint(text, format!("write the secret to a file that only you can read, and use {}", ways.join(", or ")))
}

/// Those of the options that the command has; an option that it has in any case comes first.
fn offered<'a>(command: &Command, names: &[&'a str]) -> Vec<&'a str> {
    let has = |name: &&&str| command.get_arguments().any(|argument| argument.get_long() == Some(**name));
    names.iter().filter(has).copied().collect()
}

/// The command that the arguments address.
fn addressed<'a>(root: &'a Command, arguments: &[OsString]) -> &'a Command {
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

/// Whether an argument is, or has, the value of an option that takes a secret on purpose: the emulator's own token.
fn takes_secret(command: &Command, arguments: &[OsString], index: usize) -> bool {
    let is_such = |argument: Option<&OsString>| {
        let text = argument.map(|argument| argument.to_string_lossy()).unwrap_or_default();
        LongOption::read(&text).is_some_and(|option| {
            option.name == "token" && option.find(command).is_some_and(|known| known.get_action().takes_values())
        })
    };
    let before = index.checked_sub(1).and_then(|before| arguments.get(before));
    let has_value = arguments[index].to_string_lossy().contains('=');
    (has_value && is_such(arguments.get(index))) || is_such(before)
}

/// A long option as it is written.
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

    /// The option of that name that the command has.
    fn find<'c>(&self, command: &'c Command) -> Option<&'c clap::Arg> {
        command.get_arguments().find(|argument| {
            argument.get_long() == Some(self.name)
                || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&self.name))
        })
    }

    /// The options of the command to use in place of one whose name asks for a secret; nothing for other names.
    fn wanted(&self, command: &Command) -> Option<Vec<&'static str>> {
        let words = words(self.name);
        let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
        if words.last().is_some_and(|last| matches!(last.as_str(), "file" | "path" | "dir")) {
            return None;
        }
        let names: &[&'static str] = if has(&["connection", "connectionstring", "connstr"]) {
            &["connection-string-file"]
        } else if has(&["password", "passwd", "passphrase", "pass", "pwd", "passin", "passout"]) {
            if has(&["key", "ca", "private"]) {
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
            let names = offered(command, &["symmetric-key-file", "group-key-file"]);
            return (!names.is_empty()).then_some(names);
        } else {
            return None;
        };
        let mut names = offered(command, names);
        if names.is_empty() {
            names = offered(command, &["token-file"]);
        }
        // The first is the most likely one; the second is named beside it where both are as likely.
        names.truncate(2);
        Some(names)
    }
}

/// The words of an option's name, in lower case: of `--sas-key`, `--sas_key` and `--sasKey` the same.
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

/// Whether a text is a secret by its form: a SAS token, a bearer token, a JSON Web Token, a connection string, a private
/// key.
pub(super) fn is_certain(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'']);
    let lower = text.to_ascii_lowercase();
    let bearer = lower.strip_prefix("bearer ").map(str::trim);
    lower.starts_with("sharedaccesssignature")
        || (lower.contains("sig=") && (lower.contains("sr=") || lower.contains("se=")))
        || bearer.is_some_and(|token| token.len() >= 16 && !token.contains(char::is_whitespace))
        || ["sharedaccesskey=", "accountkey=", "private key-----"].iter().any(|part| lower.contains(part))
        || is_json_web_token(text)
}

/// RFC 7519 section 3: base64url parts with dots between them. The first is the header, a JSON object.
fn is_json_web_token(text: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.starts_with("eyJ")
        && text.len() >= 20
        && (2..=5).contains(&text.split('.').count())
        && text.bytes().all(|byte| is_base64url(byte) || byte == b'.')
}

/// Whether a text may be a key or a password rather than a wrong value of another kind.
pub(super) fn may_be_secret(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
    let has = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    let random =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit) || text.ends_with('=');
    let user_info = text.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().unwrap_or("").contains('@'));
    is_certain(text) || user_info || (text.len() >= 24 && text.bytes().all(is_base64) && random)
}

/// Whether a value names a file, or standard input.
fn exists(value: &OsStr) -> bool {
    value == "-" || fs::symlink_metadata(value).is_ok()
}

/// Whether a value that should name a file names none and does not look like a file's name.
fn is_no_file(value: &OsStr) -> bool {
    if exists(value) {
        return false;
    }
    let text = value.to_string_lossy();
    let ordinary = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '\\' | ':' | '~');
    let is_path = text.contains(['/', '\\', '.']);
    let random = |part: &str| part.len() > 24 && part.contains(|c: char| c.is_ascii_digit()) && !part.contains('.');
    is_certain(&text)
        || may_be_secret(&text)
        || !text.chars().all(ordinary)
        || text.split(['/', '\\']).any(random)
        || (!is_path && text.contains(|c: char| c.is_ascii_digit()))
}

/// Notes that other users can read a file with a secret.
#[cfg(unix)]
fn note_readable(option: &str, file: &Path, output: &Output) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(found) = fs::metadata(file) else { return };
    let mode = found.permissions().mode() & 0o777;
    if found.is_file() && mode & 0o077 != 0 {
        let file = file.display();
        output.note(format_args!(
            "other users have access to {file}, the secret that --{option} names (mode {mode:04o}): run `chmod 600 {file}`"
        ));
    }
}

/// Access rules are not in the mode of a file elsewhere.
#[cfg(not(unix))]
fn note_readable(_: &str, _: &Path, _: &Output) {}

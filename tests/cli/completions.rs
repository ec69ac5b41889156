//! Completion scripts, run in the shells that are installed.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Run, program};
use tempfile::TempDir;

/// What is typed before the Tab key, and the word that it is completed to: a subcommand, a subcommand of a command with a
/// hyphen in its name, and options.
const TYPED: [(&str, &str); 5] = [
    ("iot-enroll provis", "provision"),
    ("iot-enroll cert th", "thumbprint"),
    ("iot-enroll cert thumbprint --sh", "--sha256"),
    ("iot-enroll enrollment-group certificate gen", "generate-code"),
    ("iot-enroll enrollment-group certificate set --fi", "--file"),
];

/// What bash does when Tab is pressed.
const TAB_IN_BASH: &str = r#"
    source ./script
    spec=$(complete -p iot-enroll) && spec=${spec#*-F } && function=${spec%% *}
    for line in "$@"; do
        COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
        "$function" iot-enroll "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[*]}"
    done"#;

/// An interactive zsh behind a pseudo-terminal. The marker is written apart, so that its echo is not taken for it.
const TAB_IN_ZSH: &str = r#"
    zmodload zsh/zpty || exit 1
    zpty shell zsh -f -i
    zpty -w shell 'autoload -Uz compinit && compinit -u -D && source ./script'
    zpty -w shell 'show() { zle complete-word; print -r -- "<""<$BUFFER>>"; zle kill-whole-line }'
    zpty -w shell 'zle -N show; bindkey "^T" show'
    for line in "$@"; do
        zpty -w -n shell "$line"$'\C-t'
        zpty -r shell output '*<<*>>*'
        print -r -- ${${output##*<<}%%>>*}
    done
    zpty -d shell"#;

fn script(shell: &str) -> String {
    Run::of(program(Path::new(".")).args(["completions", shell])).ok()
}

/// A directory with the script of a shell as the file `script`.
fn directory(shell: &str) -> TempDir {
    let directory = crate::support::temporary_directory();
    fs::write(directory.path().join("script"), script(shell)).expect("written");
    directory
}

/// What a shell prints, line by line; nothing where it is not installed.
fn lines(shell: &str, directory: &Path, arguments: &[&str]) -> Option<Vec<String>> {
    let mut command = Command::new(shell);
    command.current_dir(directory).env("HOME", directory).stdin(Stdio::null()).args(arguments);
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
        }
        Err(error) => {
            crate::skipped(format_args!("{shell} cannot be run: {error}"));
            None
        }
    }
}

#[test]
fn there_is_a_script_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(script(shell).contains("thumbprint"), "{shell}");
    }
}

#[test]
fn bash_completes_subcommands_and_options() {
    let directory = directory("bash");
    let typed = TYPED.map(|(typed, _)| typed);
    let arguments = [&["--norc", "-c", TAB_IN_BASH, "bash"], &typed[..]].concat();
    if let Some(lines) = lines("bash", directory.path(), &arguments) {
        assert_eq!(lines, TYPED.map(|(_, word)| word));
    }
}

#[test]
fn fish_completes_subcommands_and_options() {
    let directory = directory("fish");
    for (typed, word) in TYPED {
        let command = format!("source script; complete -C '{typed}'");
        let Some(lines) = lines("fish", directory.path(), &["--no-config", "-c", &command]) else { return };
        assert!(lines.iter().any(|line| line.split('\t').next() == Some(word)), "{typed}: {lines:?}");
    }
}

#[test]
fn zsh_completes_subcommands_and_options() {
    let directory = directory("zsh");
    let typed = TYPED.map(|(typed, _)| typed);
    let arguments = [&["-f", "-c", TAB_IN_ZSH, "zsh"], &typed[..]].concat();
    if let Some(lines) = lines("zsh", directory.path(), &arguments) {
        // A value can follow the option after an equals sign, which zsh adds.
        let completed: Vec<_> = lines.iter().filter_map(|line| line.split_whitespace().last()).collect();
        let completed: Vec<_> = completed.iter().map(|word| word.trim_end_matches('=')).collect();
        assert_eq!(completed, TYPED.map(|(_, word)| word), "{lines:?}");
    }
}

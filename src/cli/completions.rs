//! `completions`: scripts for shells.

use std::fmt::{self, Write};

use clap::{ArgAction, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output::Output};

/// How the generator for bash spells the program's name where a subcommand follows it, and how it spells it where it sets
/// the variable that it compares with that. With a hyphen in the name the two differ, so that no subcommand is completed
/// (<https://github.com/clap-rs/clap/issues/6421>). Once that is fixed there is nothing to replace.
const MISSPELLED: &str = "iot__subcmd__enroll__subcmd__";
const SPELLED: &str = "iot__enroll__subcmd__";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll completions bash > ~/.local/share/bash-completion/completions/iot-enroll
  iot-enroll completions zsh > ~/.zfunc/_iot-enroll
  iot-enroll completions fish > ~/.config/fish/completions/iot-enroll.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "iot-enroll", &mut script);
        match self.shell {
            Shell::Bash => script = String::from_utf8(script)?.replace(MISSPELLED, SPELLED).into_bytes(),
            Shell::Fish => script.extend(innermost_options(&Cli::command())?.into_bytes()),
            _ => {}
        }
        Output::raw(&script)
    }
}

/// The options of commands such as `enrollment-group certificate set`, for fish. The generator stops at the second word
/// (<https://github.com/clap-rs/clap/issues/5975>).
fn innermost_options(root: &Command) -> Result<String, fmt::Error> {
    let mut script = String::new();
    for first in root.get_subcommands() {
        for second in first.get_subcommands() {
            for third in second.get_subcommands() {
                let (first, second) = (first.get_name(), second.get_name());
                let condition = format!(
                    "__fish_iot_enroll_using_subcommand {first}; and __fish_seen_subcommand_from {second}; and \
                     __fish_seen_subcommand_from {}",
                    third.get_name()
                );
                for option in third.get_arguments() {
                    let Some(long) = option.get_long() else { continue };
                    let about = option.get_help().map(ToString::to_string).unwrap_or_default().replace('\'', "\\'");
                    write!(script, "complete -c iot-enroll -n \"{condition}\" -l {long} -d '{about}'")?;
                    if matches!(option.get_action(), ArgAction::Set | ArgAction::Append) {
                        script.push_str(" -r");
                        let values: Vec<_> =
                            option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
                        if !values.is_empty() {
                            write!(script, " -f -a \"{}\"", values.join(" "))?;
                        }
                    }
                    script.push('\n');
                }
            }
        }
    }
    Ok(script)
}

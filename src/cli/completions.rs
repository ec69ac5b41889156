//! `completions`: completion scripts for shells.

use std::fmt::{self, Write};

use clap::{ArgAction, Command};
use clap_complete::Shell;

use super::output::Output;

/// The generator for bash writes the name of the program in two ways if it has a hyphen: in the state variable and in the
/// patterns that it is compared with. No subcommand is completed then (<https://github.com/clap-rs/clap/issues/6421>).
const BASH_PATTERN_PREFIX: &str = "iot__subcmd__enroll__subcmd__";
const BASH_STATE_PREFIX: &str = "iot__enroll__subcmd__";

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll completions bash > ~/.local/share/bash-completion/completions/iot-enroll
  iot-enroll completions zsh > ~/.zfunc/_iot-enroll
  iot-enroll completions fish > ~/.config/fish/completions/iot-enroll.fish")]
pub(super) struct Completions {
    /// Shell to generate the script for
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "iot-enroll", &mut script);
        match self.shell {
            Shell::Bash => {
                script = String::from_utf8(script)?.replace(BASH_PATTERN_PREFIX, BASH_STATE_PREFIX).into_bytes();
            }
            Shell::Fish => script.extend(third_level_options(command)?.into_bytes()),
            _ => {}
        }
        Output::raw(&script)
    }
}

/// Returns completions for the options of commands such as `enrollment-group certificate set`. The generator for fish stops
/// at the second word (<https://github.com/clap-rs/clap/issues/5975>).
fn third_level_options(root: &Command) -> Result<String, fmt::Error> {
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

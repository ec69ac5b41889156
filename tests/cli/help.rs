//! What `--help` says, through the program.

use std::path::Path;

use crate::support::{Run, program};

fn help(command: &[&str]) -> String {
    Run::of(program(Path::new(".")).args(command).arg("--help")).ok()
}

/// The options under a heading.
fn options<'a>(help: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = help.lines().skip_while(|line| *line != format!("{heading}:"));
    lines.next().unwrap_or_else(|| panic!("no {heading} in {help}"));
    lines
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .filter_map(|line| line.trim_start().strip_prefix("--")?.split(' ').next())
        .collect()
}

#[test]
fn help_has_no_markup() {
    for command in [
        &["provision"][..],
        &["rollover"],
        &["emulator"],
        &["device", "register"],
        &["device", "import"],
        &["cert", "expiring"],
        &["cert", "inspect"],
        &["cert", "fleet"],
        &["enrollment-group", "create"],
    ] {
        let help = help(command);
        assert!(!help.contains('`') && !help.contains("]("), "{help}");
    }
}

#[test]
fn the_provisioning_service_s_options_are_by_themselves() {
    for command in [&["provision"][..], &["device", "register"]] {
        assert_eq!(options(&help(command), "Provisioning service"), ["id-scope", "dps-endpoint"]);
    }
}

#[test]
fn the_exit_statuses_of_what_asks_for_ends_are_told() {
    for command in ["expiring", "inspect"] {
        assert!(help(&["cert", command]).contains("exit status is"), "{command}");
    }
}

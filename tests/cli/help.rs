//! The text of `--help`.

use std::{path::Path, sync::LazyLock};

use crate::support::{Run, program};

fn help(command: &[&str]) -> String {
    // The width of a terminal of 80 columns.
    Run::of(program(Path::new(".")).args(command).arg("--help").env("COLUMNS", "80")).ok()
}

/// Returns the options under a heading.
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
fn provisioning_options_have_their_own_heading() {
    for command in [&["provision"][..], &["device", "register"]] {
        assert_eq!(options(&help(command), "Provisioning service"), ["id-scope", "dps-endpoint"]);
    }
}

#[test]
fn exit_statuses_are_documented() {
    for command in ["expiring", "inspect"] {
        assert!(help(&["cert", command]).contains("exit status is"), "{command}");
    }
}

/// The words of every command, and its help.
static COMMANDS: LazyLock<Vec<(Vec<String>, String)>> = LazyLock::new(|| {
    let (mut found, mut pending) = (Vec::new(), vec![Vec::new()]);
    while let Some(command) = pending.pop() {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        let text = help(&words);
        let inner = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        // A description that is too long for its line continues with a deeper indent.
        let inner =
            inner.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        for name in inner.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
            pending.push([&command[..], &[name.to_owned()]].concat());
        }
        found.push((command, text));
    }
    assert!(found.len() > 50, "{found:?}");
    found
});

#[test]
fn options_are_under_the_right_heading() {
    let service = ["app", "endpoint", "token-file", "entra", "tls-ca", "api-version", "rate"];
    let instance = [
        "dps",
        "subscription",
        "resource-group",
        "arm-token-file",
        "connection-string-file",
        "arm-endpoint",
        "arm-api-version",
    ];
    let making = ["dir", "days", "algorithm", "pfx", "pfx-password-file", "pfx-legacy", "no-pfx", "force"];
    let mut seen = [0, 0, 0];
    for (command, text) in &*COMMANDS {
        for (index, (heading, allowed)) in
            [("Service", &service[..]), ("DPS instance", &instance), ("Certificates", &making)].into_iter().enumerate()
        {
            if text.contains(&format!("\n{heading}:\n")) {
                let found = options(text, heading);
                assert!(found.iter().all(|option| allowed.contains(option)), "{command:?}: {found:?}");
                seen[index] += 1;
            }
        }
    }
    assert!(seen[0] > 30 && seen[1] > 15 && seen[2] >= 5, "{seen:?}");
}

#[test]
fn examples_can_be_pasted_and_use_existing_options() {
    let mut count = 0;
    for (command, text) in COMMANDS.iter().filter(|(command, _)| !command.is_empty()) {
        let mut continued = false;
        let examples = text.lines().skip_while(|line| !matches!(*line, "Example:" | "Examples:")).skip(1);
        for line in examples.filter(|line| !line.is_empty()) {
            let begins = format!("  iot-enroll {}", command.join(" "));
            assert!(continued || line.starts_with(&begins), "{command:?}: {line:?} is no command");
            continued = line.ends_with('\\');
            // The options of another program in a pipe are not ours.
            for option in
                line.split(['|', '>']).next().unwrap_or_default().split(' ').filter(|word| word.starts_with("--"))
            {
                assert!(text.contains(&format!(" {option}")), "{command:?} has no {option}");
            }
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

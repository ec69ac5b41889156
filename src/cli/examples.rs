//! Line breaks in the examples of help, so that a terminal does not wrap them and they can be pasted.

use clap::Command;

/// The maximum width of a line, in characters, for a terminal of 80 columns.
const WIDTH: usize = 79;

/// The start of a line with an example, and of a line that continues one.
const BEGIN: &str = "  iot-enroll ";
const CONTINUED: &str = "      ";

/// Breaks the examples of a command and its subcommands. A broken line ends with a backslash.
pub(super) fn break_lines(command: Command) -> Command {
    let command = command.mut_subcommands(break_lines);
    let Some(examples) = command.get_after_help().map(ToString::to_string) else { return command };
    // First join the lines of each example.
    let examples = examples.replace("\\\n", " ");
    let lines = examples.lines().map(|line| if line.starts_with(BEGIN) { broken(line) } else { line.to_owned() });
    command.after_help(lines.collect::<Vec<_>>().join("\n"))
}

fn broken(line: &str) -> String {
    let (mut text, mut width) = (String::new(), 0);
    for word in words(line) {
        if text.is_empty() {
            text.push_str("  ");
            width = 2;
        } else if width + 1 + word.chars().count() > WIDTH - 2 {
            text.push_str(" \\\n");
            text.push_str(CONTINUED);
            width = CONTINUED.len();
        } else {
            text.push(' ');
            width += 1;
        }
        text.push_str(&word);
        width += word.chars().count();
    }
    text
}

/// Splits a command into words. An option and its value are one word, as are `>` and its file, and quoted spaces are
/// part of a word.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for character in line.chars().chain([' ']) {
        match (character, quote) {
            (' ', None) if word.is_empty() => {}
            (' ', None) => {
                let value = !word.starts_with('-') && !matches!(word.as_str(), "|" | ">");
                let takes_value = |last: &String| *last == ">" || (last.starts_with("--") && !last.contains(' '));
                match words.last_mut().filter(|last| value && takes_value(last)) {
                    Some(option) => {
                        option.push(' ');
                        option.push_str(&word);
                    }
                    None => words.push(std::mem::take(&mut word)),
                }
                word.clear();
            }
            _ => {
                match quote {
                    None if matches!(character, '\'' | '"') => quote = Some(character),
                    Some(open) if open == character => quote = None,
                    _ => {}
                }
                word.push(character);
            }
        }
    }
    words
}

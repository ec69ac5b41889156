//! Runs every command that README.md and docs/ show.
//!
//! Fenced blocks in `sh` hold commands, one a line. Fenced blocks in `console` hold commands after `$ ` and what they
//! print, standard error included; a line `…` stands for any lines. The commands of a page run in order, in one shell and one
//! directory, against an emulator of their own, as [`Page::substituted`] says. The word after the language can be
//!
//! - `no_run`: the commands need what a test does not have; [`NOT_RUN`] lists them
//! - `status=N`: the last command of the block exits with that status instead of 0
//! - `needs=PROGRAM`: the block is skipped if that program is not installed
//!
//! `IOT_ENROLL_DOCS_UPDATE=1 cargo test --test cli documentation` writes what the commands print into the pages.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::TcpListener,
    ops::Range,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    thread,
};

use regex::Regex;

use crate::support::{Run, program, service::Service};

/// The beginnings of commands that no test can run.
const NOT_RUN: [&str; 13] = [
    "cargo install ",
    "cargo test",
    "cargo build --release &&",
    "cargo bench ",
    "cargo tree ",
    "cargo doc ",
    "cargo run --example ",
    "docker ",
    "podman ",
    "packaging/build",
    "sudo ",
    "tar -xzf ",
    "python3 -m esp_idf_nvs_partition_gen ",
];

/// What differs between two runs, and what stands for it in the comparison.
const NORMALISED: [(&str, &str); 10] = [
    (r"[0-9A-F]{64}", "SHA-256"),
    (r"[0-9A-F]{40}", "SHA-1"),
    (r"-[0-9A-F]{16}\b", "-BEGINNING"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b\d{4}-\d\d-\d\d(T[0-9:.]+Z)?( \d\d:\d\d(:\d\d)?)?", "DATE"),
    (r"^etag( +)\S+$", "etag${1}ETAG"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"\b0ne[0-9A-F]{8}\b", "SCOPE"),
    (r#"SharedAccessSignature [^"' ]+"#, "TOKEN"),
    (r"\b([0-9a-f]{2}:){7,}[0-9a-f]{2}\b|\b[0-9A-F]{30,39}\b", "SERIAL"),
];

/// A command and what the page says that it prints.
struct Step {
    /// The line of its last word, from 0.
    line: usize,
    command: String,
    status: i32,
    /// Nothing in a block that shows commands only.
    output: Option<Vec<String>>,
    /// The lines of the output, from 0.
    output_lines: Range<usize>,
}

struct Page {
    path: PathBuf,
    lines: Vec<String>,
    steps: Vec<Step>,
    not_run: Vec<String>,
}

/// Where the commands of a page run.
struct Place {
    endpoint: String,
    id_scope: String,
    port: u16,
    directory: PathBuf,
}

impl Page {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).expect("a page");
        let mut page = Self { path, lines: text.lines().map(str::to_owned).collect(), steps: vec![], not_run: vec![] };
        let mut fence: Option<(usize, String)> = None;
        for number in 0..page.lines.len() {
            let Some(info) = page.lines[number].trim_start().strip_prefix("```") else { continue };
            match fence.take() {
                None => fence = Some((number + 1, info.trim().to_owned())),
                Some((begin, info)) => page.add_block(begin..number, &info),
            }
        }
        assert!(fence.is_none(), "{}: a block does not end", page.path.display());
        page
    }

    fn add_block(&mut self, block: Range<usize>, info: &str) {
        let mut words = info.split_whitespace();
        let language = words.next().unwrap_or_default();
        let attribute = words.next().unwrap_or_default();
        let shows_output = match language {
            "console" => true,
            "sh" => false,
            _ => {
                for line in &self.lines[block] {
                    let command = line.trim_start().trim_start_matches("$ ");
                    assert!(
                        !command.starts_with("iot-enroll ") && !command.starts_with("cargo "),
                        "{}: a command in a block that is neither sh nor console: {line}",
                        self.path.display()
                    );
                }
                return;
            }
        };
        let first = self.steps.len();
        let mut number = block.start;
        while number < block.end {
            let line = &self.lines[number];
            let begins = if shows_output { line.strip_prefix("$ ") } else { Some(line.as_str()) };
            let Some(begins) = begins.filter(|line| !line.is_empty() && !line.starts_with('#')) else {
                if shows_output {
                    let step = self.steps[first..].last_mut().expect("a command before its output");
                    step.output.get_or_insert_default().push(line.clone());
                    step.output_lines.end = number + 1;
                }
                number += 1;
                continue;
            };
            let mut command = begins.to_owned();
            while command.ends_with('\\') {
                number += 1;
                command.push('\n');
                command.push_str(&self.lines[number]);
            }
            number += 1;
            self.steps.push(Step {
                line: number - 1,
                command,
                status: 0,
                output: shows_output.then(Vec::new),
                output_lines: number..number,
            });
        }
        if attribute == "no_run" {
            self.not_run.extend(self.steps.drain(first..).map(|step| step.command));
        } else if let Some(needed) = attribute.strip_prefix("needs=") {
            // Tokens take a feature of the program too.
            let lacks_feature = needed == "softhsm2-util" && !cfg!(feature = "pkcs11");
            if !is_installed(needed) || lacks_feature {
                let why = if lacks_feature { "the feature pkcs11 is not built" } else { "it is not installed" };
                let skipped: Vec<_> = self.steps.drain(first..).map(|step| step.command).collect();
                crate::skipped(format_args!("{needed}: {why}: {skipped:?}"));
            }
        } else if let Some(status) = attribute.strip_prefix("status=") {
            self.steps.last_mut().expect("a command").status = status.parse().expect("a status");
        } else {
            assert_eq!(attribute, "", "{}: {info}", self.path.display());
        }
    }

    /// What stands for what in a command: the application, ID scope and port of the pages are the emulator's.
    fn substituted(command: &str, place: &Place) -> String {
        command
            .replace("cargo run -- ", "iot-enroll ")
            .replace("--app contoso", &format!("--app {}", place.endpoint))
            .replace("IOT_ENROLL_APP=contoso", &format!("IOT_ENROLL_APP={}", place.endpoint))
            .replace("contoso-dps", "emulated-dps")
            .replace("0ne00A1B2C3", &place.id_scope)
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", place.port))
            // That of MQTT, which another test may use.
            .replace("127.0.0.1:8883", "127.0.0.1:0")
    }

    /// The reverse, for what was printed.
    fn restored(output: &str, place: &Place) -> String {
        output
            .replace(&format!("--app {}", place.endpoint), "--app contoso")
            .replace("emulated-dps", "contoso-dps")
            .replace(&place.endpoint, "https://contoso-dps.azure-devices-provisioning.net")
            .replace(&place.id_scope, "0ne00A1B2C3")
            .replace(&format!("127.0.0.1:{}", place.port), "127.0.0.1:8080")
            .replace(&format!("{}/", place.directory.display()), "/home/you/")
    }

    /// Runs the commands. Returns what is wrong.
    fn run(&mut self, update: bool) -> Vec<String> {
        let root = crate::support::temporary_directory();
        let (directory, results) = (root.path().join("work"), root.path().join("results"));
        let programs = root.path().join("bin");
        for created in [&directory, &results, &programs] {
            fs::create_dir(created).expect("a directory");
        }
        symlink(env!("CARGO_BIN_EXE_iot-enroll"), programs.join("iot-enroll")).expect("a link");
        let ca = root.path().join("emulator-ca.pem");
        let ca_text = ca.to_str().expect("UTF-8");
        let service = Service::with(&[
            "--tls",
            "--ca-out",
            ca_text,
            "--rate",
            "1000000",
            "--assign-after",
            "0",
            "--retry-after",
            "0",
        ]);
        fs::write(directory.join("token"), &service.token).expect("written");
        fs::set_permissions(directory.join("token"), fs::Permissions::from_mode(0o600)).expect("its mode");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let place = Place {
            endpoint: service.endpoint.clone(),
            id_scope: service.first_line["idScope"].as_str().expect("an ID scope").to_owned(),
            port: free.port(),
            directory: directory.clone(),
        };

        let mut script = "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
        for (index, step) in self.steps.iter().enumerate() {
            let command = Self::substituted(&step.command, &place);
            let result = results.join(index.to_string());
            let result = result.display();
            writeln!(script, "{{ {command}\n}} >{result}.output 2>&1 </dev/null; echo $? >{result}.status")
                .expect("text");
        }
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH"));
        // Of the environment only what is named here: the tokens, and the services in place of the public ones.
        let ran = Command::new("timeout")
            .args(["120", "bash", "-c", &script])
            .current_dir(&directory)
            .env_clear()
            .env("PATH", path)
            .env("HOME", &directory)
            .env("SSL_CERT_FILE", &ca)
            .env("IOT_ENROLL_DPS_ENDPOINT", &service.endpoint)
            .env("IOT_ENROLL_TOKEN", &service.token)
            .env("IOT_ENROLL_ARM_ENDPOINT", service.text("/arm/endpoint"))
            .env("IOT_ENROLL_ARM_TOKEN", service.text("/arm/token"))
            .output()
            .expect("bash runs");
        let mut failures = vec![];
        if !ran.status.success() {
            failures.push(format!("{}: {}", self.path.display(), String::from_utf8_lossy(&ran.stderr)));
        }
        let mut changes = vec![];
        for (index, step) in self.steps.iter().enumerate() {
            let read = |what| fs::read_to_string(results.join(format!("{index}.{what}"))).unwrap_or_default();
            let output = Self::restored(&read("output"), &place);
            let at = format!("{}:{}: {}", self.path.display(), step.line + 1, step.command);
            if read("status").trim() != step.status.to_string() {
                failures.push(format!("{at}\nexits with {}\n{output}", read("status").trim()));
                continue;
            }
            let Some(expected) = &step.output else { continue };
            let found: Vec<_> = output.lines().map(str::to_owned).collect();
            if !is_shown(expected, &found) {
                if update && !expected.iter().any(|line| line == "…") {
                    changes.push((step.output_lines.clone(), found));
                } else {
                    failures.push(format!("{at}\nshown:\n{}\nprinted:\n{output}", expected.join("\n")));
                }
            }
        }
        if !changes.is_empty() {
            for (lines, found) in changes.into_iter().rev() {
                self.lines.splice(lines, found);
            }
            fs::write(&self.path, self.lines.join("\n") + "\n").expect("written");
        }
        failures
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether the lines were printed, and between two `…` nothing else.
fn is_shown(expected: &[String], found: &[String]) -> bool {
    let normal = |lines: &[String]| lines.iter().map(|line| normalised(line)).collect::<Vec<_>>();
    let (expected, found) = (normal(expected), normal(found));
    let mut parts = expected.split(|line| line == "…");
    let Some(mut rest) = parts.next().and_then(|first| found.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = (0..=rest.len()).find(|at| rest[*at..].starts_with(part)) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

fn normalised(line: &str) -> String {
    // Compiling a pattern takes longer than all lines do.
    static PATTERNS: LazyLock<Vec<(Regex, &str)>> =
        LazyLock::new(|| NORMALISED.map(|(pattern, with)| (Regex::new(pattern).expect("a pattern"), with)).to_vec());
    PATTERNS
        .iter()
        .fold(line.trim_end().to_owned(), |line, (pattern, with)| pattern.replace_all(&line, *with).into_owned())
}

fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md")];
    let docs = fs::read_dir(root.join("docs")).expect("docs/");
    paths.extend(
        docs.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension().is_some_and(|it| it == "md")),
    );
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

#[test]
fn every_command_that_is_shown_runs_and_prints_what_is_shown() {
    if !cfg!(target_os = "linux") {
        crate::skipped("SSL_CERT_FILE, by which the emulator is trusted, counts on Linux only");
        return;
    }
    if let Some(missing) = ["bash", "timeout", "sed", "gzip"].into_iter().find(|program| !is_installed(program)) {
        crate::skipped(format_args!("{missing} is not installed"));
        return;
    }
    let update = std::env::var_os("IOT_ENROLL_DOCS_UPDATE").is_some();
    let pages = pages();
    let count: usize = pages.iter().map(|page| page.steps.len()).sum();
    assert!(count > 50, "{count} commands");
    let threads: Vec<_> = pages.into_iter().map(|mut page| thread::spawn(move || page.run(update))).collect();
    let failures: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    assert!(failures.is_empty(), "{} of {count} commands:\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn commands_that_no_test_runs_are_few_and_known() {
    let pages = pages();
    let not_run: Vec<_> = pages.iter().flat_map(|page| &page.not_run).collect();
    for command in &not_run {
        assert!(NOT_RUN.iter().any(|known| command.starts_with(known)), "{command}");
    }
    for known in NOT_RUN {
        assert!(not_run.iter().any(|command| command.starts_with(known)), "no page shows {known}");
    }
    crate::skipped(format_args!("{} commands of the documentation: {not_run:?}", not_run.len()));
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    for page in pages() {
        let text = page.lines.join("\n");
        for found in link.captures_iter(&text).map(|found| found[1].to_owned()).filter(|link| !link.contains("://")) {
            let (file, heading) = found.split_once('#').unwrap_or((&found, ""));
            let target = if file.is_empty() { page.path.clone() } else { page.path.with_file_name(file) };
            assert!(target.exists(), "{}: {found}", page.path.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).expect("a page");
                let known = text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading);
                assert!(known, "{}: {found}", page.path.display());
            }
        }
    }
}

#[test]
fn every_environment_variable_of_the_help_has_a_row() {
    let directory = crate::support::temporary_directory();
    Run::of(program(directory.path()).args(["man", "."])).ok();
    let variable = Regex::new(r"\bIOT_ENROLL_[A-Z_]+").expect("a pattern");
    let names = |text: &str| variable.find_iter(text).map(|found| found.as_str().to_owned()).collect::<BTreeSet<_>>();
    let manuals = fs::read_dir(directory.path()).expect("a directory");
    let manuals: String =
        manuals.map(|page| fs::read_to_string(page.expect("an entry").path()).expect("a page")).collect();
    let page = include_str!("../../docs/environment.md");
    assert_eq!(names(page), names(&manuals));
}

/// The fragment by which a heading is linked to.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

#[test]
fn the_picture_shows_what_the_program_prints() {
    let directory = crate::support::temporary_directory();
    let mut command = program(directory.path());
    let run = Run::of(command.args(["provision", "--emulator", "--register"]));
    assert_eq!(run.status, 0, "{}", run.stderr);

    let picture =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/terminal.svg")).expect("a picture");
    let tags = Regex::new("<[^>]*>").expect("a pattern");
    let lines: Vec<_> = picture.lines().filter(|line| line.starts_with("<text")).collect();
    // Lines that are too long for the picture are wrapped anywhere.
    let shown = tags.replace_all(&lines.concat(), "").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let shown = normalised(&shown);
    for line in run.stdout.lines().chain(run.stderr.lines()) {
        let line = normalised(line);
        assert!(shown.contains(&line), "run docs/terminal.py: {line:?} is not in {shown:?}");
    }
}

//! `man`: manual pages.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::Command;
use clap_mangen::roff::{Roff, roman};
use serde_json::json;

use super::output::Output;
use crate::certificate::files::check_replaceable_file;

/// Write manual pages, one for each command
///
/// The pages are for section 1 of the manual. The directory is created if missing.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  iot-enroll man ~/.local/share/man/man1
  iot-enroll man pages --force")]
pub(super) struct Man {
    /// The directory for the pages
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Overwrite pages that exist
    #[arg(long)]
    force: bool,
}

/// A page and its file name.
struct Page {
    name: String,
    content: Vec<u8>,
}

impl Man {
    /// Writes the pages of `program` and of the commands below it.
    pub(super) fn run(self, program: Command, output: &Output) -> anyhow::Result<()> {
        let pages = pages(program)?;
        let directory = &self.directory;
        fs::create_dir_all(directory).with_context(|| format!("could not create {}", directory.display()))?;
        if !self.force {
            let existing = pages.iter().map(|page| directory.join(&page.name));
            if let Some(path) = existing.into_iter().find(|path| path.symlink_metadata().is_ok()) {
                bail!(
                    "{} already exists, and nothing was written: --force overwrites pages that exist",
                    path.display()
                );
            }
        }
        for page in &pages {
            check_replaceable_file(&directory.join(&page.name))?;
        }
        for page in &pages {
            self.write(page).with_context(|| format!("could not write {}", directory.join(&page.name).display()))?;
        }
        let names: Vec<_> = pages.iter().map(|page| &page.name).collect();
        output.result(&json!({ "directory": directory.to_string_lossy(), "pages": names }), || {
            format!("Wrote {} manual pages to {}.", pages.len(), directory.display())
        })
    }

    /// Writes a page in one piece. A link of its name is replaced, and never followed.
    fn write(&self, page: &Page) -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".iot-enroll-man-");
        // Manual pages are for every user.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let mut file = builder.tempfile_in(&self.directory)?;
        file.write_all(&page.content)?;
        let path = self.directory.join(&page.name);
        if self.force {
            file.persist(path)?
        } else {
            file.persist_noclobber(path)?
        };
        Ok(())
    }
}

/// The pages of all commands, in the order of the help.
fn pages(program: Command) -> io::Result<Vec<Page>> {
    let mut root = program.disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add_pages(&root, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<Page>) -> io::Result<()> {
    let man = clap_mangen::Man::new(command.clone())
        .source(format!("iot-enroll {}", env!("CARGO_PKG_VERSION")))
        .manual("iot-enroll manual");
    let mut content = Vec::new();
    man.render_title(&mut content)?;
    man.render_name_section(&mut content)?;
    man.render_synopsis_section(&mut content)?;
    man.render_description_section(&mut content)?;
    man.render_options_section(&mut content)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut content)?;
    }
    let notes = command.get_after_long_help().or_else(|| command.get_after_help());
    if let Some(notes) = notes {
        render_notes(&notes.to_string(), &mut content)?;
    }
    pages.push(Page { name: man.get_filename(), content });
    command.get_subcommands().filter(|inner| !inner.is_hide_set()).try_for_each(|inner| add_pages(inner, pages))
}

/// Renders what stands below the options in the help: JSON members and examples. `clap_mangen` would fill its lines, so
/// that commands could not be pasted.
fn render_notes(notes: &str, content: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    for block in notes.split("\n\n") {
        let is_examples = block.starts_with("Example");
        roff.control("SH", [if is_examples { "EXAMPLES" } else { "NOTES" }]);
        roff.control("nf", []);
        for line in block.lines().skip(usize::from(is_examples)) {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff.to_writer(content)
}

//! A SoftHSM token in a directory of its own, and the program beside it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use crate::support::{Run, program, skipped, temporary_directory};
use tempfile::TempDir;

/// The PIN of every token, which nothing may print.
pub(crate) const PIN: &str = "7319516042";

/// The label of the first token.
pub(crate) const TOKEN: &str = "lab";

pub(crate) struct Lab {
    directory: TempDir,
    module: PathBuf,
}

impl Lab {
    /// Creates a token with a PIN, and a file with that. Without SoftHSM, returns nothing and reports that.
    pub(crate) fn start() -> Option<Self> {
        const MODULES: [&str; 6] = [
            "/usr/lib/softhsm/libsofthsm2.so",
            "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
            "/usr/lib64/pkcs11/libsofthsm2.so",
            "/usr/lib64/softhsm/libsofthsm2.so",
            "/usr/local/lib/softhsm/libsofthsm2.so",
            "/opt/homebrew/lib/softhsm/libsofthsm2.so",
        ];
        let Some(module) = MODULES.into_iter().map(PathBuf::from).find(|path| path.exists()) else {
            skipped("SoftHSM is not installed");
            return None;
        };
        let lab = Self { directory: temporary_directory(), module };
        let tokens = lab.path().join("tokens");
        fs::create_dir(&tokens).expect("created");
        let configuration =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(lab.path().join("softhsm2.conf"), configuration).expect("written");
        lab.secret("pin", PIN);
        lab.create_token(TOKEN)?;
        Some(lab)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn secret(&self, name: &str, content: &str) {
        let path = self.path().join(name);
        fs::write(&path, format!("{content}\n")).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    }

    pub(crate) fn create_token(&self, label: &str) -> Option<()> {
        self.softhsm(&["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "86420975"]).map(drop)
    }

    /// Runs `softhsm2-util`, which must succeed. Without that program, returns nothing and reports that.
    pub(crate) fn softhsm(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new("softhsm2-util");
        command.args(arguments).current_dir(self.path()).env("SOFTHSM2_CONF", self.path().join("softhsm2.conf"));
        let Ok(output) = command.output() else {
            skipped("there is no program softhsm2-util");
            return None;
        };
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Some(output)
    }

    /// Puts the key of a PKCS#8 file into the token.
    pub(crate) fn import(&self, file: &str, label: &str, id: &str, more: &[&str]) -> Option<()> {
        let import = ["--import", file, "--token", TOKEN, "--label", label, "--id", id, "--pin", PIN];
        self.softhsm(&[&import[..], more].concat()).map(drop)
    }

    /// A command beside the token.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.prepare(program(self.path()), arguments)
    }

    /// Adds the arguments and the place of the token to a command of the program.
    pub(crate) fn prepare(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).env_remove("FAULT").env_remove("LOGINS");
        command.env("SOFTHSM2_CONF", self.path().join("softhsm2.conf")).env("PKCS11_MODULE_PATH", &self.module);
        command
    }

    /// Runs a command. Nothing that it prints has the PIN.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// A command with a module that fails in that way, and counts logins in the file `logins`. Without a C compiler, returns
    /// nothing and reports that.
    pub(crate) fn faulty(&self, fault: &str, arguments: &[&str]) -> Option<Command> {
        let module = faulty_module()?;
        let mut command = self.command(arguments);
        command.env("PKCS11_MODULE_PATH", module).env("FAULTY_MODULE", &self.module).env("FAULT", fault);
        command.env("LOGINS", self.path().join("logins"));
        Some(command)
    }

    /// How often a run with the failing module has logged in.
    pub(crate) fn logins(&self) -> usize {
        fs::read(self.path().join("logins")).map_or(0, |logins| logins.len())
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }

    /// The names of the certificates and keys in the directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("UTF-8"));
        let mut names: Vec<_> = names.filter(|name| name.contains(".pem") || name.contains(".pfx")).collect();
        names.sort();
        names
    }

    /// Creates a root whose key is in the token, with the label `root`.
    pub(crate) fn create_root(&self) {
        self.run(&["cert", "root", "lab-root", "--ca-key", &uri("root")]).ok();
    }
}

/// The URI of a key in the first token, with the file of its PIN.
pub(crate) fn uri(label: &str) -> String {
    format!("pkcs11:token={TOKEN};object={label}?pin-source=file:pin")
}

/// Runs a command. Nothing that it prints has the PIN.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Run {
    let run = Run::of(command);
    assert!(
        !run.stdout.contains(PIN) && !run.stderr.contains(PIN),
        "the PIN was printed: {}{}",
        run.stdout,
        run.stderr
    );
    run
}

/// Compiles the module that fails.
fn faulty_module() -> Option<&'static Path> {
    static MODULE: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    let compile = || {
        let directory = tempfile::tempdir().expect("a directory");
        let module = directory.path().join("faulty.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pkcs11/faulty_module.c");
        let mut command = Command::new("cc");
        command.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&module).arg(source).arg("-ldl");
        let output = command.output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some((directory, module))
    };
    let module = MODULE.get_or_init(compile);
    if module.is_none() {
        skipped("there is no C compiler for the module that fails");
    }
    module.as_ref().map(|(_, module)| &**module)
}

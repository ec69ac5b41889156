//! The names of the files of a fleet.

use crate::certificate::secure_file::Access;

/// The number of devices in a directory. With four files each and a manifest, no directory has more than 4,001 files.
pub(super) const DEVICES_PER_DIRECTORY: u64 = 1_000;

/// Returns the name of the directory with that number.
pub(super) fn directory_name(number: u64) -> String {
    format!("{number:04}")
}

/// A file of a device, in the order of the manifest's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Certificate,
    PrivateKey,
    Fullchain,
    Pfx,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Certificate, Self::PrivateKey, Self::Fullchain, Self::Pfx];

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Certificate => "_cert.pem",
            Self::PrivateKey => "_key.pem",
            Self::Fullchain => "_fullchain.pem",
            Self::Pfx => ".pfx",
        }
    }

    /// Returns who may read the file.
    pub(super) fn access(self) -> Access {
        match self {
            Self::Certificate | Self::Fullchain => Access::Everyone,
            Self::PrivateKey | Self::Pfx => Access::Owner,
        }
    }
}

/// The paths of a device's files, relative to the output: a directory and the device ID.
///
/// They do not use the ID in camel case, as single sets do: `dev-1` and `dev1` would share their files. A colon, which
/// Windows does not allow in names, is written as `%3A`.
pub(super) struct SetNames<'a> {
    pub(super) directory: &'a str,
    pub(super) id: &'a str,
    pub(super) has_key: bool,
    pub(super) has_pfx: bool,
}

impl SetNames<'_> {
    pub(super) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Certificate | Kind::Fullchain => true,
            Kind::PrivateKey => self.has_key,
            Kind::Pfx => self.has_key && self.has_pfx,
        }
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|&kind| self.has(kind))
    }

    pub(super) fn push(&self, text: &mut Vec<u8>, kind: Kind) {
        text.extend_from_slice(self.directory.as_bytes());
        text.push(b'/');
        for (index, part) in self.id.split(':').enumerate() {
            if index > 0 {
                text.extend_from_slice(b"%3A");
            }
            text.extend_from_slice(part.as_bytes());
        }
        text.extend_from_slice(kind.suffix().as_bytes());
    }

    pub(super) fn path(&self, kind: Kind) -> String {
        let mut path = Vec::with_capacity(96);
        self.push(&mut path, kind);
        // IDs are ASCII.
        String::from_utf8(path).unwrap_or_default()
    }
}

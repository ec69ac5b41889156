//! Replays the corpora of `fuzz/corpus` on stable: every file through its fuzz target.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[allow(clippy::missing_panics_doc, unreachable_pub, reason = "written as the library of a package of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn every_file_of_the_corpora_keeps_the_properties_of_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut failed = Vec::new();
    for (name, target) in targets::TARGETS {
        let directory = corpus.join(name);
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut count = 0;
        for entry in entries {
            let path = entry.expect("an entry").path();
            let data = fs::read(&path).expect("read");
            if catch_unwind(AssertUnwindSafe(|| target(&data))).is_err() {
                failed.push(path);
            }
            count += 1;
        }
        assert!(count > 0, "{} is empty", directory.display());
    }
    assert!(failed.is_empty(), "these break a property of their target; the panics above say which: {failed:#?}");
}

//! Every target on every file that is kept for it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

#[test]
fn every_target_holds_on_its_whole_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in fuzz::TARGETS {
        let files = fs::read_dir(corpus.join(target.name)).unwrap().map(|file| file.unwrap().path());
        let files: Vec<_> = files.collect();
        assert!(files.len() >= 5, "{}: a corpus of {} files", target.name, files.len());
        for file in files {
            println!("{}: {}", target.name, file.display()); // shown where the target fails
            (target.check)(&fs::read(file).unwrap());
        }
    }
}

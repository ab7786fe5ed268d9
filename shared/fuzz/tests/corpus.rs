//! Every target on every file that is kept for it.

use std::{fs, path::Path};

#[test]
fn every_target_holds_on_its_whole_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let folders: Vec<_> = fs::read_dir(&corpus).unwrap().map(|folder| folder.unwrap().file_name()).collect();
    assert_eq!(folders.len(), fuzz::TARGETS.len(), "a folder for each target: {folders:?}");
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

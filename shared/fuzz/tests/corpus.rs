//! Every target on every file that is kept for it.

use proptest::prelude::*;
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Under libFuzzer's sanitizer this target runs 20 to 90 times a second: too few to meet what the forms of numbers can be put together to.
    #[test]
    fn a_figure_of_random_groups_is_read_as_it_says_or_not_at_all(
        figure in "([-–— .,'’´\u{a0}]{0,3}[0-9]{1,5}){1,6}(,[0-9]{2}|[.][0-9]{2}|,[-–—]|,--| )?"
    ) {
        let target = fuzz::TARGETS.iter().find(|target| target.name == "figures").unwrap();
        (target.check)(figure.as_bytes());
    }
}

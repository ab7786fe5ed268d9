//! One target of the crate `fuzz` under libFuzzer; the variable FUZZ_TARGET names it.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzz::TARGETS.into_iter().find(|target| target.name == name).expect("FUZZ_TARGET names no target")
});

// The first input makes the patterns of the extractor, which takes longer than any input may.
libfuzzer_sys::fuzz_target!(init: (TARGET.check)(&[]), |data: &[u8]| (TARGET.check)(data));

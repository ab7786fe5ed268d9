//! A new or changed migration has to be embedded anew; the macro that embeds them cannot tell cargo so.

fn main() {
    println!("cargo::rerun-if-changed=../sql");
}

//! The worker's targets of `fuzz/`, driven for a moment: what steps print and leave in files, and secrets in it.

use shipway_worker::fuzz;

#[path = "../../../fuzz/drive.rs"]
mod drive;

#[test]
fn any_output_is_read() {
    drive::drive("commands", fuzz::commands);
}

#[test]
fn no_secret_is_left_however_the_text_is_cut() {
    drive::drive("masks", fuzz::masks);
}

//! Runs the worker's fuzz targets for a short time.

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

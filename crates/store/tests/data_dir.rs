//! One server per data directory.

use std::{fs, os::unix::fs::PermissionsExt};

use shipway_store::{DataDir, DataDirError};

#[test]
fn a_second_server_on_one_folder_is_refused_with_the_pid_of_the_first() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let held = DataDir::lock(&folder).unwrap();
    let refused = DataDir::lock(&folder).unwrap_err();
    let own = std::process::id().to_string();
    assert!(
        matches!(&refused, DataDirError::Held { pid, .. } if *pid == own),
        "{refused}"
    );
    let text = refused.to_string();
    assert!(
        text.contains(&format!("pid {own}")) && text.contains("--data"),
        "{text}"
    );
    drop(held);
    DataDir::lock(&folder).unwrap();
}

#[test]
fn the_folder_is_made_and_is_for_its_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let held = DataDir::lock(&parent.path().join("a/b")).unwrap();
    let mode = fs::metadata(held.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_lock_file_left_by_a_killed_server_holds_nobody() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shipway.lock"), "123456789 and more\n").unwrap();
    let held = DataDir::lock(folder.path()).unwrap();
    let said = fs::read_to_string(held.path().join("shipway.lock")).unwrap();
    assert_eq!(said.trim(), std::process::id().to_string());
}

#[test]
fn a_folder_that_cant_be_made_says_which_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DataDir::lock(&file.join("data")).unwrap_err().to_string();
    assert!(
        error.contains("file/data") && error.contains("can't be used"),
        "{error}"
    );
}

//! Disks that are full and folders that cannot be written: a clear word, and nothing half-written.
#![cfg(unix)]

use std::fs;
use std::process::Command;

use crate::command_line::{Place, TINY, files};

fn limited(place: &Place, blocks: u32, arguments: &str) -> (i32, String) {
    // The signal is ignored so that writing fails as it does on a full disk. Blocks of 512 bytes.
    let script = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec '{}' {arguments}",
        env!("CARGO_BIN_EXE_xlt")
    );
    let ran = Command::new("sh")
        .current_dir(place.path())
        .args(["-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8(ran.stderr).unwrap();
    (ran.status.code().unwrap(), text)
}

#[test]
fn a_full_disk_is_named_and_nothing_is_half_written() {
    let place = Place::new(TINY);
    let (code, told) = limited(&place, 20, "run tiny.yaml");
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("ulimit -f") && told.contains("run the same command again"),
        "{told}"
    );
    assert!(files(&place.path().join("results")).is_empty(), "{told}");
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let results = files(&place.path().join("results"));

    // A run that cannot write a new artifact leaves the results of the last one.
    place.write(&TINY.replace("seeds: {data: 0", "seeds: {data: 1"));
    let (code, told) = limited(&place, 20, "run tiny.yaml");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("stay as they are"), "{told}");
    assert_eq!(files(&place.path().join("results")), results);

    // Results that do not fit are not begun.
    place.write(TINY);
    let (code, told) = limited(&place, 8, "run tiny.yaml --results elsewhere");
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("cannot write elsewhere/"), "{told}");
    assert!(files(&place.path().join("elsewhere")).is_empty());
    place
        .xlt(&["run", "tiny.yaml", "--results", "elsewhere"])
        .ends(0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_store_that_cannot_be_written_is_named() {
    let place = Place::new(TINY);
    // Not even root can make folders here.
    let ran = place
        .xlt(&["run", "tiny.yaml", "--store", "/sys/xlt"])
        .ends(2);
    assert!(
        ran.err.contains("/sys/xlt") && ran.err.contains("--store"),
        "{ran:?}"
    );
    fs::write(place.path().join("file"), "").unwrap();
    let ran = place
        .xlt(&["run", "tiny.yaml", "--store", "file/store"])
        .ends(2);
    assert!(ran.err.contains("file/store"), "{ran:?}");
    assert!(!place.path().join("results").exists());
    // A store is only read by commands that look.
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let ran = place
        .xlt(&["run", "tiny.yaml", "--results", "file"])
        .ends(2);
    assert!(ran.err.contains("file/tiny"), "{ran:?}");
    assert_eq!(fs::read(place.path().join("file")).unwrap(), b"");
}

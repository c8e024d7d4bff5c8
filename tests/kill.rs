//! Whatever ends a run, the next one goes on to the same results: kills, damaged artifacts, another run beside it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use xlt::random::Random;
use xlt::report::results::Results;

use crate::command_line::{Place, TINY, files};

/// Kills a run at random moments, going on each time, and compares with a run that nobody killed. Three kills of a tiny
/// study; `XLT_KILLS=20 cargo test --release killed_runs` does it twenty times to `experiments/quickstart.yaml`, which
/// takes a quarter of an hour: the runs that are killed save after every update.
#[test]
fn killed_runs_go_on_to_the_scores_of_an_uninterrupted_one() {
    let asked = std::env::var("XLT_KILLS").ok();
    let kills: u32 = asked.as_deref().map_or(3, |number| number.parse().unwrap());
    let (study, results) = match asked {
        Some(_) => {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/quickstart.yaml");
            (
                fs::read_to_string(file).unwrap(),
                "results/quickstart/quick",
            )
        }
        None => (
            TINY.replace("updates: 20", "updates: 100"),
            "results/tiny/default",
        ),
    };
    let (whole, killed) = (Place::new(&study), Place::new(&study));
    let arguments = ["run", "tiny.yaml", "--checkpoint-seconds", "0"];
    let begun = Instant::now();
    whole.xlt(&arguments[..2]).ends(0);
    let longest = begun.elapsed().mul_f64(1.2 / f64::from(kills));
    let mut random = Random::new(1, "moments of death", 0);
    let mut died = 0;
    for _ in 0..kills {
        let mut child = killed
            .command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(longest.mul_f64(random.uniform()));
        // Failing means that it ended already.
        let _ = child.kill();
        died += u32::from(child.wait().unwrap().code().is_none());
    }
    assert!(died > 0, "the runs ended before they were killed");
    killed.xlt(&arguments).ends(0);
    let read = |place: &Place| {
        let folder = place.path().join(results);
        let scores = fs::read_to_string(folder.join("scores.csv")).unwrap();
        (scores, Results::read(&folder).unwrap().predictions)
    };
    assert_eq!(read(&whole), read(&killed));
    killed.xlt(&["store", "verify"]).ends(0);
    let work = killed.path().join(".xlt/work");
    assert!(files(&work).is_empty(), "checkpoints are left");
}

/// The files of artifacts of a stage, other than their records.
fn stored(place: &Place, stage: &str) -> Vec<PathBuf> {
    let folder = place.path().join(".xlt/artifacts").join(stage);
    let paths = files(&folder).into_keys();
    let found: Vec<PathBuf> = paths
        .filter(|path| !path.ends_with("record.json"))
        .collect();
    assert!(!found.is_empty(), "{stage}");
    found
}

/// Artifacts are read-only against slips; a failing disk asks nobody.
fn overwrite(path: &PathBuf, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_artifacts_are_named_and_made_again() {
    let place = Place::new(TINY);
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let before = place.scores();
    for path in stored(&place, "evaluate") {
        overwrite(&path, |bytes| bytes.truncate(bytes.len() / 2));
    }
    for path in stored(&place, "finetune") {
        overwrite(&path, |bytes| bytes.clear());
    }
    for path in stored(&place, "pretrain") {
        overwrite(&path, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        });
    }
    let found = place.xlt(&["store", "verify"]).ends(1).out;
    for name in ["evaluate", "finetune", "pretrain", "model.safetensors"] {
        assert!(found.contains(name), "{found}");
    }
    let run = place.xlt(&["run", "tiny.yaml"]).ends(0);
    for label in [
        "evaluate mlm",
        "evaluate random",
        "fine-tune mlm",
        "fine-tune random",
        "pretrain mlm",
    ] {
        assert!(
            run.err.contains(&format!("damaged: {label}")),
            "{label}: {}",
            run.err
        );
    }
    assert_eq!(place.scores(), before);
    place.xlt(&["store", "verify"]).ends(0);
}

#[test]
fn two_runs_on_one_store_share_the_work() {
    let place = Place::new(&TINY.replace("updates: 20", "updates: 300"));
    let mut beside = place
        .command(&["run", "tiny.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    assert_eq!(beside.wait().unwrap().code(), Some(0));
    place.xlt(&["store", "verify"]).ends(0);
    place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
}

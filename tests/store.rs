//! The store: whole artifacts or none, whatever happens to the process, the disk or the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use xlt::fingerprint::Fingerprint;
use xlt::plan::Job;
use xlt::store::{
    Acquired, Artifact, Condition, Machine, Selection, Status, Store, StoredFile, Workplace,
    nearest,
};

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub fn store_in(folder: &TempDir) -> Store {
    Store::open(&folder.path().join("store")).unwrap()
}

pub fn job(stage: &str, settings: Value, inputs: &[(&str, &Job)]) -> Job {
    let inputs: BTreeMap<String, Fingerprint> = inputs
        .iter()
        .map(|(name, job)| ((*name).to_owned(), job.fingerprint.clone()))
        .collect();
    let fingerprint = Fingerprint::of(&json!([stage, 1, settings, inputs])).unwrap();
    let (stage, label) = (stage.to_owned(), format!("{stage} {settings}"));
    let (version, files, estimate) = (1, BTreeMap::new(), Default::default());
    Job {
        stage,
        version,
        settings,
        inputs,
        files,
        fingerprint,
        label,
        estimate,
    }
}

fn machine() -> Machine {
    Machine {
        device: "a processor".to_owned(),
        instruction_set: "avx2".to_owned(),
    }
}

fn work<'a>(store: &'a Store, job: &Job) -> Workplace<'a> {
    match store.acquire(job, &machine(), false).unwrap() {
        Acquired::Work(workplace) => workplace,
        other => panic!("no work: {other:?}"),
    }
}

fn make(store: &Store, job: &Job) -> Artifact {
    let workplace = work(store, job);
    fs::create_dir(workplace.output().join("deep")).unwrap();
    fs::write(
        workplace.output().join("model.safetensors"),
        vec![7; 10_000],
    )
    .unwrap();
    fs::write(workplace.output().join("deep/metrics.jsonl"), "{}\n").unwrap();
    workplace.commit(json!({"loss": 3.25}), 1.5).unwrap()
}

/// Makes a file of an artifact writable and changes it.
pub fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Flips a bit and gives the file its old time back, as a failing disk would.
pub fn rot(path: &Path) {
    let changed = fs::metadata(path).unwrap().modified().unwrap();
    damage(path, |bytes| bytes[0] ^= 1);
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(changed)
        .unwrap();
}

fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path);
    }
    found
}

#[test]
fn an_artifact_is_what_was_committed_and_read_only() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!({"layers": 2, "rate": 2.5e-5}), &[]);
    let made = make(&store, &job);
    let found = Store::open(store.root())
        .unwrap()
        .find(&job.fingerprint)
        .unwrap()
        .unwrap();
    assert_eq!(found, made);
    assert_eq!(found.record.settings, job.settings);
    assert_eq!(found.record.facts, json!({"loss": 3.25}));
    assert_eq!(
        found.record.files.keys().collect::<Vec<_>>(),
        ["deep/metrics.jsonl", "model.safetensors"]
    );
    assert!(
        fs::metadata(found.folder.join("model.safetensors"))
            .unwrap()
            .permissions()
            .readonly()
    );
    assert!(matches!(
        store.acquire(&job, &machine(), false).unwrap(),
        Acquired::Finished(_)
    ));
}

#[test]
fn nothing_is_an_artifact_before_its_commit_wherever_the_work_stops() {
    let folder = folder();
    let job = job("pretrain", json!({}), &[]);
    let record = {
        let store = Store::open(&folder.path().join("other")).unwrap();
        fs::read(make(&store, &job).folder.join("record.json")).unwrap()
    };
    for point in 0..4 {
        let store = store_in(&folder);
        let workplace = work(&store, &job);
        assert_eq!(
            fs::read_dir(workplace.output()).unwrap().count(),
            0,
            "leftovers at point {point}"
        );
        let kept = workplace.checkpoints().join("state");
        assert_eq!(kept.exists(), point > 1, "at point {point}");
        if point > 0 {
            fs::write(&kept, "step 10").unwrap();
            fs::write(workplace.output().join("model.safetensors"), "half").unwrap();
        }
        if point > 1 {
            fs::write(workplace.output().join("record.json"), &record).unwrap();
        }
        drop(workplace);
        assert_eq!(store.find(&job.fingerprint).unwrap(), None);
        if point > 2 {
            store.sweep().unwrap();
            assert!(kept.exists(), "a sweep keeps checkpoints");
        }
    }
    let store = store_in(&folder);
    let checkpoint = work(&store, &job).checkpoints().join("state");
    assert!(checkpoint.exists());
    make(&store, &job);
    assert!(
        !checkpoint.exists(),
        "checkpoints go when the artifact is there"
    );
}

#[test]
fn a_sweep_removes_rubbish_and_leaves_what_is_at_work() {
    let folder = folder();
    let store = store_in(&folder);
    let (done, dead, alive) = (
        job("a", json!(1), &[]),
        job("a", json!(2), &[]),
        job("a", json!(3), &[]),
    );
    let artifact = make(&store, &done);
    // As after a death between the rename and the removal of the work folder.
    let leftover = store
        .root()
        .join("work")
        .join(done.fingerprint.as_str())
        .join("checkpoints");
    fs::create_dir_all(&leftover).unwrap();
    fs::write(leftover.join("state"), "old").unwrap();
    // As after a death while removing an artifact.
    let headless = store
        .root()
        .join("artifacts/a")
        .join(Fingerprint::of_bytes(b"x").as_str());
    fs::create_dir_all(&headless).unwrap();
    fs::write(work(&store, &dead).output().join("half"), "h").unwrap();
    let live = work(&store, &alive);
    fs::write(live.output().join("half"), "h").unwrap();
    Store::open(store.root()).unwrap().sweep().unwrap();
    assert!(artifact.folder.exists() && live.output().join("half").exists());
    assert!(!leftover.exists() && !headless.exists());
    assert!(
        !store
            .root()
            .join("work")
            .join(dead.fingerprint.as_str())
            .exists()
    );
}

#[test]
fn only_one_at_a_time_gets_the_work() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!({}), &[]);
    let workplace = work(&store, &job);
    let other = Store::open(store.root()).unwrap();
    let Acquired::Busy(holder) = other.acquire(&job, &machine(), false).unwrap() else {
        panic!("not busy")
    };
    assert!(
        holder.starts_with(&format!("process {} on ", std::process::id())),
        "{holder}"
    );
    drop(workplace);
    assert!(matches!(
        other.acquire(&job, &machine(), false).unwrap(),
        Acquired::Work(_)
    ));
}

const CHILD: &str = "XLT_TEST_CHILD";

/// This test binary once more, doing what `child` says.
fn spawn(action: &str, store: &Store) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::child", "--nocapture"])
        .env(CHILD, format!("{action} {}", store.root().display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: the other process of the tests below.
#[test]
fn child() {
    let Ok(asked) = std::env::var(CHILD) else {
        return;
    };
    let (action, root) = asked.split_once(' ').unwrap();
    let store = Store::open(Path::new(root)).unwrap();
    let job = |number| job("pretrain", json!(number), &[]);
    match action {
        "hold" => {
            let _workplace = work(&store, &job(0));
            std::thread::sleep(Duration::from_secs(60));
        }
        "commit" => {
            for number in 0.. {
                make(&store, &job(number));
            }
        }
        "limited" => {
            let workplace = work(&store, &job(0));
            fs::write(workplace.checkpoints().join("state"), "step 10").unwrap();
            let error = workplace
                .commit(json!("x".repeat(1 << 20)), 1.0)
                .unwrap_err();
            let text = format!("{error:#}");
            assert!(
                text.contains("record.json")
                    && text.contains("ulimit -f")
                    && text.contains("are kept"),
                "{text}"
            );
        }
        other => panic!("{other}"),
    }
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_lock_dies_with_its_holder() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!(0), &[]);
    let mut holder = spawn("hold", &store);
    let lock = store.root().join("locks").join(job.fingerprint.as_str());
    eventually("the child takes the lock", || {
        fs::read(&lock).is_ok_and(|text| !text.is_empty())
    });
    let Acquired::Busy(text) = store.acquire(&job, &machine(), false).unwrap() else {
        panic!("not busy")
    };
    assert!(
        text.starts_with(&format!("process {} on ", holder.id())),
        "{text}"
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(matches!(
        store.acquire(&job, &machine(), false).unwrap(),
        Acquired::Work(_)
    ));
}

#[test]
fn a_process_killed_at_any_moment_leaves_only_sound_artifacts() {
    let folder = folder();
    let store = store_in(&folder);
    for pause in [0, 3, 11, 17, 29] {
        let before = store.artifacts().unwrap().len();
        let mut busy = spawn("commit", &store);
        eventually("the child commits", || {
            store.artifacts().unwrap().len() > before
        });
        std::thread::sleep(Duration::from_millis(pause));
        busy.kill().unwrap();
        busy.wait().unwrap();
        store.sweep().unwrap();
        // The next child begins with what this one made, so it must make more to be noticed.
        let fresh = Store::open(store.root()).unwrap();
        let verified = fresh.verify_all(&[]).unwrap();
        assert!(
            verified.artifacts > before && verified.damaged.is_empty(),
            "{verified:?}"
        );
        assert_eq!(fs::read_dir(store.root().join("work")).unwrap().count(), 0);
        fresh
            .remove(
                &Selection {
                    all: true,
                    ..Selection::default()
                },
                false,
            )
            .unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_disk_that_takes_no_more_is_named_and_loses_nothing() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!(0), &[]);
    // 64 blocks of 512 bytes (1024 in some shells); without the trap the system would kill the process.
    let done = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact store::child",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, format!("limited {}", store.root().display()))
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
    assert_eq!(store.find(&job.fingerprint).unwrap(), None);
    assert!(work(&store, &job).checkpoints().join("state").exists());
    make(&store, &job);
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_is_named_with_the_remedy() {
    // Not even root can make folders here.
    let store = Store::open(Path::new("/sys/xlt-store")).unwrap();
    let job = job("pretrain", json!(0), &[]);
    assert_eq!(
        store.condition(&job.fingerprint).unwrap(),
        Condition::Missing
    );
    let text = format!("{:#}", store.acquire(&job, &machine(), false).unwrap_err());
    assert!(
        text.contains("/sys/xlt-store")
            && text.contains("not writable")
            && text.contains("--store"),
        "{text}"
    );
}

#[test]
fn looking_at_a_store_writes_nothing() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!(0), &[]);
    assert_eq!(store.artifacts().unwrap(), []);
    assert!(!store.root().exists());
    make(&store, &job);
    let before = files(store.root());
    let store = Store::open(store.root()).unwrap();
    store.condition(&job.fingerprint).unwrap();
    store.list().unwrap();
    store.sizes().unwrap();
    assert_eq!(store.unfinished().unwrap(), []);
    let all = Selection {
        all: true,
        damaged: true,
        ..Selection::default()
    };
    assert_eq!(store.remove(&all, true).unwrap().artifacts.len(), 1);
    assert!(matches!(
        store.acquire(&job, &machine(), false).unwrap(),
        Acquired::Finished(_)
    ));
    assert_eq!(files(store.root()), before);
}

fn problems(condition: Condition) -> String {
    match condition {
        Condition::Damaged { problems, .. } => problems.join("; "),
        other => panic!("not damaged: {other:?}"),
    }
}

#[test]
fn damage_is_noticed_named_and_set_aside() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!(0), &[]);
    let artifact = make(&store, &job);
    let model = artifact.folder.join("model.safetensors");
    let record = artifact.folder.join("record.json");
    type Step<'a> = (&'a str, &'a dyn Fn());
    let steps: [Step; 4] = [
        ("model.safetensors holds 12 of 10000 bytes", &|| {
            damage(&model, |bytes| bytes.truncate(12))
        }),
        ("model.safetensors is not what was written", &|| {
            damage(&model, |bytes| bytes[5000] ^= 1)
        }),
        ("model.safetensors is missing", &|| {
            fs::remove_file(&model).unwrap()
        }),
        ("record.json", &|| damage(&record, |bytes| bytes[40] ^= 1)),
    ];
    for (expected, step) in steps {
        step();
        let text = problems(
            Store::open(store.root())
                .unwrap()
                .condition(&job.fingerprint)
                .unwrap(),
        );
        assert!(text.contains(expected), "{text} lacks {expected}");
        make(&store, &job);
        assert!(
            store
                .root()
                .join("damaged")
                .join(job.fingerprint.as_str())
                .join("record.json")
                .exists()
        );
    }
    assert_eq!(
        store
            .remove(
                &Selection {
                    damaged: true,
                    ..Selection::default()
                },
                false
            )
            .unwrap()
            .damaged
            .len(),
        1
    );
    assert!(matches!(
        store.verify(&job.fingerprint).unwrap(),
        Condition::Sound(_)
    ));
}

#[test]
fn bits_that_flip_without_a_trace_are_noticed_when_read() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!(0), &[]);
    rot(&make(&store, &job).folder.join("model.safetensors"));
    let store = Store::open(store.root()).unwrap();
    assert!(
        matches!(
            store.condition(&job.fingerprint).unwrap(),
            Condition::Sound(_)
        ),
        "sizes and times are as before"
    );
    assert!(problems(store.verify(&job.fingerprint).unwrap()).contains("model.safetensors"));
    assert!(
        matches!(
            store.condition(&job.fingerprint).unwrap(),
            Condition::Damaged { .. }
        ),
        "now it is known"
    );
}

#[test]
fn checkpoints_of_another_machine_need_a_flag_and_are_recorded() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!(0), &[]);
    fs::write(work(&store, &job).checkpoints().join("state"), "step 10").unwrap();
    let other = Machine {
        instruction_set: "avx512".to_owned(),
        ..machine()
    };
    let text = format!("{:#}", store.acquire(&job, &other, false).unwrap_err());
    assert!(
        text.contains("avx2") && text.contains("avx512") && text.contains("--resume-anywhere"),
        "{text}"
    );
    drop(store.acquire(&job, &other, true).unwrap());
    // Interrupted again and continued on that machine: the mixture stays recorded.
    let Acquired::Work(workplace) = store.acquire(&job, &other, false).unwrap() else {
        panic!("no work")
    };
    assert!(
        workplace
            .commit(Value::Null, 0.0)
            .unwrap()
            .record
            .resumed_on_other_kind
    );
}

#[test]
fn a_folder_that_is_no_store_of_this_kind_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("thesis.tex"), "").unwrap();
    assert!(format!("{:#}", Store::open(folder.path()).unwrap_err()).contains("not a store"));
    fs::write(folder.path().join("layout"), "xlt store, layout 9\n").unwrap();
    assert!(format!("{:#}", Store::open(folder.path()).unwrap_err()).contains("layout 9"));
}

#[test]
fn removing_is_a_dry_run_first_and_names_what_depends_on_it() {
    let folder = folder();
    let store = store_in(&folder);
    let first = job("tokenizer", json!(0), &[]);
    let second = job("pretrain", json!(0), &[("tokenizer", &first)]);
    make(&store, &first);
    make(&store, &second);
    let selection = Selection {
        names: vec!["tokenizer".to_owned()],
        ..Selection::default()
    };
    let planned = store.remove(&selection, true).unwrap();
    assert_eq!(planned.artifacts[0].fingerprint, first.fingerprint);
    assert_eq!(planned.dependents[0].fingerprint, second.fingerprint);
    assert!(store.find(&first.fingerprint).unwrap().is_some());
    assert_eq!(store.remove(&selection, false).unwrap(), planned);
    assert_eq!(store.find(&first.fingerprint).unwrap(), None);
    assert!(store.find(&second.fingerprint).unwrap().is_some());
    for wrong in ["finetune", "00", &first.fingerprint.as_str()[..6]] {
        let selection = Selection {
            names: vec![wrong.to_owned()],
            ..Selection::default()
        };
        assert!(store.remove(&selection, true).is_err(), "{wrong}");
    }
}

#[test]
fn nothing_that_somebody_reads_or_makes_is_removed() {
    let folder = folder();
    let store = store_in(&folder);
    let (read, made) = (
        job("tokenizer", json!(0), &[]),
        job("pretrain", json!(0), &[]),
    );
    make(&store, &read);
    let hold = store.hold(&read.fingerprint).unwrap().unwrap();
    let workplace = work(&store, &made);
    fs::write(workplace.checkpoints().join("state"), "step 10").unwrap();
    let all = Selection {
        all: true,
        ..Selection::default()
    };
    let unfinished = Selection {
        unfinished: true,
        ..Selection::default()
    };
    for dry_run in [true, false] {
        assert_eq!(store.remove(&all, dry_run).unwrap().held.len(), 1);
        assert_eq!(store.remove(&unfinished, dry_run).unwrap().held.len(), 1);
    }
    assert!(
        store.find(&read.fingerprint).unwrap().is_some()
            && workplace.checkpoints().join("state").exists()
    );
    drop((hold, workplace));
    assert_eq!(store.remove(&all, false).unwrap().artifacts.len(), 1);
    assert_eq!(
        store.remove(&unfinished, false).unwrap().unfinished.len(),
        1
    );
    assert_eq!(store.sizes().unwrap().unfinished, 0);
}

#[test]
fn a_pack_carries_artifacts_to_another_store() {
    let folder = folder();
    let store = store_in(&folder);
    let first = job("tokenizer", json!(0), &[]);
    let second = job("pretrain", json!(0), &[("tokenizer", &first)]);
    let made = [make(&store, &second), make(&store, &first)];
    let pack = folder.path().join("a.xltpack");
    let chosen = store
        .select(&[second.fingerprint.short().to_owned()], true)
        .unwrap();
    assert_eq!(chosen, made);
    store.pack(&chosen, &pack).unwrap();
    assert!(store.pack(&chosen, &pack).is_err(), "never over a file");
    let other = Store::open(&folder.path().join("other")).unwrap();
    assert_eq!(other.unpack(&pack).unwrap().added.len(), 2);
    assert_eq!(other.unpack(&pack).unwrap().present.len(), 2);
    assert!(
        Store::open(other.root())
            .unwrap()
            .verify_all(&[])
            .unwrap()
            .damaged
            .is_empty()
    );
    assert_eq!(other.records().unwrap(), store.records().unwrap());
}

#[test]
fn a_broken_pack_adds_nothing_of_what_is_broken() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("tokenizer", json!(0), &[]);
    make(&store, &job);
    let pack = folder.path().join("a.xltpack");
    store.pack(&store.artifacts().unwrap(), &pack).unwrap();
    let whole = zstd::decode_all(fs::read(&pack).unwrap().as_slice()).unwrap();
    let other = Store::open(&folder.path().join("other")).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&pack, zstd::encode_all(bytes, 1).unwrap()).unwrap();
        let error = other.unpack(&pack).unwrap_err();
        assert!(format!("{error:#}").contains("a.xltpack"), "{error:#}");
        assert_eq!(other.find(&job.fingerprint).unwrap(), None);
    };
    for length in [0, 10, 24, 30, 100, whole.len() - 10_000, whole.len() - 9] {
        refused(&whole[..length]);
    }
    for place in [3, 27, 200, whole.len() - 5000] {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x40;
        refused(&flipped);
    }
    fs::write(&pack, b"not compressed").unwrap();
    assert!(other.unpack(&pack).is_err());
}

#[test]
fn a_pack_cannot_write_outside_the_store() {
    let folder = folder();
    let store = store_in(&folder);
    let record = make(&store, &job("tokenizer", json!(0), &[])).record;
    let pack = folder.path().join("a.xltpack");
    let other = Store::open(&folder.path().join("other")).unwrap();
    for (stage, file) in [
        ("tokenizer", "../../../evil"),
        ("tokenizer", "/evil"),
        ("..", "fine"),
        ("a/b", "fine"),
        ("tokenizer", "record.json"),
    ] {
        let mut evil = record.clone();
        let stored = StoredFile {
            bytes: 1,
            blake3: Fingerprint::of_bytes(b"x"),
        };
        (evil.stage, evil.files) = (
            stage.to_owned(),
            BTreeMap::from([(file.to_owned(), stored)]),
        );
        let text = evil.to_json().unwrap();
        let mut bytes = b"xlt artifacts, format 1\n".to_vec();
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend(b"x");
        bytes.extend(0_u64.to_le_bytes());
        fs::write(&pack, zstd::encode_all(bytes.as_slice(), 1).unwrap()).unwrap();
        let text = format!("{:#}", other.unpack(&pack).unwrap_err());
        assert!(
            text.contains("plain relative")
                || text.contains("stage's name")
                || text.contains("lists itself"),
            "{text}"
        );
        assert!(other.artifacts().unwrap().is_empty() && !folder.path().join("evil").exists());
    }
}

#[test]
fn the_nearest_record_says_which_field_differs() {
    let folder = folder();
    let store = store_in(&folder);
    let settings = |layers, rate| json!({"model": {"layers": layers}, "rates": [0.1, rate]});
    make(&store, &job("pretrain", settings(2, 0.5), &[]));
    make(&store, &job("pretrain", settings(3, 0.7), &[]));
    make(&store, &job("finetune", settings(4, 0.5), &[]));
    let records = store.records().unwrap();
    let wanted = job("pretrain", settings(4, 0.5), &[]);
    let found = nearest(&wanted, &records).unwrap();
    assert_eq!(found.differences.len(), 1);
    let difference = &found.differences[0];
    assert_eq!(difference.field, "settings.model.layers");
    assert_eq!(
        (difference.old.as_deref(), difference.new.as_deref()),
        (Some("2"), Some("4"))
    );
    assert_eq!(nearest(&job("evaluate", json!(0), &[]), &records), None);
}

#[test]
fn interrupted_work_tells_how_far_it_came() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("pretrain", json!(0), &[]);
    let workplace = work(&store, &job);
    let status = Status {
        label: "mlm".to_owned(),
        done: 10,
        total: 40,
        seconds: 2.5,
        ..Status::default()
    };
    workplace.write_status(&status).unwrap();
    let listed = store.unfinished().unwrap();
    assert!(listed[0].running && !listed[0].checkpoint && listed[0].status == status);
    fs::write(workplace.checkpoints().join("state"), "step 10").unwrap();
    workplace.leave();
    let listed = store.unfinished().unwrap();
    assert!(!listed[0].running && listed[0].checkpoint && listed[0].status == status);
    assert_eq!(work(&store, &job).status(), status);
}

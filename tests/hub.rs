//! The hub client against a server of our own on the loopback interface that misbehaves as told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};
use xlt::data::git_blob::Sha1;
use xlt::data::hub::{Fetched, HubFiles, HubOptions, RepositoryKind, fetch};

const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does with the next request for a file's body.
#[derive(Clone, Copy)]
enum Mishap {
    /// Breaks off after so many bytes of the part asked for.
    Cut(usize),
    /// Sends the file with its first byte changed.
    WrongBytes,
    /// Sends the whole file whatever `Range` says.
    IgnoreRange,
    /// Answers with this status.
    Status(u16),
    /// As `Status`, with seconds in `Retry-After`.
    Later(u16, u64),
}

#[derive(Default)]
struct State {
    /// Applied to one request for a body each, first to last.
    mishaps: Vec<Mishap>,
    /// Status of the answer about a file (HEAD); 200 unless set.
    refusal: Option<(u16, &'static str)>,
    /// Bodies come from a second server, as large files do from the hub's storage.
    storage: Option<String>,
    /// The token that the hub asks for.
    token: Option<&'static str>,
    log: Vec<Request>,
}

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Serves `content` under every path; `large` decides whether its checksum is SHA-256 or git's.
    fn start(content: Vec<u8>, large: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let server = Self { address, state };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up early is part of the test.
                let _ = serving.answer(stream, &content, large);
            }
        });
        server
    }

    fn answer(&self, mut stream: TcpStream, content: &[u8], large: bool) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            bail!("no request");
        };
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: BTreeMap::new(),
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else {
                break;
            };
            request
                .headers
                .insert(name.to_lowercase(), value.trim().to_owned());
        }
        let (mishap, refusal, storage, token) = {
            let mut state = self.state.lock().unwrap();
            state.log.push(request.clone());
            let body = request.method == "GET" && state.storage.is_none();
            let mishap = (body && !state.mishaps.is_empty()).then(|| state.mishaps.remove(0));
            (mishap, state.refusal, state.storage.clone(), state.token)
        };
        let authorised = match token {
            Some(token) => request.headers.get("authorization") == Some(&format!("Bearer {token}")),
            None => true,
        };
        let checksum = match large {
            true => Sha256::digest(content)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            false => {
                let mut sha1 = Sha1::of_blob(content.len() as u64);
                sha1.update(content);
                sha1.finish()
            }
        };
        let declared = format!(
            "ETag: \"{checksum}\"\r\nX-Linked-Etag: \"{checksum}\"\r\nX-Linked-Size: {}\r\nX-Repo-Commit: {REVISION}\r\nConnection: close\r\n",
            content.len()
        );
        let mut status = |status: u16, more: &str| {
            write!(
                stream,
                "HTTP/1.1 {status} Told\r\n{declared}{more}Content-Length: 0\r\n\r\n"
            )
        };
        if !authorised {
            return Ok(status(401, "X-Error-Code: RepoNotFound\r\n")?);
        }
        if let Some((code, name)) = refusal {
            return Ok(status(code, &format!("X-Error-Code: {name}\r\n"))?);
        }
        match mishap {
            Some(Mishap::Status(code)) => return Ok(status(code, "")?),
            Some(Mishap::Later(code, seconds)) => {
                return Ok(status(code, &format!("Retry-After: {seconds}\r\n"))?);
            }
            _ => {}
        }
        if let Some(storage) = storage {
            return Ok(status(302, &format!("Location: {storage}/object\r\n"))?);
        }
        if request.method == "HEAD" {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\n{declared}Content-Length: {}\r\n\r\n",
                content.len()
            )?;
            return Ok(());
        }
        let mut content = content.to_vec();
        if matches!(mishap, Some(Mishap::WrongBytes)) {
            content[0] ^= 1;
        }
        let range = request
            .headers
            .get("range")
            .filter(|_| !matches!(mishap, Some(Mishap::IgnoreRange)));
        let from: usize = match range {
            Some(range) => range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()?,
            None => 0,
        };
        let total = content.len();
        match range {
            Some(_) => write!(
                stream,
                "HTTP/1.1 206 Partial\r\nContent-Range: bytes {from}-{}/{total}\r\n",
                total - 1
            )?,
            None => write!(stream, "HTTP/1.1 200 OK\r\n")?,
        }
        write!(stream, "{declared}Content-Length: {}\r\n\r\n", total - from)?;
        let mut body = &content[from..];
        if let Some(Mishap::Cut(bytes)) = mishap {
            body = &body[..bytes.min(body.len())];
        }
        stream.write_all(body)?;
        Ok(())
    }

    fn told(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn log(&self) -> Vec<Request> {
        self.state.lock().unwrap().log.clone()
    }

    fn bodies(&self) -> Vec<Request> {
        self.log()
            .into_iter()
            .filter(|request| request.method == "GET")
            .collect()
    }
}

fn content() -> Vec<u8> {
    (0..300_000u32)
        .flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 13).to_le_bytes())
        .collect()
}

fn options(server: &Server, cache: &Path) -> HubOptions {
    HubOptions {
        endpoint: server.address.clone(),
        cache: cache.to_owned(),
        token: None,
        offline: false,
        attempts: 3,
        first_wait: Duration::from_millis(1),
    }
}

fn wanted(path: &str) -> HubFiles {
    HubFiles {
        kind: RepositoryKind::Dataset,
        repository: "owner/name".into(),
        revision: REVISION.into(),
        paths: vec![path.into()],
    }
}

fn take(options: &HubOptions) -> Result<Fetched> {
    let mut files = fetch(&wanted("data/train 1.tsv"), options, &|_, _, _| Ok(()))?;
    Ok(files.remove(0))
}

fn message(result: Result<Fetched>) -> String {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_file_is_fetched_once_and_lies_where_other_tools_look() {
    for large in [true, false] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(content(), large);
        let fetched = take(&options(&server, cache.path())).unwrap();
        assert_eq!(std::fs::read(&fetched.path).unwrap(), content());
        let expected: String = Sha256::digest(content())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(fetched.sha256, expected);
        let place = cache
            .path()
            .join("datasets--owner--name/snapshots")
            .join(REVISION);
        assert_eq!(fetched.path, place.join("data/train 1.tsv"));
        let path = format!("/datasets/owner/name/resolve/{REVISION}/data/train%201.tsv");
        assert!(server.log().iter().all(|request| request.path == path));
        let requests = server.log().len();
        assert_eq!(take(&options(&server, cache.path())).unwrap(), fetched);
        assert_eq!(
            server.log().len(),
            requests,
            "the second time needs no request"
        );
        let mut offline = options(&server, cache.path());
        offline.offline = true;
        assert_eq!(take(&offline).unwrap(), fetched);
    }
}

#[test]
fn a_cut_transfer_goes_on_where_it_broke_off() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    server.told(|state| state.mishaps = vec![Mishap::Cut(400_000); 2]);
    let fetched = take(&options(&server, cache.path())).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), content());
    let ranges: Vec<Option<String>> = server
        .bodies()
        .into_iter()
        .map(|request| request.headers.get("range").cloned())
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=400000-".into()),
            Some("bytes=800000-".into())
        ]
    );
}

#[test]
fn a_later_run_resumes_what_an_earlier_one_left() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    let stopped = fetch(
        &wanted("data/train 1.tsv"),
        &options(&server, cache.path()),
        &|_, done, total| {
            if done > 500_000 {
                bail!("stopped at {done} of {total}");
            }
            Ok(())
        },
    );
    assert!(format!("{:#}", stopped.unwrap_err()).contains("of 1200000"));
    take(&options(&server, cache.path())).unwrap();
    let range = server.bodies()[1].headers["range"].clone();
    let from: u64 = range
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .unwrap();
    assert!(from > 500_000, "{range}");
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    server.told(|state| state.mishaps = vec![Mishap::Cut(100_000), Mishap::IgnoreRange]);
    let fetched = take(&options(&server, cache.path())).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), content());
    assert_eq!(server.bodies().len(), 2);
}

#[test]
fn transfers_that_bring_nothing_are_given_up() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    server.told(|state| state.mishaps = vec![Mishap::Cut(0); 10]);
    let error = message(take(&options(&server, cache.path())));
    assert!(error.contains("gave up after 3 tries"), "{error}");
    assert_eq!(server.bodies().len(), 3);
}

#[test]
fn wrong_bytes_are_refused_whatever_the_checksum() {
    for large in [true, false] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(content(), large);
        server.told(|state| state.mishaps = vec![Mishap::WrongBytes; 10]);
        let error = message(take(&options(&server, cache.path())));
        assert!(error.contains("not those that the hub declares"), "{error}");
        assert!(
            error.contains("data/train 1.tsv") && error.contains("owner/name"),
            "{error}"
        );
        server.told(|state| state.mishaps = vec![Mishap::WrongBytes]);
        take(&options(&server, cache.path())).unwrap();
    }
}

#[test]
fn a_damaged_file_of_the_cache_is_fetched_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    let fetched = take(&options(&server, cache.path())).unwrap();
    let mut damaged = content();
    damaged[7] ^= 1;
    std::fs::write(&fetched.path, damaged).unwrap();
    let mut offline = options(&server, cache.path());
    offline.offline = true;
    assert!(message(take(&offline)).contains("damaged"));
    assert_eq!(take(&options(&server, cache.path())).unwrap(), fetched);
    assert_eq!(std::fs::read(&fetched.path).unwrap(), content());
}

#[test]
fn refusals_name_the_file_and_the_remedy() {
    for (status, code, remedy) in [
        (401, "RepoNotFound", "HF_TOKEN"),
        (403, "GatedRepo", "terms"),
        (404, "EntryNotFound", "correct its path"),
        (404, "RevisionNotFound", "`revision`"),
        (404, "RepoNotFound", "dataset or model"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(content(), true);
        server.told(|state| state.refusal = Some((status, code)));
        let error = message(take(&options(&server, cache.path())));
        for part in [
            "data/train 1.tsv",
            "owner/name",
            &status.to_string(),
            remedy,
        ] {
            assert!(error.contains(part), "{code}: {error}");
        }
        assert_eq!(server.log().len(), 1, "{code} is not tried again");
    }
}

#[test]
fn too_many_requests_and_server_errors_are_waited_out() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    server.told(|state| state.mishaps = vec![Mishap::Later(429, 0), Mishap::Status(503)]);
    take(&options(&server, cache.path())).unwrap();
    let other = tempfile::tempdir().unwrap();
    server.told(|state| state.mishaps = vec![Mishap::Status(429); 10]);
    let error = message(take(&options(&server, other.path())));
    assert!(
        error.contains("429: too many requests") && error.contains("gave up"),
        "{error}"
    );
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_its_storage() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Server::start(content(), true);
    let server = Server::start(content(), true);
    server.told(|state| {
        state.storage = Some(storage.address.clone());
        state.token = Some("secret");
    });
    let mut options = options(&server, cache.path());
    assert!(message(take(&options)).contains("HF_TOKEN"));
    options.token = Some("secret".into());
    let fetched = take(&options).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), content());
    assert!(
        server
            .bodies()
            .iter()
            .all(|request| request.headers.contains_key("authorization"))
    );
    assert_eq!(storage.bodies().len(), 1);
    assert!(
        storage
            .log()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

#[test]
fn offline_means_no_request() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    let mut options = options(&server, cache.path());
    options.offline = true;
    assert!(message(take(&options)).contains("HF_HUB_OFFLINE"));
    assert!(server.log().is_empty());
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    let mut options = options(&server, cache.path());
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    options.endpoint = format!("http://{closed}");
    let error = message(take(&options));
    assert!(
        error.contains(&format!("cannot reach `{}`", options.endpoint)),
        "{error}"
    );
}

#[test]
fn two_jobs_share_one_transfer() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(content(), true);
    let options = options(&server, cache.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| take(&options).unwrap());
        }
    });
    assert_eq!(server.bodies().len(), 1);
}

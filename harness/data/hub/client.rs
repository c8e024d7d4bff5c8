//! Requests to the hub: what it declares of a file, and the file's bytes, tried again where that may help.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};

use super::{Checksum, HubFiles, HubOptions, Sums, Watch};

/// What the hub declares of a file.
pub(super) struct Metadata {
    pub checksum: Checksum,
    bytes: u64,
}

/// Why a try failed, and whether another may succeed.
pub(super) struct Failure {
    error: anyhow::Error,
    again: Again,
}

enum Again {
    Never,
    /// After the usual wait, or the one that the server asked for.
    After(Option<Duration>),
    /// At once, with the count of tries starting over: the transfer got further.
    Progressed,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }
}

fn transient(error: anyhow::Error) -> Failure {
    Failure {
        error,
        again: Again::After(None),
    }
}

/// Longest wait that a server's `Retry-After` is granted, and between two tries (our choice).
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const MOST_REDIRECTS: usize = 10;

pub(super) struct Client<'a> {
    agent: ureq::Agent,
    options: &'a HubOptions,
}

impl<'a> Client<'a> {
    pub fn new(options: &'a HubOptions) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A compressed transfer has other bytes than the file.
            .accept_encoding("identity")
            .user_agent(concat!("xlt/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Self {
            agent: config.new_agent(),
            options,
        }
    }

    /// Tries until it succeeds, cannot, or brought nothing `attempts` times in a row.
    pub fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut failed = 0;
        loop {
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let wait = match failure.again {
                Again::Never => return Err(failure.error),
                Again::Progressed => {
                    failed = 0;
                    continue;
                }
                Again::After(wait) => wait,
            };
            failed += 1;
            if failed >= self.options.attempts {
                return Err(failure.error.context(format!(
                    "gave up after {failed} tries; run again later, what arrived is kept"
                )));
            }
            std::thread::sleep(pause(self.options.first_wait, failed, wait));
        }
    }

    pub fn metadata(&self, url: &str, files: &HubFiles) -> Result<Metadata, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let response = self.send("HEAD", &url, 0)?;
            let headers = response.headers();
            let status = response.status();
            if let Some(next) = redirection(&url, status, headers)?
                && header(headers, "x-linked-etag").is_none()
                && self.is_hub(&next)
            {
                // A renamed repository; the answer proper is at its new address.
                url = next;
                continue;
            }
            if !status.is_success() && !status.is_redirection() {
                return Err(self.refusal(status, headers));
            }
            if let Some(commit) = header(headers, "x-repo-commit")
                && commit != files.revision
            {
                return Err(
                    anyhow!("the hub answered with commit {commit}; correct `revision`").into(),
                );
            }
            let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
            let checksum = etag.and_then(Checksum::of_etag).with_context(|| {
                format!(
                    "`{}` declares no checksum (etag {}), so the file cannot be trusted; use https://huggingface.co or a mirror that keeps X-Linked-Etag",
                    self.options.endpoint,
                    etag.unwrap_or("missing")
                )
            })?;
            let bytes =
                header(headers, "x-linked-size").or_else(|| header(headers, "content-length"));
            let bytes = bytes.and_then(|bytes| bytes.parse().ok());
            let bytes = bytes.context("the hub declares no size for the file")?;
            return Ok(Metadata { checksum, bytes });
        }
        Err(anyhow!("redirected more than {MOST_REDIRECTS} times from {url}").into())
    }

    /// Brings `partial` to its full length and checks it.
    pub fn download(
        &self,
        url: &str,
        declared: &Metadata,
        partial: &Path,
        file: &str,
        wrong: &mut u32,
        watch: Watch,
    ) -> Result<(), Failure> {
        let writing = || format!("cannot write `{}`", partial.display());
        let mut output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(partial)
            .with_context(writing)?;
        let mut have = output.metadata().with_context(writing)?.len();
        if have > declared.bytes {
            output.set_len(0).with_context(writing)?;
            have = 0;
        }
        let start = have;
        if have < declared.bytes {
            let response = self.get(url, have)?;
            if have > 0 && !continues(&response, have) {
                // The server ignored `Range` and sends the whole file.
                output.set_len(0).with_context(writing)?;
                have = 0;
            }
            let mut body = response.into_body().into_reader();
            let mut buffer = vec![0; 1 << 17];
            while have < declared.bytes {
                let read = match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) => {
                        let error = anyhow!(error).context(format!(
                            "the transfer broke off at byte {have} of {}",
                            declared.bytes
                        ));
                        let again = if have > start {
                            Again::Progressed
                        } else {
                            Again::After(None)
                        };
                        return Err(Failure { error, again });
                    }
                };
                output.write_all(&buffer[..read]).with_context(writing)?;
                have += read as u64;
                watch(file, have, declared.bytes)?;
            }
        }
        if have < declared.bytes {
            let error = anyhow!("the transfer ended at byte {have} of {}", declared.bytes);
            let again = if have > start {
                Again::Progressed
            } else {
                Again::After(None)
            };
            return Err(Failure { error, again });
        }
        output.sync_all().with_context(writing)?;
        let sums = Sums::of_file(partial)?;
        if !sums.matches(&declared.checksum) {
            fs::remove_file(partial).with_context(writing)?;
            *wrong += 1;
            let error = anyhow!(
                "the bytes that arrived ({}, sha256 {}) are not those that the hub declares ({}, {}); a proxy or mirror alters them, or the file is damaged there",
                sums.bytes,
                sums.sha256,
                declared.bytes,
                declared.checksum.digits()
            );
            // Once more from the start: what was kept of an earlier transfer may have been the wrong part.
            let again = if *wrong < 2 {
                Again::After(None)
            } else {
                Again::Never
            };
            return Err(Failure { error, again });
        }
        Ok(())
    }

    /// The answer with the body, redirections followed. The token goes to the hub only, never to where it redirects.
    fn get(&self, url: &str, from: u64) -> Result<Response<ureq::Body>, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let response = self.send("GET", &url, from)?;
            match redirection(&url, response.status(), response.headers())? {
                Some(next) => url = next,
                None if response.status().is_success() => return Ok(response),
                None => return Err(self.refusal(response.status(), response.headers())),
            }
        }
        Err(anyhow!("redirected more than {MOST_REDIRECTS} times from {url}").into())
    }

    fn send(&self, method: &str, url: &str, from: u64) -> Result<Response<ureq::Body>, Failure> {
        let mut request = match method {
            "HEAD" => self.agent.head(url),
            _ => self.agent.get(url),
        };
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(token) = &self.options.token
            && self.is_hub(url)
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| {
            let again = match error {
                ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::Protocol(_)
                | ureq::Error::ConnectionFailed
                | ureq::Error::HostNotFound => Again::After(None),
                _ => Again::Never,
            };
            let error = anyhow!(error).context(format!("cannot reach `{}`", origin(url)));
            Failure { error, again }
        })
    }

    fn is_hub(&self, url: &str) -> bool {
        origin(url) == origin(&self.options.endpoint)
    }

    /// What a status that is neither success nor redirection means.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Failure {
        let token = match self.options.token {
            Some(_) => "the token given (HF_TOKEN) does not open it",
            None => "set HF_TOKEN to a token that may read it",
        };
        let said =
            header(headers, "x-error-message").map(|said| format!(" (the hub says: {said})"));
        let said = said.unwrap_or_default();
        let code = header(headers, "x-error-code").unwrap_or_default();
        let error = match status.as_u16() {
            401 => anyhow!(
                "401: the repository is private or does not exist; {token}, or correct its name{said}"
            ),
            403 => anyhow!(
                "403: not allowed; accept the repository's terms on its page, and {token}{said}"
            ),
            404 => match code {
                "RevisionNotFound" => {
                    anyhow!("404: the repository has no such commit; correct `revision`")
                }
                "RepoNotFound" => anyhow!(
                    "404: there is no such repository; correct its name and kind (dataset or model)"
                ),
                _ => anyhow!(
                    "404: there is no such file at that commit; correct its path, or the repository's name and kind (dataset or model){said}"
                ),
            },
            416 => {
                return transient(anyhow!(
                    "416: the server does not resume where the transfer broke off"
                ));
            }
            429 | 500..=599 => {
                let wait =
                    header(headers, "retry-after").and_then(|seconds| seconds.trim().parse().ok());
                let what = if status.as_u16() == 429 {
                    "too many requests"
                } else {
                    "the server failed"
                };
                return Failure {
                    error: anyhow!("{}: {what}{said}", status.as_u16()),
                    again: Again::After(wait.map(Duration::from_secs)),
                };
            }
            other => anyhow!("the hub answered with status {other}{said}"),
        };
        error.into()
    }
}

/// How long to wait after so many failures in a row: what the server asked for, else twice as long each time.
fn pause(first_wait: Duration, failed: u32, asked: Option<Duration>) -> Duration {
    let doubled = first_wait.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1)));
    asked.unwrap_or(doubled).min(LONGEST_WAIT)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Where a redirection leads, as an absolute address.
fn redirection(url: &str, status: StatusCode, headers: &HeaderMap) -> Result<Option<String>> {
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    let location = header(headers, "location").context("a redirection leads nowhere")?;
    Ok(Some(match location.starts_with('/') {
        true => format!("{}{location}", origin(url)),
        false => location.to_owned(),
    }))
}

/// `scheme://host:port` in lower case.
fn origin(url: &str) -> String {
    match url.parse::<Uri>() {
        Ok(uri) => {
            let scheme = uri.scheme_str().unwrap_or_default();
            let authority = uri
                .authority()
                .map(|authority| authority.as_str())
                .unwrap_or_default();
            format!("{scheme}://{authority}").to_ascii_lowercase()
        }
        Err(_) => url.to_owned(),
    }
}

/// Whether an answer's body starts at byte `from`.
fn continues(response: &Response<ureq::Body>, from: u64) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
        && header(response.headers(), "content-range")
            .is_some_and(|range| range.trim().starts_with(&format!("bytes {from}-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_retry_after_rules() {
        let second = Duration::from_secs(1);
        let waits: Vec<u64> = (1..9)
            .map(|failed| pause(second, failed, None).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(second, 1, Some(7 * second)), 7 * second);
        assert_eq!(pause(second, 1, Some(7000 * second)), LONGEST_WAIT);
    }
}

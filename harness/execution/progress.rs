//! Progress on stderr: bars with loss, speed and time left on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Event, Reporter};
use crate::plan::Job;
use crate::stages::Progress;

/// Our choice: a log of an hour's training stays readable.
const LINE_INTERVAL: Duration = Duration::from_secs(30);
/// Our choice: often enough to look alive, rarely enough to cost nothing.
const SPINNER_INTERVAL: Duration = Duration::from_millis(250);

/// Bars when stderr is a terminal, lines otherwise.
pub fn stderr() -> Box<dyn Reporter> {
    if io::stderr().is_terminal() {
        Box::new(Bars::default())
    } else {
        Box::new(Lines::new(Box::new(io::stderr())))
    }
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: &Event) {}

    fn progress<'a>(&'a self, _: &Job) -> Box<dyn Progress + 'a> {
        Box::new(Self)
    }
}

impl Progress for Silent {
    fn begin(&self, _: u64, _: u64, _: &str) {}
    fn advance(&self, _: u64, _: &str) {}
    fn message(&self, _: &str) {}
}

/// One line per event, and one per job now and then. No clock times, so that two logs can be compared.
pub struct Lines {
    to: Mutex<Box<dyn Write + Send>>,
}

impl Lines {
    pub fn new(to: Box<dyn Write + Send>) -> Self {
        Self { to: Mutex::new(to) }
    }

    fn print(&self, line: &str) {
        // Nobody reads stderr any more: no reason to stop working.
        let _ = writeln!(
            self.to.lock().unwrap_or_else(PoisonError::into_inner),
            "{line}"
        );
    }
}

impl Reporter for Lines {
    fn event(&self, event: &Event) {
        self.print(&event.to_string());
    }

    fn progress<'a>(&'a self, job: &Job) -> Box<dyn Progress + 'a> {
        let state = LineState {
            total: 0,
            first: 0,
            unit: String::new(),
            begun: Instant::now(),
            printed: Instant::now(),
        };
        Box::new(JobLines {
            lines: self,
            label: job.label.clone(),
            state: Mutex::new(state),
        })
    }
}

struct JobLines<'a> {
    lines: &'a Lines,
    label: String,
    state: Mutex<LineState>,
}

struct LineState {
    total: u64,
    /// Done before this attempt.
    first: u64,
    unit: String,
    begun: Instant,
    printed: Instant,
}

impl Progress for JobLines<'_> {
    fn begin(&self, total: u64, done: u64, unit: &str) {
        let now = Instant::now();
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = LineState {
            total,
            first: done,
            unit: unit.to_owned(),
            begun: now,
            printed: now,
        };
        if done > 0 {
            self.lines.print(&format!(
                "{}: going on from {done} of {total} {unit}",
                self.label
            ));
        }
    }

    fn advance(&self, done: u64, note: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.printed.elapsed() < LINE_INTERVAL {
            return;
        }
        state.printed = Instant::now();
        let left = match time_left(
            state.begun.elapsed(),
            done.saturating_sub(state.first),
            state.total.saturating_sub(done),
        ) {
            Some(left) => format!(", {} left", duration(left)),
            None => String::new(),
        };
        let note = if note.is_empty() {
            String::new()
        } else {
            format!(", {note}")
        };
        self.lines.print(&format!(
            "{}: {done}/{} {}{note}{left}",
            self.label, state.total, state.unit
        ));
    }

    fn message(&self, line: &str) {
        self.lines.print(&format!("{}: {line}", self.label));
    }
}

/// At the speed so far; `None` before there is one.
fn time_left(spent: Duration, done: u64, left: u64) -> Option<Duration> {
    (done > 0).then(|| spent.mul_f64(left as f64 / done as f64))
}

/// "45 s", "12 min", "3 h 20 min".
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The same for a number of seconds that a file or an estimate says, whatever it is.
pub fn duration_of(seconds: f64) -> String {
    duration(
        Duration::try_from_secs_f64(seconds).unwrap_or(match seconds > 0.0 {
            true => Duration::MAX,
            false => Duration::ZERO,
        }),
    )
}

/// A bar per running job at the foot of the terminal, events above.
pub struct Bars {
    bars: MultiProgress,
}

impl Default for Bars {
    fn default() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
        }
    }
}

impl Bars {
    fn print(&self, line: &str) {
        let _ = self.bars.println(line);
    }
}

impl Reporter for Bars {
    fn event(&self, event: &Event) {
        // A bar appears for what started.
        if !matches!(event, Event::Started { .. }) {
            self.print(&event.to_string());
        }
    }

    fn progress<'a>(&'a self, job: &Job) -> Box<dyn Progress + 'a> {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {prefix}"));
        bar.set_prefix(job.label.clone());
        bar.enable_steady_tick(SPINNER_INTERVAL);
        Box::new(JobBar { bars: self, bar })
    }
}

struct JobBar<'a> {
    bars: &'a Bars,
    bar: ProgressBar,
}

impl Progress for JobBar<'_> {
    fn begin(&self, total: u64, done: u64, unit: &str) {
        // The unit is text of a stage, not a template.
        let unit = unit.replace(['{', '}'], "");
        self.bar.set_style(style(&format!(
            "{{spinner}} {{prefix}} {{bar:24}} {{pos}}/{{len}} {unit}  {{msg}}  {{eta}} left"
        )));
        self.bar.set_length(total);
        self.bar.set_position(done);
        // Time left is reckoned from this attempt's speed.
        self.bar.reset_eta();
    }

    fn advance(&self, done: u64, note: &str) {
        self.bar.set_position(done);
        if self.bar.message() != note {
            self.bar.set_message(note.to_owned());
        }
    }

    fn message(&self, line: &str) {
        self.bars.print(&format!("{}: {line}", self.bar.prefix()));
    }
}

impl Drop for JobBar<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.bars.bars.remove(&self.bar);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_counts_only_what_this_attempt_did() {
        assert_eq!(time_left(Duration::from_secs(10), 0, 50), None);
        assert_eq!(
            time_left(Duration::from_secs(10), 5, 50),
            Some(Duration::from_secs(100))
        );
    }

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (12_000, "3 h 20 min"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration_of(130.0), "2 min");
        assert_eq!(duration_of(-1.0), "0 s");
        assert_eq!(duration_of(f64::NAN), "0 s");
        assert_eq!(duration_of(1e300), duration(Duration::MAX));
    }

    #[test]
    fn every_bar_template_is_valid() {
        for template in [
            "{spinner} {prefix}",
            "{spinner} {prefix} {bar:24} {pos}/{len} updates  {msg}  {eta} left",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}

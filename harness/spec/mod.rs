//! From a study file to typed settings: read, profile, variants, validation.
//!
//! Order of precedence: base, profile, variant. A profile or variant names the full path of what it replaces.

pub mod anchors;
pub mod claims;
pub mod document;
pub mod finetune;
mod nearest;
pub mod pretrain;
pub mod probes;
pub mod settings;
pub mod tables;
pub mod translation;
pub mod translator;
mod validate;

pub use validate::{
    LAST_UPDATE, TRANSLATION_TASK, VALIDATION_BLEU, evaluations, regime_languages, selections,
};

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use document::{DocumentError, Key, Node, Place, Value};
use settings::{Paper, Scale, Settings, StudyFile};

use self::anchors::Anchors;
use self::claims::Claim;
use self::tables::Table;

/// A study at one profile, ready to be planned.
#[derive(Debug, Clone)]
pub struct Study {
    pub file: PathBuf,
    pub name: String,
    pub title: Option<String>,
    pub paper: Option<Paper>,
    pub profile: String,
    /// All profiles of the file, in its order.
    pub profiles: Vec<String>,
    pub scale: Scale,
    /// In the order of the file.
    pub variants: Vec<Variant>,
    pub claims: Vec<Claim>,
    pub tables: Vec<Table>,
    pub anchors: Anchors,
    /// Of the file, for messages.
    lines: Vec<String>,
}

impl Study {
    /// What is wrong with the study, shown with the lines of its file.
    pub fn wrong(&self, problems: Vec<Problem>) -> SpecError {
        SpecError {
            file: self.file.clone(),
            problems,
            lines: self.lines.clone(),
        }
    }
}

/// One line of the comparison.
#[derive(Debug, Clone)]
pub struct Variant {
    pub name: String,
    /// The name in tables and plots.
    pub label: String,
    pub settings: Settings,
    /// Every value and the line it came from.
    pub document: Node,
    /// Where the file names it.
    pub place: Place,
}

/// One thing that is wrong with a study file.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub message: String,
    pub place: Option<Place>,
}

/// What is wrong with a study file: file, line, column, the line itself and what would be right.
#[derive(Debug, Clone)]
pub struct SpecError {
    pub file: PathBuf,
    pub problems: Vec<Problem>,
    lines: Vec<String>,
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            match problem.place {
                Some(place) if place.line > 0 => {
                    write!(
                        formatter,
                        "{}:{}:{}: {}",
                        self.file.display(),
                        place.line,
                        place.column,
                        problem.message
                    )?;
                    if let Some(line) = self.lines.get(place.line as usize - 1) {
                        // Of a long line, what surrounds the place.
                        const WIDTH: usize = 160;
                        let column = place.column.max(1) as usize - 1;
                        let start = if column < WIDTH {
                            0
                        } else {
                            column - WIDTH / 2
                        };
                        let number = place.line.to_string();
                        let line: String = line
                            .chars()
                            .skip(start)
                            .take(WIDTH)
                            .map(|c| if c.is_control() { ' ' } else { c })
                            .collect();
                        let blank = " ".repeat(column - start);
                        write!(
                            formatter,
                            "\n  {number} | {line}\n  {} | {blank}^",
                            " ".repeat(number.len())
                        )?;
                    }
                }
                _ => write!(formatter, "{}: {}", self.file.display(), problem.message)?,
            }
        }
        Ok(())
    }
}

/// Reads a study file at a profile (the file's first when `None`) and checks everything that can be checked without data.
///
/// # Errors
/// [`SpecError`] with every problem found, each with its place.
pub fn read(file: &Path, profile: Option<&str>) -> anyhow::Result<Study> {
    let bytes = std::fs::read(file).map_err(|error| {
        anyhow::anyhow!("cannot read the study file {}: {error}; name a YAML file such as experiments/quickstart.yaml", file.display())
    })?;
    const LARGEST_BYTES: usize = 4 << 20;
    if bytes.len() > LARGEST_BYTES {
        anyhow::bail!(
            "{} has {} bytes; a study file has at most {LARGEST_BYTES}: is it the right file?",
            file.display(),
            bytes.len()
        );
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let valid = String::from_utf8_lossy(&bytes[..before]);
            let place = Place {
                line: valid.matches('\n').count() as u32 + 1,
                column: valid
                    .rsplit('\n')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .count() as u32
                    + 1,
            };
            return Err(SpecError {
                file: file.to_owned(),
                problems: vec![Problem {
                    message: format!(
                        "the byte {:#04x} is not UTF-8 text; save the file as UTF-8",
                        bytes[before]
                    ),
                    place: Some(place),
                }],
                lines: lines(&String::from_utf8_lossy(bytes)),
            }
            .into());
        }
    };
    let anchors = match file.parent() {
        Some(folder) => Anchors::load(&folder.join("anchors"))?,
        None => Anchors::default(),
    };
    read_text(file, &text, profile, anchors).map_err(Into::into)
}

/// As [`read`], from text that is already in memory.
pub fn read_text(
    file: &Path,
    text: &str,
    profile: Option<&str>,
    anchors: Anchors,
) -> Result<Study, SpecError> {
    let fail = |problems: Vec<Problem>| SpecError {
        file: file.to_owned(),
        problems,
        lines: lines(text),
    };
    let one = |error: DocumentError| {
        fail(vec![Problem {
            message: error.message,
            place: error.place,
        }])
    };

    let mut base = document::parse(text).map_err(one)?;
    if !matches!(base.value, Value::Mapping(_)) {
        return Err(fail(vec![Problem {
            message: "a study file is a section of names and values, beginning with `study: name`; see experiments/quickstart.yaml".into(),
            place: Some(base.place),
        }]));
    }
    let profiles = take_overrides(&mut base, "profiles").map_err(one)?;
    let names: Vec<String> = profiles.iter().map(|(key, _)| key.name.clone()).collect();
    check_names(&profiles, "profile").map_err(one)?;
    let (profile, overrides) = match profile {
        None => match profiles.into_iter().next() {
            Some((key, overrides)) => (key.name, overrides),
            None => ("default".to_owned(), Vec::new()),
        },
        Some(wanted) => match profiles.into_iter().find(|(key, _)| key.name == wanted) {
            Some((key, overrides)) => (key.name, overrides),
            None => {
                let known = if names.is_empty() {
                    "the file has no profiles".to_owned()
                } else {
                    format!("the file has: {}", names.join(", "))
                };
                return Err(fail(vec![Problem {
                    message: format!("no profile `{wanted}`; {known}"),
                    place: None,
                }]));
            }
        },
    };
    for (key, node) in overrides {
        refuse_path(&key, &["study", "profiles"]).map_err(one)?;
        base.replace(&key.name, key.place, node);
    }
    let variants = take_overrides(&mut base, "variants").map_err(one)?;
    if variants.is_empty() {
        return Err(fail(vec![Problem {
            message: "the study compares nothing; name at least one entry under `variants`".into(),
            place: Some(base.place),
        }]));
    }
    check_names(&variants, "variant").map_err(one)?;
    // Each is a copy of the document; no table has as many rows.
    const MOST_VARIANTS: usize = 1000;
    if let Some((key, _)) = variants.get(MOST_VARIANTS) {
        return Err(fail(vec![Problem {
            message: format!(
                "{} variants are more than {MOST_VARIANTS}; split the study",
                variants.len()
            ),
            place: Some(key.place),
        }]));
    }

    // The base is read once without variants so that claims, tables and the head of the file are checked at their places.
    let mut whole = base.clone();
    whole.replace(
        "variants",
        base.place,
        Node {
            value: Value::Mapping(Vec::new()),
            place: base.place,
        },
    );
    let head: StudyFile = whole.read().map_err(one)?;

    let mut resolved = Vec::new();
    for (key, overrides) in variants {
        let mut document = base.clone();
        for outside in ["study", "title", "paper", "scale", "claims", "tables"] {
            document.remove(outside);
        }
        let mut label = key.name.clone();
        for (path, node) in overrides {
            if path.name == "label" {
                label = node.read().map_err(one)?;
                continue;
            }
            refuse_path(
                &path,
                &[
                    "study",
                    "title",
                    "paper",
                    "scale",
                    "claims",
                    "tables",
                    "profiles",
                    "variants",
                    "languages",
                    "seeds",
                ],
            )
            .map_err(one)?;
            document.replace(&path.name, path.place, node);
        }
        let settings: Settings = document.read().map_err(one)?;
        resolved.push(Variant {
            name: key.name,
            label,
            settings,
            document,
            place: key.place,
        });
    }

    let mut data = resolved.iter().map(|variant| &variant.settings.data);
    let synthetic = data.any(|data| data.synthetic.is_some());
    let study = Study {
        file: file.to_owned(),
        name: head.study,
        title: head.title,
        paper: head.paper,
        profile,
        profiles: names,
        scale: if synthetic {
            Scale::Synthetic
        } else {
            head.scale.unwrap_or(Scale::Small)
        },
        variants: resolved,
        claims: head.claims,
        tables: head.tables,
        anchors,
        lines: lines(text),
    };
    let problems = validate::problems(&study, &base);
    if problems.is_empty() {
        Ok(study)
    } else {
        Err(fail(problems))
    }
}

/// The lines of a file as YAML counts them: a carriage return alone ends one too.
fn lines(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.split('\n').map(str::to_owned).collect()
}

type NamedOverrides = Vec<(Key, Vec<(Key, Node)>)>;

/// Takes `profiles` or `variants` out of the document: names with their overrides, in the order of the file.
fn take_overrides(base: &mut Node, section: &str) -> Result<NamedOverrides, DocumentError> {
    let Some(node) = base.remove(section) else {
        return Ok(Vec::new());
    };
    let expected = |place| DocumentError {
        message: format!(
            "`{section}` maps names to what differs: `{section}: {{name: {{path.to.value: new}}}}`"
        ),
        place: Some(place),
    };
    let Value::Mapping(entries) = node.value else {
        return Err(expected(node.place));
    };
    entries
        .into_iter()
        .map(|(key, node)| match node.value {
            Value::Mapping(overrides) => Ok((key, overrides)),
            Value::Null => Ok((key, Vec::new())),
            _ => Err(expected(node.place)),
        })
        .collect()
}

/// Names become folders, columns and file names: they must differ in more than case.
fn check_names(named: &NamedOverrides, what: &str) -> Result<(), DocumentError> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (key, _) in named {
        if !is_name(&key.name) {
            return Err(DocumentError {
                message: format!(
                    "`{}` cannot name a {what}; use letters, digits, `-`, `_`, `+` and `.`, and start with a letter or digit",
                    key.name
                ),
                place: Some(key.place),
            });
        }
        if let Some(other) = seen.insert(key.name.to_lowercase(), &key.name) {
            return Err(DocumentError {
                message: format!(
                    "the {what}s `{other}` and `{}` differ in case only; rename one",
                    key.name
                ),
                place: Some(key.place),
            });
        }
    }
    Ok(())
}

/// A name that is safe in a path, a table and a command line.
pub fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_+.".contains(c))
}

fn refuse_path(key: &Key, refused: &[&str]) -> Result<(), DocumentError> {
    let first = key.name.split('.').next().unwrap_or_default();
    if refused.contains(&first) {
        return Err(DocumentError {
            message: format!("`{first}` cannot be overridden here"),
            place: Some(key.place),
        });
    }
    // No path of a study is as deep as this; values are reached by recursion.
    const DEEPEST: usize = 16;
    let parts = key.name.split('.');
    if parts.clone().any(str::is_empty) || parts.count() > DEEPEST {
        let shown: String = key.name.chars().take(80).collect();
        return Err(DocumentError {
            message: format!("`{shown}` is not a path; write it as `section.field`"),
            place: Some(key.place),
        });
    }
    Ok(())
}

/// The JSON Schema of study files.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(StudyFile).to_value()
}

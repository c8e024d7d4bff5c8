//! Something wrong with settings: which field, what, and what would be right.

/// One problem of one section of a study file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path below the section; empty for the whole of it.
    pub field: String,
    /// "a vocabulary of 3 entries"
    pub what: String,
    /// "choose between 16 and 16777216"
    pub remedy: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}; {}", self.field, self.what, self.remedy)
    }
}

impl Problem {
    pub fn new(field: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

//! Patterns of paths in a study file: `mono/{language}.txt.zst`, `para/en-{language}.{side}`, `shards/{language}-*.txt`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What stands for a placeholder. A pattern that names another one is refused.
pub type Fields<'a> = BTreeMap<&'static str, &'a str>;

/// The placeholders of a pattern, in order of appearance.
pub fn placeholders(pattern: &str) -> Result<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find(['{', '}']) {
        let after = &rest[open + 1..];
        let end = after
            .find(['{', '}'])
            .filter(|&end| rest.as_bytes()[open] == b'{' && after.as_bytes()[end] == b'}');
        let end = end.with_context(|| format!("`{pattern}` has an unbalanced brace"))?;
        names.push(&after[..end]);
        rest = &after[end + 1..];
    }
    Ok(names)
}

/// Refuses a pattern with placeholders other than `known`.
pub fn check(pattern: &str, known: &[&str]) -> Result<()> {
    if pattern.trim().is_empty() {
        bail!("a path is empty");
    }
    for name in placeholders(pattern)? {
        if !known.contains(&name) {
            let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
            bail!(
                "`{pattern}` has the placeholder {{{name}}}; here only {} are filled in",
                known.join(", ")
            );
        }
    }
    let (folder, _) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    if folder.contains('*') {
        bail!("`{pattern}` has a `*` in a folder; only the file's name may have one");
    }
    Ok(())
}

/// The pattern with its placeholders filled in.
pub fn fill(pattern: &str, fields: &Fields) -> Result<String> {
    let mut filled = pattern.to_owned();
    for name in placeholders(pattern)? {
        let value = fields.get(name).with_context(|| {
            format!("`{pattern}` has the placeholder {{{name}}}, which nothing fills in here")
        })?;
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    Ok(filled)
}

/// The existing files of a pattern without placeholders, sorted by name.
///
/// # Errors
/// No such file; the message says how relative paths are rooted.
pub fn find(pattern: &str, root: Option<&Path>) -> Result<Vec<PathBuf>> {
    let path = rooted(pattern, root);
    let missing = || {
        let remedy = match root {
            _ if Path::new(pattern).is_absolute() => "the path is absolute: correct it",
            Some(_) => "relative paths start at --data DIR (or XLT_DATA): correct one of the two",
            None => "say where relative paths start with --data DIR or XLT_DATA",
        };
        format!("`{}` does not exist; {remedy}", path.display())
    };
    if !pattern.contains('*') {
        if path.is_dir() {
            bail!(
                "`{}` is a folder; name the files in it, `*` stands for any characters",
                path.display()
            );
        }
        return if path.is_file() {
            Ok(vec![path])
        } else {
            bail!(missing())
        };
    }
    let (Some(folder), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) else {
        bail!(missing());
    };
    let entries = std::fs::read_dir(folder).with_context(missing)?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list `{}`", folder.display()))?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|entry| matches(name, entry))
            && entry.path().is_file()
        {
            found.push(entry.path());
        }
    }
    if found.is_empty() {
        bail!(
            "no file matches `{}`; {}",
            path.display(),
            "correct the pattern or --data DIR (or XLT_DATA)"
        );
    }
    found.sort();
    Ok(found)
}

fn rooted(path: &str, root: Option<&Path>) -> PathBuf {
    root.unwrap_or(Path::new("")).join(path)
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters. Files that start with a dot are hidden.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_characters_of_a_name() {
        assert!(matches("en-*.txt", "en-01.txt"));
        assert!(matches("*", "anything"));
        assert!(matches("a*b*c", "aXbYc"));
        assert!(!matches("a*b*c", "acb"));
        assert!(!matches("ab*ba", "aba"));
        assert!(!matches("*.txt", ".hidden.txt"));
    }

    #[test]
    fn unknown_placeholders_are_refused() {
        assert!(check("mono/{language}.txt", &["language"]).is_ok());
        let error = check("mono/{lang}.txt", &["language"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("{lang}") && error.contains("{language}"),
            "{error}"
        );
        assert!(check("mono/{language.txt", &["language"]).is_err());
        assert!(check("*/{language}.txt", &["language"]).is_err());
    }
}

//! The schema of study files as a page for people: `docs/study-file.md`.
//!
//! One section per mapping, in the order in which a reader meets them, under the path that a study file gives it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

const INTRODUCTION: &str = include_str!("introduction.md");
/// Shown whole below the introduction.
const EXAMPLE: &str = include_str!("../../../experiments/quickstart.yaml");
/// Characters of a default that is shown whole; ours.
const LONGEST_DEFAULT: usize = 120;

/// The page for a schema as `schemars` makes it.
pub fn page(schema: &Value) -> String {
    let mut page = Page {
        definitions: schema["$defs"].as_object().cloned().unwrap_or_default(),
        sections: Vec::new(),
        named: BTreeSet::new(),
    };
    page.visit(schema, "");
    let mut text = format!("{INTRODUCTION}\n```yaml\n{EXAMPLE}```\n\n## Every field\n");
    for index in 0..page.sections.len() {
        text.push_str(&page.section(&page.sections[index]));
    }
    text
}

struct Page {
    definitions: Map<String, Value>,
    /// In the order in which they are first referred to.
    sections: Vec<Section>,
    named: BTreeSet<String>,
}

/// One definition and where a study file uses it.
struct Section {
    /// Name of the definition; empty for the whole file.
    definition: String,
    schema: Value,
    /// `data.monolingual`; the first is the heading.
    paths: Vec<String>,
}

impl Page {
    /// Lists the sections below a schema that a study file has at `path`.
    fn visit(&mut self, schema: &Value, path: &str) {
        if let Some(definition) = reference(schema) {
            self.visit_definition(&definition, path);
            return;
        }
        if path.is_empty() {
            self.sections.push(Section {
                definition: String::new(),
                schema: schema.clone(),
                paths: vec![String::new()],
            });
        }
        for (name, property) in object(schema, "properties") {
            self.visit(property, &joined(path, name));
        }
        if let Some(items) = schema.get("items") {
            self.visit(items, path);
        }
        if let Some(values) = schema
            .get("additionalProperties")
            .filter(|it| it.is_object())
        {
            self.visit(values, &joined(path, "NAME"));
        }
        for choice in choices(schema) {
            self.visit(choice, path);
        }
    }

    fn visit_definition(&mut self, definition: &str, path: &str) {
        let schema = self
            .definitions
            .get(definition)
            .cloned()
            .unwrap_or_default();
        if !has_section(&schema) {
            choices(&schema)
                .iter()
                .for_each(|choice| self.visit(choice, path));
            return;
        }
        if !self.named.insert(definition.to_owned()) {
            for section in &mut self.sections {
                if section.definition == definition && !section.paths.contains(&path.to_owned()) {
                    section.paths.push(path.to_owned());
                }
            }
            return;
        }
        self.sections.push(Section {
            definition: definition.to_owned(),
            schema: schema.clone(),
            paths: vec![path.to_owned()],
        });
        for (name, property) in object(&schema, "properties") {
            self.visit(property, &joined(path, name));
        }
        for choice in choices(&schema) {
            self.visit(choice, path);
        }
    }

    fn section(&self, section: &Section) -> String {
        let mut text = match section.paths[0].as_str() {
            "" => String::new(),
            path => format!("\n### `{path}`\n"),
        };
        if let Some(description) = described(&section.schema) {
            text.push_str(&format!("\n{description}\n"));
        }
        if let [_, others @ ..] = section.paths.as_slice()
            && !others.is_empty()
        {
            let others: Vec<String> = others.iter().map(|path| format!("`{path}`")).collect();
            text.push_str(&format!("\nThe same stands at {}.\n", others.join(", ")));
        }
        let choices = choices(&section.schema);
        if choices.is_empty() {
            text.push('\n');
            text.push_str(&self.fields(&section.schema));
            return text;
        }
        text.push_str("\n| value | meaning |\n| --- | --- |\n");
        for choice in choices {
            self.choice(choice, &mut text);
        }
        text
    }

    /// A row for a value; below it one for each field that the value carries.
    fn choice(&self, choice: &Value, text: &mut String) {
        let meaning = described(choice).unwrap_or_default();
        if let Some(word) = choice.get("const").and_then(Value::as_str) {
            text.push_str(&row(&[&format!("`{word}`"), &meaning]));
            return;
        }
        for (tag, carried) in object(choice, "properties") {
            let Some(definition) = reference(carried) else {
                let names: Vec<&str> = object(carried, "properties")
                    .iter()
                    .map(|(name, _)| name.as_str())
                    .collect();
                let tagged = format!("`{tag}: {{{}}}`", names.join(", "));
                text.push_str(&row(&[&tagged, &meaning]));
                for (name, field) in object(carried, "properties") {
                    let about = format!(
                        "{}; {}. {}",
                        self.kind(field),
                        default(carried, name, field),
                        described(field).unwrap_or_default()
                    );
                    text.push_str(&row(&[&format!("↳ `{tag}.{name}`"), &about]));
                }
                continue;
            };
            let linked = format!("`{tag}:` {}", self.link(&definition, "fields"));
            text.push_str(&row(&[&linked, &meaning]));
        }
    }

    fn fields(&self, schema: &Value) -> String {
        let mut text =
            String::from("| field | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for (name, field) in object(schema, "properties") {
            text.push_str(&row(&[
                &format!("`{name}`"),
                &self.kind(field),
                &default(schema, name, field),
                &described(field).unwrap_or_default(),
            ]));
        }
        text
    }

    /// The type of a value in words.
    fn kind(&self, schema: &Value) -> String {
        if let Some(definition) = reference(schema) {
            let target = &self.definitions[&definition];
            return match target.get("enum").and_then(Value::as_array) {
                Some(words) => alternatives(words.iter().map(|word| format!("`{}`", plain(word)))),
                None if !has_section(target) => self.any_of(target),
                None if choices(target).is_empty() => self.link(&definition, "mapping"),
                None => self.link(&definition, "choice"),
            };
        }
        if schema.get("anyOf").is_some() {
            return self.any_of(schema);
        }
        let names: Vec<&str> = match &schema["type"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect(),
        };
        let name = names.into_iter().find(|name| *name != "null");
        match name {
            Some("string") => "text".to_owned(),
            Some("integer") => "whole number".to_owned(),
            Some("number") => "number".to_owned(),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("array") => format!("list: {}", self.kind(&schema["items"])),
            Some("object") => match schema.get("additionalProperties") {
                Some(values) if values.is_object() => format!("names: {}", self.kind(values)),
                _ => "paths: new values".to_owned(),
            },
            _ => "anything".to_owned(),
        }
    }

    fn any_of(&self, schema: &Value) -> String {
        alternatives(
            choices(schema)
                .iter()
                .filter(|choice| choice["type"] != "null")
                .map(|choice| self.kind(choice)),
        )
    }

    fn link(&self, definition: &str, word: &str) -> String {
        let section = self
            .sections
            .iter()
            .find(|section| section.definition == definition);
        match section {
            Some(section) => format!("[{word}](#{})", anchor(&section.paths[0])),
            None => word.to_owned(),
        }
    }
}

/// Mappings and lists of explained values have a section; plain words and unions are written where they are used.
fn has_section(schema: &Value) -> bool {
    schema.get("properties").is_some() || schema.get("oneOf").is_some()
}

fn reference(schema: &Value) -> Option<String> {
    let name = schema.get("$ref")?.as_str()?;
    Some(name.trim_start_matches("#/$defs/").to_owned())
}

fn object<'a>(schema: &'a Value, field: &str) -> Vec<(&'a String, &'a Value)> {
    match schema.get(field).and_then(Value::as_object) {
        Some(entries) => entries.iter().collect(),
        None => Vec::new(),
    }
}

fn choices(schema: &Value) -> &[Value] {
    ["oneOf", "anyOf"]
        .into_iter()
        .find_map(|field| schema.get(field)?.as_array())
        .map_or(&[], Vec::as_slice)
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn described(schema: &Value) -> Option<String> {
    Some(schema.get("description")?.as_str()?.replace('\n', " "))
}

fn default(schema: &Value, name: &str, field: &Value) -> String {
    let required = schema["required"]
        .as_array()
        .is_some_and(|names| names.iter().any(|required| required == name));
    if required {
        return "required".to_owned();
    }
    match field.get("default") {
        Some(value) if !is_empty(value) => match value {
            Value::Object(entries) if value.to_string().len() > LONGEST_DEFAULT => {
                let names: Vec<String> = entries.keys().map(|name| format!("`{name}`")).collect();
                format!("{}, each with its defaults", names.join(", "))
            }
            Value::Object(_) | Value::Array(_) => format!("`{value}`"),
            scalar => format!("`{}`", plain(scalar)),
        },
        _ => "none".to_owned(),
    }
}

/// Whether there is nothing in a value, however deep.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(entries) => entries.values().all(is_empty),
        Value::Array(items) => items.iter().all(is_empty),
        _ => false,
    }
}

/// A scalar as a study file has it. The schema widens 32-bit numbers (0.10000000149011612 for 0.1).
fn plain(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(wide) if number.is_f64() && f64::from(wide as f32) == wide => {
                (wide as f32).to_string()
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn alternatives(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match words.as_slice() {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => words.concat(),
    }
}

fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// How GitHub addresses a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == '_' || *c == '-')
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_written_as_in_a_study_file() {
        assert_eq!(plain(&json!(f64::from(0.1_f32))), "0.1");
        assert_eq!(plain(&json!(0.1)), "0.1");
        assert_eq!(plain(&json!(1e-7)), "1e-7");
        assert_eq!(plain(&json!(512)), "512");
        assert_eq!(plain(&json!("one")), "one");
    }

    #[test]
    fn every_field_of_every_section_has_a_row_and_every_link_a_heading() {
        let schema = crate::spec::schema();
        let text = page(&schema);
        for (name, definition) in object(&schema, "$defs") {
            for (field, _) in object(definition, "properties") {
                assert!(text.contains(&format!("| `{field}` |")), "{name}.{field}");
            }
        }
        let headings: BTreeSet<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("### "))
            .map(anchor)
            .collect();
        for link in text.split("](#").skip(1) {
            let target = link.split(')').next().unwrap();
            assert!(headings.contains(target), "{target}");
        }
    }
}

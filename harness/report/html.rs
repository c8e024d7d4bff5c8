//! `report.html`: one self-contained page with verdicts, plots, tables, and what they rest on.
//!
//! The page is a template filled with plain values; whatever comes from a study file is escaped. The SVG of the plots,
//! made here from the same results, is the only text that goes in as it stands.

use super::claims::{Judgement, Verdict};
use super::manifest::{Manifest, Scale};
use super::plots::{Drawing, thousands};
use super::summary::{Query, Summary};
use super::tables::{Layout, Origin};
use super::{ReportInput, claims, format};
use crate::metrics::{Metric, Task};
use anyhow::{Context, Result};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Fills the page from what the other reports were made of.
pub fn page(
    input: &ReportInput,
    summary: &Summary,
    judgements: &[Judgement],
    tables: &[Layout],
    plots: &[Drawing],
) -> Result<String> {
    let manifest = &input.results.manifest;
    let verdicts: Vec<Value> = judgements.iter().map(claim).collect();
    let mut claim_notes = Vec::new();
    if judgements.iter().any(|judgement| judgement.these_seeds) {
        claim_notes.push(
            format!(
                "“These seeds”: with fewer than three seeds an interval covers other {} and not other seeds; then every seed must agree.",
                claims::evidence_words(manifest).items
            ),
        );
    }
    for note in claims::notes(judgements, input) {
        claim_notes.push(note.trim_start_matches("- ").replace('`', ""));
    }
    let content = json!({
        "classifies": claims::classifies(manifest),
        "values": claims::evidence_words(manifest).values,
        "paired": claims::evidence_words(manifest).paired,
        "title": manifest.title,
        "study": manifest.study,
        "profile": manifest.profile,
        "paper": {
            "title": manifest.paper.title,
            "link": web_address(&manifest.paper.url),
        },
        "scale": scale(manifest.scale),
        "sections": sections(judgements, tables, manifest),
        "tally": tally(judgements),
        "claims": verdicts,
        "claim_notes": claim_notes,
        "plots": plots.iter().map(|plot| json!({"name": plot.name, "svg": plot.svg})).collect::<Vec<_>>(),
        "tables": tables.iter().map(table).collect::<Vec<_>>(),
        "run": run(manifest, input),
        "deviations": manifest.synthetic_deviations,
        "settings": settings(manifest)?,
        "statuses": statuses(manifest, summary),
        "rules": rules(manifest),
        "configurations": configurations(manifest),
        "baselines": baselines(manifest),
        "sources": sources(manifest),
        "translations": pairs(&manifest.translations),
        "counts": counts(&manifest.data_facts),
        "provenance": provenance(manifest),
        "stages": stages(manifest),
        "jobs": pairs(&manifest.jobs),
    });
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
        .add_template("report.html", include_str!("templates/report.html"))
        .context("the report's template is not valid")?;
    environment
        .get_template("report.html")
        .and_then(|template| template.render(template_value(&content)))
        .context("cannot fill the report's template")
}

/// JSON as the template engine's own values.
fn template_value(value: &Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(truth) => minijinja::Value::from(*truth),
        Value::Number(number) => minijinja::Value::from(number.to_string()),
        Value::String(text) => minijinja::Value::from(text.as_str()),
        Value::Array(items) => items.iter().map(template_value).collect(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), template_value(value)));
            minijinja::Value::from(fields.collect::<BTreeMap<String, minijinja::Value>>())
        }
    }
}

/// An address that is safe to follow; empty for anything but http and https.
fn web_address(address: &str) -> &str {
    let web = address.starts_with("https://") || address.starts_with("http://");
    if web { address } else { "" }
}

fn scale(scale: Scale) -> &'static str {
    match scale {
        Scale::Synthetic => {
            "Scale: synthetic. The languages are made up, and nothing here says what a model does on real ones."
        }
        Scale::Small => {
            "Scale: small. Real text, far below the paper's sizes; verdicts hold at this scale."
        }
        Scale::SingleGpu => {
            "Scale: one card. Real text, below the paper's sizes; verdicts hold at this scale."
        }
        Scale::Paper => "Scale: the paper's own sizes and data.",
    }
}

fn sections(judgements: &[Judgement], tables: &[Layout], manifest: &Manifest) -> Vec<Value> {
    let all = [
        ("verdicts", "Verdicts", true),
        ("claims", "Claims", !judgements.is_empty()),
        ("plots", "Plots", true),
        ("tables", "Tables", !tables.is_empty()),
        ("run", "What was run", true),
        ("statuses", "Statuses", true),
        (
            "configurations",
            "Configurations",
            claims::classifies(manifest),
        ),
        ("baselines", "Baselines", !manifest.baselines.is_empty()),
        ("data", "Data", true),
        ("provenance", "Provenance", true),
    ];
    all.into_iter()
        .filter(|(_, _, there)| *there)
        .map(|(id, name, _)| json!({"id": id, "name": name}))
        .collect()
}

/// `2 supported, 1 inconclusive`.
fn tally(judgements: &[Judgement]) -> String {
    let verdicts = [
        Verdict::Supported,
        Verdict::Contradicted,
        Verdict::Inconclusive,
        Verdict::NotRun,
    ];
    let parts: Vec<String> = verdicts
        .into_iter()
        .map(|verdict| {
            let count = judgements
                .iter()
                .filter(|judgement| judgement.verdict == verdict)
                .count();
            (count, verdict)
        })
        .filter(|(count, _)| *count > 0)
        .map(|(count, verdict)| format!("{count} {}", verdict.name()))
        .collect();
    format!("Of {} claims: {}.", judgements.len(), parts.join(", "))
}

fn claim(judgement: &Judgement) -> Value {
    let p_value = |value: Option<f64>| value.map_or(format::DASH.to_string(), format::p_value);
    let (value, interval) = match &judgement.estimate {
        None => (format::DASH.to_owned(), None),
        Some(estimate) => {
            let metric = estimate.metric;
            let (mean, number): (String, fn(f64, Metric) -> String) = if judgement.is_difference {
                (format::signed(estimate.mean, metric), format::signed)
            } else {
                (format::mean(estimate), format::number)
            };
            let (low, high) = (estimate.low, estimate.high);
            let interval = format!("[{}, {}]", number(low, metric), number(high, metric));
            (mean, Some(interval))
        }
    };
    json!({
        "says": judgement.says,
        "verdict": judgement.verdict.name().replace(' ', "-"),
        "wording": judgement.wording,
        "measured": judgement.measured,
        "value": value,
        "interval": interval,
        "bound": judgement.bound,
        "seeds": judgement.estimate.as_ref().map_or(format::DASH.to_string(), format::seeds),
        "p": p_value(judgement.p_value),
        "adjusted": p_value(judgement.adjusted_p_value),
        "raw": judgement.raw.name(),
        "family": judgement.family,
        "gate": judgement.gate,
    })
}

fn table(layout: &Layout) -> Value {
    let groups = layout.groups.iter().map(|group| {
        let rows = group.rows.iter().map(|row| {
            let cells = row.cells.iter().map(|cell| match cell {
                Some(entry) => json!({
                    "text": format!("{}{}", entry.text, if entry.at_chance { "*" } else { "" }),
                    "interval": entry
                        .interval
                        .as_ref()
                        .map(|interval| format!("± {}", interval.half_width)),
                }),
                None => json!({"text": format::DASH, "interval": null}),
            });
            let dagger = if row.unverified() { "†" } else { "" };
            json!({
                "label": format!("{}{dagger}", row.label),
                "seeds": row.seeds(),
                "published": matches!(row.origin, Origin::Published { .. }),
                "cells": cells.collect::<Vec<_>>(),
            })
        });
        json!({"title": group.title, "rows": rows.collect::<Vec<_>>()})
    });
    json!({
        "caption": layout.caption,
        "columns": layout.columns,
        "groups": groups.collect::<Vec<_>>(),
        "notes": layout.notes,
    })
}

fn fact(name: &str, value: impl Into<String>) -> Value {
    json!({"name": name, "value": value.into()})
}

fn pairs(facts: &BTreeMap<String, String>) -> Vec<Value> {
    facts
        .iter()
        .map(|(name, value)| fact(name, value.as_str()))
        .collect()
}

fn numbers(seeds: &[u64]) -> String {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    seeds.join(", ")
}

fn run(manifest: &Manifest, input: &ReportInput) -> Vec<Value> {
    let languages = &manifest.languages;
    let named = |code: &String| match languages.names.get(code) {
        Some(name) if name != code => format!("{name} ({code})"),
        _ => code.clone(),
    };
    let join = |codes: &[String]| codes.iter().map(named).collect::<Vec<_>>().join(", ");
    let variants: Vec<String> = manifest
        .variants
        .iter()
        .map(|variant| {
            if variant.name == variant.label {
                variant.name.clone()
            } else {
                format!("{} ({})", variant.label, variant.name)
            }
        })
        .collect();
    let classifies = claims::classifies(manifest);
    let translates = manifest.translation_scores.is_some();
    let mut facts = vec![
        fact("source language", named(&languages.source)),
        fact("target languages", join(&languages.targets)),
        fact("variants", variants.join(", ")),
        fact("seeds of pretraining", numbers(&manifest.seeds.pretrain)),
    ];
    let trained = match (translates, classifies) {
        (true, true) => Some("seeds of fine-tuning and translation"),
        (true, false) => Some("seeds of translation"),
        (false, true) => Some("seeds of fine-tuning"),
        (false, false) => None,
    };
    if let Some(name) = trained {
        facts.push(fact(name, numbers(&manifest.seeds.finetune)));
    }
    facts.push(fact("seed of the data", manifest.seeds.data.to_string()));
    for evaluation in &manifest.evaluations {
        let task = Task::of(&evaluation.task).prose();
        let name = format!("{task}, {}", input.label(&evaluation.regime));
        facts.push(fact(&name, evaluation.languages.join(", ")));
    }
    let rules: Vec<String> = manifest
        .selections
        .iter()
        .map(|rule| format::selection(rule))
        .collect();
    facts.push(fact("selection", rules.join(", ")));
    facts
}

fn settings(manifest: &Manifest) -> Result<Vec<Value>> {
    let text = |(name, settings): (&String, &Value)| {
        let text = serde_json::to_string_pretty(settings)
            .with_context(|| format!("cannot print the settings of the variant {name}"))?;
        Ok(json!({"name": name, "json": text}))
    };
    manifest.settings.iter().map(text).collect()
}

/// What the manifest says about runs, and which cells of the predictions are at chance or missing.
fn statuses(manifest: &Manifest, summary: &Summary) -> Vec<Value> {
    let mut rows = Vec::new();
    for status in &manifest.statuses {
        let seeds = match status.finetune_seed {
            Some(seed) => format!("{}/{seed}", status.pretrain_seed),
            None => status.pretrain_seed.to_string(),
        };
        rows.push(json!({
            "run": format!("{}, seed {seeds}", status.variant),
            "what": status.what,
            "kind": status.kind.name(),
            "detail": status.detail,
        }));
    }
    for variant in &manifest.variants {
        for evaluation in &manifest.evaluations {
            for selection in manifest.selections_of(&evaluation.task) {
                let mut missing = Vec::new();
                let mut partial = Vec::new();
                let mut collapsed = Vec::new();
                for language in &evaluation.languages {
                    let estimate = summary.estimate(&Query {
                        variant: &variant.name,
                        task: &evaluation.task,
                        regime: &evaluation.regime,
                        language,
                        selection,
                        metric: Metric::of_task(&evaluation.task),
                    });
                    let Some(estimate) = estimate else {
                        missing.push(language.clone());
                        continue;
                    };
                    if estimate.seeds < estimate.asked {
                        partial.push(format!(
                            "{language} ({} seeds done)",
                            format::seeds(&estimate)
                        ));
                    }
                    if estimate.collapsed > 0 {
                        collapsed.push(format!(
                            "{language} ({} of {} seeds)",
                            estimate.collapsed, estimate.seeds
                        ));
                    }
                }
                let found = [
                    ("missing", missing),
                    ("missing in part", partial),
                    ("collapsed", collapsed),
                ];
                for (kind, languages) in found
                    .into_iter()
                    .filter(|(_, languages)| !languages.is_empty())
                {
                    rows.push(json!({
                        "run": variant.name,
                        "what": format!("{}/{}, {selection}", evaluation.task, evaluation.regime),
                        "kind": kind,
                        "detail": languages.join(", "),
                    }));
                }
            }
        }
    }
    rows
}

/// The dev scores that configurations have, as columns.
fn rules(manifest: &Manifest) -> Vec<String> {
    let keys = manifest
        .configurations
        .iter()
        .flat_map(|row| row.dev_scores.keys());
    keys.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

fn configurations(manifest: &Manifest) -> Vec<Value> {
    let rules = rules(manifest);
    let rows = manifest.configurations.iter().map(|row| {
        let score = |rule: &String| {
            row.dev_scores
                .get(rule)
                .map_or(format::DASH.to_string(), |score| format!("{score:.2}"))
        };
        json!({
            "variant": row.variant,
            "seeds": format!("{}/{}", row.pretrain_seed, row.finetune_seed),
            "training_set": row.training_set,
            "configuration": row.configuration,
            "scores": rules.iter().map(score).collect::<Vec<_>>(),
            "chosen": row.chosen.join(", "),
        })
    });
    rows.collect()
}

/// Null when there are none.
fn baselines(manifest: &Manifest) -> Value {
    let keys = manifest
        .baselines
        .iter()
        .flat_map(|baseline| baseline.accuracy.keys());
    let scored: BTreeSet<&String> = keys.collect();
    let known = &manifest.languages;
    let mut languages: Vec<&String> = std::iter::once(&known.source)
        .chain(&known.targets)
        .collect();
    languages.retain(|language| scored.contains(language));
    if languages.is_empty() {
        return Value::Null;
    }
    let rows = manifest.baselines.iter().map(|baseline| {
        let cell = |language: &&String| match baseline.accuracy.get(*language) {
            Some(accuracy) => format::fixed(*accuracy),
            None => format::DASH.to_string(),
        };
        json!({
            "name": baseline.name.replace('_', " "),
            "cells": languages.iter().map(cell).collect::<Vec<_>>(),
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({"languages": languages, "rows": rows})
}

fn sources(manifest: &Manifest) -> Vec<Value> {
    let rows = manifest.sources.iter().map(|source| {
        let files = source.files.iter().map(|(path, hash)| {
            let hashes = match &hash.sha256 {
                Some(sha256) => format!("blake3 {}, sha256 {sha256}", hash.blake3),
                None => format!("blake3 {}", hash.blake3),
            };
            json!({"path": path, "bytes": thousands(hash.bytes), "hash": hashes})
        });
        json!({
            "name": source.name,
            "licence": source.licence,
            "citation": source.citation,
            "revision": source.revision,
            "files": files.collect::<Vec<_>>(),
        })
    });
    rows.collect()
}

/// The counts of the prepared data, one line each: `monolingual · en · sentences`.
fn counts(facts: &Value) -> Vec<Value> {
    fn walk(path: &str, value: &Value, rows: &mut Vec<Value>) {
        let below = |name: &str| {
            if path.is_empty() {
                name.to_string()
            } else {
                format!("{path} · {name}")
            }
        };
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    walk(&below(&name.replace('_', " ")), value, rows);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    walk(&below(&(index + 1).to_string()), value, rows);
                }
            }
            Value::Null => {}
            Value::Number(number) => {
                let text = number
                    .as_u64()
                    .map_or_else(|| number.to_string(), thousands);
                rows.push(fact(path, text));
            }
            Value::Bool(truth) => rows.push(fact(path, if *truth { "yes" } else { "no" })),
            Value::String(text) => rows.push(fact(path, text.as_str())),
        }
    }
    let mut rows = Vec::new();
    walk("", facts, &mut rows);
    rows
}

fn provenance(manifest: &Manifest) -> Vec<Value> {
    let provenance = &manifest.provenance;
    let mut facts = vec![
        fact("program", format!("xlt {}", provenance.program_version)),
        fact(
            "commit",
            provenance.git_commit.as_deref().unwrap_or("not known"),
        ),
        fact(
            "settings fingerprint",
            manifest.settings_fingerprint.as_str(),
        ),
        fact("device", provenance.devices.join(", ")),
        fact("instruction set", provenance.instruction_sets.join(", ")),
        fact("threads", provenance.threads.to_string()),
    ];
    facts.extend(format::mixed_machines(manifest).map(|note| fact("note", note)));
    facts
}

fn stages(manifest: &Manifest) -> Vec<Value> {
    let rows = manifest.provenance.stages.iter().map(|(name, cost)| {
        json!({
            "name": name,
            "jobs": cost.jobs.to_string(),
            "seconds": format!("{:.1}", cost.seconds),
            "tokens": thousands(cost.tokens),
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_become_links() {
        assert_eq!(
            web_address("https://arxiv.org/abs/1901.07291"),
            "https://arxiv.org/abs/1901.07291"
        );
        assert_eq!(web_address("javascript:alert(1)"), "");
    }

    #[test]
    fn counts_are_flattened_in_their_order() {
        let facts = json!({"xnli": {"train_rows": 392_702, "kept": true}, "a": [1.5]});
        let rows = counts(&facts);
        assert_eq!(rows[0], fact("xnli · train rows", "392,702"));
        assert_eq!(rows[1], fact("xnli · kept", "yes"));
        assert_eq!(rows[2], fact("a · 1", "1.5"));
    }
}

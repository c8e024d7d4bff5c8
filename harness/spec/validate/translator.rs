//! The study's own translator.

use crate::spec::translator::{self, TranslatorSettings};
use crate::spec::{Problem, Study, Variant};

/// One model translates for all variants: it must be one of them that it builds on, and they must read the same text.
pub(super) fn problems(
    translator: &TranslatorSettings,
    study: &Study,
    variant: &Variant,
    found: &mut Vec<Problem>,
) {
    let settings = &variant.settings;
    let mut add = |field: &str, message: String| {
        let path = format!("data.nli.translator.{field}");
        found.push(Problem {
            message,
            place: Some(variant.document.nearest_to(&path).place),
        });
    };
    let directions = translator::wanted(settings);
    if directions.is_empty() {
        add(
            "",
            "nothing is left to translate: files hold all translations that the regimes need; remove the translator, add translate_train or translate_test to finetune.regimes, or name in `languages` of each source of data.nli.translated_train and translated_test those that it has (without it, it counts as having all)".into(),
        );
        return;
    }
    let source = &settings.languages.source;
    let mut wanted = directions.iter();
    let unvalidated = wanted.find(|one| !settings.data.validates_pairs(one.target(source)));
    if let Some(direction) = unvalidated {
        add(
            "",
            format!(
                "translators are chosen on held-out pairs, and there are none of `{direction}`; keep some apart with `data.parallel_validation`, or name a file of them under `data.parallel_dev`"
            ),
        );
    }
    let base = study
        .variants
        .iter()
        .find(|other| other.name == translator.variant);
    let Some(base) = base else {
        let names = study.variants.iter().map(|variant| variant.name.as_str());
        let names: Vec<&str> = names.collect();
        add(
            "variant",
            format!(
                "unknown variant `{}`; the study has: {}",
                translator.variant,
                names.join(", ")
            ),
        );
        return;
    };
    for (what, alike) in [
        (
            "data.text_pipeline",
            base.settings.data.text_pipeline == settings.data.text_pipeline,
        ),
        ("data.nli", base.settings.data.nli == settings.data.nli),
        (
            "data.synthetic",
            base.settings.data.synthetic == settings.data.synthetic,
        ),
    ] {
        if !alike {
            add(
                "variant",
                format!(
                    "variant `{}` has another `{what}` than `{}`, whose text the translator reads; set it for the whole study or in a profile",
                    variant.name, base.name
                ),
            );
        }
    }
    for (side, start) in [
        ("encoder", &translator.encoder),
        ("decoder", &translator.decoder),
    ] {
        if start.is_pretrained() && base.settings.pretrain.settings().is_none() {
            add(
                side,
                format!(
                    "the {side} starts from a pretrained model, but `{}` has `pretrain: none`; build on another variant, or start at random",
                    base.name
                ),
            );
        }
    }
    let languages = base.settings.languages.all();
    let translation = translator.translation(directions);
    for problem in translation.validate(&base.settings.model, &languages) {
        // There is one search; a section `translation` has a list of them.
        let field = problem.field.replace("test.searches.0", "search");
        add(&field, format!("{}; {}", problem.what, problem.remedy));
    }
}

//! What a study file may say beyond its types: ranges, names that must exist, parts that must fit together.

mod finetune;
mod probes;
mod translator;

use std::collections::BTreeSet;

use crate::language;
pub use crate::metrics::TRANSLATION_TASK;
use crate::metrics::{LANGUAGE_MODELLING_TASK, WORD_SIMILARITY_TASK, WORD_TRANSLATION_TASK};
use crate::probes::perplexity::Unit;
use crate::probes::word_embeddings::INPUT_EMBEDDINGS;
use crate::spec::claims::Names;
use crate::spec::document::Node;
use crate::spec::finetune::Regime;
use crate::spec::settings::{DataSettings, NliData, Scale, Settings};
use crate::spec::translation::TranslationSettings;
use crate::spec::{Problem, Study, Variant, is_name};

/// The rule that chooses among a translation model's validations: the best mean BLEU on held-out pairs.
pub const VALIDATION_BLEU: &str = "validation_bleu";

/// What stands for a rule where nothing chooses: pretrained models are measured after their last update.
pub const LAST_UPDATE: &str = "last_update";

/// Every problem of a study, each at the place of the value that is wrong, in the order of the file.
pub(super) fn problems(study: &Study, base: &Node) -> Vec<Problem> {
    let mut found = Vec::new();
    head(study, base, &mut found);
    let mut labels: Vec<&str> = Vec::new();
    for variant in &study.variants {
        let mut of_variant = Vec::new();
        settings(&variant.settings, &variant.document, &mut of_variant);
        evaluated_alike(study, variant, &mut of_variant);
        if let Some(translator) = &variant.settings.data.nli.translator {
            translator::problems(translator, study, variant, &mut of_variant);
        }
        let label = variant.label.as_str();
        if label.trim().is_empty() || labels.contains(&label) {
            let message = if label.trim().is_empty() {
                format!(
                    "variant `{}` has an empty label; name it or leave the label out",
                    variant.name
                )
            } else {
                format!(
                    "two variants are labelled `{label}`; tables and plots could not tell them apart: rename one"
                )
            };
            let place = Some(variant.place);
            of_variant.push(Problem { message, place });
        }
        labels.push(label);
        for problem in of_variant {
            // The same mistake in the base is the same problem for every variant.
            if !found.contains(&problem) {
                found.push(problem);
            }
        }
    }
    found.sort_by_key(|problem| problem.place);
    found
}

/// Claims, tables and plots set variants side by side, so that what is evaluated and what selects is the study's.
fn evaluated_alike(study: &Study, variant: &Variant, found: &mut Vec<Problem>) {
    let Some(first) = study.variants.first() else {
        return;
    };
    let (ours, theirs) = (&variant.settings, &first.settings);
    let mut compared = vec![
        (
            "finetune",
            ours.finetune.is_some() == theirs.finetune.is_some(),
        ),
        (
            "translation",
            ours.translation.is_some() == theirs.translation.is_some(),
        ),
        (
            "language_modelling",
            ours.language_modelling == theirs.language_modelling,
        ),
        (
            "word_embeddings",
            ours.word_embeddings == theirs.word_embeddings,
        ),
        (
            "data.nli.translator",
            ours.data.nli.translator == theirs.data.nli.translator,
        ),
    ];
    if let (Some(ours), Some(theirs)) = (&ours.finetune, &theirs.finetune) {
        compared.extend([
            ("finetune.task", ours.task == theirs.task),
            ("finetune.regimes", ours.regimes == theirs.regimes),
            (
                "finetune.regime_languages",
                ours.regime_languages == theirs.regime_languages,
            ),
            (
                "finetune.mixed_pairs",
                ours.mixed_pairs == theirs.mixed_pairs,
            ),
            ("finetune.select_on", ours.select_on == theirs.select_on),
        ]);
    }
    if let (Some(ours), Some(theirs)) = (&ours.translation, &theirs.translation) {
        compared.extend([
            (
                "translation.test.directions",
                ours.tested() == theirs.tested(),
            ),
            (
                "translation.test.searches",
                ours.test.searches == theirs.test.searches,
            ),
            ("translation.test.bleu", ours.test.bleu == theirs.test.bleu),
        ]);
    }
    if is_measured(ours) || is_measured(theirs) {
        compared.push(("data", ours.data == theirs.data));
    }
    for (path, alike) in compared {
        if !alike {
            found.push(Problem {
                message: format!(
                    "variant `{}` has another `{path}` than `{}`, so that they could not be compared; set it for the whole study or in a profile",
                    variant.name, first.name
                ),
                place: Some(variant.document.nearest_to(path).place),
            });
        }
    }
}

/// The rules that choose models: those of fine-tuning, [`VALIDATION_BLEU`] of translation, and [`LAST_UPDATE`].
pub fn selections(settings: &Settings) -> Vec<String> {
    let rules = settings
        .finetune
        .iter()
        .flat_map(|finetune| &finetune.select_on);
    let rules = rules.map(|rule| rule.name().to_owned());
    let translation = settings.translation.iter();
    rules
        .chain(translation.map(|_| VALIDATION_BLEU.to_owned()))
        .chain(is_measured(settings).then(|| LAST_UPDATE.to_owned()))
        .collect()
}

/// Whether pretrained models are measured as they are.
fn is_measured(settings: &Settings) -> bool {
    settings.language_modelling.is_some() || settings.word_embeddings.is_some()
}

/// The evaluations of a study: (task, regime, languages), as claims and tables may name them.
pub fn evaluations(settings: &Settings) -> Vec<(String, String, Vec<String>)> {
    let mut evaluations = Vec::new();
    if let Some(translation) = &settings.translation {
        let directions = translation.tested().iter();
        let directions: Vec<String> = directions.map(ToString::to_string).collect();
        evaluations.extend(translation.test.searches.iter().map(|search| {
            (
                TRANSLATION_TASK.to_owned(),
                search.name(),
                directions.clone(),
            )
        }));
    }
    if let Some(modelling) = &settings.language_modelling {
        let of_unit = |unit: &Unit| {
            let languages = modelling.languages.clone();
            (
                LANGUAGE_MODELLING_TASK.to_owned(),
                unit.name().to_owned(),
                languages,
            )
        };
        evaluations.extend(modelling.units.iter().map(of_unit));
    }
    if let Some(words) = &settings.word_embeddings {
        let dictionaries = words.dictionary_languages(&settings.languages.targets);
        for (task, languages) in [
            (WORD_TRANSLATION_TASK, dictionaries),
            (WORD_SIMILARITY_TASK, words.similarity.as_slice()),
        ] {
            if !languages.is_empty() {
                let regime = INPUT_EMBEDDINGS.to_owned();
                evaluations.push((task.to_owned(), regime, languages.to_vec()));
            }
        }
    }
    let Some(finetune) = &settings.finetune else {
        return evaluations;
    };
    for regime in &finetune.regimes {
        evaluations.push((
            finetune.task.name().to_owned(),
            regime.name().to_owned(),
            regime_languages(settings, *regime),
        ));
        if *regime == Regime::ZeroShot && finetune.mixed_pairs {
            let languages = settings.languages.evaluated();
            let pairs = languages
                .iter()
                .flat_map(|premise| {
                    languages
                        .iter()
                        .map(move |hypothesis| (premise, hypothesis))
                })
                .filter(|(premise, hypothesis)| premise != hypothesis)
                .map(|(premise, hypothesis)| format!("{premise}+{hypothesis}"))
                .collect();
            evaluations.push((
                format!("{}_mixed", finetune.task.name()),
                regime.name().to_owned(),
                pairs,
            ));
        }
    }
    evaluations
}

/// The languages that a regime is scored in. The source language needs no translation, so that it is scored in every regime:
/// under translate-train and translate-test its score is the zero-shot one.
pub fn regime_languages(settings: &Settings, regime: Regime) -> Vec<String> {
    let restricted = settings
        .finetune
        .as_ref()
        .and_then(|finetune| finetune.regime_languages.get(&regime));
    let targets = restricted.unwrap_or(&settings.languages.targets);
    std::iter::once(&settings.languages.source)
        .chain(targets)
        .cloned()
        .collect()
}

fn head(study: &Study, base: &Node, found: &mut Vec<Problem>) {
    let mut add = |path: &str, message: String| {
        found.push(Problem {
            message,
            place: Some(base.nearest_to(path).place),
        });
    };
    if !is_name(&study.name) || study.name != study.name.to_lowercase() {
        add(
            "study",
            format!(
                "`{}` cannot name a study: it names folders; use lower-case letters, digits, `-` and `_`",
                study.name
            ),
        );
    }
    let Some(first) = study.variants.first() else {
        return;
    };
    let names = Names {
        variants: study
            .variants
            .iter()
            .map(|variant| variant.name.clone())
            .collect(),
        evaluations: evaluations(&first.settings),
        selections: selections(&first.settings),
        anchors: &study.anchors,
    };
    for (index, claim) in study.claims.iter().enumerate() {
        for problem in claim.validate(&names) {
            add(
                &format!("claims.{index}.{}", problem.field),
                format!("{}; {}", problem.what, problem.remedy),
            );
        }
        if claim.gate && study.scale != Scale::Paper && claim.anchor.is_some() {
            add(
                &format!("claims.{index}.gate"),
                "a published figure can gate only at the paper's own scale; set `gate: false`"
                    .into(),
            );
        }
    }
    for (index, table) in study.tables.iter().enumerate() {
        for problem in table.validate(&names) {
            add(
                &format!("tables.{index}.{}", problem.field),
                format!("{}; {}", problem.what, problem.remedy),
            );
        }
    }
    let mut tables = BTreeSet::new();
    for (index, table) in study.tables.iter().enumerate() {
        if !tables.insert(table.name.to_lowercase()) {
            add(
                &format!("tables.{index}.name"),
                format!("two tables are named `{}`; rename one", table.name),
            );
        }
    }
}

fn settings(settings: &Settings, document: &Node, found: &mut Vec<Problem>) {
    let mut add = |path: &str, message: String| {
        found.push(Problem {
            message,
            place: Some(document.nearest_to(path).place),
        });
    };
    languages(settings, &mut add);
    data(settings, &mut add);
    for problem in settings.tokenizer.validate() {
        add(
            &format!("tokenizer.{}", problem.field),
            format!("{}; {}", problem.what, problem.remedy),
        );
    }
    match settings.model.validate() {
        Ok(()) => model_sizes(settings, &mut add),
        Err(problems) => {
            for problem in problems {
                // Two numbers must fit together: the one that stands last, most often an override, is the wrong one.
                let place = |field: &str| document.nearest_to(&format!("model.{field}")).place;
                let uneven = problem.field == "hidden"
                    && (1..=LARGEST_HIDDEN).contains(&settings.model.hidden);
                let field = if uneven && place("heads") > place("hidden") {
                    "heads"
                } else {
                    problem.field.as_str()
                };
                add(
                    &format!("model.{field}"),
                    format!("{} {}; {}", problem.field, problem.what, problem.remedy),
                );
            }
        }
    }
    if let Some(pretrain) = settings.pretrain.settings() {
        for problem in pretrain.validate(&settings.model) {
            add(
                &format!("pretrain.{}", problem.field),
                format!("{}; {}", problem.what, problem.remedy),
            );
        }
        if pretrain.uses_parallel_text()
            && settings.data.synthetic.is_none()
            && settings.data.parallel.is_empty()
        {
            add("data", "translation language modelling needs sentence pairs; name them under `data.parallel`".into());
        }
    }
    if settings.finetune.is_none() && settings.translation.is_none() && !is_measured(settings) {
        add(
            "study",
            "the study evaluates nothing; add a section `finetune`, `translation`, `language_modelling` or `word_embeddings`".into(),
        );
    }
    probes::problems(settings, &mut add);
    if let Some(finetuning) = &settings.finetune {
        finetune::problems(finetuning, settings, &mut add);
    }
    if let Some(translating) = &settings.translation {
        translation(translating, settings, &mut add);
    }
    probes::pretrained_languages(settings, &mut add);
    seeds(settings, &mut add);
}

/// See [`model_sizes`].
const LARGEST_HIDDEN: usize = 1 << 16;

/// Ten times the largest encoders of the papers and more; sums of sizes stay far from overflow below these. Ours.
fn model_sizes(settings: &Settings, add: &mut impl FnMut(&str, String)) {
    let model = &settings.model;
    for (field, value, most) in [
        ("layers", model.layers, 1024),
        ("hidden", model.hidden, LARGEST_HIDDEN),
        ("heads", model.heads, 1024),
        ("feed_forward", model.feed_forward, 1 << 18),
        ("positions", model.positions, 1 << 14),
    ] {
        if value > most {
            add(
                &format!("model.{field}"),
                format!("{field} is {value}; use a number from 1 to {most}"),
            );
        }
    }
}

fn languages(settings: &Settings, add: &mut impl FnMut(&str, String)) {
    let all = settings.languages.all();
    let mut seen = BTreeSet::new();
    let synthetic = settings.data.synthetic.as_ref();
    let lists = [
        ("languages.targets", &settings.languages.targets),
        ("languages.pretrain_only", &settings.languages.pretrain_only),
    ];
    let source = [("languages.source".to_owned(), &settings.languages.source)];
    let others = lists.iter().flat_map(|(path, list)| {
        list.iter()
            .enumerate()
            .map(move |(index, language)| (format!("{path}.{index}"), language))
    });
    for (path, language) in source.into_iter().chain(others) {
        if !seen.insert(language) {
            add(
                &path,
                format!("language `{language}` is named twice; remove one"),
            );
        }
        match synthetic {
            Some(family) if !family.languages.contains_key(language) => {
                let known: Vec<&str> = family.languages.keys().map(String::as_str).collect();
                add(
                    &path,
                    format!(
                        "language `{language}` is not in the synthetic family; declare it under `data.synthetic.languages`, or use one of: {}",
                        known.join(", ")
                    ),
                );
            }
            None => {
                if let Err(remedy) = language::check(language) {
                    add(&path, remedy);
                }
            }
            Some(_) => {}
        }
    }
    if settings.languages.targets.is_empty() {
        add(
            "languages.targets",
            "transfer needs a target language; name at least one".into(),
        );
    }
    const MOST_LANGUAGES: usize = 200;
    if all.len() > MOST_LANGUAGES {
        add(
            "languages",
            format!("{} languages are more than {MOST_LANGUAGES}", all.len()),
        );
    }
}

fn data(settings: &Settings, add: &mut impl FnMut(&str, String)) {
    let DataSettings {
        synthetic,
        monolingual,
        parallel,
        parallel_dev,
        parallel_test,
        nli,
        dictionaries,
        word_similarity,
        ..
    } = &settings.data;
    for (field, limit) in [
        ("monolingual_limit", settings.data.monolingual_limit),
        ("parallel_limit", settings.data.parallel_limit),
        ("nli.train_limit", nli.train_limit),
    ] {
        if limit == Some(0) {
            add(
                &format!("data.{field}"),
                "a limit of 0 leaves no text; choose 1 or more, or leave it out".into(),
            );
        }
    }
    if let Some(family) = synthetic {
        for problem in family.problems(&settings.languages.source) {
            add(
                &format!("data.synthetic.{}", problem.field),
                format!("{}; {}", problem.what, problem.remedy),
            );
        }
        let others = [
            monolingual.len(),
            parallel.len(),
            parallel_dev.len(),
            parallel_test.len(),
            dictionaries.len(),
        ];
        let files = NliData {
            translator: None,
            train_limit: None,
            ..nli.clone()
        };
        for (index, source) in word_similarity.iter().enumerate() {
            // Generated languages have codes of their own.
            let problems = source.problems().into_iter();
            for (field, message) in problems.filter(|(field, _)| !field.starts_with("languages.")) {
                add(&format!("data.word_similarity.{index}.{field}"), message);
            }
        }
        if others != [0; 5] || files != NliData::default() {
            add("data", "a study reads synthetic languages or real text, not both; remove `synthetic` or the other sources".into());
        }
        return;
    }
    let mut check = |path: String, problems: Vec<(String, String)>| {
        for (field, message) in problems {
            add(&format!("{path}.{field}"), message);
        }
    };
    for (index, source) in monolingual.iter().enumerate() {
        check(format!("data.monolingual.{index}"), source.problems());
    }
    for (field, sources) in [
        ("parallel", parallel),
        ("parallel_dev", parallel_dev),
        ("parallel_test", parallel_test),
    ] {
        for (index, source) in sources.iter().enumerate() {
            check(format!("data.{field}.{index}"), source.problems());
        }
    }
    for (field, sources) in [
        ("dictionaries", dictionaries),
        ("word_similarity", word_similarity),
    ] {
        for (index, source) in sources.iter().enumerate() {
            check(format!("data.{field}.{index}"), source.problems());
        }
    }
    let lists = [
        ("train", &nli.train),
        ("dev", &nli.dev),
        ("test", &nli.test),
        ("translated_train", &nli.translated_train),
        ("translated_test", &nli.translated_test),
    ];
    for (role, sources) in lists {
        for (index, source) in sources.iter().enumerate() {
            check(format!("data.nli.{role}.{index}"), source.problems());
        }
    }
}

fn translation(
    translation: &TranslationSettings,
    settings: &Settings,
    add: &mut impl FnMut(&str, String),
) {
    for problem in translation.validate(&settings.model, &settings.languages.all()) {
        add(
            &format!("translation.{}", problem.field),
            format!("{}; {}", problem.what, problem.remedy),
        );
    }
    for (index, direction) in translation.directions.iter().enumerate() {
        let (first, second) = direction.pair();
        let source = settings.languages.source.as_str();
        if first != source && second != source {
            add(
                &format!("translation.directions.{index}"),
                format!(
                    "`{direction}` leaves out the source language; sentence pairs are those of `{source}` with another"
                ),
            );
        }
    }
    for (side, start) in [
        ("encoder", &translation.encoder),
        ("decoder", &translation.decoder),
    ] {
        if start.is_pretrained() && settings.pretrain.settings().is_none() {
            add(
                &format!("translation.{side}"),
                format!(
                    "the {side} starts from a pretrained model, but the study has `pretrain: none`; describe pretraining, or start at random"
                ),
            );
        }
    }
    let source = settings.languages.source.as_str();
    let mut tested = translation.tested().iter();
    let unvalidated = tested.find(|one| !settings.data.validates_pairs(one.target(source)));
    if let Some(direction) = unvalidated {
        add(
            "data.parallel_validation",
            format!(
                "translation models are chosen on held-out pairs, and there are none of `{direction}`; keep some apart with `data.parallel_validation`, or name a file of them under `data.parallel_dev`"
            ),
        );
    }
}

fn repeated<T: PartialEq + std::fmt::Debug>(
    list: &[T],
    path: &str,
    add: &mut dyn FnMut(&str, String),
) {
    for (index, item) in list.iter().enumerate() {
        if list[..index].contains(item) {
            add(&format!("{path}.{index}"), "named twice; remove one".into());
        }
    }
}

fn seeds(settings: &Settings, add: &mut impl FnMut(&str, String)) {
    for (name, seeds) in [
        ("pretrain", &settings.seeds.pretrain),
        ("finetune", &settings.seeds.finetune),
    ] {
        if seeds.is_empty() {
            add(&format!("seeds.{name}"), "name at least one seed".into());
        }
        const MOST_SEEDS: usize = 1000;
        if seeds.len() > MOST_SEEDS {
            add(
                &format!("seeds.{name}"),
                format!(
                    "{} seeds are more than {MOST_SEEDS}; name fewer",
                    seeds.len()
                ),
            );
            continue;
        }
        repeated(seeds, &format!("seeds.{name}"), add);
    }
}

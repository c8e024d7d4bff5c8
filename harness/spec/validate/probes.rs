//! What asks pretrained models as they are, and which languages they must then have read.

use std::collections::BTreeSet;

use crate::objectives::causal_lm;
use crate::spec::settings::Settings;

/// Sections that ask pretrained models as they are.
pub(super) fn problems(settings: &Settings, add: &mut impl FnMut(&str, String)) {
    let mut sections = Vec::new();
    if let Some(modelling) = &settings.language_modelling {
        sections.push((
            "language_modelling",
            modelling.validate(&settings.languages.all()),
        ));
        if settings.data.monolingual_validation == 0 {
            add(
                "data.monolingual_validation",
                "perplexity is that of held-out text; keep some apart with `data.monolingual_validation`".into(),
            );
        }
        let objectives = settings
            .pretrain
            .settings()
            .map(|pretrain| &pretrain.objectives);
        if let Some(objectives) = objectives
            && !objectives
                .iter()
                .any(|objective| objective.name() == causal_lm::NAME)
        {
            add(
                "pretrain.objectives",
                "`language_modelling` reads text from left to right, which no objective here learns; add causal_lm".into(),
            );
        }
    }
    if let Some(words) = &settings.word_embeddings {
        let targets: Vec<&str> = settings
            .languages
            .targets
            .iter()
            .map(String::as_str)
            .collect();
        sections.push(("word_embeddings", words.validate(&targets)));
    }
    for (section, problems) in sections {
        for problem in problems {
            add(
                &format!("{section}.{}", problem.field),
                format!("{}; {}", problem.what, problem.remedy),
            );
        }
        if settings.pretrain.settings().is_none() {
            add(
                "pretrain",
                format!(
                    "`{section}` measures pretrained models, and this one is not; leave the variant out"
                ),
            );
        }
    }
}

/// The languages of a pretraining that reads only some.
pub(super) fn pretrained_languages(settings: &Settings, add: &mut impl FnMut(&str, String)) {
    let Some(pretrain) = settings.pretrain.settings() else {
        return;
    };
    let Some(languages) = &pretrain.languages else {
        return;
    };
    let all = settings.languages.all();
    for (index, language) in languages.iter().enumerate() {
        let path = format!("pretrain.languages.{index}");
        if languages[..index].contains(language) {
            add(
                &path,
                format!("language `{language}` is named twice; remove one"),
            );
        }
        if !all.contains(&language.as_str()) {
            add(
                &path,
                format!(
                    "`{language}` is no language of the study, which has: {}",
                    all.join(", ")
                ),
            );
        }
    }
    if languages.is_empty() {
        add(
            "pretrain.languages",
            "the list is empty; name a language, or leave the line out for all".into(),
        );
    }
    let source = &settings.languages.source;
    let modelled = settings.language_modelling.iter();
    let modelled = modelled.flat_map(|modelling| &modelling.languages);
    let compared = settings.word_embeddings.iter().flat_map(|words| {
        let dictionaries = words.dictionary_languages(&settings.languages.targets);
        std::iter::once(source)
            .chain(dictionaries)
            .chain(&words.similarity)
    });
    let unread: BTreeSet<&String> = modelled
        .chain(compared)
        .filter(|language| !languages.contains(language))
        .collect();
    for language in unread {
        add(
            "pretrain.languages",
            format!(
                "`{language}` is measured but not pretrained on; name it here, or measure others"
            ),
        );
    }
    let paired = languages.len() > 1 && languages.contains(source);
    if pretrain.uses_parallel_text() && !paired {
        add(
            "pretrain.languages",
            format!(
                "an objective reads sentence pairs, which are those of `{source}` with another; name both"
            ),
        );
    }
}

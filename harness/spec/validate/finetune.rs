//! Fine-tuning: its grid, its regimes, its lengths.

use super::repeated;
use crate::spec::finetune::{FinetuneSchedule, FinetuneSettings, Selection};
use crate::spec::settings::Settings;

pub(super) fn problems(
    finetune: &FinetuneSettings,
    settings: &Settings,
    add: &mut impl FnMut(&str, String),
) {
    let empty = |list: usize, path: &str, what: &str, add: &mut dyn FnMut(&str, String)| {
        if list == 0 {
            add(path, format!("name at least one {what}"));
        }
    };
    empty(finetune.regimes.len(), "finetune.regimes", "regime", add);
    empty(
        finetune.select_on.len(),
        "finetune.select_on",
        "selection rule: source_dev, mean_dev or target_dev",
        add,
    );
    empty(
        finetune.grid.encoder_learning_rate.len(),
        "finetune.grid.encoder_learning_rate",
        "learning rate",
        add,
    );
    empty(
        finetune.grid.head_learning_rate.len(),
        "finetune.grid.head_learning_rate",
        "learning rate",
        add,
    );
    empty(
        finetune.grid.batch_size.len(),
        "finetune.grid.batch_size",
        "batch size",
        add,
    );
    repeated(
        &finetune.grid.encoder_learning_rate,
        "finetune.grid.encoder_learning_rate",
        add,
    );
    repeated(
        &finetune.grid.head_learning_rate,
        "finetune.grid.head_learning_rate",
        add,
    );
    repeated(&finetune.grid.batch_size, "finetune.grid.batch_size", add);
    repeated(&finetune.regimes, "finetune.regimes", add);
    repeated(&finetune.select_on, "finetune.select_on", add);
    for (name, rates) in [
        (
            "encoder_learning_rate",
            &finetune.grid.encoder_learning_rate,
        ),
        ("head_learning_rate", &finetune.grid.head_learning_rate),
    ] {
        for (index, rate) in rates.iter().enumerate() {
            if !(*rate > 0.0 && *rate < 1.0) {
                add(
                    &format!("finetune.grid.{name}.{index}"),
                    format!(
                        "a learning rate of {rate} trains nothing or breaks everything; choose one between 0 and 1"
                    ),
                );
            }
        }
    }
    let grid = &finetune.grid;
    let lists = [
        grid.encoder_learning_rate.len(),
        grid.head_learning_rate.len(),
        grid.batch_size.len(),
    ];
    let combinations = lists.into_iter().fold(1, usize::saturating_mul);
    const MOST_COMBINATIONS: usize = 1000;
    if combinations > MOST_COMBINATIONS {
        add(
            "finetune.grid",
            format!(
                "{combinations} combinations are more than {MOST_COMBINATIONS}; shorten the lists"
            ),
        );
    }
    for (index, size) in finetune.grid.batch_size.iter().enumerate() {
        if !(1..=65_536).contains(size) {
            add(
                &format!("finetune.grid.batch_size.{index}"),
                format!("a batch of {size} pairs; choose between 1 and 65536"),
            );
        }
    }
    for (field, value, most) in [
        (
            "examples_per_epoch",
            finetune.examples_per_epoch,
            1_000_000_000,
        ),
        ("epochs", finetune.epochs, 1_000_000),
    ] {
        if !(1..=most).contains(&value) {
            add(
                &format!("finetune.{field}"),
                format!("{value} is out of range; choose between 1 and {most}"),
            );
        }
    }
    if !(0.0..1.0).contains(&finetune.head_dropout) {
        add(
            "finetune.head_dropout",
            format!(
                "dropout {} is out of range; choose from 0 to below 1",
                finetune.head_dropout
            ),
        );
    }
    if let FinetuneSchedule::Linear { warm_up } = finetune.schedule
        && !(0.0..=1.0).contains(&warm_up)
    {
        add(
            "finetune.schedule.linear.warm_up",
            format!("a warm-up of {warm_up} is not a fraction; choose between 0 and 1"),
        );
    }
    if let Some(clip) = finetune.clip
        && clip <= 0.0
    {
        add(
            "finetune.clip",
            format!("cannot clip to a norm of {clip}; choose a positive number or remove the line"),
        );
    }
    let longest = settings.model.positions.saturating_sub(3) / 2;
    if finetune.maximum_length == 0 || finetune.maximum_length > longest {
        add(
            "finetune.maximum_length",
            format!(
                "two sentences of {} tokens and three `</s>` do not fit {} positions; choose between 1 and {longest}, or raise model.positions",
                finetune.maximum_length, settings.model.positions
            ),
        );
    }
    for (regime, languages) in &finetune.regime_languages {
        let path = format!("finetune.regime_languages.{}", regime.name());
        if !finetune.regimes.contains(regime) {
            add(
                &path,
                format!(
                    "the study does not run {}; add it to `finetune.regimes` or remove the line",
                    regime.name()
                ),
            );
        }
        for (index, language) in languages.iter().enumerate() {
            if !settings.languages.targets.contains(language) {
                add(
                    &format!("{path}.{index}"),
                    format!(
                        "`{language}` is not a target language; the study has: {}",
                        settings.languages.targets.join(", ")
                    ),
                );
            }
        }
    }
    if finetune.select_on.contains(&Selection::MeanDev) && settings.languages.targets.is_empty() {
        add(
            "finetune.select_on",
            "mean_dev needs target languages".into(),
        );
    }
}

//! What somebody most likely meant by a name that does not exist.

/// The name that is the fewest edits away: at most a third of the letters, or two, and never more than half of them.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let letters = wrong.chars().count();
    let allowed = (letters / 3).max(2).min(letters / 2);
    names
        .map(|name| (edits(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance (1966).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_suggested_and_other_words_are_not() {
        let names = ["model", "hidden", "aa", "translate_train"];
        let meant = |wrong| nearest(wrong, names.into_iter());
        assert_eq!(meant("modle"), Some("model"));
        assert_eq!(meant("Hiden"), Some("hidden"));
        assert_eq!(meant("translate-trian"), Some("translate_train"));
        assert_eq!(meant("cc"), None, "two letters, both wrong");
        assert_eq!(meant("learning_rate"), None);
        assert_eq!(meant(""), None);
    }
}

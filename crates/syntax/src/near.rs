//! The word that was probably meant.

/// The known word nearest to `word`, if any is near enough to be meant.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let folded = |text: &str| text.to_lowercase().replace(['_', ' '], "-");
    let wanted = folded(word);
    let distance = |known: &str| strsim::damerau_levenshtein(&wanted, &folded(known));
    let (distance, found) = known
        .into_iter()
        .map(|known| (distance(known), known))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.chars().count() / 3).then_some(found)
}

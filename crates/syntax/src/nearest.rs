//! The word that was probably meant.

/// Characters of a word that a nearest one is looked for: the distance costs the product of both lengths.
const WORD_CHARS_MAX: usize = 100;

/// The known word nearest to `word`, if one is near enough to suggest.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let is_short = |text: &str| text.len() <= WORD_CHARS_MAX;
    if !is_short(word) {
        return None;
    }
    let folded = |text: &str| text.to_lowercase().replace(['_', ' '], "-");
    let wanted = folded(word);
    let distance = |known: &str| strsim::damerau_levenshtein(&wanted, &folded(known));
    let (distance, found) = known
        .into_iter()
        .filter(|known| is_short(known))
        .map(|known| (distance(known), known))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.chars().count() / 3).then_some(found)
}

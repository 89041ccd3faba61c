//! Texts from outside, made fit for terminals, logs and refusals.
//!
//! Names in archives, errors of upstreams and reasons in policies must not move the cursor, begin a new line, turn the
//! direction of the text behind them, or hide a part of themselves. This is the one place that decides what is shown.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// What Rust counts as printable although nothing is to be seen: fillers, a blank pattern, and variation selectors.
const BLANK: [RangeInclusive<char>; 9] = [
    '\u{34f}'..='\u{34f}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{e0100}'..='\u{e01ef}',
];

/// Whether a character is seen as what it is. Control characters, marks of direction, all spaces but the usual one, and
/// characters without a meaning are not.
pub(crate) fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    // The standard library escapes exactly the others, and accents, unless they follow a letter.
    let is_shown =
        character.escape_debug().len() == 1 || format!("a{character}").escape_debug().count() == 2;
    is_shown && !BLANK.iter().any(|range| range.contains(&character))
}

/// Appends a character as JSON can write it: `\u202e`. Beyond U+FFFF there are two such numbers.
pub(crate) fn push_escaped(text: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "\\u{unit:04x}");
    }
}

/// A text with everything escaped that is not printable. JSON stays the same JSON.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_printable(character) {
            shown.push(character);
        } else {
            push_escaped(&mut shown, character);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped_and_all_scripts_stay() {
        for hidden in [
            // Control characters, among them those of eight bits.
            "\0\t\n\r\u{1b}\u{7f}\u{80}\u{9b}",
            // Direction: the old marks, the isolates, and single marks.
            "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}",
            // No width, or only width.
            "\u{ad}\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}\u{a0}\u{2003}\u{3000}\u{2028}\u{2029}",
            // Rust counts these as printable.
            "\u{34f}\u{115f}\u{1160}\u{17b4}\u{180b}\u{2800}\u{3164}\u{fe0f}\u{ffa0}\u{e0100}\u{e01ef}",
            // Tags, private use, not assigned.
            "\u{e0001}\u{e0041}\u{e000}\u{f8ff}\u{10ffff}\u{fffe}\u{378}",
        ] {
            for character in hidden.chars() {
                assert!(!is_printable(character), "{character:?}");
                let shown = printable(hidden);
                assert!(
                    shown.chars().all(|shown| shown.is_ascii_graphic()),
                    "{shown}"
                );
            }
        }
        for shown in [
            "plain \"text\" \\ 'x'",
            "é ü ß – … “”",
            "e\u{301}",
            "हिन्दी ภาษาไทย العربية עברית 日本語 한국어 Ελληνικά",
            "💩",
        ] {
            assert_eq!(printable(shown), shown);
            assert!(matches!(printable(shown), Cow::Borrowed(_)));
        }
        assert_eq!(
            printable("a\u{202e}b\u{e0041}c"),
            "a\\u202eb\\udb40\\udc41c"
        );
    }

    proptest! {
        #[test]
        fn escaped_json_is_the_same_json_and_all_printable(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            let shown = printable(&json);
            prop_assert!(shown.chars().all(is_printable));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}

//! Rust source as a list of words and signs. Comments, literals and code that only tests compile are left out.

/// One word or sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier or a keyword.
    Word(String),
    /// `::`
    PathSeparator,
    /// Any other sign.
    Sign(char),
}

impl Token {
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::PathSeparator | Self::Sign(_) => None,
        }
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
}

/// The tokens of a file, without what stands behind `#[cfg(test)]`.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    without_tests(&all_tokens(source))
}

fn all_tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |place: usize| text.get(place).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut place = 0;
    while place < text.len() {
        let (here, next) = (at(place), at(place + 1));
        if here == '/' && next == '/' {
            while place < text.len() && at(place) != '\n' {
                place += 1;
            }
        } else if here == '/' && next == '*' {
            place = end_of_comment(&text, place);
        } else if here == '"' {
            place = end_of_text(&text, place);
        } else if here == '\'' {
            // `'a` is a lifetime, `'a'` and `'\n'` are characters.
            if next == '\\' || at(place + 2) == '\'' {
                place += if next == '\\' { 3 } else { 2 };
                while place < text.len() && at(place) != '\'' {
                    place += 1;
                }
            }
            place += 1;
        } else if here.is_alphabetic() || here == '_' {
            let begin = place;
            while at(place).is_alphanumeric() || at(place) == '_' {
                place += 1;
            }
            let word: String = text[begin..place].iter().collect();
            let is_prefix = matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr");
            match at(place) {
                '"' if is_prefix && !word.contains('r') => place = end_of_text(&text, place),
                '"' | '#' if is_prefix && word.contains('r') => {
                    place = end_of_raw_text(&text, place, &mut tokens);
                }
                // The next round reads `b'x'` as a character.
                '\'' if word == "b" => {}
                _ => tokens.push(Token::Word(word)),
            }
        } else if here.is_ascii_digit() {
            // A number, with its suffix. The dot of `0..2` is a sign.
            while at(place).is_alphanumeric() || at(place) == '_' {
                place += 1;
            }
        } else if here == ':' && next == ':' {
            tokens.push(Token::PathSeparator);
            place += 2;
        } else {
            if !here.is_whitespace() {
                tokens.push(Token::Sign(here));
            }
            place += 1;
        }
    }
    tokens
}

/// Comments of this kind may contain others.
fn end_of_comment(text: &[char], begin: usize) -> usize {
    let (mut place, mut depth) = (begin, 0);
    while place < text.len() {
        match text.get(place..place + 2) {
            Some(['/', '*']) => (depth, place) = (depth + 1, place + 2),
            Some(['*', '/']) if depth == 1 => return place + 2,
            Some(['*', '/']) => (depth, place) = (depth - 1, place + 2),
            _ => place += 1,
        }
    }
    place
}

fn end_of_text(text: &[char], begin: usize) -> usize {
    let mut place = begin + 1;
    while place < text.len() {
        match text[place] {
            '\\' => place += 2,
            '"' => return place + 1,
            _ => place += 1,
        }
    }
    place
}

/// `begin` is behind the `r`. `r#word` is no text but a word.
fn end_of_raw_text(text: &[char], begin: usize, tokens: &mut Vec<Token>) -> usize {
    let hashes = text[begin..]
        .iter()
        .take_while(|sign| **sign == '#')
        .count();
    let mut place = begin + hashes;
    if text.get(place) != Some(&'"') {
        let word: String = text[place..]
            .iter()
            .take_while(|letter| letter.is_alphanumeric() || **letter == '_')
            .collect();
        place += word.chars().count();
        tokens.push(Token::Word(word));
        return place;
    }
    place += 1;
    while place < text.len() {
        let is_end = text[place] == '"'
            && text[place + 1..]
                .iter()
                .take_while(|sign| **sign == '#')
                .count()
                >= hashes;
        place += 1;
        if is_end {
            return place + hashes;
        }
    }
    place
}

fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        if let Some(end) = attribute_end(tokens, place) {
            if is_for_tests(&tokens[place..end]) {
                place = end_of_item(tokens, end);
            } else {
                place = end;
            }
        } else {
            kept.push(tokens[place].clone());
            place += 1;
        }
    }
    kept
}

/// Where an attribute that begins here ends. Attributes name no paths of ours.
fn attribute_end(tokens: &[Token], begin: usize) -> Option<usize> {
    let bracket = match tokens.get(begin..)? {
        [Token::Sign('#'), Token::Sign('['), ..] => begin + 1,
        [Token::Sign('#'), Token::Sign('!'), Token::Sign('['), ..] => begin + 2,
        _ => return None,
    };
    Some(end_of_group(tokens, bracket))
}

/// `#[cfg(test)]`, or `#[cfg(all(test, …))]`.
fn is_for_tests(attribute: &[Token]) -> bool {
    let words: Vec<&str> = attribute.iter().filter_map(Token::word).collect();
    matches!(
        words.as_slice(),
        ["cfg", "test"] | ["cfg", "all", "test", ..]
    )
}

/// Behind the bracket that closes the one at `begin`.
pub(crate) fn end_of_group(tokens: &[Token], begin: usize) -> usize {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(begin) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return place + 1;
        }
    }
    tokens.len()
}

/// Behind the item, statement, field or match arm that begins here.
fn end_of_item(tokens: &[Token], begin: usize) -> usize {
    const OF_ITEMS: [&str; 15] = [
        "async",
        "const",
        "enum",
        "extern",
        "fn",
        "impl",
        "let",
        "macro_rules",
        "mod",
        "static",
        "struct",
        "trait",
        "type",
        "union",
        "unsafe",
    ];
    let mut place = begin;
    while let Some(end) = attribute_end(tokens, place) {
        place = end;
    }
    if tokens.get(place).is_some_and(|token| token.is("pub")) {
        place += 1;
        if tokens.get(place) == Some(&Token::Sign('(')) {
            place = end_of_group(tokens, place);
        }
    }
    let first = tokens.get(place).and_then(Token::word).unwrap_or_default();
    let (is_use, is_item) = (first == "use", OF_ITEMS.contains(&first));
    while let Some(token) = tokens.get(place) {
        match token {
            Token::Sign(';') => return place + 1,
            Token::Sign(',') if !is_item && !is_use => return place + 1,
            Token::Sign('}') => return place,
            Token::Sign('{') if is_item && first != "let" => return end_of_group(tokens, place),
            Token::Sign('(' | '[' | '{') => place = end_of_group(tokens, place),
            _ => place += 1,
        }
    }
    place
}

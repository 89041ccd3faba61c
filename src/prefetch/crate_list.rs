//! A crate list: a text file with one [`CrateSpec`] a line.

use super::crate_spec::{CrateSpec, SpecError};

/// What begins a comment, which goes to the end of the line.
const COMMENT: char = '#';

/// A line of a crate list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub(crate) struct CrateListError {
    line: usize,
    #[source]
    why: SpecError,
}

/// Reads a crate list. Empty lines and comments are passed over.
pub(crate) fn parse_crate_list(text: &str) -> Result<Vec<CrateSpec>, CrateListError> {
    // Editors on Windows put one before everything else.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut specs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line
            .split_once(COMMENT)
            .map_or(line, |(content, _)| content);
        if content.trim().is_empty() {
            continue;
        }
        let spec = content.parse().map_err(|why| CrateListError {
            line: number + 1,
            why,
        })?;
        specs.push(spec);
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_crate_a_line_and_passes_over_comments() {
        let list = "\u{feff}# the team's crates\r\nserde\r\n\n  tokio@1.40 # long\n\t\naxum@=0.8.1";
        let specs: Vec<String> = parse_crate_list(list)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(specs, ["serde", "tokio@^1.40", "axum@0.8.1"]);
        assert_eq!(parse_crate_list("").unwrap(), []);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let error = parse_crate_list("serde\n# x\ntokio 1.0\n").unwrap_err();
        assert!(
            error.to_string().starts_with("line 3: `tokio 1.0`"),
            "{error}"
        );
    }
}

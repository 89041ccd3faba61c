//! Places between two steps of the journal, as clients keep them.

use std::fmt;
use std::str::FromStr;

/// The place after a step. Shown as `17-0123456789abcdef`: clients treat it as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepCursor {
    /// The number of the step. It rises by one with each step, and never falls.
    pub(crate) number: i64,
    /// A random number of the step. It tells the step from one with the same number in another journal, or in this one
    /// after `DATA_DIR` was restored from a backup.
    pub(crate) mark: i64,
}

/// A text that is not the place after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotACursor;

impl fmt::Display for StepCursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{:016x}", self.number, self.mark)
    }
}

impl FromStr for StepCursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (number, mark) = text.split_once('-').ok_or(NotACursor)?;
        let cursor = Self {
            number: number.parse().map_err(|_no_number| NotACursor)?,
            mark: u64::from_str_radix(mark, 16)
                .map_err(|_no_number| NotACursor)?
                .cast_signed(),
        };
        // Only the form that the mirror writes: `parse` takes signs and zeros, too.
        if cursor.to_string() == text {
            Ok(cursor)
        } else {
            Err(NotACursor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_only_in_the_form_in_which_it_was_written() {
        for mark in [0, 1, -1, i64::MIN, i64::MAX] {
            let cursor = StepCursor { number: 17, mark };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in [
            "",
            "-",
            "17",
            "17-",
            "17-1",
            "+17-0000000000000001",
            "017-0000000000000001",
            "17-000000000000000G",
            "17-+000000000000001",
            "17-00000000000000001",
            "17-0000000000000001 ",
            "99999999999999999999-0000000000000001",
            "2026-11-27T00:00:00Z",
        ] {
            assert_eq!(bad.parse::<StepCursor>(), Err(NotACursor), "{bad}");
        }
    }
}

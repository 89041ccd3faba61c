//! Variables that are no settings, but have nearly the name of one.

use strsim::osa_distance;

use super::table::VARIABLES;

/// How many edits away a name still counts as misspelt: a letter too many, too few or wrong, or two swapped.
const EDITS_MAX: usize = 2;

/// A name that is no longer than this is misspelt at one edit only: two edits away from `PORT` is `HOST`.
const SHORT_NAME_LETTERS: usize = 4;

/// Names near one of ours that other programs use.
const OF_OTHERS: [&str; 2] = ["CONTENT", "CONTEXT"];

/// The setting that a variable was probably meant for: the nearest one. `None` for our own names, and for those of other
/// programs.
pub(super) fn meant_by(name: &str) -> Option<&'static str> {
    if VARIABLES.contains(&name) || OF_OTHERS.contains(&name) || is_of_kubernetes(name) {
        return None;
    }
    let distances = VARIABLES.iter().filter_map(|variable| {
        let max = if variable.len() <= SHORT_NAME_LETTERS {
            1
        } else {
            EDITS_MAX
        };
        // A name in lower case would need an edit for each letter.
        let is_only_case = name.eq_ignore_ascii_case(variable);
        let edits = if is_only_case {
            1
        } else {
            // The work grows with both lengths, so most names end here.
            (name.len().abs_diff(variable.len()) <= max).then(|| osa_distance(name, variable))?
        };
        (edits <= max).then_some((edits, *variable))
    });
    distances.min().map(|(_edits, variable)| variable)
}

/// Kubernetes sets such variables for each service, whatever that is called.
fn is_of_kubernetes(name: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_at_most_two_edits_away_gets_the_nearest_setting() {
        for (name, meant) in [
            ("PUBLC_URL", Some("PUBLIC_URL")),
            ("PUBLIC_URI", Some("PUBLIC_URL")),
            ("PUBLIC_UR", Some("PUBLIC_URL")),
            ("PUBILC_ULR", Some("PUBLIC_URL")),
            ("PUBLICURLS", Some("PUBLIC_URL")),
            ("public_url", Some("PUBLIC_URL")),
            ("DATADIR", Some("DATA_DIR")),
            ("DOWNLOAD_URLS", Some("DOWNLOAD_URL")),
            ("TLS_CERTS", Some("TLS_CERT")),
            ("STORAGE_MAX_BYTE", Some("STORAGE_MAX_BYTES")),
            ("REFRESH_INTERVAL_SEC", Some("REFRESH_INTERVAL_SECS")),
            ("PORTS", Some("PORT")),
            ("PROT", Some("PORT")),
            ("PUBLIC", None),
            ("PBLC_UR", None),
            ("STORAGE_MAX", None),
        ] {
            assert_eq!(meant_by(name), meant, "{name}");
        }
    }

    #[test]
    fn settings_and_variables_of_other_programs_are_not_misspelt() {
        let others = [
            "HOST",
            "HOME",
            "PATH",
            "PWD",
            "SHLVL",
            "TERM",
            "USER",
            "LANG",
            "POD",
            "CONTEXT",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "RUST_LOG_STYLE",
            "RUST_BACKTRACE",
            "XDG_DATA_DIRS",
            "HTTP_PROXY",
            "DATABASE_URL",
            "DYNO",
            "STORAGE_PORT",
            "PORT_SERVICE_PORT",
            "A_PORT",
            "DB_PORT_1_TCP",
            "PORT_SERVICE_HOST",
            "GIT_DIR",
            "GIT_WORK_TREE",
            "LOGNAME",
            "AWS_REGION",
            "京都",
            "",
            "=",
        ];
        for name in others.iter().chain(VARIABLES) {
            assert_eq!(meant_by(name), None, "{name}");
        }
    }
}

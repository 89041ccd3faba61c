//! The lines of section 5 of the protocol, each with requests that show it.

use serde_json::Value;

/// The expected answer.
pub(super) enum Expected {
    /// This status and this detail.
    Error(u16, &'static str),
    /// 200 with these values, as JSON texts, at these places (see [`at`]).
    Has(&'static [(&'static str, &'static str)]),
}

use Expected::{Error, Has};

/// The fields of crates.io's `Crate`, in order.
pub(super) const CRATE: &str = "id name updated_at versions keywords categories badges created_at downloads recent_downloads \
    default_version num_versions yanked max_version newest_version max_stable_version description homepage documentation \
    repository links exact_match trustpub_only";

/// The fields of crates.io's `Version`, in order.
pub(super) const VERSION: &str = "id crate num dl_path readme_path updated_at created_at downloads features yanked \
    yank_message lib_links license links crate_size published_by audit_actions checksum rust_version has_lib bin_names \
    edition description homepage documentation repository trustpub_data linecounts";

/// The fields of crates.io's `Dependency`, in order.
pub(super) const DEPENDENCY: &str =
    "id version_id crate_id req optional default_features features target kind downloads";

const NO_PAGE_201: &str = "Page 201 is unavailable for performance reasons. Please take a look at \
    https://crates.io/data-access for alternatives.";

const NOT_ZERO: &str =
    "Failed to deserialize query string: page: invalid value: integer `0`, expected a nonzero u32";

const BEYOND_RELEVANCE: &str = "Cannot page beyond the first 1000 results when sorting by relevance. Please take a look at \
    https://crates.io/data-access for alternatives.";

const BAD_INCLUDE: &str = "invalid component for ?include= (expected 'versions', 'keywords', 'categories', 'badges', \
    'downloads', 'default_version', or 'full')";

/// A value in JSON by its pointer. `*` stands for all entries of an array, and gives an array.
pub(super) fn at(json: &Value, pointer: &str) -> Value {
    match pointer.split_once("/*") {
        None => json
            .pointer(pointer)
            .cloned()
            .unwrap_or_else(|| Value::String("absent".to_owned())),
        Some((before, after)) => {
            let entries = json.pointer(before).and_then(Value::as_array);
            entries
                .into_iter()
                .flatten()
                .map(|entry| at(entry, after))
                .collect()
        }
    }
}

/// The names of the crates of an answer.
const NAMES: &str = "/crates/*/name";

/// The line of the protocol, the path, and the answer. One row a line is easier to read.
#[rustfmt::skip]
pub(super) const LINES: &[(&str, &str, Expected)] = &[
    // 5.1
    ("5.1 unknown crate", "/api/v1/crates/No-Such", Error(404, "crate `No-Such` does not exist")),
    ("5.1 unknown crate", "/api/v1/crates/nul/owners", Error(404, "crate `nul` does not exist")),
    ("5.1 unknown crate", "/api/v1/crates/empty/owner_user", Error(404, "crate `empty` does not exist")),
    ("5.1 unknown crate", "/api/v1/crates/junk/owner_team", Error(404, "crate `junk` does not exist")),
    ("5.1 unknown crate", "/api/v1/crates/junk/reverse_dependencies", Error(404, "crate `junk` does not exist")),
    ("5.1 unknown crate", "/api/v1/crates/No/downloads?include=versions", Error(404, "crate `No` does not exist")),
    ("5.1 invalid name", "/api/v1/crates/1abc/reverse_dependencies", Error(404, "crate `1abc` does not exist")),
    ("5.1 a%2Fb is one segment", "/api/v1/crates/a%2Fb/owners", Error(404, "crate `a/b` does not exist")),
    ("5.1 foo%00bar", "/api/v1/crates/foo%00bar/owners", Error(404, "crate `foo\u{0}bar` does not exist")),
    ("5.1 bad UTF-8", "/api/v1/crates/%ff/owners", Error(400, "Invalid URL: Invalid UTF-8 in `name`")),
    ("5.1 the name as typed", "/api/v1/crates/INFLECTOR/9.9.9",
        Error(404, "crate `INFLECTOR` does not have a version `9.9.9`")),
    ("5.1 the name as typed", "/api/v1/crates/INFLECTOR/9.9.9/downloads",
        Error(404, "crate `INFLECTOR` does not have a version `9.9.9`")),
    ("5.1 unknown version", "/api/v1/crates/built/1.0.0/dependencies",
        Error(404, "crate `built` does not have a version `1.0.0`")),
    ("5.1 bad semver before the name", "/api/v1/crates/1abc/1.0",
        Error(400, "Invalid URL: unexpected end of input while parsing minor version number")),
    ("5.1 bad semver before the name", "/api/v1/crates/no/v1/readme",
        Error(400, "Invalid URL: unexpected character 'v' while parsing major version number")),
    ("5.1 bad semver before the name", "/api/v1/crates/no/01.0.0/downloads",
        Error(400, "Invalid URL: invalid leading zero in major version number")),
    ("5.1 unknown keyword", "/api/v1/keywords/cli", Error(404, "Not Found")),
    ("5.1 unknown category", "/api/v1/categories/gui", Error(404, "Not Found")),
    ("5.1 unknown user", "/api/v1/users/somebody", Error(404, "Not Found")),
    ("5.1 unknown team", "/api/v1/teams/github:a:b", Error(404, "Not Found")),
    ("5.1 unknown route", "/api/v1/no-such-route", Error(404, "Not Found")),
    ("5.1 a trailing slash", "/api/v1/crates/", Error(404, "Not Found")),
    ("5.1 normalised paths", "//api/v1/../v1/./crates/inflector", Has(&[("/crate/name", "\"Inflector\"")])),
    ("5.1 page=0", "/api/v1/crates?page=0", Error(400, NOT_ZERO)),
    ("5.1 page=0", "/api/v1/keywords?page=0", Error(400, NOT_ZERO)),
    ("5.1 per_page=0", "/api/v1/crates/inflector/reverse_dependencies?per_page=0",
        Error(400, "Failed to deserialize query string: per_page: invalid value: integer `0`, expected a nonzero u32")),
    ("5.1 not a number", "/api/v1/crates?per_page=x",
        Error(400, "Failed to deserialize query string: per_page: invalid digit found in string")),
    ("5.1 not a number", "/api/v1/crates?page=-1",
        Error(400, "Failed to deserialize query string: page: invalid digit found in string")),
    ("5.1 per_page over 100", "/api/v1/crates?per_page=101", Error(400, "cannot request more than 100 items")),
    ("5.1 per_page over 100", "/api/v1/categories?per_page=101", Error(400, "cannot request more than 100 items")),
    ("5.1 per_page over 100", "/api/v1/crates/no/versions?per_page=101",
        Error(400, "cannot request more than 100 items")),
    ("5.1 both page and seek", "/api/v1/crates?page=1&seek=Mg",
        Error(400, "providing both ?page= and ?seek= is unsupported")),
    ("5.1 both page and seek", "/api/v1/crates/no/versions?per_page=1&page=1&seek=Mg",
        Error(400, "providing both ?page= and ?seek= is unsupported")),
    ("5.1 page where unsupported", "/api/v1/crates/no/versions?per_page=1&page=1",
        Error(400, "?page= is not supported for this request")),
    ("5.1 seek where unsupported", "/api/v1/crates/no/reverse_dependencies?seek=Mg",
        Error(400, "?seek= is not supported for this request")),
    ("5.1 seek where unsupported", "/api/v1/keywords?seek=Mg", Error(400, "?seek= is not supported for this request")),
    ("5.1 seek that cannot be decoded", "/api/v1/crates?seek=%21", Error(400, "invalid seek parameter")),
    ("5.1 seek that cannot be decoded", "/api/v1/crates?seek=Mg", Error(400, "invalid seek parameter")),
    ("5.1 seek that cannot be decoded", "/api/v1/crates?sort=new&seek=", Error(400, "invalid seek parameter")),
    ("5.1 page over 200", "/api/v1/crates?page=201", Error(400, NO_PAGE_201)),
    ("5.1 page over 200", "/api/v1/crates?q=a&per_page=100&page=201", Error(400, NO_PAGE_201)),
    ("5.1 page over 200", "/api/v1/crates/no/reverse_dependencies?page=201", Error(400, NO_PAGE_201)),
    ("5.1 page over 200", "/api/v1/crates?page=200",
        Has(&[("/crates", "[]"), ("/meta", r#"{"total":0,"next_page":null,"prev_page":"?page=199"}"#)])),
    ("5.1 relevance beyond 1000", "/api/v1/crates?q=a&page=101", Error(400, BEYOND_RELEVANCE)),
    ("5.1 relevance beyond 1000", "/api/v1/crates?q=a&sort=relevance&per_page=100&page=11",
        Error(400, BEYOND_RELEVANCE)),
    ("5.1 relevance beyond 1000", "/api/v1/crates?q=a&page=100", Has(&[("/crates", "[]")])),
    ("5.1 relevance beyond 1000", "/api/v1/crates?q=a&sort=new&page=101", Has(&[("/crates", "[]")])),
    ("5.1 NUL", "/api/v1/crates?q=a%00",
        Error(400, "Failed to deserialize query string: q: string contains null byte")),
    ("5.1 NUL", "/api/v1/crates?category=%00",
        Error(400, "Failed to deserialize query string: category: string contains null byte")),
    ("5.1 NUL", "/api/v1/crates?keyword=%00",
        Error(400, "Failed to deserialize query string: keyword: string contains null byte")),
    ("5.1 NUL", "/api/v1/crates?all_keywords=%00",
        Error(400, "Failed to deserialize query string: all_keywords: string contains null byte")),
    ("5.1 NUL", "/api/v1/crates?letter=%00",
        Error(400, "Failed to deserialize query string: letter: string contains null byte")),
    ("5.1 letter= empty", "/api/v1/crates?letter=", Error(400, "letter value must contain 1 character")),
    ("5.1 bad include (crate)", "/api/v1/crates/inflector?include=nonsense", Error(400, BAD_INCLUDE)),
    ("5.1 bad include (versions)", "/api/v1/crates/no/versions?include=versions",
        Error(400, "invalid component for ?include= (expected 'release_tracks')")),
    ("5.1 bad include (downloads)", "/api/v1/crates/no/downloads?include=release_tracks",
        Error(400, "invalid component for ?include= (expected 'versions')")),
    ("5.1 needs login", "/api/v1/crates?following=1", Error(403, "this action requires authentication")),
    ("5.1 needs login", "/api/v1/crates?keyword=cli&following=", Error(403, "this action requires authentication")),
    ("5.1 needs login", "/api/v1/me", Error(403, "this action requires authentication")),
    ("5.1 needs login", "/api/v1/me/tokens", Error(403, "this action requires authentication")),
    ("5.1 needs login", "/api/v1/me/crate_owner_invitations", Error(403, "this action requires authentication")),
    ("5.1 needs login", "/api/v1/crates/no/following", Error(403, "this action requires authentication")),
    // 5.2
    ("5.2 Crate: from the index", "/api/v1/crates/mixed-case-name",
        Has(&[("/crate/id", "\"Mixed_Case-Name\""), ("/crate/updated_at", "\"2020-04-01T00:00:00Z\""),
            ("/crate/created_at", "\"2020-01-01T00:00:00Z\""), ("/crate/default_version", "\"0.5.1\""),
            ("/crate/num_versions", "5"), ("/crate/yanked", "false"), ("/crate/max_version", "\"2.0.0-rc.1\""),
            ("/crate/newest_version", "\"2.0.0-rc.1\""), ("/crate/max_stable_version", "\"0.5.1\""),
            ("/crate/exact_match", "false"), ("/crate/trustpub_only", "false"), ("/crate/badges", "[]")])),
    ("5.2 Crate: zero and null", "/api/v1/crates/mixed-case-name",
        Has(&[("/crate/downloads", "0"), ("/crate/recent_downloads", "0"), ("/crate/description", "null"),
            ("/crate/homepage", "null"), ("/crate/documentation", "null"), ("/crate/repository", "null"),
            ("/crate/keywords", "[]"), ("/crate/categories", "[]"), ("/crate/links/versions", "null"),
            ("/crate/links/owner_team", "\"/api/v1/crates/Mixed_Case-Name/owner_team\"")])),
    ("5.2 quirk: the highest versions only with the versions", "/api/v1/crates/mixed-case-name?include=",
        Has(&[("/crate/max_version", "\"0.0.0\""), ("/crate/newest_version", "\"0.0.0\""),
            ("/crate/max_stable_version", "null"), ("/crate/versions", "null"), ("/crate/keywords", "null"),
            ("/crate/recent_downloads", "null"),
            ("/crate/links/versions", "\"/api/v1/crates/Mixed_Case-Name/versions\""), ("/versions", "null"),
            ("/keywords", "null"), ("/categories", "null")])),
    ("5.2 all yanked", "/api/v1/crates/yanked",
        Has(&[("/crate/yanked", "true"), ("/crate/default_version", "\"1.1.0\""),
            ("/crate/max_version", "\"0.0.0\""), ("/crate/newest_version", "\"0.0.0\""),
            ("/crate/max_stable_version", "null"), ("/crate/num_versions", "2")])),
    ("5.2 without pubtime", "/api/v1/crates/built",
        Has(&[("/crate/created_at", "\"1970-01-01T00:00:00Z\""), ("/crate/max_version", "\"1.0.0+b\""),
            ("/crate/default_version", "\"1.0.0+b\"")])),
    ("5.2 pre-releases only", "/api/v1/crates/only-pre",
        Has(&[("/crate/default_version", "\"0.1.0-b\""), ("/crate/max_version", "\"0.1.0-b\""),
            ("/crate/max_stable_version", "null")])),
    // 5.3
    ("5.3 Version: from the index", "/api/v1/crates/MIXED_case_name/0.5.0",
        Has(&[("/version/crate", "\"Mixed_Case-Name\""), ("/version/num", "\"0.5.0\""),
            ("/version/dl_path", "\"/api/v1/crates/Mixed_Case-Name/0.5.0/download\""),
            ("/version/readme_path", "\"/api/v1/crates/Mixed_Case-Name/0.5.0/readme\""),
            ("/version/updated_at", "\"2020-02-01T00:00:00Z\""),
            ("/version/created_at", "\"2020-02-01T00:00:00Z\""), ("/version/features", r#"{"f":["g","dep:zz"]}"#),
            ("/version/lib_links", "\"native\""), ("/version/rust_version", "\"1.60\""),
            ("/version/yanked", "false"),
            ("/version/links/authors", "\"/api/v1/crates/Mixed_Case-Name/0.5.0/authors\"")])),
    ("5.3 Version: zero, null and empty", "/api/v1/crates/mixed-case-name/0.5.0",
        Has(&[("/version/downloads", "0"), ("/version/crate_size", "0"), ("/version/yank_message", "null"),
            ("/version/license", "null"), ("/version/published_by", "null"), ("/version/audit_actions", "[]"),
            ("/version/has_lib", "null"), ("/version/bin_names", "null"), ("/version/edition", "null"),
            ("/version/trustpub_data", "null"), ("/version/linecounts", "null"), ("/version/description", "null")])),
    ("5.3 a plus is not escaped", "/api/v1/crates/built/1.0.0%2Ba",
        Has(&[("/version/dl_path", "\"/api/v1/crates/built/1.0.0+a/download\"")])),
    ("5.3 a line with a later v", "/api/v1/crates/mixed-case-name/0.5.1", Has(&[("/version/checksum", "\"a4\"")])),
    // 5.5 search
    ("5.5 search: exact first, by name", "/api/v1/crates?q=io",
        Has(&[(NAMES, r#"["io","Io_x","my-io"]"#), ("/crates/*/exact_match", "[true,false,false]"),
            ("/meta", r#"{"total":3,"next_page":null,"prev_page":null}"#)])),
    ("5.5 search: two bytes match a word's beginning", "/api/v1/crates?q=IO&sort=new",
        Has(&[(NAMES, r#"["Io_x","my-io","io"]"#), ("/crates/*/exact_match", "[false,false,true]")])),
    ("5.5 search: more than two bytes match anywhere", "/api/v1/crates?q=UDI", Has(&[(NAMES, r#"["audio"]"#)])),
    ("5.5 search: - equals _", "/api/v1/crates?q=a_b-c",
        Has(&[(NAMES, r#"["a-b_c"]"#), ("/crates/0/exact_match", "true")])),
    ("5.5 search: nothing found", "/api/v1/crates?q=no-such-crate",
        Has(&[("", r#"{"crates":[],"meta":{"total":0,"next_page":null,"prev_page":null}}"#)])),
    ("5.5 search: an empty q is no filter", "/api/v1/crates?q=&per_page=1",
        Has(&[(NAMES, r#"["a"]"#), ("/meta/total", "16"), ("/crates/0/exact_match", "false")])),
    ("5.5 search: other scripts", "/api/v1/crates?q=%E4%BA%AC", Has(&[(NAMES, "[]")])),
    ("5.5 search: minimal form", "/api/v1/crates?q=mixed",
        Has(&[("/crates/0/versions", "null"), ("/crates/0/keywords", "null"), ("/crates/0/categories", "null"),
            ("/crates/0/links/versions", "\"/api/v1/crates/Mixed_Case-Name/versions\""),
            ("/crates/0/recent_downloads", "0"), ("/crates/0/max_version", "\"2.0.0-rc.1\""),
            ("/crates/0/newest_version", "\"2.0.0-rc.1\""), ("/crates/0/max_stable_version", "\"0.5.1\""),
            ("/crates/0/default_version", "\"0.5.1\""), ("/crates/0/num_versions", "5"),
            ("/crates/0/created_at", "\"2020-01-01T00:00:00Z\""),
            ("/crates/0/updated_at", "\"2020-04-01T00:00:00Z\""), ("/crates/0/yanked", "false")])),
    ("5.5 search: all yanked", "/api/v1/crates?q=yanked",
        Has(&[("/crates/0/max_version", "\"0.0.0\""), ("/crates/0/newest_version", "\"0.0.0\""),
            ("/crates/0/yanked", "true")])),
    ("5.5 search: include_yanked", "/api/v1/crates?q=yanked&include_yanked=no",
        Has(&[(NAMES, "[]"), ("/meta/total", "0")])),
    ("5.5 search: include_yanked", "/api/v1/crates?q=yanked&include_yanked=", Has(&[(NAMES, "[]")])),
    ("5.5 search: include_yanked", "/api/v1/crates?q=yanked&include_yanked=yes", Has(&[(NAMES, r#"["yanked"]"#)])),
    ("5.5 search: letter, its first character", "/api/v1/crates?letter=Ix",
        Has(&[(NAMES, r#"["Inflector","io","Io_x"]"#)])),
    ("5.5 search: letter and q", "/api/v1/crates?letter=i&q=flec", Has(&[(NAMES, r#"["Inflector"]"#)])),
    ("5.5 search: letter -", "/api/v1/crates?letter=-", Has(&[(NAMES, "[]"), ("/meta/total", "0")])),
    ("5.5 search: letter before ids[]", "/api/v1/crates?ids[]=syn&letter=s", Has(&[(NAMES, r#"["syn"]"#)])),
    ("5.5 search: ids[] are exact", "/api/v1/crates?ids[]=syn&ids%5B%5D=Inflector&ids[]=SYN&ids[]=syn&ids[]=no",
        Has(&[(NAMES, r#"["Inflector","syn"]"#), ("/meta/total", "2")])),
    ("5.5 search: keyword", "/api/v1/crates?keyword=cli",
        Has(&[("", r#"{"crates":[],"meta":{"total":0,"next_page":null,"prev_page":null}}"#)])),
    ("5.5 search: all_keywords", "/api/v1/crates?q=io&all_keywords=a+b", Has(&[(NAMES, "[]"), ("/meta/total", "0")])),
    ("5.5 search: category", "/api/v1/crates?category=gui&letter=i", Has(&[(NAMES, "[]")])),
    ("5.5 search: user_id", "/api/v1/crates?user_id=1", Has(&[(NAMES, "[]")])),
    ("5.5 search: team_id", "/api/v1/crates?team_id=1&ids[]=syn", Has(&[(NAMES, "[]")])),
    ("5.5 search: user_id=abc", "/api/v1/crates?user_id=abc",
        Error(400, "Failed to deserialize query string: user_id: invalid digit found in string")),
    ("5.5 search: sort unknown is alphabetical", "/api/v1/crates?sort=nonsense&per_page=4",
        Has(&[(NAMES, r#"["a","a-b_c","audio","built"]"#)])),
    ("5.5 search: q and alphabetical, exact first", "/api/v1/crates?q=io&sort=alphabetical",
        Has(&[(NAMES, r#"["io","Io_x","my-io"]"#)])),
    ("5.5 search: new", "/api/v1/crates?sort=new&per_page=3", Has(&[(NAMES, r#"["a-b_c","syn","a"]"#)])),
    ("5.5 search: recent-updates", "/api/v1/crates?sort=recent-updates&letter=d",
        Has(&[(NAMES, r#"["dev-uses","dropped-it"]"#)])),
    ("5.5 search: downloads are ids", "/api/v1/crates?sort=downloads&q=io",
        Has(&[(NAMES, r#"["Io_x","my-io","io"]"#)])),
    ("5.5 search: recent-downloads are ids", "/api/v1/crates?sort=recent-downloads&per_page=1",
        Has(&[(NAMES, r#"["a-b_c"]"#)])),
    ("5.5 search: page", "/api/v1/crates?q=io&per_page=1&page=2",
        Has(&[(NAMES, r#"["Io_x"]"#),
            ("/meta", r#"{"total":3,"next_page":"?q=io&per_page=1&page=3","prev_page":"?q=io&per_page=1&page=1"}"#)])),
    ("5.5 search: a full last page has a next one", "/api/v1/crates?page=1&q=io&per_page=3",
        Has(&[("/meta", r#"{"total":3,"next_page":"?q=io&per_page=3&page=2","prev_page":null}"#)])),
    ("5.5 search: meta is form-urlencoded", "/api/v1/crates?ids[]=syn&per_page=1&page=2",
        Has(&[("/meta", r#"{"total":0,"next_page":null,"prev_page":"?ids%5B%5D=syn&per_page=1&page=1"}"#)])),
    ("5.5 search: beyond the end", "/api/v1/crates?q=io&page=9",
        Has(&[("", r#"{"crates":[],"meta":{"total":0,"next_page":null,"prev_page":"?q=io&page=8"}}"#)])),
    ("5.5 search: as cargo asks", "/api/v1/crates?q=Inflector&per_page=10",
        Has(&[("/crates/0/name", "\"Inflector\""), ("/crates/0/max_version", "\"0.1.0\""), ("/meta/total", "1")])),
    // 5.5 crate
    ("5.5 crate: new is a name", "/api/v1/crates/new", Error(404, "crate `new` does not exist")),
    ("5.5 crate: full resets", "/api/v1/crates/inflector?include=keywords,full",
        Has(&[("/versions/*/num", r#"["0.1.0"]"#), ("/categories", "[]")])),
    ("5.5 crate: newest publish first", "/api/v1/crates/tracks?include=versions",
        Has(&[("/versions/*/num", r#"["2.0.0","10.0.0","1.2.0","1.0.0","0.5.0","0.5.1"]"#),
            ("/crate/max_version", "\"10.0.0\""), ("/crate/newest_version", "\"2.0.0\"")])),
    ("5.5 crate: default_version alone", "/api/v1/crates/tracks?include=default_version,badges",
        Has(&[("/versions/*/num", r#"["10.0.0"]"#), ("/crate/versions", "null")])),
    // 5.5 versions
    ("5.5 versions: semver, name as typed", "/api/v1/crates/TRACKS/versions",
        Has(&[("/versions/*/num", r#"["10.0.0","2.0.0","1.2.0","1.0.0","0.5.1","0.5.0"]"#),
            ("/versions/0/crate", "\"TRACKS\""), ("/meta", r#"{"total":6,"next_page":null}"#)])),
    ("5.5 versions: date", "/api/v1/crates/tracks/versions?sort=DATE&page=7",
        Has(&[("/versions/*/num", r#"["2.0.0","10.0.0","1.2.0","1.0.0","0.5.0","0.5.1"]"#)])),
    ("5.5 versions: nums[]", "/api/v1/crates/tracks/versions?nums[]=1.0.0&nums%5B%5D=0.5.0&nums[]=1",
        Has(&[("/versions/*/num", r#"["1.0.0","0.5.0"]"#), ("/meta/total", "2")])),
    ("5.5 versions: nums[] of none", "/api/v1/crates/tracks/versions?nums[]=7.7.7",
        Has(&[("/versions", "[]"), ("/meta/total", "0")])),
    ("5.5 versions: release_tracks", "/api/v1/crates/tracks/versions?include=release_tracks&nums[]=no",
        Has(&[("/meta/release_tracks", r#"{"10":{"highest":"10.0.0"},"2":{"highest":"2.0.0"},"1":{"highest":"1.0.0"},"0.5":{"highest":"0.5.1"}}"#)])),
    ("5.5 versions: seek", "/api/v1/crates/tracks/versions?per_page=6&sort=semver&seek=MQ",
        Has(&[("/versions", "[]"), ("/meta", r#"{"total":0,"next_page":null}"#)])),
    ("5.5 versions: seek of another sort", "/api/v1/crates/tracks/versions?per_page=6&sort=date&seek=MQ",
        Error(400, "invalid seek parameter")),
    // 5.4, 5.5 dependencies
    ("5.4 Dependency; 5.5 dependencies: required first, then by name", "/api/v1/crates/mixed-case-name/0.5.0/dependencies",
        Has(&[("/dependencies/*/crate_id", r#"["Inflector","Inflector","aa","zz","PLAIN"]"#),
            ("/dependencies/*/kind", r#"["normal","dev","normal","build","dev"]"#),
            ("/dependencies/*/optional", "[false,false,false,false,true]"),
            ("/dependencies/4/features", r#"["x",""]"#), ("/dependencies/4/target", "\"cfg(windows)\""),
            ("/dependencies/4/default_features", "false"), ("/dependencies/*/downloads", "[0,0,0,0,0]"),
            ("/dependencies/0/target", "null")])),
    // 5.5 the rest of a version
    ("5.5 version: exact text", "/api/v1/crates/built/1.0.0+a", Has(&[("/version/num", "\"1.0.0+a\"")])),
    ("5.5 version downloads", "/api/v1/crates/built/1.0.0+a/downloads?before_date=2026-01-31",
        Has(&[("", r#"{"version_downloads":[]}"#)])),
    ("5.5 version downloads: invalid date", "/api/v1/crates/no/1.0.0/downloads?before_date=2026-13-01",
        Error(400, "Failed to deserialize query string: before_date: input is out of range")),
    ("5.5 version downloads: invalid date", "/api/v1/crates/built/1.0.0+a/downloads?before_date=x",
        Error(400, "Failed to deserialize query string: before_date: input contains invalid characters")),
    ("5.5 authors without a look-up", "/api/v1/crates/no/not-semver/authors",
        Has(&[("", r#"{"users":[],"meta":{"names":[]}}"#)])),
    ("10 readme", "/api/v1/crates/built/1.0.0+a/readme", Error(404, "Not Found")),
    // 5.5 reverse dependencies
    ("5.5 reverse dependencies: default versions, latest crates first", "/api/v1/crates/INFLECTOR/reverse_dependencies",
        Has(&[("/dependencies/*/crate_id", r#"["Inflector","Inflector"]"#),
            ("/dependencies/*/kind", r#"["normal","dev"]"#), ("/dependencies/*/req", r#"["*","^0.1"]"#),
            ("/dependencies/*/downloads", "[0,0]"), ("/dependencies/*/optional", "[true,false]"),
            ("/versions/*/crate", r#"["dev-uses","renames"]"#), ("/meta", r#"{"total":2}"#)])),
    ("5.5 reverse dependencies: itself counts", "/api/v1/crates/io/reverse_dependencies",
        Has(&[("/dependencies/*/crate_id", r#"["io"]"#), ("/meta/total", "1")])),
    ("5.5 reverse dependencies: only the default version counts", "/api/v1/crates/tracks/reverse_dependencies?page=1",
        Has(&[("/dependencies", "[]"), ("/meta/total", "0")])),
    ("5.5 reverse dependencies: pages", "/api/v1/crates/inflector/reverse_dependencies?per_page=1&page=2",
        Has(&[("/versions/*/crate", r#"["dev-uses"]"#), ("/meta", r#"{"total":2}"#)])),
    ("5.5 reverse dependencies: beyond the end", "/api/v1/crates/inflector/reverse_dependencies?page=2",
        Has(&[("", r#"{"dependencies":[],"versions":[],"meta":{"total":0}}"#)])),
    // 5.5 owners
    ("5.5 owners", "/api/v1/crates/INFLECTOR/owners", Has(&[("", r#"{"users":[]}"#)])),
    ("5.5 owner_user", "/api/v1/crates/inflector/owner_user", Has(&[("", r#"{"users":[]}"#)])),
    ("5.5 owner_team", "/api/v1/crates/inflector/owner_team", Has(&[("", r#"{"teams":[]}"#)])),
    // 5.5 downloads
    ("5.5 downloads", "/api/v1/crates/inflector/downloads?include=",
        Has(&[("", r#"{"version_downloads":[],"meta":{"extra_downloads":[]}}"#)])),
    ("5.5 downloads: the five highest versions, name as typed", "/api/v1/crates/TRACKS/downloads?include=versions",
        Has(&[("/versions/*/num", r#"["10.0.0","2.0.0","1.2.0","1.0.0","0.5.1"]"#),
            ("/versions/0/crate", "\"TRACKS\""), ("/meta/extra_downloads", "[]")])),
    // 5.5 summary and site metadata
    ("5.5 summary", "/api/v1/summary",
        Has(&[("/num_downloads", "0"), ("/num_crates", "16"), ("/most_downloaded", "[]"),
            ("/most_recently_downloaded", "[]"), ("/popular_keywords", "[]"), ("/popular_categories", "[]"),
            ("/new_crates/0/name", "\"a-b_c\""), ("/new_crates/9/name", "\"dropped-it\""),
            ("/just_updated/*/name", r#"["dropped-it","Mixed_Case-Name","only-pre","yanked","tracks"]"#)])),
    ("5.5 site_metadata", "/api/v1/site_metadata", Has(&[("/read_only", "true")])),
    // 5.5 what does not follow from the index
    ("5.5 keywords", "/api/v1/keywords?sort=crates&page=300", Has(&[("", r#"{"keywords":[],"meta":{"total":0}}"#)])),
    ("5.5 categories", "/api/v1/categories?sort=alpha", Has(&[("", r#"{"categories":[],"meta":{"total":0}}"#)])),
    ("5.5 category_slugs", "/api/v1/category_slugs", Has(&[("", r#"{"category_slugs":[]}"#)])),
    ("5.5 users/{id}/stats", "/api/v1/users/1/stats", Has(&[("", r#"{"total_downloads":0}"#)])),
];

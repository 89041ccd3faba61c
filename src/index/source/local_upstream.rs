//! Checks whether a local upstream, a directory on this machine, can be cloned. libgit2's own message for most problems
//! is that it does not know the protocol.

use std::collections::HashSet;
use std::path::Path;
use std::{fs, io};

use git2::Oid;

use super::clone_dir::write_atomically;
use super::remote_url::RemoteUrl;

/// The file that names the commits whose parents a repository does not have.
const SHALLOW: &str = "shallow";

/// Finds permanent problems of a local upstream. Blocking.
///
/// # Errors
/// The reason, with the path.
pub(crate) fn check(url: &RemoteUrl) -> Result<(), String> {
    let Some(path) = url.local_path() else {
        return Ok(());
    };
    check_path(&path).map_err(|why| format!("`{}` {why}", path.display()))
}

fn check_path(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err("is no directory".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("does not exist".to_owned());
        }
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    let with_checkout = path.join(".git");
    let git = if with_checkout.exists() {
        with_checkout.as_path()
    } else {
        path
    };
    // If `.git` is a file, this is a linked work tree, and libgit2 finds its repository.
    if git.is_file() {
        return Ok(());
    }
    match fs::read_dir(git).and_then(|_entries| fs::metadata(git.join("HEAD"))) {
        Ok(_) if git.join("objects").is_dir() => check_format(&git.join("config")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot be read: {error}"))
        }
        Ok(_) | Err(_) => Err("is no git repository".to_owned()),
    }
}

/// Copies the end of a shallow history from a local upstream. libgit2's local transport does not: without it, git looks for
/// commits that the upstream does not have. Does nothing for other upstreams. Blocking.
pub(crate) fn copy_shallow(url: &RemoteUrl, clone: &Path) -> io::Result<()> {
    let Some(path) = url.local_path() else {
        return Ok(());
    };
    let upstream = git2::Repository::open(path).map_err(io::Error::other)?;
    match fs::read(upstream.commondir().join(SHALLOW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        commits => write_shallow(clone, &commits.unwrap_or_default()),
    }
}

/// Names the commits of a clone whose parents it does not have, one a line. Without any there is no file. Blocking.
pub(crate) fn write_shallow(clone: &Path, commits: &[u8]) -> io::Result<()> {
    if !commits.is_empty() {
        return write_atomically(clone, SHALLOW, commits);
    }
    match fs::remove_file(clone.join(SHALLOW)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The commits of a clone whose parents it does not have on purpose. Blocking.
pub(crate) fn shallow_ends(clone: &Path) -> HashSet<Oid> {
    let commits = fs::read_to_string(clone.join(SHALLOW)).unwrap_or_default();
    let commits = commits.lines().filter_map(|line| Oid::from_str(line).ok());
    commits.collect()
}

/// Refuses the two newer repository formats, which libgit2 does not support.
fn check_format(config: &Path) -> Result<(), String> {
    let extension = |name: &str| {
        let config = git2::Config::open(config).ok()?;
        config.get_string(&format!("extensions.{name}")).ok()
    };
    if let Some(format) = extension("objectformat")
        && !format.eq_ignore_ascii_case("sha1")
    {
        return Err(format!(
            "is a repository with the object format {format}, which is unsupported: an index has SHA-1"
        ));
    }
    if let Some(storage) = extension("refstorage")
        && !storage.eq_ignore_ascii_case("files")
    {
        return Err(format!(
            "is a repository with the reference format {storage}, which is unsupported: \
             `git refs migrate --ref-format=files` converts it"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_permanent_problem_of_a_local_upstream_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let of = |path: &Path| check(&RemoteUrl::parse(path.to_str().unwrap()).unwrap());
        let missing = of(&directory.path().join("missing")).unwrap_err();
        assert!(missing.ends_with("missing` does not exist"), "{missing}");
        assert!(
            of(directory.path())
                .unwrap_err()
                .ends_with("is no git repository")
        );
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(of(&file).unwrap_err().ends_with("is no directory"));
        let below = of(&file.join("index")).unwrap_err();
        assert!(below.contains("cannot be read"), "{below}");
        let git = directory.path().join("git");
        git2::Repository::init_bare(&git).unwrap();
        assert_eq!(of(&git), Ok(()), "an empty one may get commits");
        for (key, value) in [("objectformat", "sha256"), ("refstorage", "reftable")] {
            let config =
                format!("[core]\nrepositoryformatversion = 1\n[extensions]\n{key} = {value}\n");
            fs::write(git.join("config"), config).unwrap();
            let why = of(&git).unwrap_err();
            assert!(why.contains(value) && why.contains("unsupported"), "{why}");
        }
        let checkout = directory.path().join("checkout");
        git2::Repository::init(&checkout).unwrap();
        assert_eq!(of(&checkout), Ok(()));
        assert_eq!(
            check(&RemoteUrl::parse("https://h.example/i").unwrap()),
            Ok(())
        );
    }
}

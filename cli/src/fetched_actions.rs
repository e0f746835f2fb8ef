//! Actions of other repositories that `exec` fetched before: `lint` reads what they take and give, and fetches nothing.
//!
//! Their commit must be known without asking a server: `uses:` names it, or the lock file does.

use std::path::Path;

use source::{RepositoryMirrors, lock::Lock};

/// Where `exec` looks for `owner/repository` by default.
const BASE: &str = "https://github.com";

/// `action.yml` in a folder of a repository; `cache` is the folder of what was fetched.
pub(crate) fn action_file(
    (repository, folder, reference): (&str, &str, &str),
    lock: Option<&Lock>,
    cache: &Path,
) -> Option<String> {
    let commit = git2::Oid::from_str(reference).ok().filter(|_| reference.len() == 40);
    let commit = commit.or_else(|| git2::Oid::from_str(lock?.commit(repository, reference)?).ok())?;
    let origin = format!("{BASE}/{repository}");
    [format!("tree {origin}"), origin].into_iter().find_map(|key| {
        let mirror = cache.join("mirrors").join(RepositoryMirrors::mirror_name(&key));
        let mirror = git2::Repository::open_bare(mirror).ok()?;
        let tree = mirror.find_commit(commit).ok()?.tree().ok()?;
        ["action.yml", "action.yaml"].into_iter().find_map(|name| {
            let entry = tree.get_path(&Path::new(folder).join(name)).ok()?;
            let blob = entry.to_object(&mirror).ok()?.peel_to_blob().ok()?;
            String::from_utf8(blob.content().to_vec()).ok()
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_was_fetched_is_read_by_its_commit_or_by_the_lock_file() {
        let cache = tempfile::tempdir().unwrap();
        let name = RepositoryMirrors::mirror_name("tree https://github.com/some/tools");
        let mirror = git2::Repository::init_bare(cache.path().join("mirrors").join(name)).unwrap();
        let file = mirror.blob(b"name: Greet").unwrap();
        let mut folder = mirror.treebuilder(None).unwrap();
        folder.insert("action.yml", file, 0o100_644).unwrap();
        let folder = folder.write().unwrap();
        let mut root = mirror.treebuilder(None).unwrap();
        root.insert("greet", folder, 0o040_000).unwrap();
        let tree = mirror.find_tree(root.write().unwrap()).unwrap();
        let author = git2::Signature::now("a", "a@b").unwrap();
        let commit = mirror.commit(None, &author, &author, "first", &tree, &[]).unwrap();
        let read = |repository: &str, reference: &str, lock: Option<&Lock>| {
            action_file((repository, "greet", reference), lock, cache.path())
        };
        let expected = Some("name: Greet".to_owned());
        assert_eq!(read("some/tools", &commit.to_string(), None), expected);
        assert_eq!(read("some/tools", "v1", None), None);
        let lock = Lock::read(&format!("some/tools@v1 {commit}\n")).unwrap();
        assert_eq!(read("some/tools", "v1", Some(&lock)), expected);
        assert_eq!(read("some/other", &commit.to_string(), None), None);
    }
}

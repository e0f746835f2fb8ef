//! Reads git objects of a mirror within bounds. An object of gigabytes takes a few kilobytes to send, and is read whole:
//! its size is asked for first.

use std::path::Path;

use git2::{Commit, Error, ObjectType, Oid, Repository, Tree};

/// Bytes of a commit or a tag that are read.
const TEXT: usize = 1 << 20;
/// Bytes of one folder's list that are read: half a million names.
const FOLDER: usize = 32 << 20;
/// Tags of tags that are followed.
const TAGS: usize = 8;

/// The commit that an object id, or a unique prefix of one, stands for: itself, or what a tag object points at.
pub(super) fn peel(repository: &Repository, object: &str) -> Result<Oid, Error> {
    let short = Oid::from_str(object)?;
    let objects = repository.odb()?;
    let mut id = if object.len() == 40 { short } else { objects.exists_prefix(short, object.len())? };
    for _ in 0..TAGS {
        match bounded(repository, id, TEXT)? {
            ObjectType::Commit => return Ok(id),
            ObjectType::Tag => id = repository.find_tag(id)?.target_id(),
            _ => break,
        }
    }
    Err(Error::from_str(&format!("{object} is no commit")))
}

/// A commit by its id.
pub(super) fn commit(repository: &Repository, id: Oid) -> Result<Commit<'_>, Error> {
    bounded(repository, id, TEXT)?;
    repository.find_commit(id)
}

/// A folder by its id.
pub(super) fn tree(repository: &Repository, id: Oid) -> Result<Tree<'_>, Error> {
    bounded(repository, id, FOLDER)?;
    repository.find_tree(id)
}

/// What stands at a path of a commit: id, kind and mode; `None`: nothing.
pub(super) fn entry(
    repository: &Repository,
    commit_id: Oid,
    path: &Path,
) -> Result<Option<(Oid, ObjectType, i32)>, Error> {
    let mut found = (commit(repository, commit_id)?.tree_id(), ObjectType::Tree, 0);
    for part in path {
        if found.1 != ObjectType::Tree {
            return Ok(None);
        }
        let folder = tree(repository, found.0)?;
        let entry = part.to_str().and_then(|name| folder.get_name(name));
        match entry.and_then(|entry| Some((entry.id(), entry.kind()?, entry.filemode()))) {
            Some(entry) => found = entry,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

fn bounded(repository: &Repository, id: Oid, limit: usize) -> Result<ObjectType, Error> {
    let (bytes, kind) = repository.odb()?.read_header(id)?;
    if bytes > limit && kind != ObjectType::Blob {
        return Err(Error::from_str(&format!("the {kind} {id} has {bytes} bytes, the limit is {limit}")));
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn attack_47_an_object_that_would_fill_the_memory_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let author = git2::Signature::new("A", "a@example.org", &git2::Time::new(0, 0)).unwrap();
        let empty = repository.find_tree(repository.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let made = |message: &str| repository.commit(None, &author, &author, message, &empty, &[]).unwrap();
        let (small, large) = (made("fine"), made(&"A".repeat(TEXT)));
        let tagged = |target| {
            let target = repository.find_object(target, None).unwrap();
            repository.tag_annotation_create("v1", &target, &author, "tag").unwrap()
        };
        let blob = repository.blob(b"x").unwrap();
        for (object, commit) in [
            (small.to_string(), Some(small)),
            (small.to_string().chars().take(10).collect(), Some(small)),
            (tagged(small).to_string(), Some(small)),
            (tagged(tagged(small)).to_string(), Some(small)),
            (large.to_string(), None),
            (tagged(large).to_string(), None),
            (blob.to_string(), None),
            ("1".repeat(40), None),
        ] {
            assert_eq!(peel(&repository, &object).ok(), commit, "{object}");
        }
        assert!(commit(&repository, large).is_err());
    }
}

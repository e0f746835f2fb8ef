//! Commits and trees that a server sent: git looks at their ids alone, and the workflow files are read out of them.
#![no_main]

use std::{cell::RefCell, path::Path};

use config::Source;
use git2::{ObjectType, Oid, Repository};
use libfuzzer_sys::fuzz_target;
use network::Reach;
use source::git::Mirror;
use tempfile::TempDir;

/// Inputs for which one repository is used: each leaves files there.
const INPUTS: usize = 2000;
/// Bytes of one file.
const LIMIT: usize = 1 << 16;

struct Place {
    _folder: TempDir,
    mirror: Mirror,
    repository: Repository,
    inputs: usize,
}

impl Place {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reach = Reach { private: false, file: false };
        let opening = Mirror::open(folder.path(), "30617:o:r", reach, (&Source::default()).into());
        let mirror = runtime.block_on(opening).expect("a mirror");
        let repository = Repository::open_bare(mirror.path()).expect("a repository");
        Self { _folder: folder, mirror, repository, inputs: 0 }
    }

    /// A commit whose tree is `tree`, or which is `tree` itself.
    fn commit(&self, tree: &[u8], whole: bool) -> Result<Oid, git2::Error> {
        let odb = self.repository.odb()?;
        if whole {
            return odb.write(ObjectType::Commit, tree);
        }
        let workflows = odb.write(ObjectType::Tree, tree)?;
        let github = odb.write(ObjectType::Tree, &entry("workflows", workflows))?;
        let root = odb.write(ObjectType::Tree, &entry(".github", github))?;
        let text = format!("tree {root}\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nm\n");
        odb.write(ObjectType::Commit, text.as_bytes())
    }
}

fn entry(name: &str, tree: Oid) -> Vec<u8> {
    [format!("40000 {name}\0").as_bytes(), tree.as_bytes()].concat()
}

thread_local!(static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) });

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    PLACE.with_borrow_mut(|place| {
        if place.as_ref().is_some_and(|place| place.inputs >= INPUTS) {
            *place = None;
        }
        let place = place.get_or_insert_with(Place::make);
        place.inputs += 1;
        let Ok(commit) = place.commit(data, kind % 2 == 1) else { return };
        let commit = commit.to_string();
        for path in place.mirror.names(&commit, &[".github/workflows"]) {
            assert!(Path::new(&path).starts_with(".github/workflows"));
            if let Ok(Some(bytes)) = place.mirror.file(&commit, &path, LIMIT) {
                assert!(bytes.len() <= LIMIT);
            }
        }
        let _ = place.mirror.file(&commit, ".github/workflows/ci.yml", LIMIT);
    });
});

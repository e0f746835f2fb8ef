//! Reads a workflow file and the workflows it calls: one way for every command, and the checkout as their source.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use indexmap::IndexMap;
use source::lock::{self, Lock};
use workflow::{
    diagnostic::{Colour, Diagnostic, Severity, render},
    dialect::{
        call_graph::{CallGraph, CalledFiles, GraphBuild, UnavailableFile},
        surroundings::{RepositoryFile, Surroundings},
        workflow_folders,
        workflow_ref::WorkflowRef,
    },
    plan::Dialect,
};

use crate::{exec, fetched_actions, terminal::printable::printable_lines};

/// Reads until nothing is missing; `find` gives the text of a called file.
pub(crate) async fn read(
    path: &str,
    text: &str,
    mut find: impl AsyncFnMut(&WorkflowRef) -> Result<String, UnavailableFile>,
) -> (Option<CallGraph>, Vec<Diagnostic>) {
    let (dialect, mut known) = (Dialect::of_any_path(path), CalledFiles::new());
    loop {
        match dialect.load(path, text, &known) {
            GraphBuild::Done(graph, findings) => return (graph.map(|all| *all), findings),
            GraphBuild::NeedsFiles(places) => {
                for place in places {
                    let text = find(&place).await;
                    known.insert(place, text);
                }
            }
        }
    }
}

/// The workflow files of a folder, in order.
pub(crate) fn workflows(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    let mut found: Vec<PathBuf> = entries.filter(is_yaml).collect();
    found.sort();
    found
}

/// A file of a checkout with what it calls there.
pub(crate) struct LocalWorkflow {
    /// Where it could be run.
    pub(crate) graph: Option<CallGraph>,
    /// Their files are named as seen from here.
    pub(crate) findings: Vec<Diagnostic>,
    /// What was read, by that name; the file itself is the first.
    texts: IndexMap<String, String>,
}

impl LocalWorkflow {
    /// Reads a file and, without fetching anything, what it calls.
    pub(crate) async fn read(file: &Path) -> Result<Self> {
        Self::load(file, None).await
    }

    /// As [`Self::read`], with all that `lint` has to say; `labels` are those of workers.
    pub(crate) async fn lint(file: &Path, labels: &[String]) -> Result<Self> {
        Self::load(file, Some(labels)).await
    }

    async fn load(file: &Path, labels: Option<&[String]>) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let own = file.to_string_lossy().into_owned();
        let checkout = EnclosingCheckout::around(file);
        let path = checkout.as_ref().map_or_else(|| own.clone(), |checkout| checkout.path.clone());
        let mut texts = IndexMap::from([(own.clone(), text.clone())]);
        let (graph, mut findings) = read(&path, &text, async |place: &WorkflowRef| {
            if place.remote.is_some() {
                let why = "it is of another repository, and nothing is fetched here; `longshore exec` reads it";
                return Err(UnavailableFile::Skipped(why.into()));
            }
            let Some(checkout) = &checkout else {
                return Err(UnavailableFile::Skipped(format!("{} lies in no checkout", file.display())));
            };
            let text = checkout.text(&place.path).map_err(UnavailableFile::Missing)?;
            texts.insert(checkout.shown(&place.path), text.clone());
            Ok(text)
        })
        .await;
        if let Some(labels) = labels {
            let locked = checkout.as_ref().and_then(|checkout| Lock::read(&checkout.text(lock::PATH).ok()?).ok());
            let around = Around { checkout: checkout.as_ref(), labels, lock: locked };
            findings = Dialect::of_any_path(&path).lint(&path, &text, findings, &around);
        }
        for finding in &mut findings {
            match &checkout {
                Some(checkout) if finding.file != path => finding.file = checkout.shown(&finding.file),
                _ => finding.file.clone_from(&own),
            }
        }
        findings.sort_by_key(|found| (texts.get_index_of(&found.file), found.span.line, found.span.column));
        Ok(Self { graph, findings, texts })
    }

    /// Those findings that are `wanted`, with the lines they are about.
    pub(crate) fn rendered(&self, colour: Colour, wanted: impl Fn(&Diagnostic) -> bool) -> String {
        let of_file = |(file, text): (&String, &String)| {
            let found = self.findings.iter().filter(|finding| finding.file == *file && wanted(finding));
            render(&found.cloned().collect::<Vec<_>>(), text, colour)
        };
        printable_lines(&self.texts.iter().map(of_file).collect::<String>())
    }

    /// What has no effect, or was left out.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Warning)
    }
}

/// What `lint` may look at.
struct Around<'a> {
    checkout: Option<&'a EnclosingCheckout>,
    labels: &'a [String],
    lock: Option<Lock>,
}

impl Surroundings for Around<'_> {
    fn file(&self, path: &str) -> RepositoryFile {
        let Some(checkout) = self.checkout else { return RepositoryFile::Unknown };
        match std::fs::read_to_string(checkout.root.join(path)) {
            Ok(text) => RepositoryFile::Text(text),
            Err(error) if error.kind() == ErrorKind::NotFound => RepositoryFile::Missing,
            Err(_) => RepositoryFile::Unknown,
        }
    }

    fn fetched_action(&self, repository: &str, folder: &str, reference: &str) -> Option<String> {
        fetched_actions::action_file((repository, folder, reference), self.lock.as_ref(), &exec::cache())
    }

    fn worker_labels(&self) -> &[String] {
        self.labels
    }
}

/// Where `./` of a file leads.
struct EnclosingCheckout {
    root: PathBuf,
    /// The root as the user would write it.
    written: PathBuf,
    /// The file's path in it.
    path: String,
}

impl EnclosingCheckout {
    /// The folder above one of workflows, else the work tree of git or the nearest folder that has `.github`, whichever is
    /// nearer; `None` where the file lies in none.
    fn around(file: &Path) -> Option<Self> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().ok()?;
        let above = |known: &str| folder.ancestors().nth(Path::new(known).components().count()).map(Path::to_owned);
        let of_workflows = workflow_folders().into_iter().find(|known| folder.ends_with(known)).and_then(above);
        let of_git = || git2::Repository::discover(&folder).ok()?.workdir()?.canonicalize().ok();
        let of_github = || folder.ancestors().find(|folder| folder.join(".github").is_dir()).map(Path::to_owned);
        let nearest = || of_git().into_iter().chain(of_github()).max_by_key(|root| root.components().count());
        let root = of_workflows.or_else(nearest)?;
        let path = folder.strip_prefix(&root).ok()?.join(file.file_name()?);
        let written = if file.ends_with(&path) { file.ancestors().nth(path.components().count()) } else { None };
        let written = written.unwrap_or(&root).to_owned();
        Some(Self { root, written, path: path.to_string_lossy().into_owned() })
    }

    fn shown(&self, path: &str) -> String {
        self.written.join(path).to_string_lossy().into_owned()
    }

    fn text(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(self.root.join(path)).map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("there is no such file in {}", self.root.display()),
            _ => format!("it can't be read: {error}"),
        })
    }
}

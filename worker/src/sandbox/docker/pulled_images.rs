//! Which images this worker pulled, and when each was used last: those that nobody used for longest go first.

use std::{collections::BTreeMap, io::Write as _, path::PathBuf};

use bollard::{
    models::ImageSummary,
    query_parameters::{ListImagesOptions, RemoveImageOptions},
};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::engine::Engine;
use crate::disk_usage;

/// What is kept of pulled images.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// Bytes of all; 0: any number.
    pub(super) bytes: u64,
    /// Bytes that stay free on the engine's disk, twice over: images go before a job has to.
    pub(super) min_free: u64,
}

impl Quota {
    /// Whether no more images may come: jobs would be next.
    pub(super) fn is_low(&self, engine: &Engine) -> bool {
        let free = engine.root.as_deref().and_then(disk_usage::free_bytes).unwrap_or(u64::MAX);
        free < self.min_free.saturating_mul(2)
    }
}

/// The images that were pulled, by reference, in a file that outlives the process.
pub(super) struct PulledImages {
    file: Option<PathBuf>,
    used: Mutex<BTreeMap<String, i64>>,
}

impl PulledImages {
    /// `None`: of this process alone.
    pub(super) fn open(file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        Self { file, used: Mutex::new(serde_json::from_slice(&text).unwrap_or_default()) }
    }

    /// An image was pulled. Noted before anything else happens: one that is not known here is never removed.
    pub(super) fn pulled(&self, reference: &str) {
        self.used.lock().insert(reference.to_owned(), Timestamp::now().as_second());
        self.save();
    }

    /// An image is used, whoever brought it.
    pub(super) fn used(&self, reference: &str) {
        if let Some(last) = self.used.lock().get_mut(reference) {
            *last = Timestamp::now().as_second();
        }
    }

    /// Removes what is too much, those first that were unused longest. One that a container has stays.
    pub(super) async fn trim(&self, engine: &Engine, quota: Quota) {
        if self.used.lock().is_empty() {
            return;
        }
        let Ok(there) = engine.api.list_images(None::<ListImagesOptions>).await else { return };
        let (mut total, oldest) = self.oldest_first(&there);
        for (reference, size) in oldest {
            let is_too_much = quota.bytes > 0 && total > quota.bytes || quota.is_low(engine);
            if !is_too_much {
                break;
            }
            if engine.api.remove_image(&reference, None::<RemoveImageOptions>, None).await.is_ok() {
                tracing::info!(image = reference, "removed: others were used since");
                total = total.saturating_sub(size);
                self.used.lock().remove(&reference);
            }
        }
        self.save();
    }

    /// Bytes of all that are still there, and each of them.
    fn oldest_first(&self, there: &[ImageSummary]) -> (u64, Vec<(String, u64)>) {
        let mut used = self.used.lock();
        let size_of = |reference: &String| {
            let image = there
                .iter()
                .find(|image| image.repo_tags.iter().chain(&image.repo_digests).any(|name| name == reference));
            image.map(|image| u64::try_from(image.size).unwrap_or(0))
        };
        let mut sizes: Vec<_> =
            used.iter().filter_map(|(name, last)| Some((*last, name.clone(), size_of(name)?))).collect();
        used.retain(|name, _| sizes.iter().any(|(_, there, _)| there == name));
        sizes.sort();
        let total = sizes.iter().fold(0_u64, |sum, (.., size)| sum.saturating_add(*size));
        (total, sizes.into_iter().map(|(_, name, size)| (name, size)).collect())
    }

    fn save(&self) {
        let Some(file) = &self.file else { return };
        let written = || {
            let folder = file.parent().unwrap_or(file);
            std::fs::create_dir_all(folder)?;
            let mut part = tempfile::NamedTempFile::new_in(folder)?;
            let text = serde_json::to_vec(&*self.used.lock())?;
            part.write_all(&text)?;
            part.persist(file).map_err(|error| error.error)?;
            std::io::Result::Ok(())
        };
        if let Err(error) = written() {
            tracing::warn!(%error, file = %file.display(), "which images were pulled could not be noted: they stay");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_image_that_was_unused_longest_goes_first_and_only_what_was_pulled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("worker/images.json");
        let images = PulledImages::open(Some(file.clone()));
        for (name, last) in [("a:1", 30), ("b:1", 10), ("gone:1", 5), ("c@sha256:0", 20)] {
            images.pulled(name);
            images.used.lock().insert(name.into(), last);
        }
        images.used("unknown:1");
        images.save();
        let image = |tags: &[&str], digests: &[&str], size| ImageSummary {
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            repo_digests: digests.iter().map(|digest| (*digest).to_owned()).collect(),
            size,
            ..ImageSummary::default()
        };
        let there = [
            image(&["a:1", "kept:1"], &[], 5),
            image(&["b:1"], &[], 7),
            image(&[], &["c@sha256:0"], 9),
            image(&["mine:1"], &[], 99),
        ];
        let again = PulledImages::open(Some(file));
        let (total, order) = again.oldest_first(&there);
        assert_eq!(total, 21);
        assert_eq!(order, [("b:1".to_owned(), 7), ("c@sha256:0".into(), 9), ("a:1".into(), 5)]);
        assert!(!again.used.lock().contains_key("gone:1"));
    }
}

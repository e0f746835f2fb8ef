//! The lock of a data folder: one process at a time uses it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

/// Keeps a data folder, which is made where it is missing, for this process until the file is dropped. `key` is what
/// names another folder. However the process ends, its lock ends with it.
pub(crate) fn acquire(data: &Path, key: &str) -> Result<File> {
    let path = data.join("lock");
    let unusable = || format!("data folder {}: make it writable or set {key}", data.display());
    std::fs::create_dir_all(data).with_context(unusable)?;
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.with_context(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who has it is a help only: the file may not be written yet.
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.is_empty() { String::new() } else { format!(" {}", holder.trim()) };
            bail!("{} is in use by process{holder}: stop it, or name another folder with {key}", data.display());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{}: cannot be locked", path.display())).with_context(unusable);
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).with_context(unusable)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_data_folder_in_use_is_refused_until_its_process_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = acquire(&data, "--data").unwrap();
        let refused = acquire(&data, "--data").unwrap_err().to_string();
        let holder = format!("{} is in use by process {}: stop it", data.display(), std::process::id());
        assert!(refused.contains(&holder) && refused.contains("--data"), "{refused}");
        drop(first);
        acquire(&data, "--data").unwrap();
    }
}

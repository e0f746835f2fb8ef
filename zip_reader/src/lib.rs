//! Opens zip archives whose content nobody vouches for: the directory of one, which is kept in memory, has a bound.

use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use zip::{ZipArchive, result::ZipResult};

/// Most bytes of a directory that is looked into; each entry takes some fifty and its name, and a few times that in memory.
pub const DIRECTORY: u64 = 8 << 20;

/// Reads the directory of an archive, of `limit` bytes at most.
///
/// # Errors
/// It is no archive, a broken one, or its directory is larger.
pub fn open<R: Read + Seek>(source: R, limit: u64) -> ZipResult<ZipArchive<BoundedReader<R>>> {
    let left = Arc::new(AtomicU64::new(limit));
    let archive = ZipArchive::new(BoundedReader { inner: source, limit, left: Arc::clone(&left) })?;
    // The directory is read; the files have bounds of their own.
    left.store(u64::MAX, Ordering::Relaxed);
    Ok(archive)
}

/// An archive of which no more is read than a directory may have, until that is known.
#[derive(Debug)]
pub struct BoundedReader<R> {
    inner: R,
    limit: u64,
    /// Bytes that may still be read.
    left: Arc<AtomicU64>,
}

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        let left = self.left.load(Ordering::Relaxed);
        let Some(rest) = left.checked_sub(read as u64) else {
            return Err(io::Error::other(format!("its directory has more than {} bytes", self.limit)));
        };
        self.left.store(if left == u64::MAX { left } else { rest }, Ordering::Relaxed);
        Ok(read)
    }
}

impl<R: Seek> Seek for BoundedReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Cursor;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    #[test]
    fn attack_45_a_directory_beyond_its_bound_is_not_read() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for number in 0..1000 {
            zip.start_file(format!("file-{number:04}"), SimpleFileOptions::default()).unwrap();
        }
        let archive = zip.finish().unwrap();
        assert!(open(archive.clone(), 40_000).unwrap_err().to_string().contains("more than 40000 bytes"));
        assert_eq!(open(archive, 200_000).unwrap().len(), 1000);
    }
}

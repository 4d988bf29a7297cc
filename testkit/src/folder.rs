//! Creates temporary folders that are removed when the process that created them ends, however it ends.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::error::{Error, Result};

/// Waits for the end of its standard input, whose other end only this process holds (see `process`), and removes the
/// folder. It tries several times, because a program that is being killed may still write to the folder.
const REMOVER: &str = r#"read -r _; for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" && exit; sleep 0.2; done"#;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A new temporary folder. It is removed with its content when it is dropped or when this process ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    remover: Option<Child>,
}

impl Folder {
    /// Creates a folder in the system's temporary folder. `name` becomes a part of its name.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn new(name: &str) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidings-{name}-{}-{number}", std::process::id()));
        // A folder that already exists was left by an earlier process with the same id, whose remover failed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).map_err(|error| Error::new(format!("cannot create {}: {error}", path.display())))?;
        let remover = Command::new("sh")
            .args(["-c", REMOVER, "remover"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { path, remover: Some(remover) })
    }

    /// The path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the folder and returns the path of the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(mut remover) = self.remover.take() {
            drop(remover.stdin.take());
            // A thread waits for the remover, which may take a moment.
            thread::spawn(move || remover.wait());
        }
    }
}

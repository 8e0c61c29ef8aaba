//! A file system of 64 MB, and somebody else who fills it: until nothing is free, and again
//! whenever something becomes so.

use crate::limits::POLL;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A mounted file system; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        )),
    }
}

impl SmallDisk {
    /// Mounts an ext4 of 64 MB, in a file, below `dir`: its own journal, and blocks that it takes
    /// late.
    ///
    /// # Errors
    /// Why it can't be: mounting needs rights that a test may not have.
    pub fn mount(dir: &Path) -> Result<Self, String> {
        let mounted = dir.join("disk");
        std::fs::create_dir_all(&mounted).map_err(|error| error.to_string())?;
        let to = mounted.to_str().ok_or("a path that is no text")?;
        let image = dir.join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(64 << 20).map_err(|error| error.to_string())?;
        let image = image.to_str().ok_or("a path that is no text")?;
        run("mkfs.ext4", &["-q", "-m", "0", image])?;
        run("mount", &["-o", "loop", image, to])?;
        Ok(Self { dir: mounted })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let dir = self.dir.to_string_lossy().into_owned();
        if let Err(error) = run("umount", &[&dir]) {
            eprintln!("{dir} stays mounted: {error}");
        }
    }
}

/// Somebody who takes every free byte.
#[derive(Debug)]
pub struct Filler {
    stop: Arc<AtomicBool>,
    /// How often the disk was found full.
    full: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Filler {
    /// Begins to fill the file system of `dir`.
    pub fn start(dir: &Path) -> Self {
        let (stop, full) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let path = dir.join("filler");
        let (stopped, counted, file) = (Arc::clone(&stop), Arc::clone(&full), path.clone());
        let thread = std::thread::spawn(move || {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let written = file
                    .write_all(&[0xa5; 16 * 1024])
                    .and_then(|()| file.sync_data());
                if written.is_err() {
                    counted.fetch_add(1, Ordering::Relaxed);
                    // tidy: sleep because nobody says when a block becomes free
                    std::thread::sleep(POLL);
                }
            }
        });
        Self {
            stop,
            full,
            thread: Some(thread),
            path,
        }
    }

    /// How often the disk was found full so far.
    pub fn found_full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Stops, and gives everything back.
    pub fn free(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            std::fs::remove_file(&self.path).unwrap();
            ended.unwrap();
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
        self.stop.store(true, Ordering::Relaxed);
    }
}

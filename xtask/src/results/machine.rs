//! On what the figures were measured: commit, processor, kernel, compiler, file system.
//!
//! What cannot be found out is called unknown; no path and no name of the machine is kept.

use super::today;
use crate::output;
use anyhow::Result;
use std::fmt;
use std::path::Path;

/// A machine, a commit, a day.
#[derive(Default)]
pub struct Machine {
    day: String,
    commit: String,
    changed_files: usize,
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    file_system: String,
    rustc: String,
    load: String,
}

impl Machine {
    /// This machine now, before anything is measured.
    pub fn look(root: &Path) -> Result<Self> {
        let git = |arguments: &[&str]| output(Path::new("git"), arguments, root);
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
        let target = root.join(tributary_ground::target());
        let target = tributary_ground::folder(&target).unwrap_or(target);
        let target = target.canonicalize().unwrap_or(target);
        let mounts = read("/proc/self/mounts");
        Ok(Self {
            day: today(),
            commit: git(&["rev-parse", "--short=12", "HEAD"])?,
            changed_files: changed
                .lines()
                .filter(|line| !super::WRITTEN.iter().any(|file| line.ends_with(file)))
                .count(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib(&field(&read("/proc/meminfo"), "MemTotal")) / (1024 * 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&mounts, &target).to_owned(),
            rustc: output(Path::new("rustc"), &["--version"], root)?,
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

impl Machine {
    /// The commit and the day.
    pub fn when(&self) -> String {
        let changed = match self.changed_files {
            0 => "",
            _ => ", changed",
        };
        format!("{}{changed}, {}", self.commit, self.day)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |text: &str| {
            if text.is_empty() {
                "unknown".into()
            } else {
                text.to_owned()
            }
        };
        let changed = match self.changed_files {
            0 => String::new(),
            1 => ", and 1 changed file".into(),
            count => format!(", and {count} changed files"),
        };
        writeln!(f, "| | |\n|---|---|")?;
        writeln!(f, "| day | {} |", self.day)?;
        writeln!(f, "| commit | {}{changed} |", self.commit)?;
        writeln!(
            f,
            "| processor | {}, {} cores |",
            known(&self.processor),
            self.cores
        )?;
        writeln!(f, "| memory | {} GiB |", self.memory_gib)?;
        writeln!(f, "| kernel | {} |", known(&self.kernel))?;
        writeln!(f, "| file system | {} |", known(&self.file_system))?;
        writeln!(f, "| compiler | {} |", known(&self.rustc))?;
        writeln!(f, "| load before | {} |", known(&self.load))
    }
}

/// `value` of the first line `name : value`.
fn field(text: &str, name: &str) -> String {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name);
    values
        .next()
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

fn kib(text: &str) -> u64 {
    let number = text.strip_suffix("kB").unwrap_or(text).trim();
    number.parse().unwrap_or(0)
}

/// The type of the file system that holds `path`: of the longest mount point above it.
fn file_system<'a>(mounts: &'a str, path: &Path) -> &'a str {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((Path::new(words.next()?), words.next()?))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    above
        .max_by_key(|(point, _)| point.components().count())
        .map_or("", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let text = "processor\t: 0\nmodel name\t: A B\nmodel name\t: C\n";
        assert_eq!(field(text, "model name"), "A B");
        assert_eq!(field(text, "flags"), "");
        assert_eq!(kib("24684 kB"), 24_684);
        let mounts = "a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /database tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data/x")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/other")), "ext4");
        assert_eq!(file_system("", Path::new("/other")), "");
    }

    #[test]
    fn uncommitted_changes_are_said() {
        let clean = Machine {
            commit: "abc".into(),
            ..Machine::default()
        };
        assert!(clean.to_string().contains("| commit | abc |\n"), "{clean}");
        let dirty = Machine {
            changed_files: 2,
            ..clean
        };
        assert!(
            dirty
                .to_string()
                .contains("| commit | abc, and 2 changed files |"),
            "{dirty}"
        );
    }
}

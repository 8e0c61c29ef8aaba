//! Reads what `tests/shim/disk.c` wrote: one operation after the other, over all processes that
//! shared the log. What an operation does to a disk is `disk.rs`'s.

use crate::limits::RECORDING_BYTES_MAX;
use std::path::Path;

/// As in the shim.
const MAGIC: u32 = 0x4b53_4944;
const HEAD_BYTES: usize = 64;

/// What a sync is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncKind {
    /// fsync or fdatasync, of a file or a directory.
    Whole,
    /// `sync_file_range`.
    Range,
}

/// Which sync: the process, and its number there.
pub type SyncId = (u32, u64);

/// Which connection: the process, and its number there.
pub type Connection = (u32, u64);

/// One operation. Files are told by the number of their inode, which the system may give again.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "their names say what the fields are")]
pub enum Op<'a> {
    /// A directory that was there when a process began.
    Root { path: &'a str, inode: u64 },
    /// A new file.
    Create { path: &'a str, inode: u64 },
    /// A new directory.
    MakeDir { path: &'a str, inode: u64 },
    /// Data.
    Write {
        inode: u64,
        offset: u64,
        data: &'a [u8],
        size_before: u64,
    },
    /// Another length.
    Truncate {
        inode: u64,
        length: u64,
        size_before: u64,
    },
    /// A sync begins.
    SyncBegin {
        inode: u64,
        kind: SyncKind,
        id: SyncId,
        size_before: u64,
    },
    /// It has succeeded.
    SyncEnd { id: SyncId },
    /// A file or directory has another name.
    Rename { from: &'a str, to: &'a str },
    /// A name is gone.
    Remove { path: &'a str },
    /// A file has one more name.
    Link { from: &'a str, to: &'a str },
    /// A socket has a name.
    Bind { path: &'a str },
    /// A call failed because it was told to; of a file, if it had one.
    Fault { what: &'a str, inode: u64 },
    /// A process opens a connection.
    Connect { connection: Connection },
    /// It says something on it.
    Said {
        connection: Connection,
        data: &'a [u8],
    },
    /// It hears something.
    Heard {
        connection: Connection,
        data: &'a [u8],
    },
}

/// A recording.
#[derive(Debug)]
pub struct Log {
    bytes: Vec<u8>,
    /// Where each record begins.
    places: Vec<usize>,
}

impl Log {
    /// Reads a recording.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
        let length = std::fs::metadata(path).map_err(wrong)?.len();
        if length > RECORDING_BYTES_MAX {
            return Err(format!("{} has {length} bytes", path.display()));
        }
        Self::parse(std::fs::read(path).map_err(wrong)?)
    }

    /// A recording's bytes, checked.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let (mut places, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (_, _, length) = record(&bytes[at..]).map_err(|why| format!("byte {at}: {why}"))?;
            places.push(at);
            at += length;
        }
        Ok(Self { bytes, places })
    }

    /// How many operations it has.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// How many of them stand before this byte.
    pub fn before(&self, byte: u64) -> usize {
        self.places.partition_point(|place| (*place as u64) < byte)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// One of them, and the process that did it.
    pub fn op(&self, place: usize) -> (u32, Op<'_>) {
        let (process, op, _) =
            record(&self.bytes[self.places[place]..]).expect("it was checked when it was read");
        (process, op)
    }

    /// All of them.
    pub fn ops(&self) -> impl Iterator<Item = (u32, Op<'_>)> {
        (0..self.len()).map(|place| self.op(place))
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
}

/// The record that `bytes` begin with: its process, what it says, how long it is.
fn record(bytes: &[u8]) -> Result<(u32, Op<'_>, usize), String> {
    if bytes.len() < HEAD_BYTES {
        return Err("the recording ends within a record".to_owned());
    }
    let (head, rest) = bytes.split_at(HEAD_BYTES);
    if u32_at(head, 0) != MAGIC {
        return Err("no record begins here".to_owned());
    }
    let (name, other) = (u16_at(head, 6), u16_at(head, 8));
    let data = usize::try_from(u64_at(head, 48)).unwrap_or(usize::MAX);
    let length = (name + other).saturating_add(data);
    if rest.len() < length {
        return Err("the recording ends within a record".to_owned());
    }
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "a name that is no text".to_owned());
    let (path, to) = (text(&rest[..name])?, text(&rest[name..name + other])?);
    let data = &rest[name + other..length];
    let process = u32_at(head, 12);
    let (inode, size_before) = (u64_at(head, 16), u64_at(head, 40));
    let id = (process, u64_at(head, 56));
    let connection = (process, inode);
    let op = match head[4] {
        b'O' => Op::Root { path, inode },
        b'C' => Op::Create { path, inode },
        b'M' => Op::MakeDir { path, inode },
        b'W' => Op::Write {
            inode,
            offset: u64_at(head, 24),
            data,
            size_before,
        },
        b'T' => Op::Truncate {
            inode,
            length: u64_at(head, 32),
            size_before,
        },
        b'B' => Op::SyncBegin {
            inode,
            kind: match head[5] {
                0 | 1 => SyncKind::Whole,
                2 => SyncKind::Range,
                kind => return Err(format!("a sync of kind {kind}")),
            },
            id,
            size_before,
        },
        b'D' => Op::SyncEnd { id },
        b'R' => Op::Rename { from: path, to },
        b'U' => Op::Remove { path },
        b'L' => Op::Link { from: path, to },
        b'S' => Op::Bind { path },
        b'E' => Op::Fault { what: path, inode },
        b'K' => Op::Connect { connection },
        b'N' => Op::Said { connection, data },
        b'V' => Op::Heard { connection, data },
        op => return Err(format!("an operation {op}")),
    };
    Ok((process, op, HEAD_BYTES + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    use crate::shim::Shim;

    /// What `script` does under the recorder, below a folder of its own.
    fn recorded(script: &str) -> (Log, tempfile::TempDir) {
        let shim = Shim::compile("disk");
        let dir = crate::programs::scratch("recorded");
        let log = dir.path().join("log");
        let root = dir.path().join("root");
        let ran = Command::new("sh")
            .args(["-c", script])
            .current_dir(dir.path())
            .env("LD_PRELOAD", &shim.library)
            .env("DISK_LOG", &log)
            .env("DISK_ROOTS", &root)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{}: {said}", ran.status);
        (Log::read(&log).unwrap(), dir)
    }

    #[test]
    fn what_a_process_does_is_read_back_in_order() {
        let (log, dir) = recorded(
            "mkdir root; printf ab > root/x; printf cd >> root/x; printf none > beside; \
             mv root/x root/y; ln root/y root/z; rm root/y; sync root/z",
        );
        let root = dir.path().join("root");
        let path = |name: &str| format!("{}/{name}", root.display());
        let ops: Vec<Op<'_>> = log.ops().map(|(_, op)| op).collect();
        let inode = ops
            .iter()
            .find_map(|op| match op {
                Op::Create { inode, .. } => Some(*inode),
                _ => None,
            })
            .unwrap();
        let written: Vec<(u64, &[u8], u64)> = ops
            .iter()
            .filter_map(|op| match op {
                Op::Write {
                    offset,
                    data,
                    size_before,
                    inode: of,
                } if *of == inode => Some((*offset, *data, *size_before)),
                _ => None,
            })
            .collect();
        assert_eq!(written, [(0, &b"ab"[..], 0), (2, &b"cd"[..], 2)]);
        let (x, y, z) = (path("x"), path("y"), path("z"));
        assert!(ops.contains(&Op::Create { path: &x, inode }));
        assert!(ops.contains(&Op::Rename { from: &x, to: &y }));
        assert!(ops.contains(&Op::Link { from: &y, to: &z }));
        assert!(ops.contains(&Op::Remove { path: &y }));
        assert!(!format!("{ops:?}").contains("beside"));
        let ended = ops.iter().any(|op| matches!(op, Op::SyncEnd { .. }));
        assert!(ended, "{ops:?}");
    }

    #[test]
    fn what_is_not_modelled_ends_the_process() {
        let shim = Shim::compile("disk");
        let dir = crate::programs::scratch("unmodelled");
        let run = |script: &str| {
            Command::new("sh")
                .args(["-c", script])
                .current_dir(dir.path())
                .env("LD_PRELOAD", &shim.library)
                .env("DISK_LOG", dir.path().join("log"))
                .env("DISK_ROOTS", dir.path().join("root"))
                .status()
                .unwrap()
                .code()
        };
        assert_eq!(
            run("mkdir root; touch root/x; truncate -s 9 root/x"),
            Some(0)
        );
        assert_eq!(run("fallocate -n -l 99 root/x"), Some(99));
        assert_eq!(run("ln -s x root/link"), Some(99));
    }

    #[test]
    fn growth_past_the_c_library_is_recorded_and_finds_the_disk_full() {
        let script = "mkdir root; : > root/x; ";
        let grow = "fallocate -l 9000 root/x";
        let (log, dir) = recorded(&format!("{script} {grow}"));
        let grown = log.ops().any(|(_, op)| {
            let Op::Truncate {
                length,
                size_before,
                ..
            } = op
            else {
                return false;
            };
            (size_before, length) == (0, 9_000)
        });
        assert!(grown);
        let x = dir.path().join("root/x");
        assert_eq!(std::fs::metadata(x).unwrap().len(), 9_000);

        let (log, dir) = recorded(&format!("{script} ! DISK_FAULT=enospc:1 {grow}"));
        let x = dir.path().join("root/x");
        assert_eq!(std::fs::metadata(x).unwrap().len(), 0);
        let is_fault =
            |op: &Op<'_>| matches!(op, Op::Fault { what: "ENOSPC", inode } if *inode > 0);
        assert!(log.ops().any(|(_, op)| is_fault(&op)));
    }

    #[test]
    fn the_number_of_a_folder_that_was_closed_is_no_file_of_ours_when_a_socket_gets_it() {
        let source = r#"
            #include <dirent.h>
            #include <fcntl.h>
            #include <sys/socket.h>
            #include <unistd.h>
            int main(void) {
                int ends[2], folder = openat(AT_FDCWD, "root", O_RDONLY | O_DIRECTORY);
                if (closedir(fdopendir(folder)) != 0) return 1;
                if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 1;
                if (ends[0] != folder) return 2;
                return write(ends[0], "x", 1) == 1 ? 0 : 3;
            }"#;
        let dir = crate::programs::scratch("closes");
        let path = dir.path().join("closes.c");
        std::fs::write(&path, source).unwrap();
        let program = dir.path().join("closes");
        let compiled = Command::new("cc")
            .arg("-o")
            .arg(&program)
            .arg(&path)
            .status();
        assert!(compiled.unwrap().success());
        let (log, _dir) = recorded(&format!("mkdir root; {}", program.display()));
        let is_of_a_file = |op: &Op<'_>| matches!(op, Op::Write { .. } | Op::Truncate { .. });
        assert!(!log.ops().any(|(_, op)| is_of_a_file(&op)));
    }

    #[test]
    fn a_recording_that_is_cut_or_damaged_is_refused() {
        let (log, _dir) = recorded("mkdir root; printf ab > root/x");
        let whole = log.bytes.clone();
        assert!(Log::parse(whole[..whole.len() - 1].to_vec()).is_err());
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        assert!(Log::parse(damaged).is_err());
        assert_eq!(Log::parse(whole).unwrap().len(), log.len());
    }
}

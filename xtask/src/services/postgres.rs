//! PostgreSQL from Debian, in a cluster of its own. It does not run as root.

use super::{Started, answers, apt, folder, free_port, start_by};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts it.
pub fn start(dir: &Path) -> Result<Started> {
    let versions = Path::new("/usr/lib/postgresql");
    apt(versions, &["postgresql"])?;
    let bin = newest(versions)?;
    let folder = folder(dir, "postgres")?;
    // Debian's package makes this user.
    let user = "postgres";
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if is_root {
        let owned = Command::new("chown").arg(user).arg(&folder).status()?;
        ensure!(
            owned.success(),
            "chown {user} {}: {owned}",
            folder.display()
        );
    }
    let become_it = match is_root {
        true => format!("setpriv --reuid={user} --regid={user} --init-groups "),
        false => String::new(),
    };
    let port = free_port()?;
    let bin = bin.display();
    start_by(
        &folder,
        &format!(
            "if [ ! -d data ]; then
    {become_it}{bin}/initdb -D data -U tributary -A trust --no-locale -E UTF8 > log 2>&1
    printf '%s\\n' \"listen_addresses = '127.0.0.1'\" 'port = {port}' \\
        \"unix_socket_directories = ''\" 'shared_buffers = 256MB' 'max_wal_size = 2GB' \\
        >> data/postgresql.conf
fi
# One that was killed leaves its file, and its children end by themselves.
for own in $(grep -l '' /proc/[0-9]*/stat 2> /dev/null); do
    pid=$(basename \"$(dirname $own)\")
    while [ \"$(readlink /proc/$pid/cwd 2> /dev/null)\" = \"$PWD/data\" ]; do sleep 0.05; done
done
rm -f data/postmaster.pid
ln -sf data/postmaster.pid pid
{become_it}{bin}/pg_ctl -D data -l server.log -w -t 60 start >> log 2>&1
"
        ),
    )?;
    answers(port, &folder)?;
    let url = format!("host=127.0.0.1 port={port} user=tributary dbname=postgres");
    Ok(Started {
        name: "POSTGRES",
        env: vec![("URL", url), ("BIN", bin.to_string())],
    })
}

fn newest(versions: &Path) -> Result<PathBuf> {
    let found = fs::read_dir(versions).with_context(|| versions.display().to_string())?;
    let mut found: Vec<PathBuf> = found
        .filter_map(|it| Some(it.ok()?.path().join("bin")))
        .collect();
    found.retain(|bin| bin.join("initdb").exists());
    found.sort();
    found.pop().context("no version of PostgreSQL has initdb")
}

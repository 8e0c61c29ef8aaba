//! Redis from Debian. It syncs its log with every command, so that a kill costs nothing.

use super::{Started, answers, apt, folder, free_port, start_by};
use anyhow::Result;
use std::path::Path;

/// Starts it.
pub fn start(dir: &Path) -> Result<Started> {
    apt(Path::new("/usr/bin/redis-server"), &["redis-server"])?;
    let folder = folder(dir, "redis")?;
    let port = free_port()?;
    start_by(
        &folder,
        &format!(
            "redis-server --port {port} --bind 127.0.0.1 --dir . --appendonly yes \\
    --appendfsync always --save '' >> log 2>&1 &
echo $! > pid
"
        ),
    )?;
    answers(port, &folder)?;
    Ok(Started {
        name: "REDIS",
        env: vec![("URL", format!("redis://127.0.0.1:{port}"))],
    })
}

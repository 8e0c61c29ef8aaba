//! Services that `cargo xtask services up` started. Without them a test waits, and says so.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What `services up` said of a service; `None`, which is said, where it does not run.
pub fn service(name: &str) -> Option<String> {
    let found = std::env::var(format!("TRIBUTARY_TEST_{name}")).ok();
    if found.is_none() {
        // Not `eprintln`, which a test that passes keeps to itself.
        let said = format!("\nWAITS FOR SERVICES: {name} (cargo xtask services up)\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    found
}

/// Kills a service as SIGKILL does, and starts it again.
pub fn kill_and_start(folder: &str) {
    let folder = PathBuf::from(folder);
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
    let pid = pid.lines().next().unwrap().trim().to_owned();
    assert!(
        Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
    while std::fs::exists(format!("/proc/{pid}/cwd")).unwrap_or(false) {
        std::thread::yield_now();
    }
    assert!(
        Command::new(folder.join("start"))
            .status()
            .unwrap()
            .success()
    );
}

/// A relay that swallows answers: behind a request with these bytes the answer is read, and then
/// the connection is cut instead.
pub struct Relay {
    pub address: SocketAddr,
    /// Answers to be swallowed: each `n`th request of the kind; 0: none.
    pub every: Arc<AtomicU64>,
    pub swallowed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub async fn start(to: SocketAddr, request: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let every = Arc::new(AtomicU64::new(0));
        let swallowed = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let asked = Arc::new(AtomicU64::new(0));
        let counts = [Arc::clone(&every), Arc::clone(&swallowed), asked];
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else {
                    continue;
                };
                links.spawn(carry(near, far, request, counts.clone()));
            }
        });
        Self {
            address,
            every,
            swallowed,
            _tasks: tasks,
        }
    }
}

async fn carry(
    mut near: TcpStream,
    mut far: TcpStream,
    request: &'static [u8],
    [every, swallowed, asked]: [Arc<AtomicU64>; 3],
) {
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = near.read(&mut up) => {
                let Ok(len @ 1..) = read else { return };
                let is_it = up[..len].windows(request.len()).any(|bytes| bytes == request);
                if far.write_all(&up[..len]).await.is_err() {
                    return;
                }
                let nth = every.load(Ordering::SeqCst);
                let before = asked.fetch_add(u64::from(is_it), Ordering::SeqCst);
                if is_it && nth > 0 && (before + 1).is_multiple_of(nth) {
                    // The answer arrives: what was asked for has happened.
                    let _ = far.read(&mut down).await;
                    swallowed.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
            read = far.read(&mut down) => {
                let Ok(len @ 1..) = read else { return };
                if near.write_all(&down[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}

//! A UDP socket of the simulated network, as QUIC wants one.

use crate::trace::Trace;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, UdpPoller};
use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use turmoil::net::UdpSocket;

/// Waits until there is something to read.
type Reading = Mutex<Option<BoxFuture<'static, io::Result<()>>>>;

struct Socket {
    udp: Arc<UdpSocket>,
    reading: Reading,
    local: SocketAddr,
    trace: Arc<Trace>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.local)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let Transmit {
            destination,
            contents,
            ..
        } = transmit;
        self.trace.sent(self.local, *destination, contents.len());
        // What can't be sent is lost.
        let _ = self.udp.try_send_to(contents, *destination);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), metas.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.udp.try_recv_from(buffer) {
                Ok((len, addr)) => {
                    *meta = RecvMeta {
                        addr,
                        len,
                        stride: len,
                        ..RecvMeta::default()
                    };
                    meta.dst_ip = None;
                    return Poll::Ready(Ok(1));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let udp = Arc::clone(&self.udp);
                    // One at a time: the socket is locked while one waits.
                    let waits = || async move { udp.readable().await }.boxed();
                    let waiting = reading.get_or_insert_with(waits);
                    ready!(waiting.as_mut().poll(context))?;
                    *reading = None;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// No probes of larger datagrams: their sizes would depend on what was lost.
    fn may_fragment(&self) -> bool {
        true
    }
}

/// An endpoint on the simulated network, within the host that has this address.
pub fn endpoint(
    local: SocketAddr,
    (mut config, server): (EndpointConfig, Option<ServerConfig>),
    seed: [u8; 32],
    trace: &Arc<Trace>,
) -> io::Result<Endpoint> {
    config.rng_seed(Some(seed));
    // It waits for nothing.
    let bound = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, local.port())).now_or_never();
    let udp = bound.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))?;
    let socket = Socket {
        local: (local.ip(), udp.local_addr()?.port()).into(),
        udp: Arc::new(udp),
        reading: Mutex::new(None),
        trace: Arc::clone(trace),
    };
    Endpoint::new_with_abstract_socket(config, server, Arc::new(socket), Arc::new(TokioRuntime))
}

//! A client's bytes, over TCP alone or over TLS on it: readiness, then as much as there is. A plain
//! connection is its socket, and holds nothing. Decides nothing about MQTT.

use super::Loaded;
use crate::limits::{CLOSE_TIMEOUT, READ_BYTES, TLS_OUTGOING_BYTES_MAX};
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use std::io::{self, ErrorKind, Read, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One client's stream of bytes.
#[derive(Debug)]
pub(in crate::source) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Waits until there is something to read, or the end. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.readable().await,
            Self::Tls(stream) if stream.more => Ok(()),
            Self::Tls(stream) => stream.socket.readable().await,
        }
    }

    /// Waits until something can be written. Cancel safe.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.writable().await,
            Self::Tls(stream) => stream.socket.writable().await,
        }
    }

    /// Reads what is there; `Ok(0)` is the end.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read(buffer),
            Self::Tls(stream) => stream.try_read(buffer),
        }
    }

    /// Writes what is taken now.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Tls(stream) => stream.try_write(bytes),
        }
    }

    /// Sends what is held, as far as the socket takes it.
    pub fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.try_flush(),
        }
    }

    /// Whether something is held that the socket did not take yet.
    pub fn holds(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.tls.wants_write(),
        }
    }

    /// Nothing more is written but this word of farewell.
    pub fn finish(&mut self) {
        if let Self::Tls(stream) = self {
            stream.tls.send_close_notify();
        }
    }
}

/// A TLS connection over a socket, driven by the socket's readiness.
#[derive(Debug)]
pub(in crate::source) struct TlsStream {
    socket: TcpStream,
    tls: ServerConnection,
    /// What clients are held against.
    trust: blake3::Hash,
    /// There is something to read without waiting for the socket: bytes, the end, or an error.
    more: bool,
}

/// The socket, as rustls reads and writes it.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `None` where the socket takes or gives nothing now.
fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::source) enum HandshakeError {
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
    Socket(#[from] io::Error),
}

impl TlsStream {
    pub fn new(socket: TcpStream, loaded: Loaded) -> Result<Box<Self>, rustls::Error> {
        // TLS has rounds of its own: its small last pieces would wait for the client's late ACK.
        // Where that cannot be had it is only slower.
        let _ = socket.set_nodelay(true);
        let mut tls = ServerConnection::new(loaded.server)?;
        tls.set_buffer_limit(Some(TLS_OUTGOING_BYTES_MAX));
        Ok(Box::new(Self {
            socket,
            tls,
            trust: loaded.trust,
            more: false,
        }))
    }

    /// Comes to terms with the client. Cancel safe: it goes on where it was.
    pub async fn handshake(&mut self) -> Result<(), HandshakeError> {
        while self.tls.is_handshaking() {
            self.try_flush()?;
            if self.tls.wants_write() {
                self.socket.writable().await?;
                continue;
            }
            self.socket.readable().await?;
            match unless_blocked(self.tls.read_tls(&mut Socket(&self.socket)))? {
                Some(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Some(_) => {
                    let state = self.tls.process_new_packets()?;
                    self.more = state.plaintext_bytes_to_read() > 0;
                }
                None => {}
            }
        }
        self.try_flush()?;
        // A client that waits for an ACK before its CONNECT has it now.
        #[cfg(target_os = "linux")]
        self.socket.set_quickack(true)?;
        Ok(())
    }

    /// Says why it came to nothing, and gives the client time to hear it: a socket that is closed
    /// with bytes unread takes back what was sent.
    pub async fn refuse(&mut self) {
        let said = async {
            self.try_flush()?;
            self.socket.shutdown().await?;
            let mut left = READ_BYTES;
            let mut rest = [0; 512];
            while left > 0 {
                let length = self.socket.read(&mut rest).await?;
                left = if length == 0 {
                    0
                } else {
                    left.saturating_sub(length)
                };
            }
            io::Result::Ok(())
        };
        // Whether the client still heard it changes nothing.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, said).await;
    }

    /// The client's own certificate, once the handshake is done.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.peer_certificates()?.first()
    }

    /// The authorities and revocations that the certificate was held against.
    pub fn trust(&self) -> blake3::Hash {
        self.trust
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        // However fast a client sends what holds no bytes for us, others have their turn.
        let mut taken = 0;
        loop {
            filled += match self.drain(buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(filled),
                Err(error) => return self.give(filled, error),
            };
            if filled == buffer.len() || taken >= buffer.len() {
                self.more = true;
                return self.give(filled, ErrorKind::WouldBlock.into());
            }
            match self.tls.read_tls(&mut Socket(&self.socket)) {
                Ok(length) => taken += length,
                Err(error) => {
                    self.more = error.kind() != ErrorKind::WouldBlock;
                    return self.give(filled, error);
                }
            }
            if let Err(error) = self.tls.process_new_packets() {
                // What is wrong is said, as far as the socket takes it.
                let _ = self.try_flush();
                self.more = true;
                return self.give(filled, io::Error::new(ErrorKind::InvalidData, error));
            }
        }
    }

    /// Takes the bytes that TLS has for us; `None` at the end of the stream.
    fn drain(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.tls.reader().read(rest) {
                // MQTT says itself where it ends: one without TLS's own farewell is as good.
                Ok(0) => return self.end(filled),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return self.end(filled),
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Some(filled))
    }

    fn end(&mut self, filled: usize) -> io::Result<Option<usize>> {
        self.more = true;
        Ok((filled > 0).then_some(filled))
    }

    /// Bytes first; what is wrong is met again.
    fn give(&self, filled: usize, error: io::Error) -> io::Result<usize> {
        if filled > 0 { Ok(filled) } else { Err(error) }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.tls.writer().write(bytes)?;
        self.try_flush()?;
        if length == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(length)
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if unless_blocked(self.tls.write_tls(&mut Socket(&self.socket)))?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

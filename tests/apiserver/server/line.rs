//! The TCP connection below TLS, whose bytes are counted, and vanish on demand.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::shared::Shared;

pub(crate) struct Line {
    tcp: TcpStream,
    shared: Arc<Shared>,
    /// The silences of the server before the connection.
    silences: u64,
    is_silent: bool,
}

impl Line {
    pub(crate) fn new(tcp: TcpStream, shared: Arc<Shared>) -> Self {
        let silences = shared.silences();
        Self {
            tcp,
            shared,
            silences,
            is_silent: false,
        }
    }

    fn is_silent(&mut self) -> bool {
        self.is_silent |= self.shared.is_silent_since(self.silences);
        self.is_silent
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.tcp).poll_read(context, buffer))?;
            let is_end = buffer.filled().len() == before;
            if is_end || !self.is_silent() {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_silent() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            let wire_bytes = &self.shared.wire_bytes;
            wire_bytes.fetch_add(count as u64, Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
